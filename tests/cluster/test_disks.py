"""Full disks. The servers are given up at the end, because their disks are."""

import time
from collections.abc import Iterator

import pytest

from tests.chaos.disk import Disk, small_disk
from tests.cluster.bed import Bed
from tests.support.crashes import restart
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]

FULL_S = 30.0
BROKER, PRIMARY = "kafka-3", "postgres-1"


@pytest.fixture
def disk(bed: Bed, request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A disk of its own for a server, which is stopped at the end."""
    name: str = request.param
    bed.stop_server(name)
    with small_disk(bed.servers.home.path / name) as disk:
        if disk is None:
            pytest.skip("needs the right to mount a tmpfs: run make test-production as root")
        restart(bed.servers, name)
        try:
            yield disk
        finally:
            if bed.servers.children[name].pid is not None:
                bed.stop_server(name)


def run_again(bed: Bed, name: str) -> None:
    """Starts a server if it has ended, as its supervisor would."""
    if bed.servers.children[name].pid is None:
        restart(bed.servers, name)


@pytest.mark.parametrize("disk", [BROKER], indirect=True)
def test_a_brokers_disk_is_full(bed: Bed, disk: Disk) -> None:
    """The broker ends, and the others go on."""
    before = bed.roles()
    with bed.load().at_work() as load:
        bed.go_on(load)
        with disk.full():
            eventually(lambda: bed.servers.children[BROKER].pid is None, within_s=300, what="the end of the broker")
            bed.go_on(load)
            time.sleep(FULL_S)
        run_again(bed, BROKER)
        bed.go_on(load)
    bed.check(load)
    bed.report("a broker's disk full: it ends, and starts again when there is room", load)
    assert bed.roles() == before


@pytest.mark.parametrize("disk", [PRIMARY], indirect=True)
def test_the_databases_disk_is_full(bed: Bed, disk: Disk) -> None:
    """PostgreSQL refuses or ends. Nothing that was accepted is lost."""
    before = bed.roles()
    with bed.load().at_work() as load:
        bed.go_on(load)
        with disk.full():
            refused = load.refused
            eventually(lambda: load.refused > refused, within_s=300, what="a refused request")
            time.sleep(FULL_S)
        run_again(bed, PRIMARY)
        bed.go_on(load)
    bed.check(load)
    bed.report(f"the database's disk full for {FULL_S:.0f} s", load)
    assert bed.roles() == before
