"""The health of a loop, for /readyz: when it last completed an iteration, what it waits for, and whether a broker responds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Health:
    """Whether one part of the process is well. `detail` says what is wrong with it, or what is worth knowing about it."""

    ok: bool
    detail: str | None = None


@dataclass(slots=True)
class LoopHealth:
    """Written by one loop and read by any thread. Each change is a single assignment, which Python makes atomic.

    The result of `poll()` alone shows nothing: it returns None both for an idle topic and for a dead broker.
    """

    clock: Callable[[], float] = time.monotonic
    broker_contact: bool = False
    failing: str | None = None
    """Why the loop can't do its work although it completes iterations; None if it can."""
    retrying: str | None = None
    """Why the present unit of work is being retried; None if it is not."""
    holding: str | None = None
    """What the loop owns, so that other processes don't; None if nothing. Shown when the loop is well."""
    _turned_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._turned_at = self.clock()

    def turned(self) -> None:
        """Records that the loop has completed an iteration: it is idle, or a unit of work is complete."""
        self._turned_at = self.clock()
        self.retrying = None

    @property
    def loop_age_s(self) -> float:
        """Seconds since the loop last completed an iteration; grows while a unit of work is retried."""
        return self.clock() - self._turned_at

    def check(self, *, max_loop_age_s: float) -> Health:
        """Returns whether the loop does its work, and if not, why."""
        if self.loop_age_s > max_loop_age_s:
            why = f"; it is retrying the same work: {self.retrying}" if self.retrying else ""
            return Health(False, f"the loop has not completed an iteration for {self.loop_age_s:.0f} s{why}")
        if not self.broker_contact:
            return Health(False, "no broker responds")
        return Health(self.failing is None, self.failing or self.holding)
