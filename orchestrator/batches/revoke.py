"""Undo: revokes the activities of a batch, or a single one (docs/decisions/0034-undo.md)."""

from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.batches.access import may_change, visible
from orchestrator.batches.errors import ConflictError, InvalidRequestError, NotFoundError, RevocationUnavailableError
from orchestrator.batches.guards import check_edit_version, earlier_result, lock_visible, matches_nothing, present, store_result
from orchestrator.batches.model import (
    UNRESOLVED,
    Actor,
    BatchView,
    Idempotency,
    ItemView,
    KeptItem,
    Revocation,
    RevocationRequest,
    Revoked,
    RevokedActivity,
    Role,
)
from orchestrator.batches.projection import fold_and_announce
from orchestrator.batches.records import ActivityPlace, ActivityRecord, ActivityRecords, RecordElsewhere, ServiceRecords
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.states import ItemStatus
from schemas import event_builders
from schemas.ids import DerivedIds, item_position
from schemas.mistakes import Mistake
from schemas.statuses import KeptBecause

_BOUND_BY_WINDOW = frozenset({Role.COORDINATOR})


@dataclass(frozen=True, slots=True)
class RevocationPolicy:
    """How long after its creation a coordinator may revoke an activity."""

    window: timedelta


@dataclass(frozen=True, slots=True)
class _Limits:
    """What keeps the caller from revoking a living activity at a moment: the closed period, and the window."""

    closed_through: date | None
    bound_since: datetime | None
    """The caller may not revoke activities that were created before this. None: the window does not bind the caller."""

    @classmethod
    def of(cls, actor: Actor, policy: RevocationPolicy, closed_through: date | None, now: datetime) -> "_Limits":
        return cls(closed_through, now - policy.window if actor.role in _BOUND_BY_WINDOW else None)

    def refusal(self, activity_date: date, created_at: datetime) -> KeptBecause | None:
        """Returns why an activity can't be revoked, or None if it can be."""
        if self.closed_through is not None and activity_date <= self.closed_through:
            return KeptBecause.PERIOD_CLOSED
        return KeptBecause.WINDOW_OVER if self.bound_since is not None and created_at < self.bound_since else None


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a revocation does to each item that it covers."""

    living: Sequence[ActivityRecord]
    already_revoked: int
    kept: Sequence[KeptItem]
    to_request: Sequence[int] = ()
    """Positions of activities that an external service has to be asked to revoke."""
    requested: int = 0
    """How many activities an external service was asked to revoke before, and has not answered."""

    @property
    def unresolved(self) -> int:
        """How many activities wait for an external service after this call."""
        return len(self.to_request) + self.requested


def revoke_batch(
    repository: ActivityRepository,
    records: ActivityRecords,
    actor: Actor,
    batch_id: UUID,
    request: RevocationRequest,
    policy: RevocationPolicy,
    *,
    edit_versions: Set[int] | None = None,
    idempotency: Idempotency | None = None,
) -> Revoked:
    """Revokes the activities of a batch, all or those of the named items, as far as each can be revoked.

    Raises NotFoundError, ForbiddenError, ConflictError (an item is pending), InvalidRequestError (no such item), PreconditionError,
    KeyReusedError, RevocationUnavailableError.
    """
    may_change(actor)
    batch = lock_visible(repository, actor, batch_id)
    earlier = earlier_result(repository, actor, idempotency, batch_id)
    if earlier is not None:
        result = earlier.result
        kept = [KeptItem(UUID(each["item_id"]), KeptBecause(each["code"])) for each in result["kept"]]
        return Revoked(
            present(repository, batch_id),
            result["revoked"],
            result["already_revoked"],
            kept,
            result.get("unresolved", 0),
            earlier.replayed,
        )
    # Fold outcomes that the aggregator has not handled yet, so that an activity that was registered a moment ago can be revoked.
    fold_and_announce(repository, batch)
    batch = present(repository, batch_id)
    positions = _positions(repository, batch, request)
    closed_through = records.hold_period(batch.organization_id)
    found = records.take(batch_id, positions)
    limits = _Limits.of(actor, policy, closed_through, repository.clock())
    judged = _judge(repository, records, batch, positions, found, limits)
    if judged.living or judged.to_request or matches_nothing(edit_versions):
        # A call that changes nothing skips the precondition: this very call may have made the change, with its acknowledgement lost.
        check_edit_version(batch, edit_versions)
    if judged.living:
        _revoke(repository, records, actor, batch, judged.living, request.reason)
    if judged.to_request:
        _request(repository, records.elsewhere, actor, present(repository, batch_id), judged.to_request, request.reason)
    if idempotency is not None:
        store_result(repository, actor, idempotency, _as_result(judged))
    return _revoked(present(repository, batch_id), judged)


def foresee_revocation(
    repository: ActivityRepository,
    records: ActivityRecords,
    actor: Actor,
    batch_id: UUID,
    request: RevocationRequest,
    policy: RevocationPolicy,
) -> Revoked:
    """What `revoke_batch` would do now. Changes nothing, and takes no lock. Raises the same errors, except for PreconditionError and
    KeyReusedError."""
    may_change(actor)
    batch = visible(repository, actor, batch_id)
    positions = _positions(repository, batch, request)
    closed_through = records.closed_through(batch.organization_id)
    found = records.read(batch_id, positions)
    limits = _Limits.of(actor, policy, closed_through, repository.clock())
    judged = _judge(repository, records, batch, positions, found, limits)
    return _revoked(batch, judged)


def _revoked(batch: BatchView, judged: _Judged) -> Revoked:
    return Revoked(batch, len(judged.living), judged.already_revoked, judged.kept, judged.unresolved)


def revoke_activity(
    repository: ActivityRepository,
    records: ActivityRecords,
    actor: Actor,
    activity_id: UUID,
    reason: str,
    policy: RevocationPolicy,
    *,
    idempotency: Idempotency | None = None,
) -> RevokedActivity:
    """Revokes a single activity, even of a deleted or purged batch. An activity that was already revoked stays unchanged.

    Raises NotFoundError, ForbiddenError, ConflictError (the caller is too late, or the period is closed), KeyReusedError,
    RevocationUnavailableError.
    """
    may_change(actor)
    place = records.place(activity_id)
    if place is None and records.elsewhere is not None:
        raise RevocationUnavailableError
    if place is None or not _may_see(actor, place):
        raise NotFoundError("activity")
    batch = repository.lock_batch(place.batch_id, or_deleted=True)
    earlier = earlier_result(repository, actor, idempotency, place.batch_id)
    if batch is not None:
        fold_and_announce(repository, batch)
        batch = repository.find_batch(place.batch_id, or_deleted=True)
    closed_through = records.hold_period(place.organization_id)
    [record] = records.take(place.batch_id, [place.position])
    was_revoked_before = record.revocation is not None if earlier is None else bool(earlier.result["already_revoked"])
    if record.revocation is None:
        limits = _Limits.of(actor, policy, closed_through, repository.clock())
        refusal = limits.refusal(record.activity_date, record.created_at)
        if refusal is KeptBecause.PERIOD_CLOSED:
            raise ConflictError(refusal, f"The period is closed through {closed_through}; an administrator can reopen it.")
        if refusal is not None:
            detail = f"The activity was registered more than {policy.window.days} days ago; ask an administrator to revoke it."
            raise ConflictError(refusal, detail)
        if batch is None:
            revocation = _revoke_purged(repository, records, actor, place, record, reason)
        else:
            revocation = _revoke(repository, records, actor, batch, [record], reason)
    else:
        revocation = record.revocation
    if idempotency is not None and earlier is None:
        store_result(repository, actor, idempotency, {"already_revoked": int(was_revoked_before)})
    item_id = DerivedIds(place.batch_id).item_id(place.position)
    is_replayed = earlier is not None and earlier.replayed
    return RevokedActivity(activity_id, place.batch_id, item_id, revocation, was_revoked_before, is_replayed)


def _may_see(actor: Actor, place: ActivityPlace) -> bool:
    """Whether the caller may see the activity. Does not rely on row level security."""
    return place.organization_id == actor.organization_id and actor.sees_only_coordinator in (None, place.registered_by)


def _positions(repository: ActivityRepository, batch: BatchView, request: RevocationRequest) -> Sequence[int] | None:
    """The positions of the named items, in order; None: all. Raises InvalidRequestError for items that the batch does not have, ConflictError
    while the batch is running."""
    if batch.counts.pending:
        raise ConflictError("batch_running", "Items of the batch are pending; cancel it or wait until it has finished.")
    if request.item_ids is None:
        return None
    named = [item_position(batch.batch_id, item_id) for item_id in request.item_ids]
    there = {item.position for item in repository.items_at(batch.batch_id, [each for each in named if each is not None])}
    mistakes = [
        Mistake(f"/item_ids/{index}", "item_unknown", "The batch has no such item.")
        for index, position in enumerate(named)
        if position not in there
    ]
    if mistakes:
        raise InvalidRequestError(mistakes)
    return sorted(there)


def _judge(
    repository: ActivityRepository,
    records: ActivityRecords,
    batch: BatchView,
    positions: Sequence[int] | None,
    found: Sequence[ActivityRecord],
    limits: _Limits,
) -> _Judged:
    alive = [record for record in found if record.revocation is None]
    refused = {record.position: limits.refusal(record.activity_date, record.created_at) for record in alive}
    without = _without_activity(repository, batch, positions, found)
    dates = {item.position: item.values.activity_date for item in without}
    elsewhere = _living_elsewhere(records, batch, without)
    requested = {record.position for record in elsewhere if record.is_requested}
    refused |= {
        record.position: limits.refusal(dates[record.position], record.created_at)
        for record in elsewhere
        if not record.is_requested
    }
    held = {position: refusal for position, refusal in refused.items() if refusal is not None}
    to_request = [record.position for record in elsewhere if not record.is_requested and record.position not in held]
    asked = requested.union(to_request)
    kept = {
        item.position: KeptBecause.REGISTERED_ELSEWHERE if item.status is ItemStatus.SUCCESS else KeptBecause.NOT_REGISTERED
        for item in without
        if item.revocation is None and item.position not in asked
    }
    kept |= held
    ids = DerivedIds(batch.batch_id)
    return _Judged(
        [record for record in alive if record.position not in held],
        len(found) - len(alive) + sum(item.revocation is not None for item in without),
        [KeptItem(ids.item_id(position), code) for position, code in sorted(kept.items())],
        to_request,
        len(requested),
    )


def _living_elsewhere(records: ActivityRecords, batch: BatchView, without: Sequence[ItemView]) -> Sequence[RecordElsewhere]:
    """The living activities of these items at an external service that can be asked to revoke them."""
    if records.elsewhere is None or not without:
        return ()
    return records.elsewhere.living(batch.batch_id, [item.position for item in without])


def _without_activity(
    repository: ActivityRepository, batch: BatchView, positions: Sequence[int] | None, found: Collection[ActivityRecord]
) -> Sequence[ItemView]:
    """The items of the request that have no activity here."""
    if len(found) == (batch.counts.completed if positions is None else len(positions)):
        return ()
    if positions is None:
        covered = repository.items_by_status(batch.batch_id, ItemStatus.SUCCESS)
    else:
        covered = repository.items_at(batch.batch_id, positions)
    with_activity = {record.position for record in found}
    return [item for item in covered if item.position not in with_activity]


def _request(
    repository: ActivityRepository,
    elsewhere: ServiceRecords | None,
    actor: Actor,
    batch: BatchView,
    positions: Sequence[int],
    reason: str,
) -> None:
    """Asks the external service. The items are unresolved until it has answered."""
    assert elsewhere is not None, "only an external service has activities elsewhere"
    revocation = Revocation(repository.clock(), actor.subject, reason)
    elsewhere.request(batch, positions, actor, revocation)
    repository.mark_requests(batch.batch_id, dict.fromkeys(positions, UNRESOLVED), revocation)


def _revoke(
    repository: ActivityRepository,
    records: ActivityRecords,
    actor: Actor,
    batch: BatchView,
    living: Sequence[ActivityRecord],
    reason: str,
) -> Revocation:
    revocation = Revocation(repository.clock(), actor.subject, reason)
    positions = [record.position for record in living]
    records.revoke([record.activity_id for record in living], actor, revocation)
    repository.mark_revoked(batch.batch_id, positions, revocation)
    publish_revocation(
        repository, batch.organization_id, batch.batch_id, batch.version + 1, positions, revocation, batch.trace_id
    )
    return revocation


def _revoke_purged(
    repository: ActivityRepository,
    records: ActivityRecords,
    actor: Actor,
    place: ActivityPlace,
    record: ActivityRecord,
    reason: str,
) -> Revocation:
    """Revokes an activity of a purged batch. Only the activity is left, so the event gets version 0 and a trace derived from the batch id."""
    revocation = Revocation(repository.clock(), actor.subject, reason)
    records.revoke([record.activity_id], actor, revocation)
    publish_revocation(repository, place.organization_id, place.batch_id, 0, [place.position], revocation, place.batch_id.hex)
    return revocation


def publish_revocation(
    repository: ActivityRepository,
    organization_id: str,
    batch_id: UUID,
    number: int,
    positions: Sequence[int],
    revocation: Revocation,
    trace_id: str,
) -> None:
    """Announces that the activities of these items are revoked. `number` is the batch's version afterwards, or 0 for a purged batch."""
    published = event_builders.activities_revoked(
        batch_id=batch_id,
        organization_id=organization_id,
        revocation=number,
        reason=revocation.reason,
        revoked_by=revocation.by,
        revoked_positions=position_runs(positions),
        time=revocation.at,
        trace_id=trace_id,
    )
    repository.publish(organization_id, batch_id, published)


def position_runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending positions as runs of (first, last)."""
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position - 1:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return runs


def _as_result(judged: _Judged) -> dict[str, Any]:
    """The result that is stored for a repetition with the same key."""
    return {
        "revoked": len(judged.living),
        "already_revoked": judged.already_revoked,
        "unresolved": judged.unresolved,
        "kept": [{"item_id": str(each.item_id), "code": each.code.value} for each in judged.kept],
    }
