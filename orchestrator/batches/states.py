"""The two state machines as data, and the only function that derives a batch's status (docs/states.md)."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.statuses import TERMINAL_BATCH_STATUSES, BatchStatus, ItemStatus, Outcome

__all__ = [
    "BATCH_TRANSITIONS",
    "ITEM_TRANSITIONS",
    "TERMINAL_BATCH_STATUSES",
    "BatchStatus",
    "Counts",
    "ItemStatus",
    "Outcome",
    "derive_batch_status",
]

ITEM_TRANSITIONS: Mapping[ItemStatus, frozenset[ItemStatus]] = {
    ItemStatus.PENDING: frozenset({ItemStatus.SUCCESS, ItemStatus.FAILED, ItemStatus.CANCELLED}),
    ItemStatus.FAILED: frozenset({ItemStatus.PENDING}),  # a retry, with attempt + 1
    ItemStatus.SUCCESS: frozenset(),
    ItemStatus.CANCELLED: frozenset(),
}

# What `derive_batch_status` can lead to. Nothing decides by it; the tests hold the function to it.
BATCH_TRANSITIONS: Mapping[BatchStatus, frozenset[BatchStatus]] = {
    BatchStatus.PENDING: frozenset({BatchStatus.PROCESSING, BatchStatus.CANCELLED}),
    BatchStatus.PROCESSING: frozenset(
        {BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED, BatchStatus.PROCESSING}
    ),
    BatchStatus.PARTIAL: frozenset({BatchStatus.PROCESSING}),  # a retry
    BatchStatus.FAILED: frozenset({BatchStatus.PROCESSING}),  # a retry
    BatchStatus.COMPLETED: frozenset(),
    BatchStatus.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items of a batch are in each state. `total` is always their sum."""

    pending: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        if min(self.pending, self.completed, self.failed, self.cancelled) < 0:
            raise ValueError(f"a count is negative: {self}")

    @property
    def total(self) -> int:
        """All items."""
        return self.pending + self.completed + self.failed + self.cancelled

    def moved(self, source: ItemStatus, target: ItemStatus, items: int = 1) -> "Counts":
        """The counts after this many items made the transition. Raises ValueError if the state machine has no such transition."""
        if target not in ITEM_TRANSITIONS[source]:
            raise ValueError(f"an item never goes from {source} to {target}")
        counts = {status: self.of(status) for status in ItemStatus}
        counts[source] -= items
        counts[target] += items
        return Counts(
            counts[ItemStatus.PENDING], counts[ItemStatus.SUCCESS], counts[ItemStatus.FAILED], counts[ItemStatus.CANCELLED]
        )

    def of(self, status: ItemStatus) -> int:
        """How many items are in this state."""
        if status is ItemStatus.PENDING:
            return self.pending
        if status is ItemStatus.SUCCESS:
            return self.completed
        return self.failed if status is ItemStatus.FAILED else self.cancelled

    def as_event(self) -> dict[str, int]:
        """The counts with the names that events and the API use."""
        return {
            "total_items": self.total,
            "pending": self.pending,
            "completed": self.completed,
            "failed": self.failed,
            "cancelled": self.cancelled,
        }


def derive_batch_status(counts: Counts, *, was_cancelled: bool, has_all_parts: bool = True) -> BatchStatus:
    """The status of a batch with these counts."""
    if was_cancelled:
        return BatchStatus.CANCELLED
    if not has_all_parts:
        return BatchStatus.PENDING
    if counts.pending:
        return BatchStatus.PROCESSING
    if counts.completed == counts.total:
        return BatchStatus.COMPLETED
    return BatchStatus.PARTIAL if counts.completed else BatchStatus.FAILED
