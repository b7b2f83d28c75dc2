"""Invalid settings and unavailable servers are reported in a message with exit code 2 (docs/cli.md), and never with the value."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from cli.main import app
from compose import roles
from compose.embedded import gate
from compose.roles import RunningRole
from orchestrator.process import logs
from orchestrator.process.settings import Settings

UNREACHABLE = {
    "BULKREG_DATABASE_URL": "postgresql://owner:short-secret@127.0.0.1:1/x",
    "BULKREG_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
}


@pytest.fixture(autouse=True)
def _scheduling() -> Iterator[None]:
    """Restores the scheduling class, which `run` changes for its process: here, the tests' own."""
    before = os.sched_getscheduler(0)
    yield
    os.sched_setscheduler(0, before, os.sched_param(0))


@pytest.mark.parametrize("command", [["run", "relay"], ["up"], ["up", "--detach"], ["demo"], ["doctor"]], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BULKREG_TOPIC_PARTITIONS", "short-secret"),
        ("BULKREG_JWT_HS256_KEY", "short-secret"),
        ("BULKREG_API_DATABASE_URL", "postgresql://owner:x@db:short-secret/y"),
        ("BULKREG_API_REQUESTS_PER_MINUTE", "short-secret"),
    ],
)
def test_an_invalid_setting_is_named_and_its_value_is_not_shown(
    command: list[str], name: str, value: str, tmp_path: Path
) -> None:
    home = ["--home", str(tmp_path)] if command[0] in ("up", "demo") else []
    ran = CliRunner().invoke(app, [*command, *home], env={**UNREACHABLE, name: value, "BULKREG_HOME": None})
    assert (ran.exit_code, type(ran.exception)) == (2, SystemExit)
    assert name.removeprefix("BULKREG_").lower() in ran.stderr.lower()
    assert "short-secret" not in ran.output


@pytest.mark.parametrize(("command", "named"), [("list", "BULKREG_URL"), ("doctor", "BULKREG_DATABASE_URL")])
def test_a_command_that_finds_no_product_says_how_to_name_one(
    command: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*UNREACHABLE, "BULKREG_JWT_HS256_KEY", "BULKREG_HOME", "BULKREG_URL"):
        monkeypatch.delenv(name, raising=False)
    ran = CliRunner().invoke(app, [command])
    assert (ran.exit_code, named in ran.stderr) == (3, True)
    assert ran.stderr.endswith("bulkreg up --detach --home .bulkreg\n")


def test_a_mistake_inside_a_setting_names_its_variable() -> None:
    ran = CliRunner().invoke(app, ["run", "api"], env={"BULKREG_API_REQUESTS_PER_MINUTE": '{"coordinator": 0}'})
    assert ran.exit_code == 2
    assert "BULKREG_API_REQUESTS_PER_MINUTE: coordinator: " in ran.stderr


@pytest.fixture
def without_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips the setup of logs, which would affect this whole process."""
    monkeypatch.setattr(logs, "configure_logs", lambda _settings: None)


@pytest.mark.usefixtures("without_logs")
@pytest.mark.parametrize(
    ("role", "setting", "told"),
    [
        ("typist", {}, "no such role: typist"),
        ("api", {"BULKREG_API_HOST": "0.0.0.0"}, "BULKREG_JWT"),
        ("api", {"BULKREG_API_HOST": "192.0.2.1", "BULKREG_JWT_HS256_KEY": "k" * 32}, "set BULKREG_API_PORT"),
        ("relay", {"BULKREG_KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092"}, "set BULKREG_KAFKA_SECURITY_PROTOCOL"),
    ],
)
def test_roles_that_can_not_be_run_are_wrong_usage(role: str, setting: dict[str, str], told: str) -> None:
    ran = CliRunner().invoke(app, ["run", role], env=UNREACHABLE | setting)
    assert (ran.exit_code, type(ran.exception)) == (2, SystemExit)
    assert told in ran.stderr


@pytest.mark.usefixtures("without_logs")
def test_a_bug_is_not_reported_as_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_settings: Settings) -> RunningRole:
        raise ValueError("a bug in building a role")

    monkeypatch.setattr(roles, "_LOADERS", {"relay": lambda: build})
    ran = CliRunner().invoke(app, ["run", "relay"], env=UNREACHABLE)
    assert (ran.exit_code, type(ran.exception)) == (1, ValueError)


@pytest.mark.usefixtures("without_logs")
def test_a_process_waits_at_the_gate_with_its_code_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[object] = []

    def build(_settings: Settings) -> RunningRole:
        order.append("built")
        raise ValueError("enough")

    def load() -> Callable[[Settings], RunningRole]:
        order.append("loaded")
        return build

    monkeypatch.setattr(roles, "_LOADERS", {"relay": load})
    monkeypatch.setattr(gate, "pass_through", order.append)
    CliRunner().invoke(app, ["run", "--gate", str(tmp_path), "relay"], env=UNREACHABLE)
    assert order == ["loaded", tmp_path, "built"]


def test_a_mistake_in_a_secret_does_not_show_it() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(jwt_hs256_key=SecretStr("short-secret"), topic_prefix="short-secret!")
    assert "short-secret" not in str(refused.value)


def test_up_reports_an_unavailable_database(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["up", "--home", str(tmp_path)], env=UNREACHABLE)
    assert (ran.exit_code, type(ran.exception)) == (3, SystemExit)
    assert "The database at postgresql+psycopg2://owner:***@127.0.0.1:1/x does not respond" in ran.stderr
    assert "short-secret" not in ran.output


@pytest.mark.parametrize("command", [["up", "--home", "nowhere"], ["bench"]], ids=" ".join)
def test_a_deployment_without_the_embedded_servers_is_told_what_to_install(command: list[str], tmp_path: Path) -> None:
    without = "import sys; sys.modules['psutil'] = None; from cli.main import run; run()"
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", without, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, "bulk-registration-orchestrator[embedded]" in ran.stderr) == (3, True), ran.stderr
    assert "Traceback" not in ran.stderr
