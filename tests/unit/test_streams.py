"""Output that can't be written, and the program as a whole. Each run is a process with its own streams."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.terminal.output import json_bytes
from tests.unit.test_cli import commands

BATCH = str(UUID(int=1))
LABEL = "Gruppemøte Ψ"


class Api(BaseHTTPRequestHandler):
    """An API that knows one batch, and accepts everything."""

    asked: list[str] = []  # noqa: RUF012 - of the server's one test

    def do_GET(self) -> None:
        self.asked.append(self.path)
        batch = {
            "batch_id": BATCH,
            "organization_id": "org-01",
            "coordinator_id": "coord-1",
            "label": LABEL,
            "status": "completed",
            "submitted_at": "2026-03-25T10:00:00Z",
            "total_items": 1,
            "completed": 1,
            "failed": 0,
            "cancelled": 0,
            "pending": 0,
            "unresolved": 0,
            "retried": 1,
            "items": [],
            "next_item_cursor": None,
        }
        listed = {"data": [batch] * 100, "pagination": {"total": 100, "next_cursor": None}}
        body = {"/results.csv": b"x" * 1_000_000, "ions": json.dumps(listed).encode()}
        content = next(
            (found for end, found in body.items() if self.path.split("?")[0].endswith(end)), json.dumps(batch).encode()
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("ions"):
            self.path += f"/{BATCH}"
        self.do_GET()

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


SUBMISSION = json.dumps(
    {"items": [{"mentor_id": "m", "activity_type": "visit", "activity_date": "2026-01-01", "duration_minutes": 1}]}
)

READ = [["list"], ["list", "--json"], ["status", BATCH], ["status", BATCH, "--watch"], ["results", BATCH, "--format", "csv"]]
CHANGE = [
    ["submit", "-", "--org", "org-01"],
    ["submit", "-", "--org", "org-01", "--json"],
    ["submit", "-", "--org", "org-01", "--watch"],
    ["retry", BATCH],
    ["cancel", BATCH, "--json"],
    ["delete", BATCH],
]


def bulkreg(shell: str, *arguments: str, api: str | None = None, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs the program in a shell, as `$0 "$@"`."""
    target = [] if api is None else ["--url", api, "--token", "t"]
    program = ["bash", "-c", 'run() { "$PYTHON" -m cli "$@"; }; ' + shell, "bash", *arguments, *target]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BULKREG_", "LC_", "PYTHON"))}
    return subprocess.run(
        program,
        input=SUBMISSION.encode(),
        capture_output=True,
        env={**inherited, "PYTHON": sys.executable, **environment},
        timeout=60,
        check=False,
    )


FULL = "> /dev/full"
WAYS = [
    *((FULL, arguments) for arguments in [["--help"], *READ[1:], *CHANGE[1:]]),
    *((">&-", arguments) for arguments in [["--help"], READ[0], CHANGE[0]]),
    ("> /dev/full 2>&-", CHANGE[0]),
    ("> /dev/full 2> /dev/full", CHANGE[1]),
]


@pytest.mark.parametrize(("where", "arguments"), WAYS, ids=str)
def test_a_result_that_can_not_be_written_has_its_own_exit_code(where: str, arguments: list[str], api: str) -> None:
    needs_api = arguments in READ or arguments in CHANGE
    ran = bulkreg(f'run "$@" {where}', *arguments, api=api if needs_api else None)
    told = ran.stderr.decode()
    assert ran.returncode == 4, told
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    if "2>" not in where:
        assert "Standard output can't be written" in told
        assert (BATCH in told) is (arguments in CHANGE), told


@pytest.mark.parametrize("arguments", [["--help"], READ[4]], ids=" ".join)
def test_a_closed_pipe_is_not_reported(arguments: list[str], api: str) -> None:
    # The reader has gone before anything is written.
    ran = bulkreg('{ sleep 0.1; run "$@"; echo $? >&2; } | :', *arguments, api=api if arguments in READ else None)
    assert ran.stderr.decode() == "4\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_can_not_show_a_letter_gets_its_number(encoding: str, api: str) -> None:
    ran = bulkreg('run "$@"', "list", api=api, PYTHONIOENCODING=encoding)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert LABEL.encode(encoding, "backslashreplace") in ran.stdout


def test_a_document_is_utf_8_wherever_it_is_written(api: str) -> None:
    ran = bulkreg('run "$@"', "list", "--json", api=api, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert json.loads(ran.stdout)["data"][0]["label"] == LABEL
    assert json.loads(json_bytes({"file": "no such \udcff"})) == {"file": "no such ?"}


def test_closed_input_is_empty_input() -> None:
    ran = bulkreg('run "$@" <&-', "submit", "-", "--url", "http://127.0.0.1:1", "--token", "t")
    assert ran.returncode == 2
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_ends_of_the_calendar(zone: str, api: str) -> None:
    at = ["--submitted-from", "0001-01-01", "--submitted-to", "9999-12-31T23:59:59"]
    ran = bulkreg('run "$@"', "list", *at, api=api, TZ=zone)
    assert (ran.returncode, ran.stderr) == (0, b"")
    query = parse_qs(urlsplit(Api.asked[-1]).query)
    assert [datetime.fromisoformat(query[name][0]).year for name in ("submitted_from", "submitted_to")] == [1, 9999]


@pytest.mark.parametrize("path", [(), *commands(app)], ids=" ".join)
def test_h_is_help_everywhere(path: tuple[str, ...]) -> None:
    short, long = (CliRunner().invoke(app, [*path, option]) for option in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)


def test_the_version() -> None:
    for option in ("-V", "--version"):
        ran = CliRunner().invoke(app, [option])
        assert (ran.exit_code, ran.stdout) == (0, f"bulkreg {metadata.version('bulk-registration-orchestrator')}\n")


def test_the_help_groups_the_commands_by_their_users() -> None:
    shown = bulkreg('run "$@"', "-h", COLUMNS="200", HOME="/nowhere", BULKREG_HOME="/nowhere").stdout.decode()
    parts = shown.split("Submitting, for coordinators")[1].split("Running it, for operators")
    coordinators, (operators, developers) = parts[0], parts[1].split("On this machine, for developers")
    for command, part in (("submit", coordinators), ("results", coordinators), ("doctor", operators), ("db", operators)):
        assert f"│ {command} " in part
    assert "│ demo " in developers
    assert "4 the output can't be written" in shown


def test_help_fits_a_narrow_terminal() -> None:
    shown = bulkreg('run "$@"', "submit", "-h", COLUMNS="40").stdout.decode()
    assert max(map(len, shown.splitlines())) <= 40


def test_a_misspelt_command_is_suggested() -> None:
    ran = bulkreg('run "$@"', "sumbit")
    assert (ran.returncode, b"Did you mean 'submit'" in ran.stderr, ran.stdout) == (2, True, b"")


def test_quiet_prints_only_the_result(api: str) -> None:
    ran = bulkreg('run "$@"', "retry", BATCH, "--watch", "--quiet", api=api)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"\x1b[" not in bulkreg('run "$@"', "list", "--no-color", api=api, FORCE_COLOR="1").stdout
    assert b"\x1b[" not in bulkreg('run "$@"', "list", api=api, FORCE_COLOR="1", NO_COLOR="1").stdout


# No file may grow, as on a full disk.
FULL_DISK = 'ulimit -f 0; run "$@"'
SERVERS = {"BULKREG_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "BULKREG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}


@pytest.mark.parametrize(
    ("options", "said"),
    [([], b"A file can't be written: "), (["--detach"], b"ended with exit code 3, and the reason could not be written to ")],
)
def test_a_stack_on_a_full_disk_says_so(options: list[str], said: bytes, tmp_path: Path) -> None:
    ran = bulkreg(FULL_DISK, "up", "--home", str(tmp_path / "home"), *options, **SERVERS)
    assert (ran.returncode, ran.stdout) == (3, b"")
    assert said in ran.stderr
    assert b"Traceback" not in ran.stderr


DEFECTIVE = """
import sys
from cli.main import app, run

@app.command("break")
def fail():
    raise ValueError("canary")

sys.argv[1:] = ["break"]
run()
"""


def test_an_error_of_the_program_does_not_count_as_failed_items() -> None:
    ran = subprocess.run([sys.executable, "-c", DEFECTIVE], capture_output=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (70, b"")
    assert b"ValueError: canary" in ran.stderr


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [(["list"], {}, b"/.bulkreg. Name an API"), (["db", "upgrade"], SERVERS, b"database")],
    ids=["a home", "servers"],
)
def test_an_empty_home_counts_as_unset(command: list[str], environment: dict[str, str], said: bytes) -> None:
    ran = bulkreg('run "$@"', *command, BULKREG_HOME="", **environment)
    assert (ran.returncode, said in ran.stderr) == (3, True), ran.stderr
