"""Units of work that fail for a reason that is not known to be their own, and what becomes of them (docs/decisions/0022-what-repeats.md).

The loop goes on with other records and tries such a unit again in between, ever more rarely, in smaller parts: many of them may be well by
themselves, or stand in for one that is not. A record that fails alone in the same way for minutes, while others get through, is to blame.
While nothing gets through, nobody is: it is an outage, however long it takes.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from consumers.loop.decoding import Entry
from consumers.loop.offsets import PartitionOffsets
from orchestrator.storage.blame import Blame, blame, kind_of

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
# A try that ends in a timeout costs others its time: they get three times as much before the next.
PAUSE_PER_TRY = 3.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Records that were tried together, and what they met. Nothing of it has stayed."""

    entries: Sequence[Entry]
    error: Exception


@dataclass(slots=True, eq=False)
class Unit:
    """Records that wait for their next try."""

    entries: Sequence[Entry]
    blame: Blame
    kind: str
    since_s: float
    """When they, or those that they were part of, first failed in this way."""
    passed_before: int
    tries: int = 0
    due_s: float = 0.0


class PostponedUnits:
    """Belongs to the loop's thread."""

    def __init__(self, *, set_aside_after_s: float, most_records: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._set_aside_after_s = set_aside_after_s
        self._most_records = most_records
        self._clock = clock
        self._units: list[Unit] = []
        self._passed = 0

    def __bool__(self) -> bool:
        return bool(self._units)

    @property
    def records(self) -> int:
        """How many records wait."""
        return sum(len(unit.entries) for unit in self._units)

    @property
    def is_full(self) -> bool:
        """Whether no more may be added: so many don't fail because of themselves."""
        return self.records >= self._most_records

    @property
    def is_outage(self) -> bool:
        """Whether something failed and nothing got through since."""
        return any(unit.passed_before == self._passed for unit in self._units)

    def due_in_s(self) -> float | None:
        """Seconds until the next try; None: there is nothing to try."""
        return max(0.0, min(unit.due_s for unit in self._units) - self._clock()) if self._units else None

    def take(self) -> Unit | None:
        """The unit whose turn it is, if one's is. It is given back by `failed`, or is done."""
        unit = min(self._units, key=lambda unit: unit.due_s, default=None)
        if unit is None or unit.due_s > self._clock():
            return None
        self._units.remove(unit)
        return unit

    def may_be_set_aside(self, unit: Unit) -> bool:
        """Whether the next failure of the same kind is the unit's own fault: it is one record, has failed for long, and is not one of many."""
        is_lonely = not self._units and self._passed == unit.passed_before
        gets_through = self._passed - unit.passed_before > self.records
        return (
            len(unit.entries) == 1
            and unit.blame is not Blame.LOCKED
            and self._clock() - unit.since_s >= self._set_aside_after_s
            and (is_lonely or gets_through)
        )

    def passed(self, records: int) -> None:
        """So many records got through. After an outage all that wait are due."""
        if self.is_outage:
            for unit in self._units:
                unit.due_s = 0.0
        self._passed += records

    def failed(self, failure: Failure, tried: Unit | None, *, took_s: float) -> None:
        """Keeps what failed, in parts; `tried` is the unit that it was, or was part of."""
        now, kind = self._clock(), kind_of(failure.error)
        is_same = tried is not None and tried.kind == kind
        for entries in _parts(failure.entries, blame(failure.error)):
            unit = Unit(
                entries,
                blame(failure.error),
                kind,
                tried.since_s if tried is not None and is_same else now,
                tried.passed_before if tried is not None and is_same else self._passed,
            )
            if tried is not None and len(entries) == len(tried.entries):
                unit.tries = tried.tries + 1
                unit.due_s = now + min(MAX_PAUSE_S, max(FIRST_PAUSE_S * 2**tried.tries, PAUSE_PER_TRY * took_s))
            self._units.append(unit)

    def drop(self, partitions: Collection[PartitionOffsets]) -> None:
        """Forgets the records of partitions that now are somebody else's."""
        for unit in self._units:
            unit.entries = [entry for entry in unit.entries if entry.partition not in partitions]
        self._units = [unit for unit in self._units if unit.entries]


def _parts(entries: Sequence[Entry], fault: Blame) -> Sequence[Sequence[Entry]]:
    """Two halves that share no batch; of one batch, two halves, unless what it meets is a lock, which the whole batch meets."""
    by_batch: dict[object, list[Entry]] = {}
    for entry in entries:
        assert entry.record is not None, "what can't be read is refused at once"
        by_batch.setdefault(getattr(entry.record.data, "batch_id", None), []).append(entry)
    batches = list(by_batch.values())
    if len(batches) > 1:
        middle = len(batches) // 2
        return [[entry for batch in half for entry in batch] for half in (batches[:middle], batches[middle:])]
    if len(entries) == 1 or fault is Blame.LOCKED:
        return [entries]
    middle = len(entries) // 2
    return [entries[:middle], entries[middle:]]
