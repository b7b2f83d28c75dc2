"""The API as an application, and how it is served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from api.access.authentication import UnsafeStartError, authenticator
from api.access.tickets import Tickets, ticket_key
from api.access_log import log_access
from api.console.pages import add_pages
from api.console.provider import check_provider
from api.console.routes import add_login_routes
from api.console.sessions import ConsoleSessions
from api.endpoints.calls import Service
from api.endpoints.health import HealthChecks
from api.handling import add_routes
from api.http.draining import Draining
from api.http.problems import answer_problems
from api.http.protocol import MAX_ADDRESS_BYTES, MAX_HEADER_BYTES, Protocol, refusing_expectations
from api.load.admission import Admission
from api.load.database import Database
from api.load.files import FileReaders
from api.load.group_commit import GroupCommit
from api.load.watching import Watchers
from orchestrator.batches.submit import submit_bulk_registrations
from orchestrator.process.settings import Settings
from orchestrator.registration.preview import Planner
from orchestrator.storage.relay_wakeup import RelayWaker

# Connections that are idle, or whose headers have not arrived, are closed after this. Browsers and proxies close idle connections earlier.
_KEEPALIVE_TIMEOUT_S = 75.0

# Running requests have this long to finish when the process stops; a supervisor waits longer before it kills.
_SHUTDOWN_TIMEOUT_S = 10.0


def create_app(settings: Settings, *, health: HealthChecks | None = None) -> web.Application:
    """Returns the application. `health` are the checks of the other roles in this process.

    Raises UnsafeStartError if the settings would let anyone use the API, or accept plans that anyone could have signed.
    """
    authentication = authenticator(settings)
    app = web.Application(middlewares=[log_access, answer_problems], client_max_size=settings.max_body_bytes)
    database = Database(settings)
    watchers = Watchers(settings, database)
    waker = RelayWaker(settings.api_url, settings)
    service = Service(
        settings=settings,
        database=database,
        watchers=watchers,
        tickets=Tickets(ticket_key(settings)),
        planner=Planner(_plan_key(settings)),
        admission=Admission(database.backlog, most_items=settings.max_backlog_items),
        submissions=GroupCommit(
            lambda organization_id, requests: database.change(
                organization_id, lambda repository: submit_bulk_registrations(repository, requests)
            )
        ),
        files=FileReaders(),
        wake_relays=waker.wake,
    )
    sessions = None
    if settings.oidc_issuer is not None and settings.public_url is not None:
        sessions = ConsoleSessions(database, settings.public_url)
        add_login_routes(app, settings, sessions)
        add_pages(app)
    add_routes(app, service, authentication, health or {}, sessions)

    async def resources(_app: web.Application) -> AsyncIterator[None]:
        watching = asyncio.create_task(watchers.run())
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await asyncio.to_thread(waker.close)
        await asyncio.to_thread(database.close)

    async def end_conversations(_app: web.Application) -> None:
        watchers.close()

    app.on_shutdown.append(end_conversations)
    app.cleanup_ctx.append(resources)
    return app


def refuse_unsafe_start(settings: Settings) -> None:
    """Makes the checks of `create_app` and nothing else. Raises UnsafeStartError."""
    authenticator(settings)
    _plan_key(settings)
    if settings.oidc_issuer is not None:
        check_provider(settings)


def _plan_key(settings: Settings) -> str:
    if settings.plan_key is None:
        raise UnsafeStartError(
            "anyone could sign plans: the API's database role has no password to derive their key from; "
            "set BULKREG_PLAN_SIGNING_KEY to 32 random characters or more, the same for every API process"
        )
    return settings.plan_key


@contextlib.asynccontextmanager
async def serving(settings: Settings, *, health: HealthChecks | None = None) -> AsyncIterator[int]:
    """Serves the API while the block runs; yields the port. Raises OSError when the address is taken, UnsafeStartError."""
    app = create_app(settings, health=health)
    draining = Draining(app)
    runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    assert runner.server is not None
    runner.server.request_handler = refusing_expectations(runner.server.request_handler)
    loop = asyncio.get_running_loop()
    connection = partial(
        Protocol,
        runner.server,
        loop=loop,
        access_log=None,  # type: ignore[arg-type]  # as AppRunner takes it: ours is `log_access`
        keepalive_timeout=_KEEPALIVE_TIMEOUT_S,
        max_line_size=MAX_ADDRESS_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        # Compressed bodies are refused; they must not be unpacked before that.
        auto_decompress=False,
    )
    try:
        listener = await loop.create_server(connection, settings.api_host, settings.api_port, backlog=1024)
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
            await draining.drain(runner.server, within_s=settings.api_drain_ms / 1000)
    finally:
        await runner.cleanup()
