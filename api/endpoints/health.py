"""`/healthz` (this process is alive), `/readyz` (it and the roles in the same process can do their work) and `/metrics`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from api.endpoints.calls import Reply
from orchestrator.process.health import Health
from orchestrator.process.settings import Settings
from orchestrator.storage.database import ReadOnlyDatabaseError, check_writable, create_database_engine

HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Polled every few seconds by supervisors, and therefore not logged."""

HealthChecks = Mapping[str, Callable[[], Health]]
"""Checks by name, mostly a role's. Each /readyz calls them in a worker thread, so they must return quickly."""


Waiting = Callable[[Callable[[], web.Response]], Awaitable[web.Response]]
"""Runs blocking work in a worker thread."""


def add_health_routes(app: web.Application, ping: Callable[[], None], others: HealthChecks, waiting: Waiting) -> None:
    """Adds the three routes. `ping` raises SQLAlchemy's errors when the database does not respond, and ReadOnlyDatabaseError."""

    async def healthz(_request: web.Request) -> web.Response:
        return Reply(200, {"status": "ok", "checks": {}}).response()

    async def readyz(_request: web.Request) -> web.Response:
        return await waiting(lambda: _readiness(ping, others).response())

    async def metrics(_request: web.Request) -> web.Response:
        # Some of them are read from the database.
        return await waiting(lambda: web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST}))

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)


def _readiness(ping: Callable[[], None], others: HealthChecks) -> Reply:
    """Returns 200 when all checks pass, else 503 with those that fail."""
    checks = {"database": _database(ping), **{name: check() for name, check in others.items()}}
    is_ready = all(check.ok for check in checks.values())
    shown = {name: {"ok": check.ok} | ({"detail": check.detail} if check.detail else {}) for name, check in checks.items()}
    return Reply(200 if is_ready else 503, {"status": "ok" if is_ready else "unavailable", "checks": shown})


def _database(ping: Callable[[], None]) -> Health:
    try:
        ping()
    except ReadOnlyDatabaseError:
        return Health(False, "the database is read-only")
    except SQLAlchemyError as error:
        return Health(False, type(error).__name__)
    return Health(True)


@contextlib.asynccontextmanager
async def serving_health(settings: Settings, port: int, checks: HealthChecks) -> AsyncIterator[int]:
    """Serves only these routes while the block runs, for roles without the API; yields the port. Raises OSError when it is taken."""
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="bulkreg health")

    app = web.Application()
    add_health_routes(app, partial(check_writable, engine), checks, asyncio.to_thread)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.api_host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        await asyncio.to_thread(engine.dispose)
