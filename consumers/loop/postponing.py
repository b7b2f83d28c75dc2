"""Units of work that fail for an unknown reason, and what happens to them (docs/decisions/0022-what-repeats.md).

The loop handles other records and retries such a unit in between, at growing intervals and in smaller parts: many of its records may
succeed without the one that fails. A record that fails alone in the same way for minutes, while others get through, is to blame. While
nothing gets through, it is an outage, and no record is blamed, however long the outage lasts.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from consumers.loop.decoding import Entry
from consumers.loop.offsets import PartitionOffsets
from orchestrator.storage.blame import Blame, blame, kind_of

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 60.0
# A try that ends in a timeout takes time from others, so they get three times as much before the next try.
PAUSE_PER_TRY = 3.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Records that were tried together, and the error. Their transaction was rolled back."""

    entries: Sequence[Entry]
    error: Exception


@dataclass(slots=True, eq=False)
class Unit:
    """Records that wait for their next try."""

    entries: Sequence[Entry]
    blame: Blame
    kind: str
    since_s: float
    """When these records, or the unit that they were part of, first failed in this way."""
    passed_before: int
    tries: int = 0
    due_s: float = 0.0


class PostponedUnits:
    """All postponed units of a loop. Only the loop's thread uses it."""

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
        """Whether no more may be added. If so many records fail, none of them is the cause."""
        return self.records >= self._most_records

    @property
    def is_outage(self) -> bool:
        """Whether something has failed and nothing has got through since."""
        return any(unit.passed_before == self._passed for unit in self._units)

    def due_in_s(self) -> float | None:
        """Seconds until the next try. None: there is nothing to try."""
        return max(0.0, min(unit.due_s for unit in self._units) - self._clock()) if self._units else None

    def take(self) -> Unit | None:
        """Returns the next unit that is due, or None. If it fails again, the caller gives it back with `failed`."""
        unit = min(self._units, key=lambda unit: unit.due_s, default=None)
        if unit is None or unit.due_s > self._clock():
            return None
        self._units.remove(unit)
        return unit

    def may_be_set_aside(self, unit: Unit) -> bool:
        """Whether the unit is to blame if it fails in the same way again: it is one record, has failed for long, and is not one of many."""
        is_lonely = not self._units and self._passed == unit.passed_before
        gets_through = self._passed - unit.passed_before > self.records
        return (
            len(unit.entries) == 1
            and unit.blame is not Blame.LOCKED
            and self._clock() - unit.since_s >= self._set_aside_after_s
            and (is_lonely or gets_through)
        )

    def passed(self, records: int) -> None:
        """Notes that this many records got through. After an outage this makes all waiting units due."""
        if self.is_outage:
            for unit in self._units:
                unit.due_s = 0.0
        self._passed += records

    def failed(self, failure: Failure, tried: Unit | None, *, took_s: float) -> None:
        """Keeps the failed records, in parts. `tried` is the unit that they were, or were part of."""
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
        """Drops the records of partitions that another member owns now."""
        for unit in self._units:
            unit.entries = [entry for entry in unit.entries if entry.partition not in partitions]
        self._units = [unit for unit in self._units if unit.entries]


def _parts(entries: Sequence[Entry], fault: Blame) -> Sequence[Sequence[Entry]]:
    """Returns two halves that share no batch. A single batch is split too, unless the error is a lock: that blocks the whole batch."""
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
