"""The API on a port of its own, in a thread of the test process, and clients for it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from api.access.tokens import make_development_token
from api.app import serving
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.waiting import PATIENCE_S

KEY = "a key for tests only, 32 bytes or more"


@dataclass(frozen=True)
class ApiServer:
    """A running API."""

    settings: Settings
    url: str

    def token(self, role: Role = Role.COORDINATOR, *, sub: str = COORDINATOR, orgs: tuple[str, ...] = (ORGANIZATION,)) -> str:
        """Returns a token that this API accepts."""
        return make_development_token(self.settings, sub=sub, role=role, orgs=orgs, ttl_s=600)

    @contextlib.contextmanager
    def client(
        self, role: Role = Role.COORDINATOR, *, sub: str = COORDINATOR, orgs: tuple[str, ...] = (ORGANIZATION,)
    ) -> Iterator[httpx.Client]:
        """Yields a client that sends such a token."""
        headers = {"Authorization": f"Bearer {self.token(role, sub=sub, orgs=orgs)}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, verify=NO_TLS) as client:
            yield client


@contextlib.contextmanager
def running_api(settings: Settings, *, port: int = 0, drain_ms: int = 0) -> Iterator[ApiServer]:
    """Serves until the block ends, at a free port unless one is given. Raises errors of the start here."""
    settings = settings.model_copy(update={"api_port": port, "api_drain_ms": drain_ms})
    started = threading.Event()
    state: dict[str, object] = {}

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        state["stop"] = lambda: loop.call_soon_threadsafe(stop.set)
        async with serving(settings) as port:
            state["port"] = port
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            state["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=run, name="api-under-test")
    thread.start()
    started.wait()
    if isinstance(error := state.get("error"), BaseException):
        thread.join()
        raise error
    try:
        yield ApiServer(settings, f"http://127.0.0.1:{state['port']}")
    finally:
        stop = state["stop"]
        assert callable(stop)
        stop()
        thread.join()
    if isinstance(error := state.get("error"), BaseException):
        raise error
