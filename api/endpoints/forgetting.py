"""The endpoints by which an administrator has a mentor forgotten (docs/http.md, Forget a mentor)."""

from typing import Any

from api.endpoints.calls import Call, Reply
from orchestrator.directory.forgetting_requests import ForgettingView
from schemas.api.forgetting import MentorToForget
from schemas.api.reading import read
from schemas.paths import FORGETTINGS_PATH


def ask(call: Call) -> Reply:
    """`POST /directory/forgettings`: 202, and the sweeper forgets the mentor; the same request again while it is open."""
    actor, body = call.actor(), read(MentorToForget, call.json())
    asked = call.service.database.forgetting(actor.organization_id, lambda requests: requests.ask(actor, body.mentor_id))
    headers = {"Location": f"{FORGETTINGS_PATH}/{asked.forgetting_id}", "Retry-After": "12"}
    return Reply(202, _shown(asked), headers)


def get(call: Call) -> Reply:
    """`GET /directory/forgettings/{forgetting_id}`: what has become of a request."""
    actor, forgetting_id = call.actor(), call.forgetting_id()
    found = call.service.database.forgetting(actor.organization_id, lambda requests: requests.find(actor, forgetting_id))
    return Reply(200, _shown(found), {"Cache-Control": "no-store"})


def _state(view: ForgettingView) -> str:
    if view.pseudonym is None:
        return "waiting" if view.done_at is None else "unknown"
    return "running" if view.done_at is None else "done"


def _shown(view: ForgettingView) -> dict[str, Any]:
    """The request as a `ForgettingResponse`."""
    return {
        "forgetting_id": view.forgetting_id,
        "state": _state(view),
        "pseudonym": view.pseudonym,
        "requested_by": view.requested_by,
        "requested_at": view.requested_at,
        "changed_rows": view.changed_rows,
        "done_at": view.done_at,
    }
