"""An upgrade, restarts and outages under load: nothing is lost, nothing is done twice, and nobody repairs anything by hand.

The roles are processes of `bulkreg run`, as in a deployment. The tests print their figures.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from types import TracebackType
from typing import Self

import httpx
import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.product import ROLE_GROUPS
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.migrate import upgrade
from producers.topics import create_topics
from schemas.envelope import Topic
from tests.faults.roles import assert_exactly_once
from tests.support.api_server import KEY
from tests.support.clients import ITEMS, Clients
from tests.support.crashes import kill, restart
from tests.support.kafka import reading
from tests.support.next_version import NextVersion
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import standard_directory
from tests.support.ports import free_port
from tests.support.process import environment
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]

# --- A deployment -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RoleProcess:
    """A process of `bulkreg run`, and the address of its /readyz."""

    process: subprocess.Popen[bytes]
    url: str

    def answers(self) -> bool:
        """Whether it is ready."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=PATIENCE_S, verify=NO_TLS).status_code == 200
        return False

    def stop(self) -> int:
        """Sends SIGTERM. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


class Deployment:
    """Processes with the settings of one deployment. At the end, those that still run are killed."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self._environment = environment(settings) | {"BULKREG_JWT_HS256_KEY": KEY, "BULKREG_LOG_LEVEL": "WARNING"}
        self._log = logs / "roles.log"
        self._processes: list[RoleProcess] = []

    def start(self, *roles: str, code: Path = ROOT) -> RoleProcess:
        """Starts a process of these roles, without waiting until it is ready."""
        port = free_port()
        where = {"BULKREG_API_PORT" if "api" in roles else "BULKREG_HEALTH_PORT": str(port)}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "run", *roles], cwd=code, env=self._environment | where, stdout=log, stderr=log
            )
        started = RoleProcess(process, f"http://127.0.0.1:{port}")
        self._processes.append(started)
        return started

    def upgrade(self, code: Path) -> None:
        """`bulkreg db upgrade` of this version."""
        subprocess.run(
            [sys.executable, "-m", "cli", "db", "upgrade"], cwd=code, env=self._environment, check=True, timeout=PATIENCE_S
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        for started in self._processes:
            started.process.kill()
            started.process.wait(PATIENCE_S)
        if kind is not None:
            print(self._log.read_text()[-4_000:])


def wait_until_ready(processes: Sequence[RoleProcess]) -> None:
    for process in processes:
        eventually(process.answers, what="a role that is ready")


# --- An upgrade, and with it a restart of every role -----------------------------------------------------------------------------

CONTRACT = """
    UPDATE orchestrator.outcome SET of_the_next_version = 'before' WHERE of_the_next_version IS NULL;
    ALTER TABLE orchestrator.outcome ALTER of_the_next_version SET NOT NULL
"""


def test_upgrade_and_restart_of_every_role_under_load(settings: Settings, topics: None, engine: Engine, tmp_path: Path) -> None:
    """As docs/operations.md says: the schema first, then one process after the other. For a while both versions run side by side."""
    standard_directory(engine)
    (tmp_path / "next").mkdir()
    new = NextVersion(tmp_path / "next")
    with Deployment(settings, tmp_path) as deployment:
        running = {roles: deployment.start(*roles) for roles in ROLE_GROUPS}
        wait_until_ready(list(running.values()))
        clients = Clients(settings, [running["api",].url])
        with clients.at_work(3, pause_s=0.05):
            clients.go_on()
            deployment.upgrade(new.folder)
            clients.go_on()
            for roles in ROLE_GROUPS:
                before, running[roles] = running[roles], deployment.start(*roles, code=new.folder)
                wait_until_ready([running[roles]])
                if "api" in roles:
                    clients.urls.append(running[roles].url)
                assert before.stop() == 0, roles
                if "api" in roles:
                    clients.urls.remove(before.url)
                clients.go_on()
            # Every process now writes the column.
            new.add_migration("contract", CONTRACT)
            deployment.upgrade(new.folder)
            clients.go_on()
        assert all(process.stop() == 0 for process in running.values())
    times_s = sorted(clients.times_s)
    print(
        f"{len(times_s)} batches: p50 {quantiles(times_s, n=100)[49]:.3f} s, p99 {quantiles(times_s, n=100)[98]:.3f} s,"
        f" longest {times_s[-1]:.3f} s; repeated requests: {dict(clients.trouble)}"
    )
    assert not clients.trouble["503"], "a client got 503 although nothing was away"
    assert_exactly_once(engine, settings, activities=ITEMS * len(clients.accepted))
    with engine.connect() as connection:
        written_by = set(connection.scalars(text("SELECT DISTINCT of_the_next_version FROM orchestrator.outcome")))
    assert written_by == {"before", "next"}, "both versions must have decided items"
    with reading(settings, Topic.LIFECYCLE) as told, reading(settings, Topic.RESULTS) as results:
        announced = {record.id: record.data["batch_id"] for record in told.wait_for(len(clients.accepted))}
        assert sorted(map(str, announced.values())) == sorted(clients.accepted), "each batch must have one completion"
        assert len({record.id for record in results.wait_for(ITEMS * len(clients.accepted))}) == ITEMS * len(clients.accepted)


# --- Outages ------------------------------------------------------------------------------------------------------------------------

HOT = 0.5
"""CPU time as a share of one core. A loop that does not wait uses a whole one. (Meanwhile the API's process serves one client.)"""


def cpu_s(processes: Sequence[RoleProcess]) -> list[float]:
    times = [psutil.Process(started.process.pid).cpu_times() for started in processes]
    return [time.user + time.system for time in times]


@pytest.mark.parametrize(
    "outage_s", [5.0, pytest.param(600.0, marks=[pytest.mark.full, pytest.mark.timeout(3_000)])], ids=["short", "ten-minutes"]
)
def test_outage_of_each_server_under_load(tmp_path: Path, outage_s: float) -> None:
    """What was accepted is processed when the server is back, and waiting for the server costs almost no CPU time."""
    own = Infrastructure(tmp_path / "home")
    settings = Settings(
        database_url=SecretStr(own.endpoints.postgres_url), kafka_bootstrap_servers=own.endpoints.kafka_bootstrap_servers
    )
    with own, Deployment(settings, tmp_path) as deployment:
        upgrade(settings)
        create_topics(settings)
        engine = create_database_engine(settings.worker_url, settings, connections=2, application_name="test")
        standard_directory(engine)
        running = {roles: deployment.start(*roles) for roles in ROLE_GROUPS}
        processes = list(running.values())
        wait_until_ready(processes)
        clients = Clients(settings, [running["api",].url])
        with clients.at_work(1, pause_s=0.1, follow=False):
            for server in ("kafka", "postgres"):
                eventually(lambda: unfinished(engine) < 5, what="a flow that keeps up")
                kill(own, server)
                accepted, began, began_s = len(clients.accepted), cpu_s(processes), time.monotonic()
                time.sleep(outage_s)  # How long the outage lasts.
                lasted_s = time.monotonic() - began_s
                shares = [(after - before) / lasted_s for before, after in zip(began, cpu_s(processes), strict=True)]
                waiting = len(clients.accepted) - accepted
                restart(own, server)
                back_s = time.monotonic()
                engine.dispose()
                eventually(
                    lambda: unfinished(engine) < 5, within_s=PATIENCE_S + outage_s, what=f"the end of what waited for {server}"
                )
                print(
                    f"{server} away for {outage_s:.0f} s: {waiting} batches accepted meanwhile, done {time.monotonic() - back_s:.1f} s"
                    f" after it was back; cores used: {', '.join(f'{share:.3f}' for share in shares)}"
                )
                assert max(shares) < HOT, f"a process was busy while {server} was away: {shares}"
        eventually(lambda: unfinished(engine) == 0, what="the end of everything")
        assert [started.process.poll() for started in processes] == [None] * len(processes), "a process has ended"
        assert_exactly_once(engine, settings, activities=ITEMS * len(clients.accepted))
        engine.dispose()


def unfinished(engine: Engine) -> int:
    """How many accepted batches have not ended."""
    with engine.connect() as connection:
        found = text("SELECT count(*) FROM orchestrator.batch WHERE completed_at IS NULL")
        return int(connection.execute(found).scalar_one())
