"""Keeps children running: starts each again when it ends, after a delay, until a signal asks to stop all."""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn, Self

from compose.embedded.process import Child

INTERRUPTED = 130  # the exit code that a shell shows for a program ended by SIGINT


class StopRequestedError(Exception):
    """SIGINT, SIGTERM or SIGHUP has arrived. `signal` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


class Signals:
    """Turns signals into something that the main thread can wait for. The thread sleeps in the kernel until one arrives.

    A request to stop raises StopRequestedError, but only from `wait`: never between a child's start and its record. The second request
    waits for nothing: it calls `leave` and ends the process.
    """

    STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._stop: int | None = None

    def __enter__(self) -> Self:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        handlers = dict.fromkeys(self.STOP, self._on_stop) | {signal.SIGCHLD: lambda *_: None}
        self._previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._previous_wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()

    def wait(self, seconds: float | None) -> None:
        """Returns when a signal has arrived (a child's end is one) or after the time. Raises StopRequestedError."""
        if self._stop is None and select.select([self._read], [], [], seconds)[0]:
            self._read.recv(4096)  # many signals are one reason to look
        if self._stop is not None:
            raise StopRequestedError(self._stop)

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        if self._stop is not None:
            self._leave()
            os._exit(INTERRUPTED)
        self._stop = number


@dataclass(frozen=True)
class RestartPolicy:
    """How long to wait before a child that has ended is started again."""

    first_delay_s: float = 0.1
    most_delay_s: float = 10.0
    """Each early end doubles the delay, up to this: a child that can't start costs little, and is back soon when it can."""
    steady_after_s: float = 30.0
    """A process that has run this long started successfully. If it ends, its delay is the first one again."""


class Restarts:
    """The restart times of one child."""

    def __init__(self, policy: RestartPolicy, now_s: float) -> None:
        self._policy = policy
        self._started_s = now_s
        self._delay_s = 0.0
        self.due_s: float | None = None

    def ended(self, now_s: float) -> float:
        """Notes the child's end. Returns the delay in seconds until its restart."""
        steady = self._delay_s == 0 or now_s - self._started_s >= self._policy.steady_after_s
        self._delay_s = self._policy.first_delay_s if steady else min(self._delay_s * 2, self._policy.most_delay_s)
        self.due_s = now_s + self._delay_s
        return self._delay_s

    def started(self, now_s: float) -> None:
        """Notes that it runs again."""
        self._started_s = now_s
        self.due_s = None


def supervise(
    children: Sequence[Child],
    signals: Signals,
    *,
    changed: Callable[[], None],
    report: Callable[[str], None],
    tidy: Callable[[], None],
    tidy_every_s: float,
) -> NoReturn:
    """Restarts each child that ends. Calls `changed` when process ids have changed, and `tidy` at intervals. Ends only by
    StopRequestedError."""
    now_s = time.monotonic()
    restarts = [(child, Restarts(RestartPolicy(), now_s)) for child in children]
    tidy_s = now_s
    while True:
        now_s = time.monotonic()
        pids = [child.pid for child in children]
        for child, restart in restarts:
            if restart.due_s is not None and now_s >= restart.due_s:
                child.start()
                restart.started(now_s)
                report(f"{child.program.name} runs again as process {child.pid}")
            elif restart.due_s is None and child.pid is None:
                delay_s = restart.ended(now_s)
                report(f"{child.program.name} ended with code {child.exit_code}; it starts again in {delay_s:g} s")
        if [child.pid for child in children] != pids:
            changed()
        if now_s >= tidy_s:
            tidy()
            tidy_s = now_s + tidy_every_s
        due_s = [tidy_s, *(restart.due_s for _, restart in restarts if restart.due_s is not None)]
        signals.wait(max(0.0, min(due_s) - now_s))
