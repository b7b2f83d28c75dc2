"""Responses that are written in chunks: what happens when the client is slow, or when writing fails half-way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from aiohttp import web

from orchestrator.process.actions import Action, log_action

# A client that takes nothing for this long is gone or stopped.
_WRITE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A response whose headers have been sent."""

    response: web.StreamResponse

    async def write(self, data: bytes) -> None:
        """Sends a chunk. Raises TimeoutError when the client reads nothing for too long, ConnectionError when it is gone."""
        async with asyncio.timeout(_WRITE_TIMEOUT_S):
            await self.response.write(data)


@contextlib.asynccontextmanager
async def streaming(request: web.Request, headers: Mapping[str, str]) -> AsyncIterator[Stream]:
    """Starts a 200 response. If the block fails, the connection is closed, so the client can't mistake a partial body for a whole one."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    try:
        yield Stream(response)
    except ConnectionError:
        pass  # The client disconnected. Clients of streams do that.
    except Exception as error:
        log_action(Action.STREAM_CUT, role="api", error=type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
