"""The stage of `make chaos CLUSTER=1`: the product on three brokers, and on two databases that Patroni manages, with their faults.

Brokers and databases are harmed at the same time, each in a thread of its own. A server that a fault has ended is started again when the
fault is over, as its supervisor or an operator would do it. Nobody restarts a role.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import CLUSTER
from tests.chaos.cluster import Cluster, employ
from tests.chaos.nemesis import Fault, Stage, during, made_read_only
from tests.chaos.strangers import open_transaction, raw_poison
from tests.cluster.bed import BROKERS, broker_of, product_on
from tests.cluster.network import dropped
from tests.cluster.patroni import READY_WITHIN_S, Managed, managed
from tests.support.crashes import kill
from tests.support.product import Product
from tests.support.waiting import eventually

FILLS_FOR_S = 1_000.0
"""With three brokers and two databases that come and go, buffers, connections and metadata grow for longer: the registration's process
from 98 to 141 MB in its first 16 minutes, and not after that (docs/chaos.md)."""


class SeveralServers(Cluster):
    """The product on three brokers and two databases."""

    servers = BROKERS

    def __init__(self, product: Product, brokers: Infrastructure, postgres: Managed, keeper: ThreadPoolExecutor) -> None:
        super().__init__(product)
        self._brokers = brokers
        self._postgres = postgres
        self._keeper = keeper

    @property
    def not_reached(self) -> Sequence[str]:
        return (
            "No disk was filled, no COMMIT was lost on its way, no topic was deleted and no older database was restored: "
            "the chaos of single servers does that.",
        )

    def process(self, name: str) -> psutil.Process | None:
        """The process of a role group, or a broker."""
        if name not in BROKERS:
            return super().process(name)
        pid = self._brokers.pids.get(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            return None if pid is None else psutil.Process(pid)
        return None

    def wait_until_healed(self) -> None:
        """As for single servers. A commit waits for the second database again."""
        super().wait_until_healed()
        eventually(self._postgres.has_synchronous_standby, within_s=READY_WITHIN_S, what="a synchronous standby")

    @contextlib.contextmanager
    def brokers_killed(self, *names: str) -> Iterator[bool]:
        """In the block they are gone."""
        for name in names:
            kill(self._brokers, name)
        try:
            yield True
        finally:
            self._start(*names)

    @contextlib.contextmanager
    def broker_stopped_in_order(self, name: str) -> Iterator[bool]:
        """As an operator restarts it: its partitions get other leaders before it ends."""
        child = self._brokers.children[name]
        child.signal_stop()
        child.wait(time.monotonic() + self._brokers.services[name].stop_timeout_s)
        try:
            yield True
        finally:
            self._start(name)

    @contextlib.contextmanager
    def primary_lost(self) -> Iterator[bool]:
        """In the block its machine is gone. If that lasts, Patroni promotes the standby."""
        with self._lost(self._postgres.leader()) as was_there:
            yield was_there

    @contextlib.contextmanager
    def standby_lost(self) -> Iterator[bool]:
        """In the block its machine is gone. Commits wait until Patroni has given it up."""
        with self._lost(self._postgres.standby()) as was_there:
            yield was_there

    @contextlib.contextmanager
    def primary_frozen(self) -> Iterator[bool]:
        """In the block its machine stands still. If that lasts, it finds another primary afterwards, and has to give up."""
        leader = self._postgres.leader()
        if leader is None:
            yield False
            return
        with self._postgres.frozen(leader):
            yield True
        self._wait_for_two()

    @contextlib.contextmanager
    def switched_over(self) -> Iterator[bool]:
        """The standby becomes the primary, as before maintenance."""
        yield self._postgres.switch_over()
        self._wait_for_two()

    @contextlib.contextmanager
    def backend_killed(self) -> Iterator[bool]:
        """Any backend of the primary. The server ends all of them, and recovers."""
        leader = self._postgres.leader()
        yield leader is not None and self._postgres.kill_a_backend(leader)
        self._wait_for_two()

    @contextlib.contextmanager
    def databases_cut_off(self) -> Iterator[bool]:
        """Drops the packets to and from both databases, so that no error comes. They lose each other as well."""
        with dropped(*self._postgres.ports):
            yield True
        self._wait_for_two()

    def cut_off(self, *names: str) -> contextlib.AbstractContextManager[bool]:
        """Drops the packets between these brokers and their clients. The brokers reach each other."""
        return during(dropped(*(broker_of(self._brokers, name).port for name in names)))

    def cut_off_from_peers(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Drops the packets between a broker and the others. The clients reach it."""
        broker = broker_of(self._brokers, name)
        return during(dropped(broker.peers_port, broker.controller_ports[BROKERS.index(name)]))

    @contextlib.contextmanager
    def _lost(self, node: str | None) -> Iterator[bool]:
        if node is None:
            yield False
            return
        self._postgres.lose(node)
        try:
            yield True
        finally:
            self._keeper.submit(self._postgres.start, node).result()
        self._wait_for_two()

    def _wait_for_two(self) -> None:
        """The next fault would otherwise take the only copy, and then nobody can be promoted."""
        eventually(self._postgres.has_synchronous_standby, within_s=READY_WITHIN_S, what="a synchronous standby again")

    def _start(self, *names: str) -> None:
        for name in names:
            # By a thread that lives on: Linux ends a child when the thread that started it ends.
            self._keeper.submit(self._brokers.children[name].start).result()
        for name in names:
            # On a machine with other work, longer than the minute that `bulkreg up` allows. How long a start takes is not what is judged.
            service, child = self._brokers.services[name], self._brokers.children[name]
            child.wait_ready(service.is_ready, time.monotonic() + READY_WITHIN_S)


def broker_faults(cluster: SeveralServers) -> Sequence[Fault]:
    """Faults of brokers and of the network to them, and what strangers write. Some outlast the clients' timeouts, most do not."""
    return [
        *(Fault(f"kill -9 {name}", _on(cluster.brokers_killed, name), 0.0, 20.0) for name in BROKERS),
        *(Fault(f"restart {name}", _on(cluster.broker_stopped_in_order, name), 0.0, 5.0) for name in BROKERS),
        *(Fault(f"SIGSTOP {name}", _on(cluster.stopped, name), 1.0, 20.0) for name in BROKERS),
        *(Fault(f"cut the clients off from {name}", _on(cluster.cut_off, name), 2.0, 45.0) for name in BROKERS),
        *(Fault(f"cut {name} off from its peers", _on(cluster.cut_off_from_peers, name), 2.0, 45.0) for name in BROKERS),
        Fault("kill -9 two of three brokers", _on(cluster.brokers_killed, *BROKERS[:2]), 0.0, 20.0),
        Fault("cut the clients off from all brokers", _on(cluster.cut_off, *BROKERS), 2.0, 45.0),
        Fault("raw poison", raw_poison),
        Fault("transactional upstream", open_transaction, 1.0, 10.0),
    ]


def database_faults(cluster: SeveralServers) -> Sequence[Fault]:
    """Faults of the databases and of the network to them. Patroni waits 20 s for a primary before it promotes the standby."""
    return [
        Fault("lose the primary for a moment", _on(cluster.primary_lost), 0.0, 10.0),
        Fault("lose the primary until the standby is promoted", _on(cluster.primary_lost), 25.0, 40.0),
        Fault("freeze the primary for a moment", _on(cluster.primary_frozen), 1.0, 10.0),
        Fault("freeze the primary until the standby is promoted", _on(cluster.primary_frozen), 25.0, 40.0),
        Fault("switch over", _on(cluster.switched_over)),
        Fault("lose the standby", _on(cluster.standby_lost), 1.0, 40.0),
        Fault("kill -9 a PostgreSQL backend", _on(cluster.backend_killed)),
        Fault("cut off both databases", _on(cluster.databases_cut_off), 1.0, 45.0),
        Fault("make the database read-only", made_read_only, 0.5, 20.0),
    ]


Harm = contextlib.AbstractContextManager[bool]


def _on(harm: Callable[..., Harm], *names: str) -> Callable[[Cluster], Harm]:
    return lambda _: harm(*names)


@contextlib.contextmanager
def several_stage(home: Path, environment: Mapping[str, str]) -> Iterator[Stage]:
    """The product on a cluster. `environment` has its settings. Needs a network of its own, Patroni and etcd."""
    with ThreadPoolExecutor(1) as keeper, managed() as postgres:
        brokers = Infrastructure(home.with_name("servers"), postgres_url=postgres.url, layout=CLUSTER)
        with brokers as endpoints, product_on(endpoints.kafka_bootstrap_servers, postgres.url, home, environment) as product:
            cluster = SeveralServers(product, brokers, postgres, keeper)
            employ(cluster.settings)
            faults = {"brokers": broker_faults(cluster), "databases": database_faults(cluster)}
            yield Stage(cluster, faults, fills_for_s=FILLS_FOR_S)
