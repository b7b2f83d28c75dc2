"""Whether a service is away: then nobody asks it but a probe, ever more rarely."""

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When the breaker opens, and how long it stays open between two probes."""

    failures: int
    first_pause_s: float
    max_pause_s: float


class CircuitBreaker:
    """Opens when so many askers in a row got no answer. Waiting and probing are its owner's, so it needs neither clock nor lock.

    Askers are told apart: one item that the service chokes on is no sign that the service is away, however often it is tried.
    """

    def __init__(self, policy: BreakerPolicy, jitter: Callable[[], float] = random.random) -> None:
        self.is_open = False
        self._policy = policy
        self._jitter = jitter
        self._unanswered: set[Hashable] = set()
        self._pause_s = policy.first_pause_s
        self._asked_to_wait_s = 0.0

    def answered(self) -> None:
        """Somebody got an answer: the service is there."""
        self._unanswered.clear()
        self._pause_s = self._policy.first_pause_s

    def unanswered(self, asker: Hashable) -> None:
        """An asker got none; counts once until somebody gets one."""
        self._unanswered.add(asker)
        if len(self._unanswered) >= self._policy.failures:
            self.is_open = True

    def hold(self, wait_s: float) -> None:
        """The service asked to be left alone for so long (`Retry-After`)."""
        self._asked_to_wait_s = max(self._asked_to_wait_s, wait_s)
        self.is_open = True

    def next_pause_s(self) -> float:
        """How long to wait before the next probe: doubles until an answer, between half and all of it at random; at most the longest
        pause, also when the service asks for more."""
        pause_s = max(self._asked_to_wait_s, self._pause_s * (1 + self._jitter()) / 2)
        self._pause_s = min(2 * self._pause_s, self._policy.max_pause_s)
        self._asked_to_wait_s = 0.0
        return min(pause_s, self._policy.max_pause_s)

    def close(self) -> None:
        """A probe was answered. The pauses only shrink when somebody is."""
        self.is_open = False
        self._unanswered.clear()
