"""What the clients request: items with a known outcome, and some that several batches compete for."""

import random
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from tests.chaos.history import History, Submission, Values

MENTORS = 2_000
LEAVERS = 40
"""People who are forgotten. Only `leavers.py` has items for them."""
FIRST_DAY = date(1990, 1, 1)

ACTIVE = frozenset({"pending", "processing"})
"""The states of a batch that has not ended."""

NO_MENTOR, NO_TYPE, NO_MINUTES = "ghost-", "no-such-type", 0

SIZES = ((70, 1, 25), (22, 26, 100), (6, 101, 400), (2, 1_000, 1_000))
"""Weight, fewest and most items of a submission. More than 100 use the bulk lane."""

FLAWED, CONTESTED, CORRECTED_WRONGLY, OVERRIDING = 0.12, 0.04, 0.1, 0.25


def expected_error(values: Values) -> str | None:
    """The code of the rule that these values break. None means that they succeed, or that another item was first."""
    if values.mentor_id.startswith(NO_MENTOR):
        return "mentor_not_found"
    if values.activity_type == NO_TYPE:
        return "activity_type_unknown"
    if values.duration_minutes == NO_MINUTES:
        return "invalid_item"
    return None


def leaver(number: int) -> str:
    """The id of a person who leaves."""
    return f"leaver-{number}"


class Work:
    """Makes submissions and corrections. No two items have the same mentor and date, except the contested ones."""

    def __init__(self, seed: str, history: History) -> None:
        self._history = history
        self._seed = seed
        self._lock = threading.Lock()
        self._serial = 0
        self._labels = 0
        self._fought_for: deque[Values] = deque(maxlen=8)
        self.has_fights = True
        """Whether batches also request what others request. A restored database may decide again, with another winner."""

    def submission(self, rng: random.Random, *, batch_id: str | None = None, most: int = 1_000) -> Submission:
        """A new submission, which the history knows before anybody sends it."""
        (_, low, high) = rng.choices(SIZES, weights=[weight for weight, _, _ in SIZES])[0]
        size = min(most, rng.randint(low, high))
        items = [self._flawed(values, rng) if rng.random() < FLAWED else values for values in self.take(size)]
        if self.has_fights and rng.random() < CONTESTED * size:
            items[rng.randrange(size)] = self._contested(rng)
        return self.asked_for(items, batch_id=batch_id)

    def asked_for(self, items: Sequence[Values], *, batch_id: str | None = None) -> Submission:
        """A submission of these items, which the history knows before anybody sends it."""
        with self._lock:
            self._labels += 1
            submission = Submission(f"chaos {self._seed} {self._labels}", tuple(items), batch_id)
            self._history.submissions[submission.label] = submission
        return submission

    def correction(self, rng: random.Random) -> Values:
        """The corrected values of a failed item, mostly valid."""
        values = self.take(1)[0]
        return self._flawed(values, rng) if rng.random() < CORRECTED_WRONGLY else values

    def last_day(self) -> date:
        """The date of the newest items."""
        return FIRST_DAY + timedelta(days=self._serial // MENTORS)

    def take(self, number: int) -> Sequence[Values]:
        """Values that no other item has."""
        with self._lock:
            begin, self._serial = self._serial, self._serial + number
        return [
            Values(
                f"mentor-{serial % MENTORS + 1}",
                "visit",
                (FIRST_DAY + timedelta(days=serial // MENTORS)).isoformat(),
                60,
            )
            for serial in range(begin, begin + number)
        ]

    def _flawed(self, values: Values, rng: random.Random) -> Values:
        match rng.randrange(3):
            case 0:
                return Values(NO_MENTOR + values.mentor_id, values.activity_type, values.activity_date, values.duration_minutes)
            case 1:
                return Values(values.mentor_id, NO_TYPE, values.activity_date, values.duration_minutes)
            case _:
                return Values(values.mentor_id, values.activity_type, values.activity_date, NO_MINUTES)

    def _contested(self, rng: random.Random) -> Values:
        """An item that the next batches request too, or that earlier ones have."""
        fresh = self.take(1)[0]
        with self._lock:
            if not self._fought_for or rng.random() < 0.4:
                self._fought_for.append(fresh)
                self._history.contested.add(fresh.identity)
                chosen = fresh
            else:
                chosen = rng.choice(self._fought_for)
        return replace(chosen, override_duplicates=rng.random() < OVERRIDING)
