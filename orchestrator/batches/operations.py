"""The operations on batches: submit, status, retry and cancel, and list, relabel, delete, one item.

Each runs in the caller's transaction. It either raises and changes nothing, or returns the client's result. The caller commits before it
responds to the client. `edit_versions` are the versions that the client has seen; None: concurrent edits don't matter.
"""

from collections.abc import Sequence, Set
from dataclasses import replace
from uuid import UUID

from orchestrator.batches.access import may_change, may_see, visible
from orchestrator.batches.errors import ConflictError, NotFoundError, OperationError
from orchestrator.batches.guards import check_edit_version, earlier_result, lock_visible, matches_nothing, present, store_result
from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchFilter,
    BatchPage,
    BatchView,
    Cancelled,
    Idempotency,
    ItemFilter,
    ItemView,
    NewBatch,
    Retried,
    RetryRequest,
    StatusView,
    Submitted,
)
from orchestrator.batches.parts import incomplete_batch, retry_events
from orchestrator.batches.projection import announce_completion, fold_and_announce, fold_whole_batch, settle
from orchestrator.batches.repository import ActivityRepository, NewAttempt
from orchestrator.batches.retry import choose_attempts, reject_corrections_in_doubt, reject_duplicate_corrections
from orchestrator.batches.states import TERMINAL_BATCH_STATUSES, BatchStatus, ItemStatus
from orchestrator.batches.submit import PlanCheck, SubmissionRequest, submit_bulk_registrations
from schemas import event_builders
from schemas.corrections import Correction
from schemas.ids import item_position


def submit_bulk_registration(
    repository: ActivityRepository,
    actor: Actor,
    batch: NewBatch,
    idempotency: Idempotency | None = None,
    hold_to_plan: PlanCheck | None = None,
) -> Submitted:
    """Accepts a batch: stores it with its items and the event that starts it, in one transaction.

    `hold_to_plan` returns the batch with its predictions, or raises if one no longer holds (`preview.Planner.hold_to`). It is called after
    the key is checked, because a batch that was already accepted changes the predictions. Raises ForbiddenError, InvalidRequestError (the
    coordinator is not in the directory), KeyReusedError, ConflictError (the key's batch was deleted).
    """
    (result,) = submit_bulk_registrations(repository, [SubmissionRequest(actor, batch, idempotency)], hold_to_plan)
    if isinstance(result, OperationError):
        raise result
    return result


def get_bulk_submission_status(repository: ActivityRepository, actor: Actor, batch_id: UUID, items: ItemFilter) -> StatusView:
    """A batch and its items, from one snapshot. For an auditor, without notes. Raises NotFoundError."""
    view = repository.status(batch_id, items)
    if view is None or not may_see(actor, view.batch):
        raise NotFoundError
    return view if actor.may_read_notes else replace(view, items=[item.without_notes() for item in view.items])


def list_batches(repository: ActivityRepository, actor: Actor, wanted: BatchFilter) -> BatchPage:
    """The batches that the caller may see, newest first."""
    own = actor.sees_only_coordinator
    if own is not None:
        if wanted.coordinator_id not in (None, own):
            return BatchPage((), 0, None)
        wanted = replace(wanted, coordinator_id=own)
    return repository.list_batches(actor.organization_id, wanted)


def get_item(
    repository: ActivityRepository, actor: Actor, batch_id: UUID, item_id: UUID
) -> tuple[ItemView, Sequence[AttemptView]]:
    """One item with its finished attempts. For an auditor, without notes. Raises NotFoundError."""
    visible(repository, actor, batch_id)
    position = item_position(batch_id, item_id)
    items = [] if position is None else repository.items_at(batch_id, [position])
    if not items:
        raise NotFoundError("item")
    [item], attempts = items, repository.history(batch_id, items[0].position)
    return (item, attempts) if actor.may_read_notes else (item.without_notes(), [attempt.without_notes() for attempt in attempts])


def retry_failed_items(
    repository: ActivityRepository, actor: Actor, batch_id: UUID, request: RetryRequest, idempotency: Idempotency | None = None
) -> Retried:
    """Starts a new attempt of failed items, all or none. Successful items are never run again.

    Raises NotFoundError, ForbiddenError, ConflictError, InvalidRequestError, KeyReusedError.
    """
    may_change(actor)
    batch = lock_visible(repository, actor, batch_id)
    earlier = earlier_result(repository, actor, idempotency, batch_id)
    if earlier is not None:
        return Retried(present(repository, batch_id), int(earlier.result["retried"]), earlier.replayed)
    if batch.status is BatchStatus.CANCELLED:
        raise ConflictError("batch_cancelled", "The batch was cancelled; its items can't be retried.")
    # Fold outcomes that the aggregator has not handled yet, so that an item that failed a moment ago can be retried.
    fold_and_announce(repository, batch)
    batch = present(repository, batch_id)
    attempts = choose_attempts(repository, batch, request)
    reject_duplicate_corrections(repository, batch, request, attempts)
    reject_corrections_in_doubt(repository, batch, attempts)
    if attempts:
        batch = _begin(repository, actor, batch, attempts)
    if idempotency is not None:
        store_result(repository, actor, idempotency, {"retried": len(attempts)})
    return Retried(batch, len(attempts))


def _begin(
    repository: ActivityRepository, actor: Actor, batch: BatchView, attempts: Sequence[tuple[ItemView, NewAttempt]]
) -> BatchView:
    now = repository.clock()
    number = repository.begin_attempts(batch, [new for _, new in attempts], by=actor.subject, at=now)
    repository.change_batches([settle(batch, {ItemStatus.PENDING: len(attempts)}, ItemStatus.FAILED, now=now)])
    published = retry_events(
        batch_id=batch.batch_id,
        organization_id=batch.organization_id,
        retry_number=number,
        retried_by=actor.subject,
        attempts=[(new.position, item.attempt + 1, _without_notes(new.correction)) for item, new in attempts],
        time=now,
        trace_id=batch.trace_id,
    )
    repository.publish(batch.organization_id, batch.batch_id, published)
    return present(repository, batch.batch_id)


def _without_notes(correction: Correction | None) -> Correction | None:
    if correction is None:
        return None
    public = correction.copy()
    public.pop("notes", None)
    return public


def cancel_batch(
    repository: ActivityRepository,
    actor: Actor,
    batch_id: UUID,
    reason: str | None,
    *,
    edit_versions: Set[int] | None = None,
    idempotency: Idempotency | None = None,
) -> Cancelled:
    """Stops a batch. Once the transaction has committed the counts are final: no activity of the batch is created afterwards.

    Items that were sent to an external registration service and are not decided yet stay pending. They are counted as `unresolved`; the
    service's response makes each of them registered or cancelled.

    Cancelling twice is a no-op. Raises NotFoundError, ForbiddenError, ConflictError (it has finished), PreconditionError, KeyReusedError.
    """
    may_change(actor)
    batch = lock_visible(repository, actor, batch_id)
    earlier = earlier_result(repository, actor, idempotency, batch_id)
    if earlier is not None:
        return Cancelled(present(repository, batch_id), earlier.replayed)
    if batch.status is not BatchStatus.CANCELLED:
        check_edit_version(batch, edit_versions)
        _cancel(repository, actor, batch, reason)
    if idempotency is not None:
        store_result(repository, actor, idempotency, {})
    return Cancelled(present(repository, batch_id))


def _cancel(repository: ActivityRepository, actor: Actor, batch: BatchView, reason: str | None) -> None:
    folded = fold_whole_batch(repository, batch)
    if folded is not None:
        # The counts of the fold and of the cancel are written together, as one change with one version.
        batch = replace(batch, counts=folded.counts, status=folded.status)
    if batch.status in TERMINAL_BATCH_STATUSES:
        raise ConflictError("batch_finished", f"The batch is already {batch.status}; there is nothing left to cancel.")
    now = repository.clock_after_decisions(batch.batch_id)
    cancelled = repository.cancel_pending(batch.batch_id, now)
    # A batch with missing parts has no items yet, but counts as if it had.
    stopped_items = batch.counts.pending if batch.status is BatchStatus.PENDING else len(cancelled)
    change = settle(batch, {ItemStatus.CANCELLED: stopped_items}, ItemStatus.PENDING, now=now, cancelling=True)
    repository.mark_cancelled(batch.batch_id, at=now, by=actor.subject, reason=reason)
    repository.change_batches([change])
    stopped = event_builders.batch_cancelled(
        batch_id=batch.batch_id,
        organization_id=batch.organization_id,
        reason=reason,
        cancelled_by=actor.subject,
        counts=change.counts.as_event(),
        cancelled_positions=_runs(cancelled),
        time=now,
        trace_id=batch.trace_id,
    )
    repository.publish(batch.organization_id, batch.batch_id, stopped)
    if batch.status is BatchStatus.PENDING:
        repository.publish(batch.organization_id, batch.batch_id, [incomplete_batch(batch, at=now)])
    else:
        announce_completion(repository, batch, change)


def _runs(cancelled: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Compresses (position, attempt), ordered by position, into runs of (first, last, attempt)."""
    runs: list[tuple[int, int, int]] = []
    for position, attempt in cancelled:
        if runs and runs[-1][1] == position - 1 and runs[-1][2] == attempt:
            runs[-1] = (runs[-1][0], position, attempt)
        else:
            runs.append((position, position, attempt))
    return runs


def relabel_batch(
    repository: ActivityRepository,
    actor: Actor,
    batch_id: UUID,
    label: str | None,
    *,
    edit_versions: Set[int] | None = None,
    idempotency: Idempotency | None = None,
) -> BatchView:
    """Changes the label. Setting the same label again is not an edit.

    Raises NotFoundError, ForbiddenError, PreconditionError, KeyReusedError.
    """
    may_change(actor)
    batch = lock_visible(repository, actor, batch_id)
    if earlier_result(repository, actor, idempotency, batch_id) is not None:
        return present(repository, batch_id)
    if idempotency is not None:
        store_result(repository, actor, idempotency, {})
    if batch.label == label and not matches_nothing(edit_versions):
        # The precondition is skipped: this very call may have set the label, with its acknowledgement lost (RFC 9110, 13.1.1).
        return present(repository, batch_id)
    check_edit_version(batch, edit_versions)
    now = repository.clock()
    repository.relabel(batch_id, label, now)
    relabelled = event_builders.batch_relabelled(
        batch_id=batch_id,
        organization_id=batch.organization_id,
        label=label,
        version=batch.version + 1,
        time=now,
        trace_id=batch.trace_id,
    )
    repository.publish(batch.organization_id, batch_id, [relabelled])
    return present(repository, batch_id)


def dismiss_batch(
    repository: ActivityRepository, actor: Actor, batch_id: UUID, *, idempotency: Idempotency | None = None
) -> BatchView:
    """Takes a batch off the list of those that need attention, until another item of it fails; a no-op for any other batch.

    Raises NotFoundError, ForbiddenError, KeyReusedError.
    """
    may_change(actor)
    batch = lock_visible(repository, actor, batch_id)
    # A repetition after another item has failed must not hide that failure.
    if earlier_result(repository, actor, idempotency, batch_id) is not None:
        return present(repository, batch_id)
    if idempotency is not None:
        store_result(repository, actor, idempotency, {})
    if batch.needs_attention:
        repository.dismiss(batch_id, at=repository.clock(), by=actor.subject)
    return present(repository, batch_id)


def delete_batch(repository: ActivityRepository, actor: Actor, batch_id: UUID, *, edit_versions: Set[int] | None = None) -> None:
    """Removes a finished batch from view; its activities stay. Deleting twice is a no-op, until the batch is purged.

    Raises NotFoundError, ForbiddenError, ConflictError, PreconditionError.
    """
    may_change(actor)
    visible(repository, actor, batch_id, or_deleted=True)
    batch = repository.lock_batch(batch_id)
    if batch is None:
        # Already deleted, perhaps by this very call, with its acknowledgement lost.
        return
    check_edit_version(batch, edit_versions)
    if batch.status not in TERMINAL_BATCH_STATUSES or batch.counts.pending:
        raise ConflictError("batch_running", "The batch is still running. Cancel it, or wait until it has finished.")
    now = repository.clock()
    repository.mark_deleted(batch_id, now)
    deleted = event_builders.batch_deleted(
        batch_id=batch_id, organization_id=batch.organization_id, version=batch.version + 1, time=now, trace_id=batch.trace_id
    )
    repository.publish(batch.organization_id, batch_id, [deleted])
