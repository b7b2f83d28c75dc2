"""An API process whose database connection breaks still serves every client.

A broken connection's file descriptor is reused by the next accepted client. Once, a listener did not tell the event loop in time, and that
client was never read (on uvloop, with which the role `api` runs).
"""

import contextlib
import sys
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine, text

from orchestrator.process.settings import Settings
from tests.support.following import LISTENERS
from tests.support.no_tls import NO_TLS
from tests.support.ports import free_port
from tests.support.process import environment, started
from tests.support.waiting import PATIENCE_S, eventually

CLIENTS = 8


@pytest.fixture
def process(settings: Settings) -> Iterator[str]:
    """The URL of an API process."""
    port = free_port()
    given = {**environment(settings), "BULKREG_API_PORT": str(port), "BULKREG_LOG_LEVEL": "ERROR"}
    with started([sys.executable, "-m", "cli", "run", "api"], given) as process:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url))
        yield url
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.ConnectError):
        return httpx.get(f"{url}/healthz", timeout=PATIENCE_S, verify=NO_TLS).status_code == 200
    return False


def test_clients_are_served_after_the_listener_lost_its_connection(process: str, owner: Engine) -> None:
    def listeners(what: str) -> int:
        with owner.connect() as connection:
            return int(connection.execute(text(f"SELECT count({what}) {LISTENERS}")).scalar_one())

    for _ in range(3):
        eventually(lambda: listeners("*") == 1)
        assert listeners("pg_terminate_backend(pid, 60000)") == 1
        with contextlib.ExitStack() as clients:
            new = [
                clients.enter_context(httpx.Client(base_url=process, timeout=PATIENCE_S, verify=NO_TLS)) for _ in range(CLIENTS)
            ]
            assert [client.get("/healthz").status_code for client in new] == [200] * CLIENTS
