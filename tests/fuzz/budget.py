"""What one input may cost a process, and what it costs: CPU time, and memory above the idle size."""

import contextlib
import multiprocessing
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import psutil

MOST_SECONDS = 2.0
"""CPU time for one input."""

MOST_BYTES = 300 * 1024 * 1024
"""Memory above the idle size."""

ADDRESS_SPACE_BYTES = 4 * 1024**3
"""A child that allocates more than this above its start gets a MemoryError, because the machine must survive every input."""

HANGS_AFTER_S = 60.0
"""A child that is still busy then is killed."""


class Used(NamedTuple):
    """What an input cost."""

    seconds: float
    bytes: int

    def excess(self) -> list[str]:
        """What is over the budget, in words. Empty if nothing is."""
        over = []
        if self.seconds > MOST_SECONDS:
            over.append(f"took {self.seconds:.1f} s of processor time; the budget is {MOST_SECONDS:g} s")
        if self.bytes > MOST_BYTES:
            over.append(f"took {self.bytes >> 20:,} MB above the idle size; the budget is {MOST_BYTES >> 20:,} MB")
        return over


class Meter:
    """Measures a running process of the same user from outside. Its memory at the beginning is its idle size."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._files = Path(f"/proc/{pid}")
        self._idle_bytes = self._process.memory_info().rss
        self._began_s = 0.0
        self.begin()

    def begin(self) -> None:
        """Begins to measure an input."""
        # Resets the highest resident size ("VmHWM") to the present one.
        (self._files / "clear_refs").write_text("5")
        self._began_s = self._processor_s()

    def used(self) -> Used:
        """What the process has used since then. Raises ProcessLookupError or psutil.NoSuchProcess if it has ended."""
        return Used(self._processor_s() - self._began_s, self._peak_bytes() - self._idle_bytes)

    def _processor_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _peak_bytes(self) -> int:
        for line in (self._files / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(f"{self._files} has no process any more")


class Judgement(NamedTuple):
    """The outcome of one input: what the child's function returned (or None), and what is wrong, in words."""

    answer: Any
    wrong: list[str]
    used: Used


Work = Callable[..., AbstractContextManager[Callable[[Any], Any]]]
"""Sets up in the child, and yields the function that takes one input. It is a function of a module, so that the child finds it."""

_NOTHING = Used(0.0, 0)


class Child:
    """A process that takes one input after the other, and is replaced after one has ended it. `with Child(work, …) as child:`"""

    def __init__(self, work: Work, *arguments: Any) -> None:
        self._work = work
        self._arguments = arguments
        self._context = multiprocessing.get_context("spawn")

    def __enter__(self) -> "Child":
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def run(self, given: Any, *, patience_s: float | None = None) -> Judgement:
        """Gives the child one input. Returns when the child has finished, has ended, or is still busy after `patience_s` (`HANGS_AFTER_S`)."""
        patience_s = patience_s or HANGS_AFTER_S
        self._meter.begin()
        try:
            self._connection.send(given)
            if not self._connection.poll(patience_s):
                self._replace()
                return Judgement(None, [f"is still busy after {patience_s:g} s"], _NOTHING)
            answer, error = self._connection.recv()
            used = self._meter.used()
        except (EOFError, OSError, psutil.NoSuchProcess):
            self._process.join(HANGS_AFTER_S)
            ended = f"ended the process: {_how(self._process.exitcode)}"
            self._replace()
            return Judgement(None, [ended], _NOTHING)
        wrong = [f"raised {error}"] if error else []
        return Judgement(answer, [*wrong, *used.excess()], used)

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._work, self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.recv()
        assert self._process.pid is not None
        self._meter = Meter(self._process.pid)

    def _end(self) -> None:
        self._connection.close()
        self._process.join(HANGS_AFTER_S)

    def _replace(self) -> None:
        self._process.kill()
        self._end()
        self._start()


def _serve(connection: Connection, work: Work, arguments: tuple[Any, ...]) -> None:
    """Runs in the child."""
    size = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
    with work(*arguments) as take, contextlib.suppress(EOFError, BrokenPipeError):
        connection.send("ready")
        while True:
            connection.send(_taken(take, connection.recv()))


def _taken(take: Callable[[Any], Any], given: Any) -> tuple[Any, str]:
    try:
        return take(given), ""
    except Exception as error:
        return None, f"{type(error).__name__} at {_where(error)}"


def _where(error: BaseException) -> str:
    """The place at which the error was raised, without values, because each place is one finding."""
    step = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(step.filename).name}:{step.lineno}"


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"


@contextlib.contextmanager
def plain(function: Callable[[Any], Any]) -> Iterator[Callable[[Any], Any]]:
    """The work of a function that needs no setup: `Child(plain, function)`."""
    yield function
