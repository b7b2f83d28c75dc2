"""Three brokers under load: killed, restarted, cut off. Everything that was accepted is done, and no role is restarted."""

import json
import time

import pytest

from orchestrator.process.settings import Settings
from tests.cluster.bed import BROKERS, Bed
from tests.cluster.load import SOME, ended
from tests.cluster.network import dropped, need_own_network
from tests.support.crashes import kill, restart
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]

DOWN_S = 45.0
ALL_DOWN_S = 60.0
PARTITIONS = Settings().topic_partitions


def test_brokers_killed_one_after_the_other(unharmed: Bed) -> None:
    bed = unharmed
    with bed.load().at_work() as load:
        bed.go_on(load)
        for broker in BROKERS:
            kill(bed.servers, broker)
            bed.go_on(load)
            eventually(lambda: lacking(bed) == {f"Kafka broker {broker[-1]}"}, within_s=60)  # noqa: B023 - called at once
            restart(bed.servers, broker)
            bed.go_on(load)
            eventually(lambda: not lacking(bed), within_s=60)
    bed.check(load)
    bed.report("brokers killed one after the other", load)


def lacking(bed: Bed) -> set[str]:
    """The brokers that `doctor` names."""
    findings = json.loads(bed.product.bulkreg("doctor", "--json", code=None))["findings"]
    return {finding["subject"] for finding in findings if finding["subject"].startswith("Kafka broker")}


def test_rolling_restart(unharmed: Bed) -> None:
    bed = unharmed
    with bed.load().at_work() as load:
        for broker in BROKERS:
            bed.stop_server(broker)
            restart(bed.servers, broker)
            bed.go_on(load)
    bed.check(load)
    bed.report("brokers restarted in turn", load)


def test_two_of_three_down(unharmed: Bed) -> None:
    """Nothing can be acknowledged, and the API accepts as before."""
    bed = unharmed
    with bed.load().at_work() as load:
        bed.go_on(load)
        for broker in BROKERS[:2]:
            kill(bed.servers, broker)
        first = len(load.accepted)
        time.sleep(DOWN_S)
        assert len(load.accepted) > first + SOME
        assert load.refused == 0
        for broker in BROKERS[:2]:
            bed.servers.children[broker].start()
        for broker in BROKERS[:2]:
            bed.servers.wait_ready(broker)
        bed.go_on(load)
    bed.check(load)
    bed.report(f"two of three brokers down for {DOWN_S:.0f} s", load)


@pytest.mark.parametrize("is_coordinator", [True, False])
def test_row_72_clients_cut_off_from_one_healthy_broker(unharmed: Bed, *, is_coordinator: bool) -> None:
    """Batches on other partitions end while those on its partitions wait: also if it coordinates the roles' groups."""
    need_own_network()
    bed = unharmed
    coordinators = set(bed.coordinators().values())
    victim = next(name for name in BROKERS if (bed.broker_id(name) in coordinators) is is_coordinator)
    with bed.load().at_work() as load:
        bed.go_on(load)
        cut_off = {place for place, leader in bed.leaders().items() if leader == bed.broker_id(victim)}
        with dropped(bed.broker(victim).port):
            began = len(load.accepted)
            time.sleep(DOWN_S)
            batches = load.accepted[began:]
            healthy = [batch for batch in batches if not batch.places(PARTITIONS) & cut_off]
            stuck = [batch for batch in batches if batch.places(PARTITIONS) & cut_off]
            assert healthy
            # All of these end before the first of those that need the broker, which is still cut off.
            bed.wait_until_ended(healthy)
            assert not ended(bed.engine, stuck)
        bed.go_on(load)
    bed.check(load)
    name = f"clients cut off from a broker for {DOWN_S:.0f} s" + (", which is the coordinator" if is_coordinator else "")
    bed.report(f"{name}: other partitions", load, healthy)
    bed.report(f"{name}: its partitions", load, stuck)


def test_a_broker_cut_off_from_its_peers(unharmed: Bed) -> None:
    """The others replace it as leader. The clients still reach it."""
    need_own_network()
    bed = unharmed
    victim = BROKERS[0]
    broker = bed.broker(victim)
    with bed.load().at_work() as load:
        bed.go_on(load)
        with dropped(broker.peers_port, broker.controller_ports[bed.broker_id(victim) - 1]):
            bed.go_on(load)
            time.sleep(DOWN_S)
            bed.go_on(load)
        bed.go_on(load)
    bed.check(load)
    bed.report(f"a broker cut off from its peers for {DOWN_S:.0f} s", load)


def test_row_73_all_brokers_cut_off(unharmed: Bed) -> None:
    need_own_network()
    bed = unharmed
    with bed.load().at_work() as load:
        bed.go_on(load)
        with dropped(*(bed.broker(name).port for name in BROKERS)):
            first = len(load.accepted)
            time.sleep(ALL_DOWN_S)  # How long the outage lasts.
            assert len(load.accepted) > first + SOME
            assert load.refused == 0
        bed.go_on(load)
    bed.check(load)
    bed.report("clients cut off from all brokers for 60 s", load)
