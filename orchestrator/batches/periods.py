"""Closed periods: an organization's records up to a date neither grow nor are revoked (docs/decisions/0040-closed-periods.md)."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import date

from orchestrator.batches.access import may_close_periods
from orchestrator.batches.errors import InvalidRequestError, PreconditionError
from orchestrator.batches.guards import earlier_result, matches_nothing, store_result
from orchestrator.batches.model import Actor, Idempotency, Period, PeriodChange
from orchestrator.batches.repository import ActivityRepository, PeriodStore
from schemas.envelope import OutgoingEvent
from schemas.event_builders import period_changed
from schemas.ids import period_stream
from schemas.mistakes import Mistake


@dataclass(frozen=True, slots=True)
class PeriodRequest:
    """The last day that shall be closed, None for no closed period, and why. `reason` is for auditors."""

    closed_through: date | None
    reason: str


@dataclass(frozen=True, slots=True)
class PeriodSaved:
    """The period after a request; `replayed` if the key was used for the same request before."""

    period: Period
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class PeriodHistory:
    """An organization's period, and a page of its changes, newest first. `next_before` is the number to continue from; None on the last page."""

    period: Period
    changes: Sequence[PeriodChange]
    next_before: int | None


def read_period(periods: PeriodStore, actor: Actor, *, before: int | None, limit: int) -> PeriodHistory:
    """The period of the caller's organization, with changes numbered below `before`. Everybody in the organization may see it."""
    found = periods.changes(actor.organization_id, before=before, limit=limit + 1)
    shown = found[:limit]
    return PeriodHistory(periods.read(actor.organization_id), shown, shown[-1].number if len(found) > limit else None)


def change_period(
    repository: ActivityRepository,
    periods: PeriodStore,
    actor: Actor,
    request: PeriodRequest,
    idempotency: Idempotency,
    *,
    versions: Set[int] | None = None,
) -> PeriodSaved:
    """Closes or reopens the period of the caller's organization. After the commit, nothing in it changes. Waits for running registrations.

    `versions` are those that the client has seen; None: any. Raises ForbiddenError, InvalidRequestError (the date is in the future),
    PreconditionError, KeyReusedError.
    """
    may_close_periods(actor)
    organization_id, wanted = actor.organization_id, request.closed_through
    period = periods.take(organization_id)
    earlier = earlier_result(repository, actor, idempotency, period_stream(organization_id))
    if earlier is not None:
        return PeriodSaved(period, earlier.replayed)
    if wanted is not None and wanted > period.today:
        raise InvalidRequestError(
            [Mistake("/closed_through", "in_the_future", "must not be after today in the organization's time zone")]
        )
    # A call that changes nothing skips the precondition: this very call may have made the change, with its acknowledgement lost.
    if wanted != period.closed_through or matches_nothing(versions):
        _check_version(period, versions)
    if wanted != period.closed_through:
        change = PeriodChange(
            number=period.version + 1,
            closed_through=wanted,
            previously=period.closed_through,
            reason=request.reason,
            by=actor.subject,
            channel=actor.channel,
            at=repository.clock(),
        )
        periods.write(organization_id, change)
        repository.publish(organization_id, period_stream(organization_id), [event_of(organization_id, change)])
        period = periods.read(organization_id)
    store_result(repository, actor, idempotency, {"version": period.version})
    return PeriodSaved(period)


def event_of(organization_id: str, change: PeriodChange) -> OutgoingEvent:
    """The lifecycle event of a change: PeriodClosed if more is closed afterwards, else PeriodReopened. Its trace is derived from the
    organization."""
    return period_changed(
        organization_id=organization_id,
        number=change.number,
        closed_through=change.closed_through,
        previously=change.previously,
        reason=change.reason,
        changed_by=change.by,
        time=change.at,
        trace_id=period_stream(organization_id).hex,
    )


def _check_version(period: Period, allowed: Set[int] | None) -> None:
    if allowed is not None and period.version not in allowed:
        detail = "The closed period was changed since you read it. Read it again, then repeat the request with the new ETag."
        raise PreconditionError("period_changed", detail)
