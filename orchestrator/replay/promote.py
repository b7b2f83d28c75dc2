"""Promotion: merges one rebuilt batch into the live tables while the service runs.

The topics propose and the database decides, because anybody who may write to the topic batches could have written any batch, retry, cancel,
label or deletion (docs/events.md). A batch is merged only if the database has its parts or an outcome of it. An attempt counts only if an
outcome or the history has it; a label, a cancel or a deletion only if the table `batch_edit` has it; a revocation only if the activity has it.
Items never lose an outcome, attempts never decrease, and cancels and deletions remain.

A batch is left as it is while somebody of its organization is being forgotten, or if somebody was since the replay read who is: the rebuilt
batch would bring an id back, or the pseudonym would hide the person's notes from the search. So is a batch that is older than the
forgetting of a person who was readmitted, if only a record from after the forgetting was read.
"""

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


def _merge(merge: BatchMerge) -> Promoted:
    rebuilt = merge.rebuilt()
    if rebuilt is None:
        return Promoted.NOT_BORNE_OUT
    people = merge.people(rebuilt.organization_id)
    if people.are_forgotten_now:
        return Promoted.FORGETTING
    if people.have_changed:
        return Promoted.MOVED
    live = merge.lock()
    evidence = merge.evidence(rebuilt, None if live is None else live.version)
    if evidence.is_purged:
        return Promoted.PURGED
    if evidence.is_later:
        return Promoted.REPEATED
    is_foreign = live is not None and live.organization_id != rebuilt.organization_id
    if is_foreign or evidence.is_contradicted or (live is None and not evidence.is_known):
        return Promoted.NOT_BORNE_OUT
    edits = merge.edits()
    cancelled_at = _cancelled_at(rebuilt, live, evidence, edits)
    if not rebuilt.has_items and (cancelled_at is None or evidence.has_items):
        return Promoted.NOT_BORNE_OUT
    if evidence.is_collecting and cancelled_at is None:
        return Promoted.MOVED
    merge.version = merge.insert_batch(rebuilt, edits, evidence.now) if live is None else live.version + 1
    has_items = rebuilt.has_items and not evidence.is_collecting
    changed = 0
    if has_items:
        items = merge.merge_items(rebuilt)
        if items.contradicted:
            raise _LeftError(Promoted.NOT_BORNE_OUT)
        changed = items.changed
    announced_at = live.completed_at if live is not None else None
    announced_at = announced_at or merge.announced_at(rebuilt, 0 if live is None else live.retry_number)
    is_announced = not has_items or announced_at is not None
    if has_items:
        # The transaction that completes a batch also publishes its completion event (docs/architecture.md), but a replay publishes
        # nothing. So a batch whose completion was never announced keeps its last pending items, and the sweeper folds them.
        changed += merge.fold(folds_pending=is_announced or merge.undecided() > 0, is_cancelled=cancelled_at is not None)
        changed += merge.merge_revocations()
    counts, retries, revoked = merge.counts()
    if not has_items:
        counts = Counts(cancelled=rebuilt.total_items)
    if counts.total != rebuilt.total_items:
        raise _LeftError(Promoted.MOVED)
    is_label_known = live is None or (evidence.is_unmoved and edits.edits >= live.edit_version - 1)
    merged = _merged_batch(
        rebuilt, live, counts, retries, revoked, cancelled_at, edits, announced_at, is_label_known=is_label_known
    )
    is_changed = merge.merge_batch(merged, edits, has_changed=changed > 0 or live is None, now=evidence.now)
    return Promoted.MERGED if is_changed else Promoted.UNCHANGED


def _cancelled_at(rebuilt: Row[Any], live: Row[Any] | None, evidence: Row[Any], edits: Row[Any]) -> Any:
    """When the batch was cancelled; None if it was not. Raises _LeftError if only outcomes show the cancel, and nothing shows by whom."""
    if live is not None and live.cancelled_at is not None:
        return live.cancelled_at
    if edits.cancelled_at is None and evidence.cancelled_at is not None and rebuilt.cancelled_at is None:
        raise _LeftError(Promoted.MOVED)
    return edits.cancelled_at or evidence.cancelled_at


def _merged_batch(
    rebuilt: Row[Any],
    live: Row[Any] | None,
    counts: Counts,
    retries: int,
    revoked: int,
    cancelled_at: Any,
    edits: Row[Any],
    announced_at: datetime | None,
    *,
    is_label_known: bool,
) -> MergedBatch:
    status = derive_batch_status(counts, was_cancelled=cancelled_at is not None)
    is_complete = status in TERMINAL_BATCH_STATUSES and not counts.pending
    completed_at = (announced_at or cancelled_at) if is_complete else None
    deleted_at = None if live is None else live.deleted_at
    return MergedBatch(
        is_label_known=is_label_known,
        label=edits.label if edits.is_relabelled else rebuilt.submitted_label,
        counts=counts,
        revoked=revoked,
        status=status,
        retry_number=max(retries, 0 if live is None else live.retry_number),
        completed_at=completed_at,
        cancelled_at=cancelled_at,
        deleted_at=deleted_at or (edits.deleted_at if completed_at is not None else None),
    )
