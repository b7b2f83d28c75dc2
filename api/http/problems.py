"""Every error that the API returns, in one table, as problem details (RFC 9457). No other module builds an error body."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from aiohttp import web
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.batches.errors import InvalidRequestError, OperationError, PlanChangedError
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.storage.blame import Blame, TransientError, blame, is_environments, kind_of
from schemas.api.reading import RefusedRequestError
from schemas.mistakes import Mistake, first_of
from schemas.strict_json import BadJsonError

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:bulk-registration:problem:"

# Retry-After when the database is unreachable or overloaded: short for a person who waits, long enough to prevent a retry storm.
RETRY_AFTER_UNAVAILABLE_S = 2


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of problem: its status and its constant title."""

    status: int
    title: str


# The code is the last part of the type URI. Codes that operations raise are here too; a test checks that none is missing.
PROBLEMS: Mapping[str, ProblemType] = {
    "bad_json": ProblemType(400, "The body is not acceptable JSON"),
    "bad_request": ProblemType(400, "The request is malformed"),
    "no_token": ProblemType(401, "A bearer token is required"),
    "bad_token": ProblemType(401, "The token is not accepted"),
    "session_ended": ProblemType(401, "The session of the console has ended"),
    "role_may_not": ProblemType(403, "The role does not allow this"),
    "not_your_coordinator_id": ProblemType(403, "Coordinators can submit only in their own name"),
    "not_your_scope": ProblemType(403, "Coordinators can read only their own scope"),
    "not_from_console": ProblemType(403, "The request does not come from the console"),
    "not_your_organization": ProblemType(403, "The token is not for this organization"),
    "not_found": ProblemType(404, "No resource has this address"),
    "batch_not_found": ProblemType(404, "The batch does not exist"),
    "template_not_found": ProblemType(404, "The template does not exist"),
    "webhook_not_found": ProblemType(404, "The webhook does not exist"),
    "delivery_not_found": ProblemType(404, "The webhook has no such delivery"),
    "item_not_found": ProblemType(404, "The item does not exist"),
    "activity_not_found": ProblemType(404, "The activity does not exist"),
    "forgetting_not_found": ProblemType(404, "The request to forget somebody does not exist"),
    "method_not_allowed": ProblemType(405, "The method is not allowed for this address"),
    "body_too_slow": ProblemType(408, "The body did not arrive in time"),
    "batch_running": ProblemType(409, "The batch is still running"),
    "batch_finished": ProblemType(409, "The batch has finished"),
    "batch_cancelled": ProblemType(409, "The batch was cancelled"),
    "batch_deleted": ProblemType(409, "The batch was deleted"),
    "template_deleted": ProblemType(409, "The template was deleted"),
    "webhook_deleted": ProblemType(409, "The webhook was deleted"),
    "webhook_disabled": ProblemType(409, "The webhook is disabled"),
    "too_many_webhooks": ProblemType(409, "The organization has as many webhooks as it can have"),
    "nothing_registered": ProblemType(409, "Nothing of the batch was registered"),
    "receipt_not_ready": ProblemType(409, "No checkpoint covers this yet"),
    "item_not_failed": ProblemType(409, "Only failed items can be retried"),
    "item_retried_already": ProblemType(409, "The item was already retried with other values"),
    "item_in_doubt": ProblemType(409, "The item may already be registered"),
    "revocation_window_over": ProblemType(409, "The time in which a coordinator can revoke the activity is over"),
    "period_closed": ProblemType(409, "The activity's date is in a closed period"),
    "mentor_in_running_batch": ProblemType(409, "A running batch has an item for the mentor"),
    "mentor_unknown": ProblemType(409, "Nobody has this id"),
    "mentor_coordinates": ProblemType(409, "The mentor is also a coordinator"),
    "changed_since": ProblemType(412, "The batch has changed since it was read"),
    "template_changed": ProblemType(412, "The template has changed since it was read"),
    "period_changed": ProblemType(412, "The closed period has changed since it was read"),
    "plan_changed": ProblemType(412, "Something has changed since the preview"),
    "body_too_large": ProblemType(413, "The body is too large"),
    "address_too_long": ProblemType(414, "The address is too long"),
    "not_json": ProblemType(415, "The body must be JSON"),
    "not_a_table": ProblemType(415, "The body must be a table"),
    "compressed": ProblemType(415, "The body must not be compressed"),
    "expectation_unknown": ProblemType(417, "The Expect header is not supported"),
    "invalid_request": ProblemType(422, "The request has mistakes"),
    "file_too_costly": ProblemType(422, "The file takes too much to read"),
    "coordinator_unknown": ProblemType(422, "The coordinator is not in the directory"),
    "organization_required": ProblemType(422, "The organization must be named"),
    "organization_differs": ProblemType(422, "Two different organizations are named"),
    "idempotency_key_reused": ProblemType(422, "The Idempotency-Key was used for another request"),
    "too_many_requests": ProblemType(429, "Too many requests"),
    "headers_too_large": ProblemType(431, "The headers are too large"),
    "internal_error": ProblemType(500, "The server failed to handle the request"),
    "preview_unavailable": ProblemType(501, "Preview is not available with an external registration service"),
    "activities_unavailable": ProblemType(501, "Activities are not available with an external registration service"),
    "receipts_unavailable": ProblemType(501, "Receipts are not available with an external registration service"),
    "receipts_unsigned": ProblemType(501, "The deployment signs no receipts"),
    "webhooks_unavailable": ProblemType(501, "The deployment is not set up for webhooks"),
    "revocation_unavailable": ProblemType(501, "Revoking is not available with an external registration service"),
    "database_unavailable": ProblemType(503, "The database is temporarily unavailable"),
    "keys_unavailable": ProblemType(503, "The identity provider is temporarily unavailable"),
    "overloaded": ProblemType(503, "The server is overloaded"),
}

PASSING = tuple(code for code, kind in PROBLEMS.items() if kind.status in (429, 503))
"""The refusals that pass by themselves."""

for _code in PASSING:
    # Counted from zero, so that an alarm sees the first one.
    metrics.API_REFUSED.labels(_code)


@dataclass(eq=False)  # not frozen: Python itself writes to an exception that it raises (its traceback and context)
class ProblemError(Exception):
    """The API refuses a request. `code` is one of PROBLEMS; the detail is for people and quotes nothing that was sent."""

    code: str
    detail: str
    errors: Sequence[Mistake] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    """Extension members of this kind of problem (RFC 9457, 3.2)."""
    headers: Mapping[str, str] = field(default_factory=dict)


def overloaded(detail: str, *, retry_after_s: float = RETRY_AFTER_UNAVAILABLE_S) -> ProblemError:
    """The problem for a request that is rejected before any work is done."""
    return ProblemError("overloaded", detail, headers=retry_after(retry_after_s))


def bad_token(why: str) -> ProblemError:
    """The problem for a token that is not accepted."""
    return ProblemError(
        "bad_token", f"The token is not accepted: {why}.", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}
    )


def retry_after(seconds: float) -> dict[str, str]:
    """The Retry-After header, in whole seconds (RFC 9110, 10.2.3)."""
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def body(problem: ProblemError) -> dict[str, Any]:
    """The problem details."""
    kind = PROBLEMS[problem.code]
    details: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.code,
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
        "code": problem.code,
    }
    if problem.errors:
        details["errors"] = [mistake._asdict() for mistake in problem.errors]
    return {**details, **problem.members}


def response(problem: ProblemError) -> web.Response:
    """The problem as an HTTP response."""
    return web.Response(
        status=PROBLEMS[problem.code].status,
        body=orjson.dumps(body(problem)),
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


def problem_of(error: Exception) -> ProblemError | None:
    """The problem that an exception maps to; None for a bug."""
    match error:
        case ProblemError():
            return error
        case RefusedRequestError():
            return ProblemError("invalid_request", "The request has mistakes; see errors.", errors=error.mistakes)
        case InvalidRequestError():
            return ProblemError(error.code, str(error), errors=first_of(error.mistakes))
        case PlanChangedError():
            differences = [asdict(difference) for difference in error.differences]
            return ProblemError(error.code, str(error), members={"differences": differences})
        case OperationError():
            return ProblemError(error.code, str(error))
        case BadJsonError():
            return ProblemError("bad_json", str(error))
        case web.HTTPException():
            return _of_http_exception(error)
        case PoolTimeoutError():
            return overloaded("No database connection became free in time. Repeat the request after Retry-After.")
        case DBAPIError() | TransientError() if is_environments(error):
            detail = "The database is unavailable. The result is unknown. Repeat the request with the same Idempotency-Key."
            return ProblemError("database_unavailable", detail, headers=retry_after(RETRY_AFTER_UNAVAILABLE_S))
        case _:
            return None


def _of_http_exception(error: web.HTTPException) -> ProblemError:
    """The problem for a request that aiohttp itself rejects: unknown routes, methods, oversized bodies."""
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return ProblemError("method_not_allowed", f"This address allows only {allowed}.", headers={"Allow": allowed})
        case web.HTTPNotFound():
            return ProblemError("not_found", "No resource has this address. Check the path; /docs lists all of them.")
        case web.HTTPRequestEntityTooLarge():
            return ProblemError(
                "body_too_large", "The body is larger than the limit. Split the submission.", headers={"Connection": "close"}
            )
        case _:
            return ProblemError("bad_request", error.reason)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every exception into problem details. A bug is logged, and the response reveals nothing about it."""
    try:
        return await handler(request)
    except Exception as error:
        problem = problem_of(error)
        if blame(error) is Blame.LASTING:
            # A missing right or table, or a statement timeout. It may not pass by itself, so the operator has to see it.
            log_action(Action.DATABASE_REFUSED, role="api", error=kind_of(error), at=_where(error))
        if isinstance(error, web.HTTPNotFound) and request.path.endswith("/"):
            problem = ProblemError(
                "not_found", "No resource has this address. Remove the trailing slash: no address of this API ends with one."
            )
        if problem is None:
            # A database message can quote values, notes among them. The place in the code is enough to find a bug.
            log_action(Action.REQUEST_FAILED, role="api", error=type(error).__name__, at=_where(error))
            problem = ProblemError(
                "internal_error", "The server failed to handle the request. See the server log; repeat the request later."
            )
        if problem.code in PASSING:
            metrics.API_REFUSED.labels(problem.code).inc()
        return response(problem)


def _where(error: BaseException) -> str:
    """The file and line of each frame of the traceback, without values."""
    lines = []
    step = error.__traceback__
    while step is not None:
        lines.append(f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}")
        step = step.tb_next
    return " > ".join(lines[-8:])
