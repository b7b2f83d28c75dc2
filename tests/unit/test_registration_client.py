"""What an external registration service is sent, and what each of its responses means."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from consumers.external.http_client import RegistrationClient, Unknown
from orchestrator.batches.model import Revocation
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process.settings import Settings
from orchestrator.registration.external import Question, Refused, Registered, Registration, Settled, Withdrawn
from orchestrator.registration.external_revoking import ActivityRevoked, RevocationQuestion, RevocationRefused, RevocationSettled
from orchestrator.storage.revocation_requests import OpenRequest, RevocationKey
from tests.support.waiting import PATIENCE_S

BATCH, ITEM, ACTIVITY, RIVAL = (f"01990000-0000-7000-8000-00000000000{number}" for number in range(4))
KEY = f"{ITEM}:2"
QUESTION = Question(
    OutcomeKey(BATCH, 0, 3),
    2,
    Registration(BATCH, ITEM, "org", "mentor", "coord", "boss", "upload", "visit", date(2026, 3, 25), 90, "a note", True),
    "ab" * 16,
    is_cancelled=False,
)
CANCELLED = replace(QUESTION, is_cancelled=True)


class Service:
    """Returns the responses in turn, and keeps the requests."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.asked: list[httpx.Request] = []
        self._responses = iter(responses)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        response = next(self._responses)
        if isinstance(response, Exception):
            raise response
        return response

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.asked]


def settle(service: Any, question: Question = QUESTION, *, timeout_s: float = 5.0, token: str | None = None) -> Settled | Unknown:
    settings = Settings(registration_url="http://127.0.0.1:1/v1", registration_token=None if token is None else SecretStr(token))

    async def ask() -> Settled | Unknown:
        async with RegistrationClient(settings, httpx.MockTransport(service)) as client:
            return await asyncio.wait_for(client.settle(question, timeout_s), PATIENCE_S)

    return asyncio.run(ask())


def is_there(service: Any) -> bool:
    settings = Settings(registration_url="http://127.0.0.1:1/v1")

    async def ask() -> bool:
        async with RegistrationClient(settings, httpx.MockTransport(service)) as client:
            return await asyncio.wait_for(client.is_there(0.02), PATIENCE_S)

    return asyncio.run(ask())


def said(status: str = "registered", *, code: int = 200, key: str = KEY, **more: object) -> httpx.Response:
    if status == "registered":
        more = {"activity_id": ACTIVITY, **more}
    return httpx.Response(code, json={"key": key, "status": status, **more})


def test_a_request_has_everything_about_the_item_under_its_key() -> None:
    service = Service(said())
    assert settle(service, token="secret") == Registered(ACTIVITY)
    [asked] = service.asked
    assert (asked.method, asked.url.path) == ("POST", "/v1/registrations")
    assert json.loads(asked.content) == {
        "item_id": ITEM,
        "batch_id": BATCH,
        "organization_id": "org",
        "attributed_to": "mentor",
        "registered_by": "coord",
        "submitted_by": "boss",
        "channel": "upload",
        "activity_type": "visit",
        "activity_date": "2026-03-25",
        "duration_minutes": 90,
        "notes": "a note",
        "override_duplicates": True,
    }
    assert asked.headers["idempotency-key"] == KEY
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["traceparent"].split("-")[1] == "ab" * 16


def test_without_a_configured_token_none_is_sent() -> None:
    service = Service(said())
    settle(service)
    assert "authorization" not in service.asked[0].headers


ANSWERS: Sequence[tuple[str, httpx.Response | Exception, Settled | Unknown]] = [
    ("made now", said(code=201), Registered(ACTIVITY)),
    ("there already", said(code=200), Registered(ACTIVITY)),
    ("withdrawn", said("withdrawn", code=410), Withdrawn()),
    ("still at it", said("processing"), Unknown("processing", was_heard=True)),
    ("of another key", said(key=f"{ITEM}:1"), Unknown("200, of another key")),
    ("unreadable", httpx.Response(201, text="<html>"), Unknown("201, unreadable")),
    ("an activity without an id", said(activity_id=None), Unknown("200, unreadable")),
    ("a refusal without a code", said("refused", code=422), Unknown("422, unreadable")),
    ("says it with a status of its own", said(code=202), Unknown("202")),
    ("says it with an error", said(code=500), Unknown("500")),
    ("an error", httpx.Response(500), Unknown("500")),
    ("a key that it does not know", httpx.Response(404), Unknown("404")),
    ("too many", httpx.Response(429, headers={"Retry-After": "7"}), Unknown("429", wait_s=7.0)),
    ("away", httpx.Response(503, headers={"Retry-After": "0"}), Unknown("503", wait_s=0.0)),
    ("until a date", httpx.Response(503, headers={"Retry-After": "Fri, 1 Jan 2027 00:00:00 GMT"}), Unknown("503", wait_s=0.0)),
    ("until a number of another script", httpx.Response(429, headers=[(b"Retry-After", b"\xb2")]), Unknown("429", wait_s=0.0)),
    ("too many, for how long is not said", httpx.Response(429), Unknown("429")),
    ("away, for how long is not said", httpx.Response(503), Unknown("503")),
    ("an error that asks to wait", httpx.Response(500, headers={"Retry-After": "7"}), Unknown("500")),
    ("nobody there", httpx.ConnectError("refused"), Unknown("ConnectError", was_reached=False)),
    ("nobody in time", httpx.ConnectTimeout("late"), Unknown("ConnectTimeout")),
    ("no end", httpx.ReadError("reset"), Unknown("ReadError")),
]


@pytest.mark.parametrize(("answer", "meaning"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS])
def test_the_meaning_of_each_response(answer: httpx.Response | Exception, meaning: Settled | Unknown) -> None:
    service = Service(answer)
    assert settle(service) == meaning
    assert service.methods == ["POST"]


def test_a_refusal_names_the_rival() -> None:
    body = {"key": KEY, "status": "refused", "code": "duplicate_activity", "conflicting_activity_id": RIVAL}
    refused = settle(Service(httpx.Response(422, json=body)))
    assert isinstance(refused, Refused)
    assert (refused.error.code, refused.error.conflicting_activity_id) == ("duplicate_activity", RIVAL)


def test_refusals_are_distinguished_by_their_field() -> None:
    codes = []
    for field in ("duration_minutes", "notes"):
        body = {"key": KEY, "status": "refused", "code": "invalid_item", "field": field}
        refused = settle(Service(httpx.Response(422, json=body)))
        assert isinstance(refused, Refused)
        codes.append((refused.error.code, refused.error.field))
    assert codes == [("invalid_item", "duration_minutes"), ("invalid_item", "notes")]


async def silent(_: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_silent_service_is_given_up_in_time() -> None:
    assert settle(silent, timeout_s=0.02) == Unknown("TimeoutError")
    assert not is_there(silent)


REVOKING = RevocationQuestion(
    RevocationKey(BATCH, 0),
    OpenRequest(
        RevocationKey(BATCH, 0),
        2,
        "org",
        ACTIVITY,
        Revocation(datetime(2026, 3, 26, tzinfo=UTC), "boss", "a mistake"),
        "api",
        is_bulk=False,
        trace_id="ab" * 16,
    ),
    ITEM,
)

REFUSED = httpx.Response(422, json={"key": REVOKING.key, "status": "refused", "code": "period_closed"})

ANSWERS_TO_A_REVOCATION: Sequence[tuple[str, httpx.Response, RevocationSettled | Unknown]] = [
    ("revoked", said("revoked", key=REVOKING.key), ActivityRevoked()),
    ("refused", REFUSED, RevocationRefused("period_closed")),
    ("still at it", said("processing", key=REVOKING.key), Unknown("processing", was_heard=True)),
    ("of another key", said("revoked", key=f"{ITEM}:revoke:1"), Unknown("200, of another key")),
    ("unreadable", httpx.Response(200, text="<html>"), Unknown("200, unreadable")),
    ("says it with a status of its own", said("revoked", code=202, key=REVOKING.key), Unknown("202")),
    ("an error", httpx.Response(500), Unknown("500")),
    ("away", httpx.Response(503, headers={"Retry-After": "7"}), Unknown("503", wait_s=7.0)),
]


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [case[1:] for case in ANSWERS_TO_A_REVOCATION],
    ids=[case[0] for case in ANSWERS_TO_A_REVOCATION],
)
def test_the_meaning_of_each_response_to_a_revocation(answer: httpx.Response, meaning: RevocationSettled | Unknown) -> None:
    settings = Settings(registration_url="http://127.0.0.1:1/v1")

    async def ask() -> RevocationSettled | Unknown:
        async with RegistrationClient(settings, httpx.MockTransport(Service(answer))) as client:
            return await asyncio.wait_for(client.revoke(REVOKING, 5.0), PATIENCE_S)

    assert asyncio.run(ask()) == meaning


CANCELS: Sequence[tuple[str, Sequence[httpx.Response | Exception], Settled | Unknown, Sequence[str]]] = [
    ("it was registered", [said()], Registered(ACTIVITY), ["GET"]),
    ("it is withdrawn", [said("withdrawn", code=410)], Withdrawn(), ["GET"]),
    ("it is at work", [said("processing")], Unknown("processing", was_heard=True), ["GET"]),
    ("it does not say", [httpx.Response(500)], Unknown("500"), ["GET"]),
    ("nobody is there", [httpx.ConnectError("refused")], Unknown("ConnectError", was_reached=False), ["GET"]),
    ("it never heard of it", [httpx.Response(404), said("withdrawn", code=410)], Withdrawn(), ["GET", "DELETE"]),
    ("it came in between", [httpx.Response(404), said()], Registered(ACTIVITY), ["GET", "DELETE"]),
    ("it can not withdraw", [httpx.Response(404), httpx.Response(404)], Unknown("404"), ["GET", "DELETE"]),
]


@pytest.mark.parametrize(("answers", "meaning", "methods"), [case[1:] for case in CANCELS], ids=[case[0] for case in CANCELS])
def test_a_cancelled_item_is_asked_about_and_withdrawn_and_never_sent(
    answers: Sequence[httpx.Response | Exception], meaning: Settled | Unknown, methods: Sequence[str]
) -> None:
    service = Service(*answers)
    assert settle(service, CANCELLED) == meaning
    assert service.methods == methods
    assert {asked.url.path for asked in service.asked} == {f"/v1/registrations/{KEY}"}
    traces = [asked.headers["traceparent"].split("-") for asked in service.asked]
    assert {trace[1] for trace in traces} == {"ab" * 16}
    assert len({trace[2] for trace in traces}) == len(methods), "each request must have a span of its own"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200), True),
        (httpx.Response(404), True),
        (httpx.Response(500), False),
        (httpx.Response(503), False),
        (httpx.Response(401), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_a_service_is_available_when_it_responds_to_a_probe(answer: httpx.Response | Exception, expected: bool) -> None:
    service = Service(answer)
    assert is_there(service) is expected
    assert (service.methods, service.asked[0].url.path) == (["GET"], "/v1/registrations/probe")
