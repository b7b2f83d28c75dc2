"""Logs of a running home: the length of each is limited, and so is what is kept of it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.embedded.log_files import shorten_logs
from compose.embedded.process import Child, Program
from compose.embedded.supervisor import Signals, StopRequestedError, supervise
from tests.support.waiting import eventually

LIMIT = 10_000


def test_a_long_log_is_set_aside_and_its_writer_continues_at_the_beginning(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab") as writer:
        writer.write(b"a" * LIMIT + b"\n")
        writer.flush()
        shorten_logs(tmp_path, LIMIT)
        writer.write(b"next\n")
    assert log.read_bytes() == b"next\n"
    assert (tmp_path / "api.1.log").read_bytes() == b"a" * LIMIT + b"\n"
    assert (tmp_path / "api.1.log").stat().st_mode & 0o077 == 0
    log.write_bytes(b"b" * (LIMIT + 1))
    shorten_logs(tmp_path, LIMIT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.1.log", "api.log"]
    assert (tmp_path / "api.1.log").read_bytes() == b"b" * (LIMIT + 1)


def test_a_short_log_stays(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_bytes(b"a" * LIMIT)
    shorten_logs(tmp_path, LIMIT)
    assert (tmp_path / "api.log").read_bytes() == b"a" * LIMIT


FULL_DISK = """
import resource, sys
from pathlib import Path
from compose.embedded.log_files import shorten_logs
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
shorten_logs(Path(sys.argv[1]), 10_000)
"""


def test_a_log_is_emptied_if_the_disk_has_no_room_for_a_copy(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_bytes(b"a" * (LIMIT + 1))
    subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], check=True)
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("api.log", 0)]


@pytest.fixture
def talker(tmp_path: Path) -> Iterator[Child]:
    """A child that writes without end."""
    (tmp_path / "logs").mkdir()
    endless = "import os\nwhile True: os.write(1, b'a line of a log\\n' * 10)"
    child = Child(Program(name="talker", command=[sys.executable, "-c", endless], log=tmp_path / "logs" / "talker.log"), tmp_path)
    child.start()
    yield child
    child.kill()


def test_a_supervisor_keeps_the_logs_of_its_processes_short(talker: Child, tmp_path: Path) -> None:
    times = 0

    def tidy() -> None:
        nonlocal times
        eventually(lambda: (tmp_path / "logs" / "talker.log").stat().st_size > LIMIT)
        shorten_logs(tmp_path / "logs", LIMIT)
        times += 1
        if times == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StopRequestedError), Signals(lambda: None) as signals:
        supervise([talker], signals, changed=lambda: None, report=print, tidy=tidy, tidy_every_s=0.001)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["talker.1.log", "talker.log"]
