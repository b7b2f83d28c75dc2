"""How a loop is, for /readyz: when it last got round, and whether a broker answers."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Check:
    """Whether one thing is well, and if not, what is wrong with it."""

    ok: bool
    detail: str | None = None


@dataclass(slots=True)
class LoopHealth:
    """Written by one loop, read by any thread: each field is one assignment, which Python makes whole.

    `poll()` alone tells nothing: it returns None for an idle topic and for a dead broker alike.
    """

    clock: Callable[[], float] = time.monotonic
    broker_contact: bool = False
    _turned_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._turned_at = self.clock()

    def turned(self) -> None:
        """The loop has got round: it is idle, or a unit of work is complete."""
        self._turned_at = self.clock()

    @property
    def loop_age_s(self) -> float:
        """Seconds since the loop last got round; grows while a unit of work is retried."""
        return self.clock() - self._turned_at
