"""The HTTP client of the commands. It survives restarts, repeats only harmless requests, and reports errors as failures of a command."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from cli.remote.responses import ApiResponse, another_server
from cli.remote.target import Target
from cli.terminal.failures import ApiProblemError, BadInputError, CommandError, UnreachableError
from orchestrator.process.outgoing import UnusableWayError, check_address, heeds_environment, usable_way, without_credentials
from schemas.paths import API_PATH
from schemas.statuses import TERMINAL_BATCH_STATUSES

_TRY_AGAIN = frozenset({429, 502, 503, 504})

# Characters that end a header, lone surrogates (bytes of the command line that are not UTF-8), and spaces at an end, which get lost.
_NO_HEADER_VALUE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|^ | $")

# Enough for an outage of less than a second, about which the user need not know.
_ATTEMPTS_IN_SILENCE = 4
_BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)


@dataclass(frozen=True)
class Patience:
    """How long a client keeps trying."""

    first_answer_s: float = 5.0
    """If an address has never responded, it is wrong or nothing runs there. 5 s are enough for a start in progress to finish."""
    outage_s: float = 60.0
    """A process, broker or database that was killed is back in seconds, a machine within this time."""
    request_timeout_s: float = 30.0
    """Longer than the server lets any statement run. A cancel may wait longer for its turn; it is then sent again."""
    long_poll_s: int = 1
    """The server responds as soon as something changes. If it misses a wake-up, this limits the delay."""
    shortest_poll_s: float = 0.01
    """The shortest time between two polls of a batch, for a server that responds at once instead of waiting."""
    longest_poll_s: float = 0.5


class _NotNowError(Exception):
    """The request may succeed when it is repeated. `after_s` is the server's Retry-After."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class ApiClient:
    """One connection to the API. Each of its requests may be repeated: reads, and changes with an Idempotency-Key."""

    def __init__(self, http: httpx.AsyncClient, target: Target, patience: Patience, remark: Callable[[str], None]) -> None:
        self._http = http
        self._target = target
        self._address = without_credentials(target.url)
        self._patience = patience
        self._remark = remark
        self._has_answered = False

    async def get(self, path: str, organization_id: str | None, **query: object) -> ApiResponse:
        """Sends a read. `query`: parameters that are None are left out."""
        return await self._request("GET", path, self._target.headers(organization_id), params=_given(query))

    async def post(
        self, path: str, organization_id: str | None, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> ApiResponse:
        """Sends a change, with the given Idempotency-Key or a new one."""
        is_named = body is not None and "organization_id" in body
        headers = self._target.headers(organization_id, is_named_in_body=is_named) | {"Idempotency-Key": key or str(uuid4())}
        return await self._request("POST", path, headers, json=body)

    async def put(self, path: str, organization_id: str | None, body: Mapping[str, Any], *, seen: ApiResponse) -> ApiResponse:
        """Sends a change of what this response showed, with a new Idempotency-Key. It is refused if somebody has changed it since."""
        headers = self._target.headers(organization_id) | {"Idempotency-Key": str(uuid4()), "If-Match": seen.tag}
        return await self._request("PUT", path, headers, json=body)

    async def delete(self, path: str, organization_id: str | None) -> None:
        """Sends a deletion."""
        await self._request("DELETE", path, self._target.headers(organization_id))

    @asynccontextmanager
    async def download(self, path: str, organization_id: str | None, **query: object) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yields a body in chunks as it arrives, for responses of any size. Raises ApiProblemError, UnreachableError."""
        headers = _encoded(self._target.headers(organization_id))
        try:
            async with self._http.stream("GET", path, headers=headers, params=_given(query)) as response:
                if response.is_error:
                    await response.aread()
                    raise _refusal(response)
                yield response.aiter_bytes()
        except httpx.TransportError as error:
            raise UnreachableError(f"{self._address} closed the download; repeat the command: {_reason(error)}") from error

    async def finished(
        self, batch_id: str, organization_id: str | None, changed: Callable[[Mapping[str, Any]], None]
    ) -> Mapping[str, Any]:
        """Returns the batch with its first item once it is terminal. Calls `changed` with each state on the way. Raises ApiProblemError,
        UnreachableError."""
        path, tag, pause_s = f"{API_PATH}/{batch_id}", None, self._patience.shortest_poll_s
        while True:
            asked_s = time.monotonic()
            headers = self._target.headers(organization_id) | ({} if tag is None else {"If-None-Match": tag})
            query = {"item_limit": 1, "wait": f"{self._patience.long_poll_s}s"}
            response = await self._request("GET", path, headers, params=query)
            if response.status_code != httpx.codes.NOT_MODIFIED:
                tag = response.headers.get("ETag")
                batch: Mapping[str, Any] = response.json()
                changed(batch)
                if batch["status"] in TERMINAL_BATCH_STATUSES:
                    return batch
            await asyncio.sleep(max(0.0, asked_s + pause_s - time.monotonic()))
            pause_s = min(pause_s * 1.5, self._patience.longest_poll_s)

    async def _request(self, method: str, path: str, headers: Mapping[str, str], **content: Any) -> ApiResponse:
        """Sends until there is a response. Raises BadInputError for values that no header can hold, ApiProblemError, UnreachableError."""
        encoded = _encoded(headers)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_NotNowError),
            wait=self._pause,
            stop=self._gives_up,
            before_sleep=self._says_so,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    response = await self._send(method, path, encoded, **content)
        except _NotNowError as error:
            raise UnreachableError(f"{self._address} is unavailable: {error}") from error
        if response.is_error:
            raise _refusal(response)
        return ApiResponse(response)

    async def _send(self, method: str, path: str, headers: httpx.Headers, **content: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, headers=headers, **content)
        except httpx.TransportError as error:
            raise _NotNowError(_reason(error)) from error
        if response.status_code in _TRY_AGAIN:
            after = response.headers.get("Retry-After", "")
            raise _NotNowError(_refusal(response).args[0], float(after) if after.isdecimal() else None)
        self._has_answered = True
        return response

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _NotNowError) and error.after_s is not None:
            return error.after_s
        return _BACKOFF(state)

    def _gives_up(self, state: RetryCallState) -> bool:
        limit_s = self._patience.outage_s if self._has_answered else self._patience.first_answer_s
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep > limit_s

    def _says_so(self, state: RetryCallState) -> None:
        if state.attempt_number == _ATTEMPTS_IN_SILENCE and state.outcome is not None:
            self._remark(f"{self._address} is unavailable, retrying: {state.outcome.exception()}")


@asynccontextmanager
async def opened(target: Target, remark: Callable[[str], None], patience: Patience = Patience()) -> AsyncIterator[ApiClient]:
    """Yields a client of the target's API. Raises BadInputError for an invalid address."""
    address = without_credentials(target.url)
    try:
        check_address(target.url)  # first, because its message quotes nothing of the URL
        url = httpx.URL(target.url)
    except (httpx.InvalidURL, ValueError) as error:
        raise BadInputError(f"{address} is not a valid URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise BadInputError(f"{address} is not a URL like https://bulkreg.example.org")
    try:
        with usable_way(target.url):
            client = httpx.AsyncClient(base_url=url, timeout=patience.request_timeout_s, trust_env=heeds_environment(target.url))
    except UnusableWayError as error:
        raise BadInputError(str(error)) from error
    async with client as http:
        yield ApiClient(http, target, patience, remark)


def _encoded(headers: Mapping[str, str]) -> httpx.Headers:
    """Returns the headers in UTF-8, as the server reads them. Raises BadInputError."""
    for name, value in headers.items():
        if _NO_HEADER_VALUE.search(value):
            raise BadInputError(f"The value for the header {name} has control characters or surrounding blanks, or is not UTF-8.")
    return httpx.Headers(headers, encoding="utf-8")


def _given(query: Mapping[str, object]) -> dict[str, str | list[str]]:
    """The parameters, those of a list as often as it has entries."""
    return {
        name: list(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in query.items()
        if value is not None
    }


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__


def _refusal(response: httpx.Response) -> CommandError:
    """Returns the failure for an error response."""
    if response.headers.get("Content-Type", "").split(";")[0] != "application/problem+json":
        return another_server(response, f"status {response.status_code}")
    refusal = ApiProblemError(ApiResponse(response).json())
    return UnreachableError(str(refusal), details=refusal.problem) if response.is_server_error else refusal
