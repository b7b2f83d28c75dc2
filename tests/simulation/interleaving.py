"""Concurrency without chance: a run of the product can be stopped between any two of its steps.

A step is a statement, a commit, a failpoint or a produced record. A stopped run may die there, or wait while others run and then continue.
Only one thread runs at a time, so the same decisions give the same history.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, event, text

# Longer than any step takes. Only after that it is checked whether the step waits for a lock.
_LOOK_AFTER_S = 0.004

_SOMEBODY_WAITS = text("""
    SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database())
""")


class Crash(BaseException):
    """The process dies here, and runs nothing more."""


class Deadlocks:
    """Counts deadlocks between sessions. The product's lock order excludes them."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, engine: Engine) -> None:
        """Counts those of this engine's sessions."""

        @event.listens_for(engine, "handle_error")
        def _note(context: Any) -> None:
            self.count += getattr(context.original_exception, "pgcode", None) == "40P01"


class Run:
    """A piece of the product's work that passes points."""

    def __init__(self, name: str, work: Callable[[], object], *, stop_at: int | str | None = None, crash: bool = False) -> None:
        """Stops at the point with this number, counted from 0, or at the first with this label, to die there or to wait."""
        self.name = name
        self.stopped_at: str | None = None
        self.error: BaseException | None = None
        self._work = work
        self._stop_at = stop_at
        self._crash = crash
        self._passed = 0
        self._settled = threading.Event()
        self._go_on = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def died_at(self) -> str | None:
        """The point at which it was killed, or None."""
        return self.stopped_at if self._crash else None

    def begin(self) -> bool:
        """Runs in a thread until it is done or stops. Returns whether it has stopped."""
        self._start()
        self._settled.wait()
        return self.stopped_at is not None

    def resume(self, *, crash: bool = False) -> None:
        """Lets a stopped run continue, or die. Returns when it is done."""
        assert self._thread is not None
        self._crash = crash
        self._go_on.set()
        self._thread.join()

    def inline(self) -> None:
        """Runs in this thread. It may die, but not wait."""
        self._execute()

    def beside(self, other: "Run", watcher: Connection) -> bool:
        """Runs while another run is stopped. If this one waits for a lock of the other's, the other continues. Returns whether that was so."""
        thread = self._start()
        thread.join(_LOOK_AFTER_S)
        while thread.is_alive():
            if watcher.execute(_SOMEBODY_WAITS).scalar_one():
                other.resume()
                thread.join()
                return True
            thread.join(_LOOK_AFTER_S)
        return False

    def point(self, label: str) -> None:
        """The run's own thread calls this at each of its steps."""
        number, self._passed = self._passed, self._passed + 1
        if self.stopped_at is not None or self._stop_at not in (number, label):
            return
        self.stopped_at = label
        if self._thread is not None and not self._crash:
            self._settled.set()
            self._go_on.wait()
        if self._crash:
            raise Crash

    def _start(self) -> threading.Thread:
        self._thread = threading.Thread(target=self._execute, name=self.name)
        self._thread.start()
        return self._thread

    def _execute(self) -> None:
        _running.run = self
        try:
            self._work()
        except BaseException as error:
            self.error = error
        finally:
            _running.run = None
            self._settled.set()


class _Running(threading.local):
    run: Run | None = None


_running = _Running()


def point(label: str) -> None:
    """Marks a point between two steps of whatever runs in this thread."""
    if _running.run is not None:
        _running.run.point(label)


@contextlib.contextmanager
def without_points() -> Iterator[None]:
    """For the simulation's own work in the middle of the product's: no run can die in the middle of it."""
    run, _running.run = _running.run, None
    try:
        yield
    finally:
        _running.run = run


def mark_statements(engine: Engine) -> None:
    """Marks a point before each statement and each commit of an engine's connections."""

    @event.listens_for(engine, "before_cursor_execute")
    def _statement(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        point(" ".join(statement.split())[:48])

    @event.listens_for(engine, "commit")
    def _commit(_connection: Connection) -> None:
        point("COMMIT")
