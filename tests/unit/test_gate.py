"""Processes of a home wait at its gate until it is open."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from compose.embedded.gate import closed, pass_through
from tests.support.waiting import HELD_S


def is_closed(gate: Path) -> bool:
    with gate.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_process_passes_when_the_gate_opens(tmp_path: Path) -> None:
    gate, order = tmp_path / "gate", list[str]()

    def walk() -> None:
        pass_through(gate)
        order.append("passed")

    with closed(gate):
        assert is_closed(gate)
        walker = threading.Thread(target=walk)
        walker.start()
        order.append("opened")
    walker.join(HELD_S)
    assert order == ["opened", "passed"]
    pass_through(gate)


def test_the_gate_opens_when_an_error_ends_the_block(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with pytest.raises(ZeroDivisionError), closed(gate):
        _ = 1 / 0
    assert not is_closed(gate)


def test_the_gate_opens_when_the_process_that_closed_it_is_killed(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = (
        "import sys; from pathlib import Path; from compose.embedded.gate import closed\n"
        "with closed(Path(sys.argv[1])): print('closed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(gate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "closed\n"
        assert is_closed(gate)
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait()
    pass_through(gate)
