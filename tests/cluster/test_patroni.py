"""PostgreSQL under Patroni: the primary is lost, and later there is a switchover. Nobody restarts a role."""

from pathlib import Path

import pytest

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import CLUSTER
from tests.cluster.bed import running_roles
from tests.cluster.patroni import READY_WITHIN_S, managed
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]


def test_patroni_fails_over_and_switches_over(tmp_path: Path) -> None:
    with managed() as postgres:
        servers = Infrastructure(tmp_path / "servers", postgres_url=postgres.url, layout=CLUSTER)
        with servers, running_roles(servers, tmp_path / "roles", postgres.url) as bed:
            before = bed.roles()
            with bed.load().at_work() as load:
                bed.go_on(load)
                lost = postgres.leader()
                assert lost is not None
                postgres.lose(lost)
                bed.go_on(load)
                postgres.start(lost)
            bed.check(load)
            bed.report("Patroni: the primary lost", load)
            eventually(postgres.has_synchronous_standby, within_s=READY_WITHIN_S, what="a synchronous standby again")
            with bed.load().at_work() as load:
                bed.go_on(load)
                assert postgres.switch_over()
                bed.go_on(load)
            bed.check(load)
            bed.report("Patroni: a switchover", load)
            assert bed.roles() == before
