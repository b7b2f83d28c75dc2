"""Folds outcomes into the projection and derives everything that depends on a batch's counts.

Every change of an item's state goes through `settle`, so counts, status, version and the completion event stay consistent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from orchestrator.batches.model import BatchView
from orchestrator.batches.repository import ActivityRepository, BatchChange, EventOf, OutcomeKey
from orchestrator.batches.states import TERMINAL_BATCH_STATUSES, Counts, ItemStatus, derive_batch_status
from schemas import event_builders


class Ended(NamedTuple):
    """A batch that a fold has brought to its end: its size, and the time since its last attempts began."""

    items: int
    took: timedelta


class FoldedKeys(NamedTuple):
    """What a fold of outcomes found: the indexes of keys without an outcome, and the batches that it ended."""

    unknown: Sequence[int]
    ended: Sequence[Ended]


def fold_outcomes(repository: ActivityRepository, keys: Sequence[OutcomeKey]) -> FoldedKeys:
    """Folds the outcomes that the keys name into their batches.

    Idempotent and independent of order: any permutation of the same keys, with repetitions, gives the same projection.
    """
    batches = repository.lock_for_fold(list(map(UUID, sorted({key.batch_id for key in keys}))))
    folded = repository.fold(keys, batches)
    now = folded.at
    if now is None:
        return FoldedKeys(folded.unknown, ())
    # By number: UUIDs compare in Python.
    changed = sorted(folded.changed.items(), key=lambda each: each[0].int)
    settled = [settle(batches[batch_id], moves, ItemStatus.PENDING, now=now) for batch_id, moves in changed]
    repository.change_batches(settled)
    ends = [(batches[change.batch_id], event) for change in settled if (event := _completion(batches[change.batch_id], change))]
    if ends:
        repository.publish_all([event for _, event in ends])
        # Nothing more happens to the items, and those who follow the batch get another notification.
        repository.wake_relays(hurried=False)
    return FoldedKeys(folded.unknown, [Ended(batch.counts.total, now - batch.measurement.began_at) for batch, _ in ends])


def fold_whole_batch(repository: ActivityRepository, batch: BatchView) -> BatchChange | None:
    """Folds all outcomes of a locked batch without writing the counts yet. Returns None if nothing changed."""
    moves = repository.fold_batch(batch.batch_id)
    return settle(batch, moves, ItemStatus.PENDING, now=repository.clock()) if moves else None


def fold_and_announce(repository: ActivityRepository, batch: BatchView) -> None:
    """Folds every outcome of a locked batch, and writes the new counts and the completion event. `batch` is out of date afterwards."""
    folded = fold_whole_batch(repository, batch)
    if folded is not None:
        repository.change_batches([folded])
        announce_completion(repository, batch, folded)


def settle(
    batch: BatchView, moves: Mapping[ItemStatus, int], source: ItemStatus, *, now: datetime, cancelling: bool = False
) -> BatchChange:
    """The batch's new row after this many items moved from `source` to each state. Raises ValueError on an impossible move."""
    counts: Counts = batch.counts
    for target, items in moves.items():
        counts = counts.moved(source, target, items)
    status = derive_batch_status(counts, was_cancelled=cancelling or batch.cancelled_at is not None)
    # A cancelled batch is complete when no item waits for an external service's decision any more.
    is_complete = status in TERMINAL_BATCH_STATUSES and not counts.pending
    return BatchChange(batch.batch_id, counts, status, now, now if is_complete else None)


def announce_completion(repository: ActivityRepository, batch: BatchView, change: BatchChange) -> None:
    """Adds the completion event to the transaction that completes the batch. Redelivered results change no row and add no event."""
    completed = _completion(batch, change)
    if completed is not None:
        repository.publish_all([completed])


def _completion(batch: BatchView, change: BatchChange) -> EventOf | None:
    if change.completed_at is None or batch.completed_at is not None:
        return None
    completed = event_builders.batch_completed(
        batch_id=batch.batch_id,
        organization_id=batch.organization_id,
        status=change.status,
        counts=change.counts.as_event(),
        retry_number=batch.retry_number,
        completed_at=change.completed_at,
        trace_id=batch.trace_id,
    )
    return EventOf(batch.organization_id, batch.batch_id, completed)
