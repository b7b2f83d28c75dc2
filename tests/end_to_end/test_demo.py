"""`make run` for somebody who has just cloned the repository: it shows a finished first batch, serves the API, and leaves nothing behind."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.prepared import BULKREG
from tests.support.process import started
from tests.support.product import Product
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]

TOLD = "Serving until Ctrl-C."
WITHIN_S = 120.0
FRESH_CLONE_WITHIN_S = 600.0
STOP_WITHIN_S = 60.0

CTRL_C = b"\x03"
CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# On a terminal, ^C reaches the whole foreground group, as when a person presses it.
ON_TERMINAL = [sys.executable, "-c", "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"]


@dataclass(frozen=True)
class Demonstration:
    """A demonstration that has printed its text and is serving."""

    text: str
    descendants: Sequence[psutil.Process]


@contextlib.contextmanager
def on_terminal(command: Sequence[str], cwd: Path, environment: dict[str, str], within_s: float) -> Iterator[Demonstration]:
    """Runs a command on a terminal until it has printed its text. Presses Ctrl-C at the end, and checks that nothing is left."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    process = subprocess.Popen([*ON_TERMINAL, *command], cwd=cwd, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        text = _read(master, until=TOLD, within_s=within_s)
        descendants = psutil.Process(process.pid).children(recursive=True)
        assert len(descendants) >= 6, "PostgreSQL, Kafka and our four processes must run"
        yield Demonstration(text, descendants)
        os.write(master, CTRL_C)
        # Read the terminal to its end, because a process that waits for its terminal does not end.
        assert "Stopping" in _read(master, until=None, within_s=STOP_WITHIN_S)
        assert process.wait(STOP_WITHIN_S) in (130, -signal.SIGINT)
        eventually(lambda: not [each for each in descendants if each.is_running()], what="no process left behind")
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _read(master: int, *, until: str | None, within_s: float) -> str:
    """Reads the terminal until a text appears or, with None, until no process holds the terminal any more."""
    deadline = time.monotonic() + within_s
    said = b""
    while until is None or until.encode() not in said:
        assert select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0], said.decode()[-4000:]
        try:
            said += os.read(master, 65536)
        except OSError:  # EIO: the last process that held it has closed it.
            if until is None:
                break
            raise AssertionError(said.decode()[-4000:]) from None
    return CONTROL_SEQUENCE.sub("", said.decode()).replace("\r\n", "\n")


def environment(**more: str) -> dict[str, str]:
    """The environment of somebody who has set nothing, even if `make` runs the tests, or a worker whose parent has a readline."""
    of_ours = ("BULKREG_", "MAKE", "MFLAGS", "COLUMNS", "LINES")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(of_ours)}
    return inherited | {"TERM": "xterm-256color"} | more


def steps(text: str) -> list[str]:
    """The commands that the demonstration recommends."""
    after = text[text.index("Try next") :]
    return [line.strip() for line in after.splitlines() if line.startswith("  ") and not line.strip().startswith("#")]


def result(text: str) -> list[str]:
    """The block with the first batch's result, without its id and without trailing blanks."""
    lines = [UUID.sub("ID", line.rstrip()) for line in text.splitlines()]
    begin = next(number for number, line in enumerate(lines) if line.startswith("Batch ID") and "partial" in line)
    return [line for line in lines[begin : lines.index("", begin)] if line]


def test_first_batch_on_the_screen_and_every_recommended_command_works(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [*BULKREG, "demo", "--home", str(home)]
    with on_terminal(command, ROOT, environment(), WITHIN_S) as demonstration:
        assert "already submitted" not in demonstration.text
        shown = result(demonstration.text)
        assert shown == result((ROOT / "README.md").read_text()), "the README must show this output"
        assert "6 success, 5 failed of 11" in shown[0]
        product = Product(home)
        assert product.stack["admin_token"] in demonstration.text.replace("\n", "")
        assert httpx.get(f"{product.stack['api']}/docs", timeout=PATIENCE_S).status_code == 200
        codes = {}
        for step in steps(demonstration.text):
            done = subprocess.run(
                ["bash", "-c", f"set -o pipefail; {step}"],
                cwd=ROOT,
                env=environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            [name] = {"status", "list", "results", "retry", "submit", "cancel", "verify"} & set(step.split())
            codes[f"{name} --preview" if "--preview" in step else name] = done.returncode
            if name == "retry":
                assert "Items that are being retried: 1" in done.stderr
                assert "7 success, 4 failed of 11" in done.stdout
            if name == "cancel":
                assert "nothing left to cancel" in done.stderr
        assert codes == {
            "status": 0,
            "list": 0,
            "results": 0,
            "retry": 1,  # Four items still need their corrections.
            "submit --preview": 1,
            "submit": 1,
            "cancel": 2,
            "verify": 0,
        }
    # Again with the same home: it knows its lists, and the items that were corrected meanwhile stay corrected.
    with on_terminal(command, ROOT, environment(), WITHIN_S) as demonstration:
        assert demonstration.text.count("This was already submitted") == 3
        assert "7 success, 4 failed of 11" in demonstration.text


def test_with_json_there_is_one_document(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started([*BULKREG, "demo", "--home", str(home), "--json"], environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        document = httpx.Response(200, content=process.stdout.readline()).json()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.wait(STOP_WITHIN_S) == 130
    assert document["batch"]["status"] == "partial"
    assert document["batch"]["errors_by_code"] == {
        "duplicate_activity": 1,
        "invalid_item": 1,
        "mentor_inactive": 1,
        "mentor_not_found": 1,
        "out_of_scope": 1,
    }
    assert document["stack"]["api"].startswith("http://127.0.0.1:")
    assert document["stack"]["admin_token"]


@pytest.mark.full
@pytest.mark.timeout(FRESH_CLONE_WITHIN_S + 120)
def test_make_run_in_a_fresh_clone_with_empty_caches(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True, timeout=PATIENCE_S)
    caches = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_CACHE_DIR": str(tmp_path / "pip")}
    with on_terminal(["make", "run"], clone, environment(**caches), FRESH_CLONE_WITHIN_S) as demonstration:
        assert "Downloading Apache Kafka" in demonstration.text
        assert result(demonstration.text) == result((ROOT / "README.md").read_text())
    # Only files that `make clean` removes are left.
    untracked = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {line.split()[1] for line in untracked if "__pycache__" not in line} == {".venv/", ".bulkreg/"}
