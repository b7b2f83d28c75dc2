"""Parts of the API by themselves: cursors, tags, views as JSON, bodies, problems, streams, followers, gathered submissions."""

import asyncio
import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from api.endpoints import presentation
from api.http import cursors, json_body, problems, streaming
from api.http.etag import query_hash
from api.http.problems import ProblemError, problem_of, response, retry_after
from api.http.streaming import Stream
from api.load.admission import Admission
from api.load.database import Database
from api.load.group_commit import MAX_ITEMS, GroupCommit
from api.load.watching import Watch, Watchers, is_settled
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
from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchPage,
    BatchView,
    ItemError,
    ItemValues,
    ItemView,
    KeptItem,
    Measurement,
    NewBatch,
    Revocation,
    Revoked,
    RevokedActivity,
    Role,
    StatusView,
    Submitted,
)
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from orchestrator.batches.submit import SubmissionRequest, SubmissionResult
from orchestrator.process.settings import Settings
from orchestrator.storage.backlog import Backlog
from orchestrator.storage.blame import TransientError
from schemas.api.batches import OneBatchQuery
from schemas.api.reading import RefusedRequestError
from schemas.ids import new_batch_id
from schemas.mistakes import Mistake
from schemas.statuses import KeptBecause
from schemas.strict_json import BadJsonError
from tests.support.pipeline import mentors
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

BATCH_ID, ITEM_ID, ACTIVITY_ID = (UUID(int=number) for number in (1, 2, 3))


def moment(day: int) -> datetime:
    return datetime(2026, 3, day, tzinfo=UTC)


# --- Cursors and tags -----------------------------------------------------------------------------------------------------------------


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_continues_where_the_page_ended_to_the_microsecond(at: datetime, batch_id: UUID) -> None:
    assert cursors.decode(cursors.encode((at, batch_id))) == (at, batch_id)


@pytest.mark.parametrize("size", [0, 8, 23, 25, 24])
def test_a_cursor_of_another_size_is_invalid(size: int) -> None:
    # 24 bytes long, and after the year 9999.
    with pytest.raises(RefusedRequestError):
        cursors.decode(base64.urlsafe_b64encode(b"\x7f" * size).decode())


QUERIES: list[dict[str, Any]] = [
    {},
    {"item_limit": 7},
    {"items": "failed"},
    {"items": "success"},
    {"item_cursor": "7"},
    {"item_cursor": "8"},
    {"names": "true"},
]


def test_a_tag_depends_on_every_field_of_the_query_but_the_wait() -> None:
    assert {name for query in QUERIES for name in query} | {"wait"} == OneBatchQuery.model_fields.keys()
    assert len({query_hash(OneBatchQuery(**query).model_dump(exclude={"wait"})) for query in QUERIES}) == len(QUERIES)


# --- Views as JSON --------------------------------------------------------------------------------------------------------------------

VIEW = BatchView(
    batch_id=BATCH_ID,
    organization_id="the-organization",
    coordinator_id="the-coordinator",
    submitted_by="the-sender",
    channel="the-channel",
    label="the label",
    status=BatchStatus.CANCELLED,
    counts=Counts(1, 2, 3, 4),
    retry_number=5,
    version=6,
    edit_version=7,
    submitted_at=moment(1),
    changed_at=moment(2),
    completed_at=moment(3),
    cancelled_at=moment(4),
    cancelled_by="the-canceller",
    cancellation_reason="the reason",
    trace_id="f" * 32,
    measurement=Measurement(moment(1), 10, moment(5)),
    errors_by_code={"mentor_not_found": 3},
    revoked=11,
)
SHOWN = {
    "batch_id": BATCH_ID,
    "organization_id": "the-organization",
    "coordinator_id": "the-coordinator",
    "submitted_by": "the-sender",
    "label": "the label",
    "status": "cancelled",
    "total_items": 10,
    "pending": 1,
    "completed": 2,
    "failed": 3,
    "cancelled": 4,
    "revoked": 11,
    "errors_by_code": {"mentor_not_found": 3},
    "needs_attention": False,
    "submitted_at": moment(1),
    "completed_at": moment(3),
    "cancelled_at": moment(4),
    "cancelled_by": "the-canceller",
    "cancellation_reason": "the reason",
}


def test_each_field_of_a_batch_has_its_own_place() -> None:
    assert presentation.batch(VIEW) == SHOWN
    running = replace(
        VIEW, status=BatchStatus.PROCESSING, completed_at=None, cancelled_at=None, cancelled_by=None, cancellation_reason=None
    )
    absent = {"completed_at", "cancelled_at", "cancelled_by", "cancellation_reason"}
    expected = {name: value for name, value in SHOWN.items() if name not in absent}
    of_running = {"status": "processing", "needs_attention": True, "progress": running.progress}
    assert presentation.batch(running) == expected | of_running
    page = presentation.batches(BatchPage([VIEW], 12, None), number=3, limit=4, next_cursor="there")
    assert page == {"data": [SHOWN], "pagination": {"page": 3, "limit": 4, "total": 12, "next_cursor": "there"}}


ITEM = ItemView(
    ITEM_ID,
    8,
    ItemValues("the-mentor", "the-type", moment(6).date(), 45, "a note", True),
    "the reference",
    ItemStatus.FAILED,
    2,
    ACTIVITY_ID,
    ItemError("x", "an x", retryable=True, field="notes", conflicting_activity_id="another"),
    "success",
    Revocation(moment(9), "the-revoker", "the mistake"),
    "the-request",
)
SHOWN_ITEM = {
    "item_id": ITEM_ID,
    "position": 8,
    "mentor_id": "the-mentor",
    "activity_type": "the-type",
    "activity_date": moment(6).date(),
    "duration_minutes": 45,
    "status": "failed",
    "attempt": 2,
    "client_reference": "the reference",
    "activity_id": ACTIVITY_ID,
    "error": {
        "code": "x",
        "message": "an x",
        "retryable": True,
        "field": "notes",
        "conflicting_activity_id": "another",
    },
    "revoked_at": moment(9),
    "revoked_by": "the-revoker",
    "revocation_reason": "the mistake",
    "revocation_request": "the-request",
    "plan_changed": True,
}
REVOKED = {name: SHOWN_ITEM[name] for name in ("revoked_at", "revoked_by", "revocation_reason")}


def test_each_field_of_an_item_has_its_own_place() -> None:
    assert presentation.item(ITEM) == SHOWN_ITEM
    bare = replace(
        ITEM, client_reference=None, activity_id=None, error=None, planned=None, revocation=None, revocation_request=None
    )
    absent = {"client_reference", "activity_id", "error", "plan_changed", "revocation_request", *REVOKED}
    assert presentation.item(bare) == {name: value for name, value in SHOWN_ITEM.items() if name not in absent}
    attempt = AttemptView(
        1, {"mentor_id": "m"}, ItemError("y", "a y", retryable=False), moment(7), {"mentor_id": "n"}, "somebody", moment(8)
    )
    assert presentation.one_item(ITEM, [attempt]) == SHOWN_ITEM | {
        "notes": "a note",
        "override_duplicates": True,
        "history": [
            {
                "attempt": 1,
                "submitted": {"mentor_id": "m"},
                "error": {"code": "y", "message": "a y", "retryable": False},
                "attempted_at": moment(7),
                "correction": {"mentor_id": "n"},
                "retried_by": "somebody",
                "retried_at": moment(8),
            }
        ],
    }
    for after, cursor in ((None, None), (0, "0"), (8, "8")):
        assert presentation.batch_with_items(StatusView(VIEW, [ITEM], after)) == SHOWN | {
            "items": [SHOWN_ITEM],
            "next_item_cursor": cursor,
        }


def test_the_result_of_a_revocation_is_shown() -> None:
    result = Revoked(VIEW, revoked=2, already_revoked=3, kept=[KeptItem(ITEM_ID, KeptBecause.WINDOW_OVER)], unresolved=4)
    assert presentation.revoked(result) == SHOWN | {
        "revoked": 2,
        "total_revoked": 11,
        "already_revoked": 3,
        "unresolved": 4,
        "kept": [{"item_id": ITEM_ID, "code": "revocation_window_over"}],
    }
    assert ITEM.revocation is not None
    for before, counted in ((False, (1, 0)), (True, (0, 1))):
        shown = presentation.revoked_activity(RevokedActivity(ACTIVITY_ID, BATCH_ID, ITEM_ID, ITEM.revocation, before))
        assert shown == REVOKED | {
            "activity_id": ACTIVITY_ID,
            "batch_id": BATCH_ID,
            "item_id": ITEM_ID,
            "revoked": counted[0],
            "already_revoked": counted[1],
        }


@pytest.mark.parametrize(
    ("status", "pending", "settled"),
    [
        (BatchStatus.PENDING, 1, False),
        (BatchStatus.PROCESSING, 1, False),
        (BatchStatus.PROCESSING, 0, False),
        (BatchStatus.COMPLETED, 0, True),
        (BatchStatus.PARTIAL, 0, True),
        (BatchStatus.FAILED, 0, True),
        (BatchStatus.CANCELLED, 0, True),
        (BatchStatus.CANCELLED, 1, False),
    ],
)
def test_a_batch_is_settled_when_no_item_is_pending(status: BatchStatus, pending: int, settled: bool) -> None:
    assert is_settled(replace(VIEW, status=status, counts=Counts(pending, 1, 1, 1))) is settled


# --- Bodies and problems --------------------------------------------------------------------------------------------------------------


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


class DriverError(Exception):
    """An error of the driver, with the database's code."""

    def __init__(self, pgcode: str | None) -> None:
        self.pgcode = pgcode


def of_database(code: str | None, *, lost: bool = False) -> DBAPIError:
    return OperationalError("SELECT", None, DriverError(code), connection_invalidated=lost)


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


# --- Streams and followers ------------------------------------------------------------------------------------------------------------


def test_a_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_WRITE_TIMEOUT_S", 0.01)

    class Stopped(web.StreamResponse):
        async def write(self, data: Any) -> None:
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(Stream(Stopped()).write(b"x"))


def test_a_follower_is_woken_once_for_a_change() -> None:
    async def scenario() -> list[bool]:
        watch = Watch("o")
        watch.changed.set()
        return [await watch.wait(PATIENCE_S), await watch.wait(0.01)]

    assert asyncio.run(scenario()) == [True, False]


class Tables(Database):
    """The versions of batches, without a database."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.present: dict[str, int] = {}
        self.asked: list[tuple[Sequence[str], Sequence[str]]] = []
        self.failure: Exception | None = None
        self.looks = threading.Semaphore(0)

    def versions(self, organization_ids: Sequence[str], batch_ids: Sequence[str]) -> Mapping[str, int]:
        self.asked.append((list(organization_ids), sorted(batch_ids)))
        self.looks.release()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return self.present


def test_followers_are_woken_after_a_look_at_the_database() -> None:
    """There are no announcements here, because there is no database."""
    settings = Settings(database_url="postgresql://x:y@127.0.0.1:1/x").model_copy(update={"api_watch_poll_ms": 1})
    tables = Tables(settings)
    watchers = Watchers(settings, tables)
    first, second = UUID(int=1), UUID(int=2)
    tables.present = {str(first): 4, str(second): 7}
    tables.failure = ProblemError("overloaded", "too much is waiting")

    async def scenario() -> None:
        running = asyncio.create_task(watchers.run())
        with watchers.watch(first, "q") as one:
            one.version = 4
            with watchers.watch(second, "p") as other, watchers.watch(second, "p") as late:
                other.version, late.version = 7, 6
                assert await late.wait(PATIENCE_S), "the follower must be woken after a failing look, too"
                assert tables.asked[-1] == (["p", "q"], [str(first), str(second)])
                assert not one.changed.is_set()
                assert not other.changed.is_set()
                late.version = 7
                del tables.present[str(second)]
                assert await other.wait(PATIENCE_S), "a follower must be woken when its batch is deleted"
            tables.looks = threading.Semaphore(0)
            for _ in range(2):
                assert await asyncio.to_thread(tables.looks.acquire, timeout=PATIENCE_S)
            assert tables.asked[-1] == (["q"], [str(first)]), "only followed batches must be looked at"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    tables.close()


# --- Waiting for a turn ---------------------------------------------------------------------------------------------------------------


def test_a_request_that_waited_too_long_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("api.load.threads.time.monotonic", lambda: now[0])
    database = Database(Settings(api_database_connections=1).model_copy(update={"api_max_waiting_requests": 2}))
    begun, go_on = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert go_on.wait(HELD_S)
        return "done"

    async def scenario(waited_s: float) -> str:
        begun.clear()
        go_on.clear()
        running = asyncio.create_task(database.run(first, changes=True))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        waiting = asyncio.create_task(database.run(lambda: "in time", changes=True))
        await asyncio.sleep(0)
        with pytest.raises(ProblemError, match="Too many requests") as refused:
            await database.run(lambda: "no room", changes=True)
        assert refused.value.code == "overloaded"
        now[0] += waited_s
        go_on.set()
        assert await running == "done"
        try:
            return await waiting
        except ProblemError as problem:
            return problem.code

    # Each run frees its place, however it ends.
    assert [asyncio.run(scenario(seconds)) for seconds in (4.5, 5, 5.5, 0)] == ["in time", "in time", "overloaded", "in time"]
    database.close()


def test_while_one_call_looks_the_others_use_what_was_seen_last() -> None:
    looking, go_on, now = threading.Event(), threading.Event(), [100.0]
    seen = Backlog(pending=0, folded=0)

    def look() -> Backlog:
        looking.set()
        assert go_on.wait(HELD_S)
        return seen

    admission = Admission(look, most_items=10, clock=lambda: now[0])
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(admission.admit, 4)
        assert looking.wait(PATIENCE_S)
        admission.admit(1_000)  # Nothing has been seen yet.
        go_on.set()
        first.result(PATIENCE_S)
        looking.clear()
        go_on.clear()
        now[0] += 60
        second = threads.submit(admission.admit, 1)
        assert looking.wait(PATIENCE_S)
        admission.admit(6)  # With the four, this is the limit.
        with pytest.raises(ProblemError):
            admission.admit(1)
        go_on.set()
        second.result(PATIENCE_S)


# --- Gathered submissions -------------------------------------------------------------------------------------------------------------


def a_request(organization: str = "o", items: int = 1) -> SubmissionRequest:
    return SubmissionRequest(
        Actor(organization, "s", Role.SERVICE), NewBatch(new_batch_id(), "c", None, False, mentors(items), "0" * 32)
    )


class Sets:
    """Records which requests were stored together, and for which organization. The first set of each organization waits for `go_on`."""

    def __init__(self, fail: Callable[[int], Exception | None] = lambda size: None) -> None:
        self.stored: list[tuple[str, list[UUID]]] = []
        self.go_on = threading.Event()
        self._fail = fail

    def __call__(self, organization_id: str, requests: Sequence[SubmissionRequest]) -> Sequence[SubmissionResult]:
        self.stored.append((organization_id, [each.batch.batch_id for each in requests]))
        assert self.go_on.wait(HELD_S)
        if (failure := self._fail(len(requests))) is not None:
            raise failure
        return [Submitted(replace(VIEW, batch_id=each.batch.batch_id), replayed=False) for each in requests]

    def submit_all(self, requests: Sequence[SubmissionRequest], *, alone: int) -> list[UUID | str]:
        """The first request of each organization is being stored when the others arrive, `alone` of which go alone. Returns the results."""
        group = GroupCommit(self)
        firsts = {each.actor.organization_id: each for each in reversed(requests)}
        others = [each for each in requests if each not in firsts.values()]
        with ThreadPoolExecutor(len(requests)) as threads:
            submitting = {each.batch.batch_id: threads.submit(group.submit, each) for each in firsts.values()}
            eventually(lambda: len(self.stored) == len(firsts))
            submitting |= {each.batch.batch_id: threads.submit(group.submit, each) for each in others}
            eventually(lambda: sum(map(len, group._gathering.values())) == len(others) - alone)
            eventually(lambda: len(self.stored) == len(firsts) + alone)
            self.go_on.set()
        done = [submitting[each.batch.batch_id] for each in requests]
        return [type(future.exception()).__name__ if future.exception() else future.result().batch.batch_id for future in done]


def test_submissions_of_one_organization_are_gathered() -> None:
    sets = Sets()
    requests = [a_request(organization) for organization in "opoppo"]
    assert sets.submit_all(requests, alone=0) == [each.batch.batch_id for each in requests]
    ids = {
        organization: [each.batch.batch_id for each in requests if each.actor.organization_id == organization]
        for organization in "op"
    }
    stored = {organization: [set(some) for named, some in sets.stored if named == organization] for organization in "op"}
    assert stored == {organization: [{first}, set(others)] for organization, (first, *others) in ids.items()}


def test_a_submission_of_more_than_a_hundred_items_goes_alone() -> None:
    sets = Sets()
    requests = [a_request(), a_request(items=MAX_ITEMS), a_request(items=MAX_ITEMS + 1), a_request()]
    assert sets.submit_all(requests, alone=1) == [each.batch.batch_id for each in requests]
    first, largest, too_large, last = (each.batch.batch_id for each in requests)
    assert [some for _, some in sets.stored[:2]] == [[first], [too_large]]
    assert set(sets.stored[2][1]) == {largest, last}


@pytest.mark.parametrize(
    ("failure", "alone"),
    [
        # The statement took too long. One after the other, these would delay the next one for minutes.
        (of_database("57014"), False),
        (of_database("40001"), False),
        (of_database(None, lost=True), False),
        (TransientError("x"), False),
        (of_database("22001"), True),
        (of_database("42501"), True),
        (ValueError("a bug"), True),
    ],
    ids=["timeout", "conflict", "lost", "rival", "data", "right", "bug"],
)
def test_a_faulty_submission_fails_alone_and_an_outage_fails_all(failure: Exception, alone: bool) -> None:
    sets = Sets(lambda size: failure if size > 1 else None)
    requests = [a_request() for _ in range(4)]
    answers = sets.submit_all(requests, alone=0)
    first, *others = (each.batch.batch_id for each in requests)
    assert answers == [first, *(others if alone else [type(failure).__name__] * 3)]
    assert [len(some) for _, some in sets.stored] == [1, 3, *([1] * 3 if alone else [])]
