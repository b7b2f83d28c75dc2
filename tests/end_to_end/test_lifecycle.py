"""An upgrade, restarts and outages under load: nothing is lost, nothing is done twice, and nobody repairs anything by hand.

The roles are processes of `bulkreg run`, as in a deployment. The tests print their figures.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from statistics import quantiles
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.access.tokens import make_development_token
from compose.embedded.infrastructure import Infrastructure
from compose.embedded.product import ROLE_GROUPS
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.migrate import newest_version, upgrade
from producers.topics import create_topics
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.faults.roles import assert_exactly_once
from tests.support.api_server import KEY
from tests.support.expansion import EXPAND_EVERY_TABLE
from tests.support.kafka import reading
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, ORGANIZATION, standard_directory
from tests.support.ports import free_port
from tests.support.process import environment
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "compose", "consumers", "orchestrator", "producers", "schemas")
ITEMS = 5
MENTORS = 100
FIRST_DAY = date(1990, 1, 1)

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


# --- Clients ----------------------------------------------------------------------------------------------------------------------


class Clients:
    """Clients of the API. Each repeats a request under its key until it gets a final response."""

    def __init__(self, settings: Settings, urls: list[str]) -> None:
        self.urls = urls
        """The addresses of APIs. The list may change at any time, like a proxy's."""
        self.accepted: list[str] = []
        self.times_s: list[float] = []
        """For each batch that was followed to its end, the time from the first try to submit it."""
        self.trouble: Counter[str] = Counter()
        """How many requests were repeated, by reason."""
        with_key = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})
        token = make_development_token(with_key, sub=COORDINATOR, role=Role.COORDINATOR, orgs=(ORGANIZATION,), ttl_s=7_200)
        self._http = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S)
        self._numbers = count()
        self._stopping = threading.Event()
        self._raised: list[BaseException] = []

    def ask(self, method: str, path: str, headers: Mapping[str, str], **request: Any) -> httpx.Response:
        """The first response that is not 503. Raises AssertionError for an unexpected one."""
        for turn in count():
            url = self.urls[turn % len(self.urls)]
            try:
                answer = self._http.request(method, f"{url}{API_PATH}{path}", headers=headers, **request)
            except httpx.TransportError as error:
                self.trouble[type(error).__name__] += 1
                time.sleep(0.02)
                continue
            if answer.status_code == 503:
                self.trouble["503"] += 1
                time.sleep(0.1)
                continue
            assert answer.status_code in (200, 202, 304), answer.text
            return answer
        raise AssertionError("unreachable")

    def submit(self) -> tuple[str, str]:
        """Submits a batch with new values. Returns its id and its ETag."""
        number = next(self._numbers)
        day, group = divmod(number, MENTORS // ITEMS)
        items = [
            {
                "mentor_id": f"mentor-{1 + group * ITEMS + position}",
                "activity_type": "visit",
                "activity_date": (FIRST_DAY + timedelta(days=day)).isoformat(),
                "duration_minutes": 60,
            }
            for position in range(ITEMS)
        ]
        answer = self.ask("POST", "", {"Idempotency-Key": f"batch-{number}"}, json={"items": items})
        batch_id = str(answer.json()["batch_id"])
        self.accepted.append(batch_id)
        return batch_id, answer.headers.get("ETag", "")

    def submit_and_follow(self) -> None:
        """Submits a batch and follows it until it has succeeded."""
        began_s = time.monotonic()
        batch_id, etag = self.submit()
        status = ""
        while status not in ("completed", "partial", "failed", "cancelled"):
            answer = self.ask("GET", f"/{batch_id}", {"If-None-Match": etag}, params={"wait": "20s"})
            if answer.status_code == 200:
                status, etag = answer.json()["status"], answer.headers["ETag"]
        self.times_s.append(time.monotonic() - began_s)
        assert status == "completed", answer.text

    def go_on(self) -> None:
        """Returns after each client has finished some more batches."""
        goal = len(self.times_s) + 10
        eventually(lambda: self._raised or len(self.times_s) >= goal, what="more finished batches")
        assert not self._raised, self._raised

    @contextlib.contextmanager
    def at_work(self, number: int, *, pause_s: float = 0.0, follow: bool = True) -> Iterator[None]:
        """Runs this many clients, each with one batch after the other."""

        def work() -> None:
            try:
                while not self._stopping.wait(pause_s):
                    self.submit_and_follow() if follow else self.submit()
            except BaseException as error:
                self._raised.append(error)

        threads = [threading.Thread(target=work) for _ in range(number)]
        with self._http:
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._stopping.set()
                for thread in threads:
                    thread.join()
        assert not self._raised, self._raised


# --- An upgrade, and with it a restart of every role -----------------------------------------------------------------------------

MIGRATION = '''
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("""{sql}""")
'''
CONTRACT = """
    UPDATE orchestrator.outcome SET of_the_next_version = 'before' WHERE of_the_next_version IS NULL;
    ALTER TABLE orchestrator.outcome ALTER of_the_next_version SET NOT NULL
"""


class NextVersion:
    """The product as it may look in the next version: another folder of code, with a migration and with code that needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in PACKAGES:
            if package != "orchestrator":
                (folder / package).symlink_to(ROOT / package)
        shutil.copytree(ROOT / "orchestrator", folder / "orchestrator")
        self._versions = folder / "orchestrator" / "storage" / "migrations" / "versions"
        self._newest = newest_version()
        self.add_migration("expand", EXPAND_EVERY_TABLE)
        # It writes a column that the present version does not know.
        statements = folder / "orchestrator" / "storage" / "sql" / "outcomes.sql"
        source = statements.read_text()
        for present, next_ in (
            ("error, created_at)", "error, created_at, of_the_next_version)"),
            ("n.error, CAST(:at AS timestamptz)", "n.error, CAST(:at AS timestamptz), 'next'"),
        ):
            assert source.count(present) == 1
            source = source.replace(present, next_)
        statements.write_text(source)

    def add_migration(self, revision: str, sql: str) -> None:
        """Adds a migration at the end of the chain."""
        (self._versions / f"{revision}.py").write_text(MIGRATION.format(revision=revision, before=self._newest, sql=sql))
        self._newest = revision


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
                own.kill(server)
                accepted, began, began_s = len(clients.accepted), cpu_s(processes), time.monotonic()
                time.sleep(outage_s)  # How long the outage lasts.
                lasted_s = time.monotonic() - began_s
                shares = [(after - before) / lasted_s for before, after in zip(began, cpu_s(processes), strict=True)]
                waiting = len(clients.accepted) - accepted
                own.restart(server)
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
