"""The command line as a whole: every command has help, and its exit code says what happened."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Annotated
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner

from cli.commands import batches
from cli.main import app
from cli.terminal.command import command
from cli.terminal.failures import BadInputError, ExitCode, UnreachableError
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import speed
from compose.roles import ROLES
from orchestrator.files.mistakes import BadFileError, FileMistake


def commands(group: typer.Typer, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*prefix, each.name or (each.callback.__name__ if each.callback else "")) for each in group.registered_commands]
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        found += commands(sub.typer_instance, (*prefix, sub.name or ""))
    return found


@pytest.mark.parametrize("path", commands(app), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "400"}).output
    assert f"bulkreg {' '.join(path)}" in shown.split("Example:")[1]
    # `run` has only logs as output, and never ends by itself.
    assert "--json" in shown or path == ("run",)


def test_the_help_of_run_names_every_role() -> None:
    shown = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "400"}).output
    assert f"One or more of: {' '.join(ROLES)}." in shown


def test_a_command_for_another_machine_imports_nothing_of_a_server() -> None:
    asks = "import cli.main, cli.remote.api_client, sys; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout.split()
    assert {"httpx", "typer"} <= set(imported)
    assert not {"aiohttp", "confluent_kafka", "psycopg2", "pydantic", "sqlalchemy"} & set(imported)


@dataclass(frozen=True)
class Group:
    size: Annotated[int, typer.Option(min=1)] = 3
    name: Annotated[str | None, typer.Option(envvar="TEST_NAME")] = None


def invoke(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """A program with one command that does what its argument says."""
    program = typer.Typer()

    @command(program, "do", example="bulkreg do nothing")
    async def do(what: str, group: Group, output: Output) -> ExitCode | None:
        """Do it."""
        if what == "bad input":
            raise BadInputError("That is wrong.", lines=["here"], details={"errors": [{"place": "here"}]})
        if what == "bad file":
            raise BadFileError([FileMistake("a.csv", "is bad", row=3, column="x", value="\x1b[31m")])
        if what == "unreachable":
            raise UnreachableError("It is away.")
        if what == "interrupt":
            raise KeyboardInterrupt
        output.answer({"size": group.size, "name": group.name}, f"{group.size} of {group.name}")
        return ExitCode.SOME_FAILED if what == "fail" else None

    result = CliRunner().invoke(program, list(arguments), env=environment)
    return result.exit_code, result.stdout, result.stderr


def test_a_group_of_options_becomes_an_object() -> None:
    assert invoke("it", "--size", "5", TEST_NAME="ten") == (0, "5 of ten\n", "")
    assert invoke("it", "--json")[1] == '{\n  "size": 3,\n  "name": null\n}\n'
    assert invoke("it", "--size", "0")[0] == 2


@pytest.mark.parametrize(
    ("what", "exit_code", "told"),
    [
        ("fail", 1, ""),
        ("bad input", 2, "That is wrong.\n  here\n"),
        ("bad file", 2, 'One mistake; nothing was done:\n  a.csv, row 3, column x: "�[31m" is bad\n'),
        ("unreachable", 3, "It is away.\n"),
        ("interrupt", 130, ""),
    ],
)
def test_failures_become_exit_codes_and_messages(what: str, exit_code: int, told: str) -> None:
    code, _, stderr = invoke(what)
    assert (code, stderr) == (exit_code, told)


def test_with_json_a_failure_is_a_document() -> None:
    assert invoke("bad input", "--json")[1].replace("\n", "").replace(" ", "") == (
        '{"error":{"detail":"Thatiswrong.","errors":[{"place":"here"}]}}'
    )


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        (["nix", "--json"], "No such command"),
        (["webhooks", "nix", "--json"], "No such command"),
        (["status", "--json"], "Missing argument"),
        (["list", "--nix", "--json"], "No such option"),
        (["retry", "x", "--json"], "Invalid value for 'ID'"),
        (["--json"], "No such option"),
    ],
)
def test_with_json_wrong_usage_is_a_document(arguments: list[str], detail: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, detail in json.loads(result.stdout)["error"]["detail"]) == (2, True)
    assert "Usage:" in result.stderr


def test_without_json_wrong_usage_is_only_for_people() -> None:
    result = CliRunner().invoke(app, ["nix"])
    assert (result.exit_code, result.stdout, "No such command" in result.stderr) == (2, "", True)


@pytest.mark.parametrize("command", ["up", "demo", "down", "info", "list", "doctor"])
@pytest.mark.parametrize("home", [["--home", ""], ["--home="]], ids=" ".join)
def test_an_empty_home_is_a_mistake(command: str, home: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A setting that is invalid, so that no stack would be started if the home were accepted.
    result = CliRunner().invoke(app, [command, *home, "--json"], env={"BULKREG_TOPIC_PARTITIONS": "x"})
    assert result.exit_code == 2
    assert "--home" in json.loads(result.stdout)["error"]["detail"]
    assert not list(tmp_path.iterdir())


def test_progress_is_a_line_for_people() -> None:
    measured = {"percent": 12.5, "items_per_second": 41.666667, "estimated_completion_at": "2026-03-26T10:00:02Z"}
    assert speed(measured) == "12.5 %, 41.7 items a second, finished about 2026-03-26T10:00:02Z"


def test_control_characters_in_input_do_not_reach_a_terminal() -> None:
    assert printable("a\x1b]0;owned\x07b\r\n") == "a�]0;owned�b��"
    assert printable("Gruppemøte 🙂 [red]") == "Gruppemøte 🙂 [red]"


def test_a_very_long_table_is_plain_lines_that_look_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(number, "Gruppemøte 🙂 [red]\x1b" if number % 2 else "call", None) for number in range(1_001)]
    long, short = table(["record", "type", "notes"], rows), table(["record", "type", "notes"], rows[:1_000])
    shown = []
    for each in (long, short):
        Output().answer({}, each)
        shown.append([line.rstrip() for line in capsys.readouterr().out.splitlines()])
    assert isinstance(long, str)
    assert not isinstance(short, str)
    assert (len(shown[0]), shown[0][:-1]) == (1_002, shown[1])


def test_bytes_that_are_not_utf_8_are_bad_input() -> None:
    assert invoke("it", "--name", "\udce6") == (2, "", "The value for name is not UTF-8 text.\n")
    template = [
        "templates",
        "save",
        "name",
        "m\udcff",
        "--type",
        "t",
        "--minutes",
        "1",
        "--url",
        "http://127.0.0.1:1",
        "--token",
        "t",
    ]
    assert CliRunner().invoke(app, template).stderr == "The value for mentors is not UTF-8 text.\n"
    # A file name may contain such bytes.
    result = CliRunner().invoke(app, ["submit", "no such \udcff.csv", "--json"])
    told = json.loads(result.stdout)["error"]["detail"]
    assert (result.exit_code, told) == (2, "no such �.csv can't be read: No such file or directory")


@pytest.mark.parametrize("format", [[], ["--format", "csv"]], ids=["table", "download"])
def test_a_spinner_is_shown_while_results_are_read(format: list[str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: A002
    signs: list[str] = []
    seen: list[list[str]] = []

    @contextmanager
    def working(_output: Output, description: str) -> Iterator[None]:
        signs.append(description)
        yield
        signs.pop()

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append([*signs])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"items": [], "next_item_cursor": null}')

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(batches, "working", working)
    with HTTPServer(("127.0.0.1", 0), Api) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        at = ["--url", f"http://127.0.0.1:{server.server_port}", "--token", "t"]
        result = CliRunner().invoke(app, ["results", str(uuid4()), *format, *at])
        thread.join()
    assert (result.exit_code, seen, signs) == (0, [["reading the results"]], []), result.output
