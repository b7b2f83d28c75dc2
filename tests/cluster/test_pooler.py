"""PgBouncer in session mode between the roles and the database of the cluster, while it is killed and started again."""

import signal
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import CLUSTER
from orchestrator.process.settings import Settings
from tests.cluster.bed import postgres_of, running_roles
from tests.support.pooler import running_pooler

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]

AWAY_S = 15.0


def test_pgbouncer_in_session_mode(tmp_path: Path) -> None:
    servers = Infrastructure(tmp_path / "servers", layout=CLUSTER)
    with servers as endpoints:
        settings = Settings(
            database_url=SecretStr(postgres_of(servers, "postgres-1").url),
            kafka_bootstrap_servers=endpoints.kafka_bootstrap_servers,
            topic_replication_factor=3,
        )
        with (
            running_pooler(settings, pool_mode="session", max_client_conn="200", default_pool_size="60") as (through, pooler),
            running_roles(servers, tmp_path / "roles", through.database_url.get_secret_value()) as bed,
        ):
            before = bed.roles()
            with bed.load().at_work() as load:
                bed.go_on(load)
                pooler.end(signal.SIGKILL)
                time.sleep(AWAY_S)  # How long the outage lasts.
                pooler.start()
                bed.go_on(load)
            bed.check(load)
            assert bed.roles() == before
            bed.report(f"PgBouncer in session mode, away for {AWAY_S:.0f} s", load)
