"""The health of a loop, for /readyz: when it last completed an iteration, what it waits for, and whether a broker responds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Health:
    """Whether one thing is well; what is wrong with it, or what is worth knowing of it."""

    ok: bool
    detail: str | None = None


@dataclass(slots=True)
class LoopHealth:
    """Written by one loop, read by any thread: each field is one assignment, which Python makes whole.

    `poll()` alone tells nothing: it returns None for an idle topic and for a dead broker alike.
    """

    clock: Callable[[], float] = time.monotonic
    broker_contact: bool = False
    failing: str | None = None
    """What keeps the loop from its work although it gets round, in words; None: nothing."""
    retrying: str | None = None
    """Why the present unit of work is tried again, in words; None: it is not."""
    holding: str | None = None
    """What the loop owns that others do without, in words; None: nothing. Shown when it is well."""
    _turned_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._turned_at = self.clock()

    def turned(self) -> None:
        """Notes that the loop has completed an iteration: it is idle, or a unit of work is complete."""
        self._turned_at = self.clock()
        self.retrying = None

    @property
    def loop_age_s(self) -> float:
        """Seconds since the loop last completed an iteration; grows while a unit of work is retried."""
        return self.clock() - self._turned_at

    def check(self, *, max_loop_age_s: float) -> Health:
        """Whether the loop does its work."""
        if self.loop_age_s > max_loop_age_s:
            why = f"; it tries the same work again: {self.retrying}" if self.retrying else ""
            return Health(False, f"the loop has not completed an iteration for {self.loop_age_s:.0f} s{why}")
        if not self.broker_contact:
            return Health(False, "no broker responds")
        return Health(self.failing is None, self.failing or self.holding)
