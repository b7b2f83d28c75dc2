"""Answers that are written piece by piece: what happens when the client is slow, or something fails half-way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web

# A client that takes nothing for this long is gone or stopped.
_WRITE_TIMEOUT_S = 30.0

_log = structlog.get_logger("bulkreg.api")


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that has begun."""

    response: web.StreamResponse

    async def write(self, data: bytes) -> None:
        """Sends a piece. Raises TimeoutError when the client takes none for too long, ConnectionError when it is gone."""
        async with asyncio.timeout(_WRITE_TIMEOUT_S):
            await self.response.write(data)


@contextlib.asynccontextmanager
async def streaming(request: web.Request, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
    """Begins a 200. When the block fails the connection is cut: the client must not take a half for the whole."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    try:
        yield Stream(response)
    except ConnectionError:
        pass  # The client has left, which is what clients of streams do.
    except Exception as error:
        _log.warning("stream_cut", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
