"""Ends connections without losing a request: a client that sends one on an idle connection just when the server closes it gets no response."""

import asyncio
import time

from aiohttp import hdrs, web

_LOOK_EVERY_S = 0.05


class Draining:
    """Once it has begun, each response tells its client to close the connection and to open another one, at another process."""

    def __init__(self, app: web.Application) -> None:
        self._has_begun = False
        app.on_response_prepare.append(self._prepare)

    async def _prepare(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self._has_begun:
            response.force_close()
            # aiohttp has set the headers already.
            response.headers[hdrs.CONNECTION] = "close"

    async def drain(self, server: web.Server, *, within_s: float) -> None:
        """Returns when no connection is left, or after this time. The caller has stopped listening."""
        self._has_begun = True
        latest = time.monotonic() + within_s
        # aiohttp does not tell when a connection is gone.
        while server.connections and time.monotonic() < latest:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_EVERY_S)
