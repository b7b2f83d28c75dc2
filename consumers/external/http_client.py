"""Sends one request to an external registration service and interprets the response (docs/external-registration.md)."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError

from orchestrator.process.outgoing import heeds_environment, usable_way
from orchestrator.process.settings import Settings
from orchestrator.registration.external import Question, Refused, Registered, Settled, Withdrawn, refusal
from schemas.envelope import traceparent
from schemas.ids import event_id
from schemas.registration_service import RegistrationRequest, RegistrationResponse, RegistrationStatus

# The probe asks for a key that no item has.
_PROBE_KEY = "probe"

_SPEAKS_OF_THE_KEY = frozenset({httpx.codes.OK, httpx.codes.CREATED, httpx.codes.GONE, httpx.codes.UNPROCESSABLE_ENTITY})
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

    async def is_there(self, timeout_s: float) -> bool:
        """Whether the service responds at all."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.get(f"registrations/{_PROBE_KEY}")
        except (httpx.HTTPError, TimeoutError):
            return False
        return response.status_code in (httpx.codes.OK, httpx.codes.NOT_FOUND)

    async def _send(self, method: str, question: Question, timeout_s: float) -> Settled | Unknown | _NeverHeardOf:
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.send(self._request(method, question))
        except httpx.ConnectError as error:
            return Unknown(type(error).__name__, was_reached=False)
        except (httpx.HTTPError, TimeoutError) as error:
            return Unknown(type(error).__name__)
        return _meaning(response, question.key)

    def _request(self, method: str, question: Question) -> httpx.Request:
        trace = {"traceparent": traceparent(question.trace_id, event_id(method, question.key))}
        if method != "POST":
            return self._http.build_request(method, f"registrations/{question.key}", headers=trace)
        wanted = RegistrationRequest.model_validate(question.registration, from_attributes=True)
        headers = trace | {"Idempotency-Key": question.key, "Content-Type": "application/json"}
        return self._http.build_request(method, "registrations", headers=headers, content=wanted.model_dump_json())


def _definite(told: Settled | Unknown | _NeverHeardOf) -> Settled | Unknown:
    return Unknown("404") if isinstance(told, _NeverHeardOf) else told


def _meaning(response: httpx.Response, key: str) -> Settled | Unknown | _NeverHeardOf:
    status = response.status_code
    if status == httpx.codes.NOT_FOUND:
        return _NeverHeardOf()
    if status in _ASKS_TO_WAIT and "Retry-After" in response.headers:
        # A date is valid too. It is ignored, and the breaker's own pause applies.
        seconds = response.headers["Retry-After"]
        return Unknown(str(status), wait_s=float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0)
    if status not in _SPEAKS_OF_THE_KEY:
        return Unknown(str(status))
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
