"""Every command, request and program of docs/cli.md, docs/http.md and docs/events.md does what the page says, and so does the replay of
docs/operations.md.

The page's Compose commands need an engine: tests/unit/test_compose_files.py checks them.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.support.kafka import reading
from tests.support.prepared import prepared_bulkreg
from tests.support.product import COMMAND_WITHIN_S, Product, running_product
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]

UP = "bulkreg up --detach"
EXIT_CODE = re.compile(r"  # exit code (\d+)$")
STATUS = re.compile(r"  # (\d{3})$", re.MULTILINE)

SEPARATOR = "\x1e"

# Values that differ from run to run.
CHANGING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d{2}-\d{2}T[\d:.]+Z")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """What the pages begin with: `bulkreg up --detach`."""
    with running_product(tmp_path_factory.mktemp("product") / "home") as product:
        yield product


@pytest.fixture
def environment(product: Product, tmp_path: Path) -> Mapping[str, str]:
    """Environment in which `bulkreg` is a program, and curl prints the status of each response on standard error."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (
        ("bulkreg", shlex.join(prepared_bulkreg())),
        ("curl", f"{curl()} -w '%{{stderr}}status %{{http_code}}\\n'"),
    ):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BULKREG_")}
    path = f"{programs}:{os.environ['PATH']}"
    return {**inherited, "PATH": path, "PYTHONPATH": str(ROOT), "BULKREG_HOME": str(product.home)}


def curl() -> str:
    """curl or, where it is missing, a replacement. A fresh machine need not have curl."""
    return shutil.which("curl") or shlex.join([sys.executable, "-m", "tests.support.curl"])


# Dates that the product prints and the page does not.
CHANGING_FIELDS = {"today"}


def clone(folder: Path) -> Path:
    """The files of a clone that a page needs."""
    for part in ("compose/embedded/example", "tests/data/small"):
        shutil.copytree(ROOT / part, folder / part)
    return folder


def run(script: str, cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * COMMAND_WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_the_commands_of_the_command_line_page(environment: Mapping[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    lines = ["set -u"]
    shown = "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)).splitlines()
    assert shown[0] == UP
    for line in shown[1:]:
        expected = EXIT_CODE.search(line)
        # The shell stops at the first command whose exit code differs from the page's.
        lines += [
            f"echo {shlex.quote('+ ' + line)} >&2",
            EXIT_CODE.sub("", line),
            f"code=$?; [ $code = {expected[1] if expected else 0} ] || {{ echo got $code >&2; exit 99; }}",
        ]
    done = run("\n".join(lines), clone(tmp_path / "clone"), environment)
    # The page's response to its first batch.
    [answer] = re.findall(r"^```\n(Batch .*?)^```", page, re.DOTALL | re.MULTILINE)
    batch, *failed = answer.splitlines()
    assert batch.split(":", 1)[1] in done.stdout
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line for line in failed if line not in printed] == []


def test_the_requests_of_the_http_page(product: Product, environment: Mapping[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    [registration] = product.stack["pids"]["registration"]
    script, shown, blocks = ["set -eu -o pipefail"], {}, 0
    for section in page.split("\n## "):
        # The batch to be cancelled must not be finished before.
        held = section.startswith("Cancel\n")
        script += [f"kill -STOP {registration}"] if held else []
        for language, content in re.findall(r"^```(sh|json)\n(.*?)^```", section, re.DOTALL | re.MULTILINE):
            if language == "sh":
                blocks += 1
                script += [f"printf '{SEPARATOR}'", content.removeprefix(f"{UP}\n")]
            else:
                shown[blocks] = json.loads(content)
        script += [f"kill -CONT {registration}"] if held else []
    try:
        done = run("\n".join(script), clone(tmp_path / "clone"), environment)
    finally:
        os.kill(registration, signal.SIGCONT)
    assert re.findall(r"^status (\d+)$", done.stderr, re.MULTILINE) == STATUS.findall(page)
    printed = done.stdout.split(SEPARATOR)
    assert len(shown) >= 8
    for block, document in shown.items():
        assert unchanging(json.loads(printed[block]), document) == unchanging(document, document)


def test_the_program_of_the_events_page(product: Product, environment: Mapping[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    [program] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    [commands] = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    work = clone(tmp_path / "clone")
    (work / "attendance.py").write_text(program)
    # -I: the program sees installed packages, and nothing of this repository.
    script = commands.removeprefix(f"{UP}\n").replace("python attendance.py", f"{sys.executable} -I attendance.py")
    assert script.count(" -I ") == 1
    [shown] = re.findall(r"^```\n(A mistake: .*?)^```", page, re.DOTALL | re.MULTILINE)
    for _ in ("once", "again"):
        done = run(f"set -eu -o pipefail\n{script}", work, environment)
        assert sorted(done.stdout.splitlines()[-2:]) == shown.splitlines()
    with product.client("nordlys") as client:
        batch = client.get(f"/{uuid5(NAMESPACE_URL, 'https://attendance.example/Visits of 6 May')}").json()
    assert (batch["status"], batch["completed"], batch["submitted_by"]) == ("completed", 3, "/services/attendance")


def test_the_replay_of_the_operations_page(product: Product, environment: Mapping[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    [shown] = re.findall(r"^```console\n(\$ bulkreg replay .*?)^```", page, re.DOTALL | re.MULTILINE)
    commands = [line.removeprefix("$ ") for line in shown.splitlines()]
    assert len(commands) >= 5
    # Any batch will do. Its id differs from run to run.
    example = clone(tmp_path / "clone") / "compose" / "embedded" / "example"
    product.bulkreg("directory", "import", str(example / "directory"))
    # On another day: the commands of other pages submit the same list as it is.
    group = tmp_path / "group.csv"
    group.write_text((example / "monday-group.csv").read_text().replace("24.03.2025", "31.03.2025"))
    monday = ("submit", str(group), "--org", "nordlys", "--coordinator", "leader", "--json")
    batch_id = json.loads(product.bulkreg(*monday, code=None))["batch_id"]
    with reading(Settings(kafka_bootstrap_servers=product.stack["kafka"]), Topic.BATCHES) as topic:
        record, *_ = eventually(lambda: [seen for seen in topic.read() if seen.key == batch_id])
    script = "\n".join(commands)
    for what, here in (("--batch ID", f"--batch {batch_id}"), ("batches/0@17", f"batches/{record.partition}@{record.offset}")):
        assert script.count(what) == 1
        script = script.replace(what, here)
    done = run(f"set -eu\n{script}", tmp_path, environment)
    # What `--from` leaves out is not covered, if other tests have submitted batches here before.
    said = ("The tables are what the topics say.", "No differences in the compared batches.")
    assert sum(map(done.stdout.count, said)) == len(commands)
    assert "in motion" not in done.stdout


def unchanging(value: Any, shown: Any) -> Any:
    """A document without the values that differ from run to run, and without what the page leaves out as "…"."""
    if shown == "…":
        return shown
    if isinstance(value, dict):
        return {
            name: unchanging(inner, shown.get(name) if isinstance(shown, dict) else None)
            for name, inner in value.items()
            if name not in CHANGING_FIELDS
        }
    if isinstance(value, list):
        others = shown if isinstance(shown, list) else []
        return [unchanging(inner, others[index] if index < len(others) else None) for index, inner in enumerate(value)]
    return CHANGING.sub("changing", value) if isinstance(value, str) else value
