"""Promotion: merges one rebuilt batch into the live tables while the service runs.

The topics propose and the database decides, because anybody who may write to the topic batches could have written any batch, retry, cancel,
label or deletion (docs/events.md). A batch is merged only if the database has its parts or an outcome of it. An attempt counts only if an
outcome or the history has it; a label, a cancel or a deletion only if the table `batch_edit` has it; a revocation only if the activity has it.
Items never lose an outcome, attempts never decrease, and cancels and deletions remain.

A batch stays as it is while somebody of its organization is being forgotten, and if somebody was forgotten or readmitted after the replay had
read who is. Otherwise the rebuilt batch would bring an id back, or the pseudonym would hide the person's notes from the search. A batch also
stays if it is older than the forgetting of a person who was readmitted since, and only a record from after the forgetting was read.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from orchestrator.batches.states import TERMINAL_BATCH_STATUSES, Counts, derive_batch_status
from orchestrator.replay.batch_merge import BatchMerge, MergedBatch
from orchestrator.storage.blame import is_transient


class Promoted(StrEnum):
    """The result of promoting a batch: merged, or why not."""

    MERGED = "merged"
    UNCHANGED = "unchanged"
    PURGED = "purged"
    MOVED = "changed since it was read: replay again"
    REPEATED = "read only as it was written again after a person had been forgotten: replay again from an earlier time"
    FORGETTING = "somebody is being forgotten: replay again when that is done"
    NOT_BORNE_OUT = "not confirmed by the database"


class _LeftError(Exception):
    """The batch is left as it is. The transaction is rolled back."""

    def __init__(self, verdict: Promoted) -> None:
        super().__init__(verdict)
        self.verdict = verdict


def promote(connection: Connection, batch_id: UUID) -> Promoted:
    """Merges one batch in a transaction of its own, and retries when a concurrent transaction makes it fail.

    `connection` must be the replay's. A promotion may be interrupted and repeated at any time.
    """
    retrying = Retrying(
        retry=retry_if_exception(_is_worth_another_try),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        stop=stop_after_delay(30.0),
        reraise=True,
    )
    try:
        for attempt in retrying:
            with attempt, connection.begin():
                promoted = _merge(BatchMerge(connection, batch_id))
    except _LeftError as left:
        return left.verdict
    return promoted


def _is_worth_another_try(error: BaseException) -> bool:
    # If the connection is lost, so are the shadow tables.
    return is_transient(error) and not (isinstance(error, DBAPIError) and error.connection_invalidated)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of one batch while it is locked."""

    rebuilt: Row[Any]
    """The batch as the topics have it."""
    live: Row[Any] | None
    """The batch's row; None if there is none."""
    evidence: Row[Any]
    """What the rest of the database has about the batch."""
    edits: Row[Any]
    """What people have changed about the batch."""

    @property
    def retry_number(self) -> int:
        """That of the live row."""
        return 0 if self.live is None else int(self.live.retry_number)

    @property
    def is_label_known(self) -> bool:
        """Whether `edits` has every edit of the live row."""
        return self.live is None or bool(self.evidence.is_unmoved and self.edits.edits >= self.live.edit_version - 1)


def _merge(merge: BatchMerge) -> Promoted:
    facts = _facts(merge)
    cancelled_at = _cancelled_at(facts)
    has_items = _has_items(facts, cancelled_at)
    merge.version = _next_version(merge, facts)
    changed = _merge_items(merge, facts.rebuilt) if has_items else 0
    announced_at = _announced_at(merge, facts)
    if has_items:
        changed += _fold(merge, is_announced=announced_at is not None, is_cancelled=cancelled_at is not None)
    merged = _merged_batch(merge, facts, cancelled_at, announced_at, has_items=has_items)
    has_changed = changed > 0 or facts.live is None
    is_written = merge.merge_batch(merged, facts.edits, has_changed=has_changed, now=facts.evidence.now)
    return Promoted.MERGED if is_written else Promoted.UNCHANGED


def _facts(merge: BatchMerge) -> _Facts:
    """Reads what is known of the batch, and locks it. Raises _LeftError if it must not be merged."""
    rebuilt = merge.rebuilt()
    if rebuilt is None:
        raise _LeftError(Promoted.NOT_BORNE_OUT)
    people = merge.people(rebuilt.organization_id)
    if people.are_forgotten_now:
        raise _LeftError(Promoted.FORGETTING)
    if people.have_changed:
        raise _LeftError(Promoted.MOVED)
    live = merge.lock()
    evidence = merge.evidence(rebuilt, None if live is None else live.version)
    if evidence.is_purged:
        raise _LeftError(Promoted.PURGED)
    if evidence.is_later:
        raise _LeftError(Promoted.REPEATED)
    is_foreign = live is not None and live.organization_id != rebuilt.organization_id
    if is_foreign or evidence.is_contradicted or (live is None and not evidence.is_known):
        raise _LeftError(Promoted.NOT_BORNE_OUT)
    return _Facts(rebuilt, live, evidence, merge.edits())


def _cancelled_at(facts: _Facts) -> Any:
    """When the batch was cancelled; None if it was not. Raises _LeftError if only outcomes show the cancel, and nothing shows by whom."""
    live, evidence, edits = facts.live, facts.evidence, facts.edits
    if live is not None and live.cancelled_at is not None:
        return live.cancelled_at
    if edits.cancelled_at is None and evidence.cancelled_at is not None and facts.rebuilt.cancelled_at is None:
        raise _LeftError(Promoted.MOVED)
    return edits.cancelled_at or evidence.cancelled_at


def _has_items(facts: _Facts, cancelled_at: Any) -> bool:
    """Whether there are items to merge. A batch that was cancelled before all of its parts came has none. Any other without items is left."""
    if not facts.rebuilt.has_items and (cancelled_at is None or facts.evidence.has_items):
        raise _LeftError(Promoted.NOT_BORNE_OUT)
    if facts.evidence.is_collecting and cancelled_at is None:
        raise _LeftError(Promoted.MOVED)
    return facts.rebuilt.has_items and not facts.evidence.is_collecting


def _next_version(merge: BatchMerge, facts: _Facts) -> int:
    """The version that the batch has if anything changes. Creates the row if there is none."""
    if facts.live is None:
        return merge.insert_batch(facts.rebuilt, facts.edits, facts.evidence.now)
    return int(facts.live.version) + 1


def _merge_items(merge: BatchMerge, rebuilt: Row[Any]) -> int:
    """Creates and repairs the items. Returns how many changed. Raises _LeftError if the database has activities with other values."""
    items = merge.merge_items(rebuilt)
    if items.contradicted:
        raise _LeftError(Promoted.NOT_BORNE_OUT)
    return int(items.changed)


def _announced_at(merge: BatchMerge, facts: _Facts) -> datetime | None:
    """When the batch's completion was announced; None if it was not."""
    known = None if facts.live is None else facts.live.completed_at
    return known or merge.announced_at(facts.rebuilt, facts.retry_number)


def _fold(merge: BatchMerge, *, is_announced: bool, is_cancelled: bool) -> int:
    """Gives the items the states that their outcomes and activities say. Returns how many changed.

    The transaction that completes a batch also publishes its completion event (docs/architecture.md), but a replay publishes nothing. So a
    batch whose completion was never announced keeps its last pending items, and the sweeper folds them.
    """
    changed = merge.fold(folds_pending=is_announced or merge.undecided() > 0, is_cancelled=is_cancelled)
    return changed + merge.merge_revocations()


def _merged_batch(
    merge: BatchMerge, facts: _Facts, cancelled_at: Any, announced_at: datetime | None, *, has_items: bool
) -> MergedBatch:
    """The new values of the batch's row, from its merged items. Raises _LeftError if there are not as many as the batch has."""
    counts, retries, revoked = merge.counts()
    if not has_items:
        counts = Counts(cancelled=facts.rebuilt.total_items)
    if counts.total != facts.rebuilt.total_items:
        raise _LeftError(Promoted.MOVED)
    status = derive_batch_status(counts, was_cancelled=cancelled_at is not None)
    is_complete = status in TERMINAL_BATCH_STATUSES and not counts.pending
    completed_at = (announced_at or cancelled_at) if is_complete else None
    deleted_at = None if facts.live is None else facts.live.deleted_at
    return MergedBatch(
        is_label_known=facts.is_label_known,
        label=facts.edits.label if facts.edits.is_relabelled else facts.rebuilt.submitted_label,
        counts=counts,
        revoked=revoked,
        status=status,
        retry_number=max(retries, facts.retry_number),
        completed_at=completed_at,
        cancelled_at=cancelled_at,
        deleted_at=deleted_at or (facts.edits.deleted_at if completed_at is not None else None),
    )
