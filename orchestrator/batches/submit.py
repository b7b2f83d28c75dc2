"""Accepts submissions: several of one organization in one transaction, so that a burst needs few commits.

`operations.submit_bulk_registration` accepts a single one.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from orchestrator.batches.access import may_change, visible
from orchestrator.batches.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    KeyReusedError,
    NotFoundError,
    OperationError,
)
from orchestrator.batches.model import Actor, BatchView, Idempotency, Measurement, NewBatch, Submitted
from orchestrator.batches.parts import submitted_events
from orchestrator.batches.repository import ActivityRepository, BatchToCreate, KeyUse, UsedKey
from orchestrator.batches.states import BatchStatus, Counts
from schemas.mistakes import COORDINATOR_UNKNOWN


@dataclass(frozen=True, slots=True)
class SubmissionRequest:
    """A submission and its caller. `batch` already has its id, so that a repeated transaction creates one batch."""

    actor: Actor
    batch: NewBatch
    idempotency: Idempotency | None = None


SubmissionResult = Submitted | OperationError

PlanCheck = Callable[[NewBatch], NewBatch]


def submit_bulk_registrations(
    repository: ActivityRepository, requests: Sequence[SubmissionRequest], hold_to_plan: PlanCheck | None = None
) -> list[SubmissionResult]:
    """Accepts all acceptable submissions and returns one result for each, in order. A refused submission changes nothing and does not affect
    the others.

    All are of one organization. A refusal is a ForbiddenError, InvalidRequestError (the coordinator is not in the directory),
    KeyReusedError or ConflictError (its batch was deleted). `hold_to_plan` returns a batch with its predictions, or raises if one no
    longer holds (`preview.Planner.hold_to`).
    """
    return list(_submit(repository, requests, hold_to_plan))


def may_submit(repository: ActivityRepository, actor: Actor, batch: NewBatch) -> None:
    """Raises ForbiddenError or InvalidRequestError (coordinator_unknown) unless the caller may submit this batch."""
    may_register_as(repository, actor, batch.coordinator_id)


def may_register_as(repository: ActivityRepository, actor: Actor, coordinator_id: str) -> None:
    """Raises ForbiddenError or InvalidRequestError (coordinator_unknown) unless the caller may act for this coordinator."""
    _check(actor, coordinator_id, repository.known_coordinators(actor.organization_id, {coordinator_id}))


def _submit(
    repository: ActivityRepository, requests: Sequence[SubmissionRequest], hold_to_plan: PlanCheck | None
) -> Iterator[SubmissionResult]:
    organization_id = requests[0].actor.organization_id
    now, known = repository.clock_and_coordinators(organization_id, {request.batch.coordinator_id for request in requests})
    refusals = {request.batch.batch_id: refusal for request in requests if (refusal := _refusal(request, known)) is not None}
    # Before any refusal, look for a batch that an earlier run of this very call stored before its commit's acknowledgement was lost. It is
    # the result whatever has changed since; the stored batch itself changes the predictions.
    stored = {
        batch.batch_id: batch
        for request in requests
        if request.batch.batch_id in refusals or hold_to_plan is not None
        if (batch := repository.find_batch(request.batch.batch_id)) is not None
    }
    allowed = [request for request in requests if request.batch.batch_id not in refusals.keys() | stored.keys()]
    used = repository.use_keys(
        [
            KeyUse(request.actor, request.idempotency, request.batch.batch_id)
            for request in allowed
            if request.idempotency is not None
        ]
    )
    fresh = [request for request in allowed if request.batch.batch_id not in used]
    if hold_to_plan is not None:
        # After the keys, for the same reason.
        fresh = [replace(request, batch=hold_to_plan(request.batch)) for request in fresh]
    views = _create(repository, fresh, now)
    for request in requests:
        batch_id = request.batch.batch_id
        if batch_id in stored:
            yield Submitted(stored[batch_id], replayed=False)
        elif batch_id in refusals:
            yield refusals[batch_id]
        elif batch_id in used:
            yield _of_used_key(repository, request, used[batch_id])
        else:
            yield Submitted(views.get(batch_id) or visible(repository, request.actor, batch_id), replayed=False)


def _check(actor: Actor, coordinator_id: str, known_coordinators: Set[str]) -> None:
    may_change(actor)
    if actor.sees_only_coordinator not in (None, coordinator_id):
        raise ForbiddenError(
            "not_your_coordinator_id",
            "Coordinators can submit only in their own name: set coordinator_id to the token's subject.",
        )
    if coordinator_id not in known_coordinators:
        raise InvalidRequestError([COORDINATOR_UNKNOWN], code=COORDINATOR_UNKNOWN.code)


def _refusal(request: SubmissionRequest, known_coordinators: Set[str]) -> OperationError | None:
    try:
        _check(request.actor, request.batch.coordinator_id, known_coordinators)
    except OperationError as refusal:
        return refusal
    return None


def _create(repository: ActivityRepository, requests: Sequence[SubmissionRequest], now: datetime) -> dict[UUID, BatchView]:
    """Creates the batches and returns the new ones. A batch whose id already exists is left unchanged and not returned."""
    if not requests:
        return {}
    made = repository.create_batches([_to_create(request, now) for request in requests])
    return {request.batch.batch_id: _as_new(request, now) for request in requests if request.batch.batch_id in made}


def _to_create(request: SubmissionRequest, now: datetime) -> BatchToCreate:
    header, parts, published = submitted_events(request.actor, request.batch, submitted_at=now)
    return BatchToCreate(request.actor, request.batch, now, header, parts, published)


def _as_new(request: SubmissionRequest, now: datetime) -> BatchView:
    """A batch that has just been stored, exactly as reading it back would return it."""
    batch, actor = request.batch, request.actor
    total = len(batch.items)
    return BatchView(
        batch_id=batch.batch_id,
        organization_id=actor.organization_id,
        coordinator_id=batch.coordinator_id,
        submitted_by=actor.subject,
        channel=actor.channel,
        label=batch.label,
        status=BatchStatus.PROCESSING,
        counts=Counts(total, 0, 0, 0),
        retry_number=0,
        version=1,
        edit_version=1,
        submitted_at=now,
        changed_at=now,
        completed_at=None,
        cancelled_at=None,
        cancelled_by=None,
        cancellation_reason=None,
        trace_id=batch.trace_id,
        measurement=Measurement(now, total, now),
    )


def _of_used_key(repository: ActivityRepository, request: SubmissionRequest, earlier: UsedKey) -> SubmissionResult:
    """The result of a submission whose key was used before."""
    assert request.idempotency is not None
    if earlier.request_hash != request.idempotency.request_hash:
        return KeyReusedError()
    # The key may be this very call's own, if its commit's acknowledgement was lost.
    is_own = earlier.batch_id == request.batch.batch_id
    try:
        return Submitted(visible(repository, request.actor, earlier.batch_id), replayed=not is_own)
    except NotFoundError:
        detail = (
            "This request was submitted before, and its batch has been deleted. To submit it again, use another Idempotency-Key."
        )
        return ConflictError("batch_deleted", detail)
