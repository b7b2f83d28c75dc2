"""A real run under Prometheus: the fault of an alarm raises it, and every panel of the dashboards shows data.

The servers are of this test, because it takes the synchronous standby away. It takes two minutes: an event has to wait for one.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
from pydantic import SecretStr

from api.access.tokens import make_development_token
from compose.embedded.infrastructure import Infrastructure
from compose.observability.dashboards import DASHBOARDS
from compose.roles import ROLES
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.migrate import upgrade
from producers.topics import create_topics
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.production.prometheus import PROGRAM, Prometheus, running_prometheus
from tests.support.api_server import KEY
from tests.support.kafka import write_raw
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, ORGANIZATION, standard_directory
from tests.support.ports import free_port
from tests.support.process import environment
from tests.support.receipts import KEY as SIGNING
from tests.support.receipts import ORIGIN
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_200)]

ALARMS = {
    "BulkregSubmissionsFail",
    "BulkregOutboxOld",
    "BulkregOutboxSlotsFree",
    "BulkregDeadLetters",
    "BulkregRoleRestarts",
    "BulkregRegistrationServiceAway",
    "BulkregInvariantBreached",
    "BulkregNotVerified",
    "BulkregBacklogNearLimit",
    "BulkregCommitsWait",
    "BulkregFiguresMissing",
}
"""Those whose fault is made here. The others wait for longer: tests/unit/test_observability.py has a case for each."""

# Panels of other programs' metrics need them: node_exporter and postgres_exporter are in Debian, Kafka's exporter is not.
EXPORTERS = {"From node_exporter.": "prometheus-node-exporter", "From postgres_exporter.": "prometheus-postgres-exporter"}

WAITS_S = 180.0
BACKLOG = 200


class Product:
    """The roles, each as a process with a port for its metrics."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.ports = {role: free_port() for role in ROLES}
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, **variables: str) -> None:
        port = {"BULKREG_API_PORT" if role == "api" else "BULKREG_HEALTH_PORT": str(self.ports[role])}
        with (self._folder / f"{role}.log").open("ab") as log:
            self._processes[role] = subprocess.Popen(
                [sys.executable, "-m", "cli", "run", role],
                env=self._environment() | port | variables,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: self._is_serving(role), what=role)

    def stop(self, role: str, *, kill: bool = False) -> None:
        process = self._processes.pop(role)
        process.kill() if kill else process.terminate()
        process.wait(PATIENCE_S)

    def stop_all(self) -> None:
        for role in list(self._processes):
            self.stop(role)

    def _is_serving(self, role: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[role]}/healthz", verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            assert self._processes[role].poll() is None, (self._folder / f"{role}.log").read_text()[-3_000:]
            return False

    def _environment(self) -> dict[str, str]:
        return environment(self.settings) | {"BULKREG_JWT_HS256_KEY": KEY, "BULKREG_RECEIPTS_SIGNING_KEY": SIGNING.secret_text()}

    def bulkreg(self, *arguments: str) -> int:
        command = [sys.executable, "-m", "cli", *arguments]
        return subprocess.run(command, env=self._environment(), capture_output=True, check=False).returncode

    def submit(self, mentors: range, *, kind: str = "visit") -> int:
        """Returns the status."""
        token = make_development_token(self.settings, sub=COORDINATOR, role=Role.COORDINATOR, orgs=(ORGANIZATION,), ttl_s=600)
        items = [
            {"mentor_id": f"mentor-{number}", "activity_type": kind, "activity_date": "2026-03-25", "duration_minutes": 60}
            for number in mentors
        ]
        response = httpx.post(
            f"http://127.0.0.1:{self.ports['api']}{API_PATH}",
            json={"items": items},
            headers={"Authorization": f"Bearer {token}"},
            timeout=PATIENCE_S,
            verify=NO_TLS,
        )
        return response.status_code

    def sql(self, *statements: str) -> None:
        url = self.settings.owner_url.set(drivername="postgresql").render_as_string(hide_password=False)
        with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)

    def number(self, question: str) -> int:
        url = self.settings.owner_url.set(drivername="postgresql").render_as_string(hide_password=False)
        with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute(question)
            row = cursor.fetchone()
            assert row is not None
            return int(row[0])


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with Infrastructure(tmp_path / "servers") as endpoints:
        settings = Settings(
            database_url=SecretStr(endpoints.postgres_url),
            kafka_bootstrap_servers=endpoints.kafka_bootstrap_servers,
            jwt_hs256_key=SecretStr(KEY),
            sweep_interval_ms=1_000,
            request_deadline_ms=2_000,
            registration_breaker_failures=1,
            receipts_origin=ORIGIN,
            max_items=BACKLOG,
            max_backlog_items=BACKLOG,
        )
        upgrade(settings)
        create_topics(settings)
        engine = create_database_engine(settings.owner_url, settings, connections=1, application_name="test")
        standard_directory(engine, mentor_count=400)
        engine.dispose()
        product = Product(settings, tmp_path)
        try:
            yield product
        finally:
            product.sql("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            product.stop_all()


@contextlib.contextmanager
def exporters(settings: Settings) -> Iterator[dict[str, int]]:
    """Runs the exporters that are installed, and yields their ports."""
    url = settings.owner_url.set(drivername="postgresql").update_query_dict({"sslmode": "disable"})
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as running:
        for program in EXPORTERS.values():
            if shutil.which(program) is None:
                continue
            ports[program] = free_port()
            process = running.enter_context(
                subprocess.Popen(
                    [program, f"--web.listen-address=127.0.0.1:{ports[program]}"],
                    env={"DATA_SOURCE_NAME": url.render_as_string(hide_password=False)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            running.callback(process.terminate)
        yield ports


@pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed (Debian: apt-get install prometheus)")
def test_alarms_and_panels_of_a_real_run(product: Product, tmp_path: Path) -> None:
    for role in ROLES:
        product.start(role)
    with exporters(product.settings) as of_others:
        targets = {"bulkreg": list(product.ports.values()), **{name: [port] for name, port in of_others.items()}}
        with running_prometheus(tmp_path, targets) as prometheus:
            eventually(prometheus.are_up, what="all targets are scraped")
            fires(prometheus, "BulkregNotVerified")
            _work(product)
            _break(product, prometheus)
            assert prometheus.fired() >= ALARMS
            empty = {
                f"{name}: {panel.title}: {legend}"
                for name, (_, panels) in DASHBOARDS.items()
                for panel in panels
                if not panel.about.startswith("From ") or EXPORTERS.get(panel.about) in of_others
                for legend, expression in panel.expressions.items()
                if not prometheus.has_data(expression)
            }
            assert empty == set()


def fires(prometheus: Prometheus, *alarms: str) -> None:
    eventually(lambda: prometheus.fired() >= set(alarms), within_s=WAITS_S, what=f"{alarms} are raised")


def _work(product: Product) -> None:
    for first in range(1, 100, 20):
        assert product.submit(range(first, first + 20)) == 202
    assert product.submit(range(1, 3), kind="unknown") == 202
    eventually(
        lambda: product.number("SELECT count(*) FROM orchestrator.batch WHERE completed_at IS NULL") == 0, within_s=WAITS_S
    )
    assert product.bulkreg("verify") == 0


def _break(product: Product, prometheus: Prometheus) -> None:
    write_raw(product.settings, Topic.BATCHES, [(b"not an event", {})], partition=0)
    fires(prometheus, "BulkregDeadLetters")

    for _ in range(4):
        product.stop("aggregator", kill=True)
        product.start("aggregator")
    fires(prometheus, "BulkregRoleRestarts")

    # Nothing listens at this address. The items stay pending.
    product.stop("registration")
    product.start("registration", BULKREG_REGISTRATION_URL=f"http://127.0.0.1:{free_port()}")
    assert product.submit(range(201, 201 + int(0.9 * BACKLOG))) == 202
    fires(prometheus, "BulkregRegistrationServiceAway", "BulkregBacklogNearLimit")

    product.stop("relay")
    assert product.submit(range(101, 103)) == 202
    fires(prometheus, "BulkregOutboxSlotsFree", "BulkregOutboxOld")

    product.sql("DELETE FROM orchestrator.outcome WHERE position = 0")
    assert product.bulkreg("verify") == 1
    fires(prometheus, "BulkregInvariantBreached")

    product.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'", "SELECT pg_reload_conf()")
    assert product.submit(range(103, 105)) == 503
    # A counter begins with its first error, so the rate sees only the second.
    eventually(lambda: prometheus.has_data('bulkreg_api_request_seconds_count{status="503"}'))
    assert product.submit(range(103, 105)) == 503
    fires(prometheus, "BulkregCommitsWait", "BulkregSubmissionsFail")

    product.stop("sweeper", kill=True)
    fires(prometheus, "BulkregFiguresMissing")
