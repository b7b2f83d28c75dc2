"""Sends one event to one receiver: signs it, connects only to allowed addresses, and reads a bounded part of the response."""

import asyncio
import errno
import socket
import ssl
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.tracing import Trace
from standardwebhooks import Webhook as Signer
from yarl import URL

from consumers.loop.worker import Worker
from orchestrator.webhooks.addresses import ReceiverAddresses
from orchestrator.webhooks.deliveries import Claimed
from orchestrator.webhooks.model import MAX_RESPONSE_LENGTH, Attempt
from orchestrator.webhooks.secrets import Sealer
from schemas.statuses import DeliveryProblem

TIMEOUT_S = 10.0
"""The limit of an attempt, from the name's lookup to the end of the response, however slowly it comes."""

MAX_RESPONSE_BYTES = 64 * 1024
"""The response is cut after this. The status says all that matters."""

_USER_AGENT = "bulk-registration-webhooks"


class AddressRefusedError(OSError):
    """The receiver's address is not one that events may be sent to."""


class NoSocketError(OSError):
    """This process may not open another socket. That says nothing about the receiver."""


class Sender:
    """Sends events, any number at once. Use it in one event loop, as a context manager."""

    def __init__(self, addresses: ReceiverAddresses, sealer: Sealer, *, timeout_s: float = TIMEOUT_S) -> None:
        self._addresses = addresses
        self._sealer = sealer
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._resources = AsyncExitStack()
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        tls = ssl.create_default_context()
        for scheme, factory in (("https", self._socket), ("http", self._socket_without_tls)):
            connector = _Connector(
                resolver=_Resolver(),
                # Called with the address that is about to be connected to, so no name can resolve differently in between.
                socket_factory=factory,
                ssl=tls,
                # A receiver that has closed an idle connection would make the next delivery fail.
                force_close=True,
                # What may be under way is bounded before (Room). Here a request would wait for a connection while its time runs.
                limit=0,
            )
            session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                # A small body could expand to any size.
                auto_decompress=False,
                # No proxy and no .netrc of the environment.
                trust_env=False,
                headers={"User-Agent": _USER_AGENT, "Content-Type": "application/json", "Accept-Encoding": "identity"},
            )
            self._sessions[scheme] = await self._resources.enter_async_context(session)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        await self._resources.aclose()

    async def send(self, claimed: Claimed) -> Attempt:
        """Attempts a delivery. Raises UnreadableSecretError, NoSocketError; whatever the receiver does is in the result."""
        headers = self._headers(claimed)
        began_s = time.monotonic()
        status: int | None = None
        response_text: str | None = None
        problem: DeliveryProblem | None
        try:
            url = URL(claimed.url, encoded=True)
            session = self._sessions[url.scheme]
            async with session.post(url, data=claimed.body.encode(), headers=headers, allow_redirects=False) as response:
                status = response.status
                response_text = await _beginning(response)
                response.close()
            problem = _problem_of(status)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            if _is_ours(error):
                raise NoSocketError("too many sockets are open; raise the limit of open files, or run more notifiers") from error
            problem = _problem_in(error)
        return Attempt(round((time.monotonic() - began_s) * 1000), problem, status, response_text)

    def _headers(self, claimed: Claimed) -> dict[str, str]:
        now = datetime.now(UTC)
        event_id = str(claimed.event_id)
        secrets = [self._sealer.open(sealed) for sealed in (claimed.secret, claimed.previous_secret) if sealed is not None]
        return {
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(Signer(secret).sign(event_id, now, claimed.body) for secret in secrets),
        }

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        return _socket_if(self._addresses.allows(str(address[4][0])), address)

    def _socket_without_tls(self, address: aiohttp.AddrInfoType) -> socket.socket:
        return _socket_if(self._addresses.is_allowed_network(str(address[4][0])), address)


class _Connector(aiohttp.TCPConnector):
    """Drops a connection as soon as its response has been read.

    Otherwise TLS asks the receiver to agree to the end, and keeps the socket for up to 30 s if it does not: one receiver could use up all of
    them.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - of the base class
    ) -> aiohttp.connector.Connection:
        """As the base class does. Raises what it raises."""
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None:
            connection.add_callback(connection.transport.abort)
        return connection


def _socket_if(is_allowed: bool, address: aiohttp.AddrInfoType) -> socket.socket:
    """Returns a socket for the address. Raises AddressRefusedError."""
    if not is_allowed:
        raise AddressRefusedError(errno.EACCES, "events may not be sent to this address")
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


class _Resolver(AbstractResolver):
    """Looks each name up in a thread of its own: in a pool, names whose servers are silent would delay all others."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        worker = Worker[list[ResolveResult]](f"lookup-{host}")
        looked_up = worker.submit(lambda: _lookup(host, port, family))
        worker.close()
        # The thread can't be stopped. It ends when the system's resolver gives up.
        return await asyncio.shield(asyncio.wrap_future(looked_up))

    async def close(self) -> None:
        """There is nothing to close."""


def _lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=socket.AI_NUMERICHOST)
        for kind, _, protocol, _, address in found
    ]


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """Returns the first characters of the body. Reads at most MAX_RESPONSE_BYTES."""
    taken = bytearray()
    async for piece in response.content.iter_any():
        taken += piece
        if len(taken) >= MAX_RESPONSE_BYTES:
            break
    text = taken[: 4 * MAX_RESPONSE_LENGTH].decode("utf-8", "replace")[:MAX_RESPONSE_LENGTH]
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _problem_of(status: int) -> DeliveryProblem | None:
    if 200 <= status < 300:
        return None
    return DeliveryProblem.REDIRECT if 300 <= status < 400 else DeliveryProblem.STATUS


def _is_ours(error: Exception) -> bool:
    """Whether the process has no file descriptor left."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def _problem_in(error: Exception) -> DeliveryProblem:
    match error:
        case TimeoutError():
            return DeliveryProblem.TIMEOUT
        case aiohttp.ClientConnectorDNSError():
            return DeliveryProblem.NAME_UNKNOWN
        case aiohttp.ClientSSLError():
            return DeliveryProblem.TLS_FAILED
        case aiohttp.ClientConnectorError(os_error=AddressRefusedError()):
            return DeliveryProblem.ADDRESS_REFUSED
        case _:
            return DeliveryProblem.CONNECTION_FAILED
