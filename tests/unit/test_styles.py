"""Colours and bold text, and questions on a terminal. Each run is a process whose streams lead to a terminal, or to a pipe."""

import contextlib
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from uuid import UUID

import pytest
from rich.progress import Progress

from cli.terminal import progress
from cli.terminal.output import Output

ESCAPE = b"\x1b["
HELP, WRONG = ["-h"], ["status"]


def inherited() -> dict[str, str]:
    styles = {"NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "TERMINAL_WIDTH", "TERM"}
    return {name: value for name, value in os.environ.items() if name not in styles and not name.startswith("BULKREG_")}


# A person types again if nothing happens. A Control-C between the question and the reading of the answer is not seen before the next one.
TYPES_AGAIN_S = 0.2


def in_pipe(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    program = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=inherited() | environment, timeout=60, check=False
    )


def on_terminal(*arguments: str, typed: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "cli", *arguments]
    environment = inherited() | {"TERM": "xterm-256color"} | environment
    # In a session of its own, so that the terminal is its terminal, and Control-C reaches it.
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            readable, _, _ = select.select([ours], [], [], TYPES_AGAIN_S)
            if readable and not (piece := read_of(ours)):
                break
            if readable:
                shown += piece
            elif typed and b"[y/N]" in shown:
                with contextlib.suppress(OSError):  # the program has ended meanwhile
                    os.write(ours, typed)
    os.close(ours)
    # What a shell shows. A second Control-C, while the program is ending, kills it.
    exit_code = 128 - process.returncode if process.returncode < 0 else process.returncode
    return subprocess.CompletedProcess(program, exit_code, shown)


def read_of(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # nobody has the other end any more
        return b""


def test_styles_are_for_terminals() -> None:
    assert ESCAPE in on_terminal(*HELP).stdout
    assert ESCAPE in in_pipe(*WRONG, FORCE_COLOR="1").stdout
    assert ESCAPE not in in_pipe(*HELP, GITHUB_ACTIONS="true", PY_COLORS="1", TTY_COMPATIBLE="1").stdout


def test_styles_can_be_forbidden_everywhere() -> None:
    assert ESCAPE not in on_terminal(*HELP, NO_COLOR="1", FORCE_COLOR="1").stdout
    assert ESCAPE not in on_terminal(*WRONG, "--no-color").stdout


def test_a_width_that_is_no_number_is_not_heeded() -> None:
    assert in_pipe(*WRONG, TERMINAL_WIDTH="wide").returncode == 2


@pytest.mark.parametrize("forbidden_by", ["the option", "the environment", "nothing"])
def test_a_bar_has_no_styles_where_they_are_forbidden(forbidden_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1" if forbidden_by == "the environment" else "")
    bar: Progress = progress._bar(Output(no_color=forbidden_by == "the option"))
    assert (bar.console.color_system is None) is (forbidden_by != "nothing")


# --- Questions --------------------------------------------------------------------------------------------------------------------


class Unasked(BaseHTTPRequestHandler):
    """An API that nobody may call."""

    asked: list[str] = []  # noqa: RUF012 - of the server's one test

    def do_DELETE(self) -> None:
        self.asked.append(self.path)
        self.send_response(204)
        self.end_headers()


@pytest.fixture
def api() -> Iterator[str]:
    Unasked.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Unasked) as server:
        thread = Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("typed", "exit_code", "said"),
    [(b"n\n", 2, b"Nothing was done."), (b"\x04", 2, b"Nothing was done."), (b"\x03", 130, b"")],
    ids=["no", "the end of the input", "an interruption"],
)
def test_a_question_that_is_not_agreed_to_is_no_failed_item(typed: bytes, exit_code: int, said: bytes, api: str) -> None:
    """Exit code 1 means that items failed."""
    ran = on_terminal("delete", str(UUID(int=1)), "--url", api, "--token", "t", typed=typed)
    assert (ran.returncode, Unasked.asked) == (exit_code, [])
    assert said in ran.stdout
    assert b"Traceback" not in ran.stdout


@pytest.mark.parametrize("command", ["delete", "templates delete", "webhooks delete"])
def test_every_command_that_deletes_asks_first_unless_it_is_told_not_to(command: str, api: str) -> None:
    asked = [*command.split(), str(UUID(int=1)), "--url", api, "--token", "t"]
    assert (on_terminal(*asked, typed=b"n\n").returncode, Unasked.asked) == (2, [])
    assert (on_terminal(*asked, "--yes").returncode, len(Unasked.asked)) == (0, 1)
