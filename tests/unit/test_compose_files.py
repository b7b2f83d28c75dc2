"""The Docker files name existing roles, settings and files, pin their images, and publish no port beyond loopback.

Building the images needs an engine. tests/end_to_end/test_deployment.py runs what the containers run.
"""

import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hatchling.builders.wheel import WheelBuilder

from cli.main import app
from compose.roles import ROLES
from orchestrator.process.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "compose" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGE = SERVICES["setup"]["image"]
OURS = {name for name, service in SERVICES.items() if service["image"] == IMAGE}
COMMANDS = {"setup", "admin", "import"}
"""Services that run one command and end."""
SERVERS = set(SERVICES) - OURS
DOCKERFILE = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
EXAMPLES = {".env": DOCKER / ".env.example", "api.env": DOCKER / "api.env.example"}


def test_every_role_runs_once_and_the_registration_twice() -> None:
    running = {name: SERVICES[name]["command"] for name in SERVICES if name in OURS - COMMANDS}
    assert running == {role: ["run", role] for role in ROLES}
    assert {name: SERVICES[name].get("deploy", {}).get("replicas", 1) for name in running} == {
        role: 2 if role == "registration" else 1 for role in ROLES
    }


def test_servers_start_before_the_schema_and_topics_and_these_before_the_roles() -> None:
    assert SERVICES["setup"]["depends_on"] == {name: {"condition": "service_healthy"} for name in ("postgres", "kafka")}
    for name in OURS - COMMANDS:
        assert SERVICES[name]["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize(
    ("upgraded", "topics", "is_done"),
    [
        pytest.param(0, 0, True, id="topics as planned"),
        pytest.param(0, 1, True, id="a topic differs"),
        pytest.param(0, 3, False, id="no broker"),
        pytest.param(3, 0, False, id="no database"),
    ],
)
def test_setup_ends_well_also_if_a_topic_differs_from_the_plan(tmp_path: Path, upgraded: int, topics: int, is_done: bool) -> None:
    """The roles start only after it, and a topic may differ on purpose. What it runs returns these exit codes here."""
    program = tmp_path / "bulkreg"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/ran\ncase "$1" in db) exit {upgraded};; topics) exit {topics};; esac\n'
    )
    program.chmod(0o755)
    command = [word.replace("$$", "$") for word in SERVICES["setup"]["entrypoint"]]  # as Compose reads it
    done = subprocess.run(command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, timeout=30, check=False)
    assert (done.returncode == 0) == is_done
    assert (tmp_path / "ran").read_text().splitlines() == ["db upgrade", *(["topics create"] if upgraded == 0 else [])]


def test_every_service_restarts_and_has_time_to_stop() -> None:
    assert {name for name in SERVICES if SERVICES[name]["restart"] == "no"} == COMMANDS
    for name in SERVICES.keys() - COMMANDS:
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= (20 if name in OURS else 60)
    assert all(SERVICES[name]["init"] for name in OURS), "without init, a SIGTERM is lost while the interpreter starts"


def test_every_container_has_a_health_check() -> None:
    assert all("test" in SERVICES[name]["healthcheck"] for name in SERVERS)
    assert any(line.startswith("HEALTHCHECK") and line.endswith('CMD ["ready"]') for line in INSTRUCTIONS)
    assert {name for name in OURS if "healthcheck" in SERVICES[name]} == COMMANDS


def test_only_setup_builds_the_image_and_runs_unasked() -> None:
    assert [name for name, service in SERVICES.items() if "build" in service] == ["setup"]
    assert {name for name, service in SERVICES.items() if "profiles" in service} == COMMANDS - {"setup"}
    assert COMPOSE["name"] == "bulkreg"


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["tmpfs"]
    assert name in OURS or name == "kafka" or service["user"] == "999:999", "only our images and Kafka's name a user themselves"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def _environment(name: str) -> dict[str, str]:
    given: dict[str, str] = SERVICES[name].get("environment", {})
    return given


def test_every_setting_exists() -> None:
    named = {name for service in SERVICES for name in _environment(service) if "BULKREG" in name}
    for example in EXAMPLES.values():
        named |= set(re.findall(r"^(?:# )?(BULKREG_\w+)=", example.read_text(), re.MULTILINE))
    assert len(named) >= 8
    assert {name.removeprefix("BULKREG_").lower() for name in named} <= Settings.model_fields.keys()


def test_secrets_come_from_ignored_files() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    assert needed == {"POSTGRES_PASSWORD", "WORKER_PASSWORD", "API_PASSWORD"}
    given = {name: dict(re.findall(r"^(\w+)=(.*)$", example.read_text(), re.MULTILINE)) for name, example in EXAMPLES.items()}
    assert given[".env"].keys() == needed
    assert all(value.startswith("change-me") for values in given.values() for value in values.values())
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {f"compose/docker/{name}" for name in EXAMPLES} <= set(ignored)


@pytest.mark.parametrize(
    ("secret", "holders"),
    [
        ("POSTGRES_PASSWORD", {"postgres", "setup", "admin"}),
        (
            "WORKER_PASSWORD",
            {"setup", "admin", "import", "relay", "splitter", "registration", "aggregator", "sweeper", "notary", "notifier"},
        ),
        ("API_PASSWORD", {"setup", "admin", "api"}),
    ],
)
def test_a_container_has_only_the_passwords_that_it_needs(secret: str, holders: set[str]) -> None:
    assert {name for name in SERVICES if any(f"${{{secret}:?" in value for value in _environment(name).values())} == holders


def test_only_the_api_has_the_key_that_signs_tokens() -> None:
    assert {name for name in SERVICES if "api.env" in SERVICES[name].get("env_file", ())} == {"api", "admin"}


def test_the_api_does_not_reach_kafka() -> None:
    assert SERVICES["api"]["networks"] == SERVICES["postgres"]["networks"] == ["database"]
    assert SERVICES["kafka"]["networks"] == ["events"]


def test_images_are_pinned_and_nothing_is_published_beyond_loopback() -> None:
    images = [service["image"] for service in SERVICES.values() if service["image"] != IMAGE]
    images += re.findall(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)
    images.append(SERVICES["setup"]["build"]["args"]["PYTHON_IMAGE"])
    assert len(images) == 4
    assert all(re.fullmatch(r"(\$\{[A-Z]+_IMAGE:-)?[a-z/]+:[\d.]+[a-z-]*}?", image) for image in images)
    assert all(line.split()[1] == "${PYTHON_IMAGE}" for line in INSTRUCTIONS if line.startswith("FROM "))
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${API_PORTS:-8080}:8080"]}


def test_the_servers_data_is_on_volumes() -> None:
    volumes = {volume.split(":", 1)[0]: volume.split(":", 1)[1] for name in SERVERS for volume in SERVICES[name]["volumes"]}
    assert volumes.keys() == COMPOSE["volumes"].keys()
    assert volumes["kafka"] == SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]


def test_a_missing_directory_is_an_error() -> None:
    [volume] = SERVICES["import"]["volumes"]
    assert (volume["target"], volume["read_only"], volume["bind"]) == ("/directory", True, {"create_host_path": False})
    assert SERVICES["import"]["command"] == ["directory", "import", "/directory"]


def _commands(line: str) -> Iterator[list[str]]:
    """The commands of a line, without redirections."""
    for command in re.split(r"&&|\|", line):
        words = shlex.split(command.partition("<")[0].partition(" > ")[0], comments=True)
        if words:
            yield words


def test_the_page_replaces_and_stops_every_role() -> None:
    """A role that still works during a restore writes into what is replaced."""
    page = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"--no-deps --wait (\w+)$", page, re.MULTILINE)) == set(ROLES)
    [stopped] = re.findall(r"^\$ docker compose stop (.+)$", page, re.MULTILINE)
    assert set(stopped.split()) == set(ROLES)


def test_the_page_says_who_knows_each_secret() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    told = {
        file: set(re.findall(r"`(\w+)`", known))
        for file, known in re.findall(r"^\| [^|]+ \| `(\w+\.env)`[^|]* \| ([^|]+) \|$", page, re.MULTILINE)
    }
    read: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for file in service.get("env_file", ()):
            read.setdefault(file if isinstance(file, str) else file["path"], set()).add(name)
    assert told == {file: names for file, names in read.items() if file != "settings.env"}


# The commands that docs/operations.md and compose.yaml show, and the folder to run them in.
TYPED = [
    (folder, words)
    for folder, page in ((DOCKER, ROOT / "docs" / "operations.md"), (DOCKER, DOCKER / "compose.yaml"))
    for line in re.findall(r"(?:\bcp|docker compose) [^`\n]*", page.read_text())
    for words in _commands(line)
]
FLAGS = {
    "up": {"--build", "--detach", "--wait", "--no-deps", "--scale"},
    "run": {"--build", "--rm"},
    "exec": {"-T"},
    "stop": set(),
    "port": {"--index"},
    "ps": set(),
}
WITH_VALUE = {"--scale", "--index"}


def test_shown_compose_commands_name_existing_services() -> None:
    assert sum(words[:2] == ["docker", "compose"] for _, words in TYPED) >= 5
    for folder, words in TYPED:
        if words[0] == "cp":
            assert EXAMPLES[words[2]] == folder / words[1]
            continue
        subcommand, *rest = words[2:]
        while rest and rest[0].startswith("-"):
            assert rest[0] in FLAGS[subcommand]
            if rest.pop(0) in WITH_VALUE:
                assert re.fullmatch(r"\d+|(api|registration)=\d+", rest.pop(0))
        if subcommand == "run":
            service, *arguments = rest
            assert service in OURS
            if arguments:
                assert_command(arguments)
        elif subcommand in ("exec", "port"):
            assert rest[0] in SERVICES
        else:
            assert set(rest) <= SERVICES.keys()


def assert_command(arguments: list[str]) -> None:
    """Checks that the image's program has this command and these options."""
    command: Any = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", ()):
        command = command.commands[arguments.pop(0)]
    assert not hasattr(command, "commands"), f"no such command: {arguments}"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {each for each in arguments if each.startswith("-")} <= options


def _copied() -> list[str]:
    lines = [line for line in INSTRUCTIONS if line.startswith("COPY ") and "--from" not in line]
    return [path for line in lines for path in line.split()[1:-1]]


def test_the_dockerfile_copies_everything_that_it_needs() -> None:
    copied = _copied()
    assert all((ROOT / path).exists() for path in copied)
    packages = re.findall(
        r'"(\w+)"', re.findall(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    )
    others = {"pyproject.toml", "README.md", "LICENSE", "locks/runtime.lock", "locks/build.lock", "compose/docker/ready.sh"}
    assert {*packages, *others} == set(copied)


def test_the_build_context_has_only_what_is_copied() -> None:
    """The one file that both builders read decides it."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert not list(DOCKER.glob("*.dockerignore"))
    sent = {rule[1:] for rule in rules[rules.index("*") + 1 :] if rule.startswith("!")}
    assert sent == {path.split("/")[0] for path in _copied()} | {"compose/docker/ready.sh"}
    assert rules.index("!compose") < rules.index("compose/docker/*") < rules.index("!compose/docker/ready.sh")


def test_the_wheel_has_neither_compose_files_nor_the_benchmark() -> None:
    files = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "compose/doctor.py" in files
    assert not [file for file in files if file.startswith(("compose/docker", "compose/bench", "compose/operations_page"))]


@pytest.mark.parametrize("command", re.findall(r"\S+/pip .*?(?=&&|$)", DOCKERFILE, re.MULTILINE))
def test_every_package_is_installed_by_its_hash(command: str) -> None:
    assert "--require-hashes" in command or ("--no-deps" in command and "--no-index" in command)
    assert "--no-cache-dir" in command


def test_the_image_runs_as_an_unprivileged_user() -> None:
    last_stage = INSTRUCTIONS[max(number for number, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
    [user] = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert int(user) > 0
    assert not any(line.startswith(("RUN", "COPY")) for line in last_stage[last_stage.index(f"USER {user}") :])
    assert "--without-pip /opt/bulkreg" in DOCKERFILE
    version = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE
    [entrypoint] = [line for line in last_stage if line.startswith("ENTRYPOINT")]
    assert entrypoint == 'ENTRYPOINT ["bulkreg"]', "the exec form is needed, so that signals reach the product"


class _Response(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b'{"status":"as said"}')

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def process_with_health(status: int) -> Iterator[int]:
    handler = type("_Response", (_Response,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def is_ready(*, health_port: int, api_port: int) -> tuple[bool, str]:
    ports = {"BULKREG_HEALTH_PORT": str(health_port), "BULKREG_API_PORT": str(api_port)}
    done = subprocess.run([DOCKER / "ready.sh"], env=os.environ | ports, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode == 0, done.stdout.strip()


@pytest.mark.parametrize("status", [200, 503])
def test_ready_asks_readyz_on_the_health_port_or_the_apis(status: int) -> None:
    with process_with_health(status) as port:
        assert is_ready(health_port=port, api_port=1) == (status == 200, '{"status":"as said"}')
        assert is_ready(health_port=1, api_port=port) == (status == 200, '{"status":"as said"}')
    assert is_ready(health_port=1, api_port=1) == (False, "nothing listens on port 1 or 1")
