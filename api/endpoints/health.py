"""`/healthz` (this process is alive), `/readyz` (it and the roles in the same process can do their work) and `/metrics`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from api.endpoints.calls import Reply
from orchestrator.process.health import Health
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import kind_of
from orchestrator.storage.database import NotWritableError, check_writable, create_database_engine

HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Polled every few seconds by supervisors, and therefore not logged."""

HealthChecks = Mapping[str, Callable[[], Health]]
"""Checks by name, mostly a role's. Each /readyz calls them in a worker thread, so they must return quickly."""


# A supervisor waits for 3 s or so. By then it has to know.
_PATIENCE_S = 1.5


class DatabaseCheck:
    """Checks the database in a thread with a connection of its own, so that it can tell how things are while all others hang."""

    def __init__(self, url: URL, settings: Settings) -> None:
        self._engine = create_database_engine(url, settings, connections=1, application_name="bulkreg health")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="health")

    async def health(self) -> Health:
        """Returns within two seconds. While an earlier check still waits, the database does not respond."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.get_running_loop().run_in_executor(self._thread, self._check)
        except TimeoutError:
            return Health(False, f"the database did not respond within {_PATIENCE_S:g} s")
        except NotWritableError as error:
            return Health(False, str(error))
        except SQLAlchemyError as error:
            return Health(False, kind_of(error))
        return Health(True)

    def _check(self) -> None:
        check_writable(self._engine, give_up_after_s=_PATIENCE_S)

    def close(self) -> None:
        """Closes the connection. Waits for a check that runs."""
        self._thread.shutdown(cancel_futures=True)
        self._engine.dispose()


def add_health_routes(app: web.Application, database: DatabaseCheck, others: HealthChecks) -> None:
    """Adds the three routes. The application closes the check of the database when it ends."""

    async def healthz(_request: web.Request) -> web.Response:
        return Reply(200, {"status": "ok", "checks": {}}).response()

    async def readyz(_request: web.Request) -> web.Response:
        checks = {"database": await database.health()}
        return (await asyncio.to_thread(_readiness, checks, others)).response()

    async def metrics(_request: web.Request) -> web.Response:
        # Some of them are read from the database.
        body = await asyncio.to_thread(generate_latest)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def close(_app: web.Application) -> None:
        await asyncio.to_thread(database.close)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    app.on_cleanup.append(close)


def _readiness(checked: Mapping[str, Health], others: HealthChecks) -> Reply:
    """Returns 200 when all checks pass, else 503 with those that fail."""
    checks = {**checked, **{name: check() for name, check in others.items()}}
    is_ready = all(check.ok for check in checks.values())
    shown = {name: {"ok": check.ok} | ({"detail": check.detail} if check.detail else {}) for name, check in checks.items()}
    return Reply(200 if is_ready else 503, {"status": "ok" if is_ready else "unavailable", "checks": shown})


@contextlib.asynccontextmanager
async def serving_health(settings: Settings, port: int, checks: HealthChecks) -> AsyncIterator[int]:
    """Serves only these routes while the block runs, for roles without the API; yields the port. Raises OSError when it is taken."""
    app = web.Application()
    add_health_routes(app, DatabaseCheck(settings.worker_url, settings), checks)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.api_host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
