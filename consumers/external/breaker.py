"""A circuit breaker: while a service is unavailable, only probes are sent, at increasing intervals."""

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
    """Opens when a number of different askers in a row got no response. Its owner waits and probes, so it needs neither clock nor lock.

    Each asker counts once, because one item that the service can't handle does not mean that the service is unavailable.
    """

    def __init__(self, policy: BreakerPolicy, jitter: Callable[[], float] = random.random) -> None:
        self.is_open = False
        self._policy = policy
        self._jitter = jitter
        self._unanswered: set[Hashable] = set()
        self._pause_s = policy.first_pause_s
        self._asked_to_wait_s = 0.0

    def answered(self) -> None:
        """Notes that an asker got a response: the service is available."""
        self._unanswered.clear()
        self._pause_s = self._policy.first_pause_s

    def unanswered(self, asker: Hashable) -> None:
        """Notes that an asker got no response. Each asker counts once until any asker gets a response."""
        self._unanswered.add(asker)
        if len(self._unanswered) >= self._policy.failures:
            self.is_open = True

    def hold(self, wait_s: float) -> None:
        """Notes the pause that the service asked for (`Retry-After`)."""
        self._asked_to_wait_s = max(self._asked_to_wait_s, wait_s)
        self.is_open = True

    def next_pause_s(self) -> float:
        """How long to wait before the next probe. Doubles until a response, with jitter between half and all of it; never more than the
        longest pause, even if the service asks for more."""
        pause_s = max(self._asked_to_wait_s, self._pause_s * (1 + self._jitter()) / 2)
        self._pause_s = min(2 * self._pause_s, self._policy.max_pause_s)
        self._asked_to_wait_s = 0.0
        return min(pause_s, self._policy.max_pause_s)

    def close(self) -> None:
        """Closes the breaker after a successful probe. The pauses shrink only when an asker gets a response."""
        self.is_open = False
        self._unanswered.clear()
