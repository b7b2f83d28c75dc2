"""The endpoints on the organization's closed period (docs/http.md, Closed periods)."""

from typing import Any

from api.endpoints.calls import Call, Reply, key_of_our_own, replayed, seen_edits
from api.http import cursors
from api.http.etag import none_matches, version_etag
from orchestrator.batches import periods
from orchestrator.batches.model import Period, PeriodChange
from orchestrator.batches.periods import PeriodRequest
from schemas.api.periods import PeriodClosing, PeriodQuery
from schemas.api.reading import read


def get(call: Call) -> Reply:
    """`GET /organization/closed-period`: the closed period, and its changes, newest first."""
    query, actor = call.read_query(PeriodQuery), call.actor()
    before = None if query.cursor is None else cursors.decode_number(query.cursor)
    found = call.service.database.read_periods(
        actor.organization_id, lambda store: periods.read_period(store, actor, before=before, limit=query.limit)
    )
    next_cursor = None if found.next_before is None else cursors.encode_number(found.next_before)
    body = {**_shown(found.period), "history": [_change(change) for change in found.changes], "next_cursor": next_cursor}
    tag = version_etag(found.period.version, unresolved=found.period.unresolved, before=before, limit=query.limit)
    headers = {"ETag": tag, "Cache-Control": "no-store"}
    return Reply(200, body, headers) if none_matches(call.tags("If-None-Match"), tag) else Reply(304, headers=headers)


def change(call: Call) -> Reply:
    """`PUT /organization/closed-period`: closes or reopens the period."""
    actor, body = call.actor(), read(PeriodClosing, call.json())
    request = PeriodRequest(body.closed_through, body.reason)
    idempotency = call.idempotency("period", request.closed_through, request.reason) or key_of_our_own()
    saved = call.service.database.change_periods(
        actor.organization_id,
        lambda repository, store: periods.change_period(
            repository, store, actor, request, idempotency, versions=seen_edits(call)
        ),
    )
    call.service.wake_relays()
    headers = {"ETag": version_etag(saved.period.version), **replayed(saved.replayed)}
    return Reply(200, _shown(saved.period), headers)


def _shown(period: Period) -> dict[str, Any]:
    """The period as a `PeriodResponse`."""
    return {"closed_through": period.closed_through, "version": period.version, "unresolved": period.unresolved}


def _change(change: PeriodChange) -> dict[str, Any]:
    """The change as a `PeriodChangeResponse`."""
    return {
        "version": change.number,
        "closed_through": change.closed_through,
        "previously": change.previously,
        "reason": change.reason,
        "changed_by": change.by,
        "channel": change.channel,
        "changed_at": change.at,
    }
