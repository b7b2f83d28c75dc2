"""Bodies that the API refuses, and the problem that each error becomes."""

import pytest
from aiohttp import web
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.http import json_body, problems
from api.http.problems import ProblemError, problem_of, response, retry_after
from orchestrator.batches.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    KeyReusedError,
    NotFoundError,
    PlanChangedError,
    PlanDifference,
    PreconditionError,
    PreviewUnavailableError,
)
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import TransientError
from schemas.api.reading import RefusedRequestError
from schemas.mistakes import Mistake
from schemas.strict_json import BadJsonError
from tests.support.api_parts import of_database


def test_the_number_of_values_in_a_body_is_limited() -> None:
    few = Settings(max_items=1, max_backlog_items=1)
    json_body.parse(b"[" + b"0," * (few.max_json_values - 2) + b"0]", few)
    with pytest.raises(BadJsonError, match="values"):
        json_body.parse(b"[" + b"0," * few.max_json_values + b"0]", few)
    with pytest.raises(BadJsonError, match="deeper"):
        json_body.parse(b"[[[[[0]]]]]", few.model_copy(update={"max_json_depth": 4}))


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("application/merge-patch+json", True),
        ("application/jsonp", False),
        ("text/json", False),
        ("text/x+json", False),
        ("application/octet-stream", False),
    ],
)
def test_which_content_types_are_json(content_type: str, is_json: bool) -> None:
    assert json_body._is_json(content_type) is is_json


@pytest.mark.parametrize(("seconds", "said"), [(0, "1"), (0.2, "1"), (1, "1"), (1.01, "2"), (30, "30"), (299.5, "300")])
def test_retry_after_is_rounded_up(seconds: float, said: str) -> None:
    assert retry_after(seconds) == {"Retry-After": said}


ERRORS: dict[str, tuple[Exception, int, str]] = {
    "a problem": (ProblemError("overloaded", "x"), 503, "overloaded"),
    "a body with mistakes": (RefusedRequestError([Mistake("/a", "b", "c")]), 422, "invalid_request"),
    "a request with mistakes": (InvalidRequestError([Mistake("/a", "b", "c")]), 422, "invalid_request"),
    "an unknown coordinator": (
        InvalidRequestError([Mistake("/a", "b", "c")], code="coordinator_unknown"),
        422,
        "coordinator_unknown",
    ),
    "another plan": (PlanChangedError([PlanDifference(1, "m", "p", "n")]), 412, "plan_changed"),
    "nothing": (NotFoundError(), 404, "batch_not_found"),
    "no item": (NotFoundError("item"), 404, "item_not_found"),
    "a role": (ForbiddenError("role_may_not", "x"), 403, "role_may_not"),
    "a state": (ConflictError("batch_running", "x"), 409, "batch_running"),
    "an edit": (PreconditionError("changed_since", "x"), 412, "changed_since"),
    "a key": (KeyReusedError(), 422, "idempotency_key_reused"),
    "no preview": (PreviewUnavailableError(), 501, "preview_unavailable"),
    "no JSON": (BadJsonError("x"), 400, "bad_json"),
    "no address": (web.HTTPNotFound(), 404, "not_found"),
    "another method": (web.HTTPMethodNotAllowed("PUT", ["POST", "GET"]), 405, "method_not_allowed"),
    "too large": (web.HTTPRequestEntityTooLarge(1, 2), 413, "body_too_large"),
    "what else aiohttp refuses": (web.HTTPBadRequest(), 400, "bad_request"),
    "no connection became free": (PoolTimeoutError(), 503, "overloaded"),
    "a lost connection": (of_database(None, lost=True), 503, "database_unavailable"),
    "a server that shuts down": (of_database("57P01"), 503, "database_unavailable"),
    "a statement that takes too long": (of_database("57014"), 503, "database_unavailable"),
    "a right that is missing": (of_database("42501"), 503, "database_unavailable"),
    "a rival": (TransientError("x"), 503, "database_unavailable"),
}


@pytest.mark.parametrize(("error", "status", "code"), ERRORS.values(), ids=ERRORS)
def test_each_error_becomes_its_problem(error: Exception, status: int, code: str) -> None:
    problem = problem_of(error)
    assert problem is not None
    answer = response(problem)
    assert (answer.status, problem.code, problems.body(problem)["status"]) == (status, code, status)
    assert answer.content_type == "application/problem+json"
    assert ("Retry-After" in answer.headers) == (status == 503 and not isinstance(error, ProblemError))


@pytest.mark.parametrize("error", [ValueError("x"), of_database("22001"), of_database("23505")])
def test_a_bug_is_no_problem_of_the_callers(error: Exception) -> None:
    assert problem_of(error) is None


def test_problems_contain_what_is_wrong() -> None:
    mistaken = problem_of(InvalidRequestError([Mistake("/a", "b", "c")]))
    changed = problem_of(PlanChangedError([PlanDifference(1, "m", "p", "n")]))
    method = problem_of(web.HTTPMethodNotAllowed("PUT", ["POST", "GET"]))
    assert mistaken is not None
    assert changed is not None
    assert method is not None
    assert problems.body(mistaken)["errors"] == [{"pointer": "/a", "code": "b", "detail": "c"}]
    assert problems.body(changed)["differences"] == [{"position": 1, "mentor_id": "m", "planned": "p", "now": "n"}]
    assert method.headers == {"Allow": "GET, POST"}
