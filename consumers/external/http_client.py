"""Sends one request to an external registration service and interprets the response (docs/external-registration.md)."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
from pydantic import ValidationError

from orchestrator.process.outgoing import heeds_environment, usable_way
from orchestrator.process.settings import Settings
from orchestrator.registration.external import Question, Refused, Registered, Settled, Withdrawn, refusal
from orchestrator.registration.external_revoking import ActivityRevoked, RevocationQuestion, RevocationRefused, RevocationSettled
from schemas.envelope import traceparent
from schemas.ids import event_id
from schemas.registration_service import (
    RegistrationRequest,
    RegistrationResponse,
    RegistrationStatus,
    RevocationAnswer,
    RevocationAsked,
    RevocationStatus,
)

# The probe asks for a key that no item has.
_PROBE_KEY = "probe"

_SPEAKS_OF_THE_KEY = frozenset({httpx.codes.OK, httpx.codes.CREATED, httpx.codes.GONE, httpx.codes.UNPROCESSABLE_ENTITY})
_SPEAKS_OF_A_REVOCATION = frozenset({httpx.codes.OK, httpx.codes.UNPROCESSABLE_ENTITY})
_ASKS_TO_WAIT = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Unknown:
    """No definite response. `was_heard`: the service responded, but is busy. `wait_s`: the pause that it asked for."""

    reason: str
    was_heard: bool = False
    was_reached: bool = True
    wait_s: float | None = None


class _NeverHeardOf:
    """The service does not know the key."""


def refuse_unusable_way(url: str) -> None:
    """Raises UnusableWayError when the environment names a proxy to the service that can't be used."""
    with usable_way(url):
        httpx.Client(trust_env=heeds_environment(url)).close()


class RegistrationClient:
    """Sends requests to the service and keeps connections open. Use it in one event loop, as a context manager."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`transport` replaces the network."""
        assert settings.registration_url is not None
        token = settings.registration_token
        self._http = httpx.AsyncClient(
            base_url=settings.registration_url,
            headers={} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"},
            limits=httpx.Limits(
                max_connections=settings.registration_concurrency, max_keepalive_connections=settings.registration_concurrency
            ),
            # The limit of each read or write. `_send` limits the whole request, in case the response trickles in.
            timeout=settings.registration_request_timeout_ms / 1000,
            transport=transport,
            trust_env=heeds_environment(settings.registration_url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        await self._http.aclose()

    async def settle(self, question: Question, timeout_s: float) -> Settled | Unknown:
        """Registers the item. If the item was cancelled, finds out whether it was registered, and makes sure that it never will be."""
        if not question.is_cancelled:
            return _definite(await self._send("POST", question, timeout_s))
        told = await self._send("GET", question, timeout_s)
        if not isinstance(told, _NeverHeardOf):
            return told
        # Nothing is registered yet. A request may still be on its way, or in a stopped process of ours: only the service can refuse it.
        return _definite(await self._send("DELETE", question, timeout_s))

    async def revoke(self, question: RevocationQuestion, timeout_s: float) -> RevocationSettled | Unknown:
        """Has the service revoke an activity."""
        response = await self._answer(self._revocation_request(question), timeout_s)
        return response if isinstance(response, Unknown) else _meaning_of_revocation(response, question.key)

    async def is_there(self, timeout_s: float) -> bool:
        """Whether the service responds at all."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.get(f"registrations/{_PROBE_KEY}")
        except (httpx.HTTPError, TimeoutError):
            return False
        return response.status_code in (httpx.codes.OK, httpx.codes.NOT_FOUND)

    async def _send(self, method: str, question: Question, timeout_s: float) -> Settled | Unknown | _NeverHeardOf:
        response = await self._answer(self._request(method, question), timeout_s)
        return response if isinstance(response, Unknown) else _meaning(response, question.key)

    async def _answer(self, request: httpx.Request, timeout_s: float) -> httpx.Response | Unknown:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._http.send(request)
        except httpx.ConnectError as error:
            return Unknown(type(error).__name__, was_reached=False)
        except (httpx.HTTPError, TimeoutError) as error:
            return Unknown(type(error).__name__)

    def _request(self, method: str, question: Question) -> httpx.Request:
        trace = {"traceparent": traceparent(question.trace_id, event_id(method, question.key))}
        if method != "POST":
            return self._http.build_request(method, f"registrations/{question.key}", headers=trace)
        wanted = RegistrationRequest.model_validate(question.registration, from_attributes=True)
        headers = trace | {"Idempotency-Key": question.key, "Content-Type": "application/json"}
        return self._http.build_request(method, "registrations", headers=headers, content=wanted.model_dump_json())

    def _revocation_request(self, question: RevocationQuestion) -> httpx.Request:
        asked = question.asked
        wanted = RevocationAsked(
            item_id=UUID(question.item_id),
            batch_id=UUID(question.command.batch_id),
            organization_id=asked.organization_id,
            activity_id=UUID(asked.activity_id),
            revoked_by=asked.revocation.by,
            channel=asked.channel,
            reason=asked.revocation.reason,
        )
        headers = {
            "traceparent": traceparent(question.trace_id, event_id("POST", question.key)),
            "Idempotency-Key": question.key,
            "Content-Type": "application/json",
        }
        return self._http.build_request("POST", "registrations/revoke", headers=headers, content=wanted.model_dump_json())


def _definite(told: Settled | Unknown | _NeverHeardOf) -> Settled | Unknown:
    return Unknown("404") if isinstance(told, _NeverHeardOf) else told


def _meaning(response: httpx.Response, key: str) -> Settled | Unknown | _NeverHeardOf:
    status = response.status_code
    if status == httpx.codes.NOT_FOUND:
        return _NeverHeardOf()
    if status not in _SPEAKS_OF_THE_KEY:
        return _silent(response)
    try:
        answer = RegistrationResponse.model_validate_json(response.content)
    except ValidationError:
        return Unknown(f"{status}, unreadable")
    if answer.key != key:
        return Unknown(f"{status}, of another key")
    if answer.status is RegistrationStatus.PROCESSING:
        return Unknown("processing", was_heard=True)
    if answer.status is RegistrationStatus.WITHDRAWN:
        return Withdrawn()
    if answer.status is RegistrationStatus.REGISTERED:
        return Registered(str(answer.activity_id))
    conflicting = answer.conflicting_activity_id
    return Refused(refusal(answer.code or "", answer.field, None if conflicting is None else str(conflicting)))


def _meaning_of_revocation(response: httpx.Response, key: str) -> RevocationSettled | Unknown:
    status = response.status_code
    if status not in _SPEAKS_OF_A_REVOCATION:
        return _silent(response)
    try:
        answer = RevocationAnswer.model_validate_json(response.content)
    except ValidationError:
        return Unknown(f"{status}, unreadable")
    if answer.key != key:
        return Unknown(f"{status}, of another key")
    if answer.status is RevocationStatus.PROCESSING:
        return Unknown("processing", was_heard=True)
    return ActivityRevoked() if answer.code is None else RevocationRefused(answer.code)


def _silent(response: httpx.Response) -> Unknown:
    """What a response means that says nothing about the key."""
    status = response.status_code
    if status in _ASKS_TO_WAIT and "Retry-After" in response.headers:
        # A date is valid too. It is ignored, and the breaker's own pause applies.
        seconds = response.headers["Retry-After"]
        return Unknown(str(status), wait_s=float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0)
    return Unknown(str(status))
