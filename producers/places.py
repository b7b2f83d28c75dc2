"""Keeps which topics and partitions are in trouble, and when to try each of them again."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action

# The first pause after a failure. It doubles with each further failure: short for a broker's restart, and no hot loop while a topic is
# missing for hours.
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


def backoff_s(failures: int) -> float:
    """Returns the pause after this many failures in a row. It has jitter, so that places that failed together are not retried together."""
    longest: float = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


@dataclass(slots=True)
class _Place:
    is_failing: bool
    failures: int
    retry_at: float


class Places:
    """The places that are in trouble, and those that have recovered but may still have held rows."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    @property
    def known(self) -> list[str]:
        """The names of all these places."""
        return list(self._places)

    def is_failing(self, name: str) -> bool:
        """Whether only a probe may be sent there."""
        place = self._places.get(name)
        return place is not None and place.is_failing

    def retry_at(self, name: str) -> float:
        """When to try it again."""
        return self._places[name].retry_at

    def expect_held(self, names: Iterable[str]) -> None:
        """Notes that this relay, or one before it, has held rows for these places. Places that were not known are due at once."""
        for name in names:
            self._places.setdefault(name, _Place(is_failing=True, failures=0, retry_at=float("-inf")))
        self._count()

    def failed(self, name: str, now: float, why: str) -> None:
        """Notes that an event was not acknowledged there, or not for too long.

        Many events that fail at once count as one failure. An event that was already on its way when the place failed, and fails before the
        next try, belongs to the same failure.
        """
        place = self._places.setdefault(name, _Place(is_failing=False, failures=0, retry_at=now))
        if place.is_failing and now < place.retry_at:
            return
        if not place.is_failing:
            log_action(Action.PLACE_IN_TROUBLE, role="relay", place=name, error=why)
        place.is_failing = True
        place.retry_at = now + backoff_s(place.failures)
        place.failures += 1
        self._count()

    def works(self, name: str) -> None:
        """Notes that an event was acknowledged there."""
        place = self._places.get(name)
        if place is not None and place.is_failing:
            log_action(Action.PLACE_WORKS_AGAIN, role="relay", place=name)
            place.is_failing = False
            place.failures = 0
            self._count()

    def forget(self, name: str) -> None:
        """Removes the place, because no row is held for it."""
        del self._places[name]
        self._count()

    def _count(self) -> None:
        metrics.OUTBOX_PLACES_IN_TROUBLE.set(sum(place.is_failing for place in self._places.values()))
