"""Causes the faults, in an order that follows from the seed, each for some time. Two of them work at the same time."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from sqlalchemy.exc import OperationalError

from producers.producer import EventProducer
from producers.relay import OutboxRelay
from schemas.envelope import Topic
from tests.chaos.cluster import KAFKA, POSTGRES, ROLES, Cluster, SingleServers, single_servers
from tests.chaos.monitor import FILLS_FOR_S
from tests.chaos.replaced_topics import deleted
from tests.chaos.strangers import open_transaction, raw_poison
from tests.faults.proxy import Lost, PostgresProxy
from tests.support.read_only import read_only

LOSS_WAITS_S = 5.0


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that happened. Times are from `time.monotonic()`."""

    fault: str
    began_s: float
    lasted_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that lasts as long as the context, for this many seconds. It yields whether there was anything to harm."""

    name: str
    harm: Callable[[Cluster], contextlib.AbstractContextManager[bool]]
    least_s: float = 0.0
    most_s: float = 0.0


def role_faults() -> Sequence[Fault]:
    """Faults of our own processes."""
    return [
        *(Fault(f"kill -9 {role}", partial(_signalled, role, signal.SIGKILL)) for role in ROLES),
        *(Fault(f"SIGTERM {role}", partial(_signalled, role, signal.SIGTERM)) for role in ROLES),
        *pauses(),
    ]


def pauses() -> Sequence[Fault]:
    """Faults that do not end our own processes. But a consumer that is stopped for 5 s loses its partitions meanwhile."""
    return [
        *(Fault(f"SIGSTOP {role}", partial(_stopped, role), 0.5, 8.0) for role in ROLES),
        # Longer than its lease (`relay_lease_ms`), so another relay has its slots when it continues.
        Fault("SIGSTOP the relay beside another, beyond its lease", _stopped_beside_another, 12.0, 15.0),
    ]


def server_faults(cluster: SingleServers) -> Sequence[Fault]:
    """Faults of single servers, of the network to PostgreSQL, and of its disk; and what strangers write to Kafka."""
    proxy = cluster.proxy
    faults = [
        Fault("kill -9 PostgreSQL", partial(_signalled, POSTGRES, signal.SIGKILL)),
        Fault("kill -9 a PostgreSQL backend", lambda _: _killed_backend(cluster)),
        Fault("SIGSTOP PostgreSQL", partial(_stopped, POSTGRES), 0.5, 5.0),
        Fault("kill -9 Kafka", partial(_signalled, KAFKA, signal.SIGKILL)),
        Fault("SIGSTOP Kafka", partial(_stopped, KAFKA), 0.5, 5.0),
        Fault("cut all connections to PostgreSQL", lambda _: _cut(proxy)),
        Fault("refuse connections to PostgreSQL", lambda _: during(proxy.refusing()), 0.5, 3.0),
        Fault("hold up connections to PostgreSQL", lambda _: during(proxy.holding_up()), 0.5, 5.0),
        Fault("make the database read-only", made_read_only, 0.5, 4.0),
        Fault("lose a COMMIT", lambda _: _losing(Lost.REQUEST, proxy)),
        Fault("lose the answer to a COMMIT", lambda _: _losing(Lost.ANSWER, proxy)),
        Fault("raw poison", raw_poison),
        Fault("transactional upstream", open_transaction, 1.0, 10.0),
        *(
            Fault(f"delete the topic {topic}", partial(deleted, topic), 0.0, 4.0)
            for topic in (Topic.COMMANDS, Topic.COMMANDS_BULK)
        ),
    ]
    if cluster.disk is not None:
        disk = cluster.disk
        faults.append(Fault("fill PostgreSQL's disk", lambda _: during(disk.full()), 1.0, 4.0))
    return faults


@dataclass(frozen=True, slots=True)
class Stage:
    """A running product, and the faults of what it depends on. Each sequence of faults is caused in a thread of its own."""

    cluster: Cluster
    faults: Mapping[str, Sequence[Fault]]
    fills_for_s: float = FILLS_FOR_S
    """How long a process that has started fills its caches, pools and connections, before growth says anything about a leak."""


@contextlib.contextmanager
def single_stage(home: Path, environment: Mapping[str, str]) -> Iterator[Stage]:
    """The product on single servers. `environment` has its settings."""
    with single_servers(home, environment) as cluster:
        yield Stage(cluster, {"servers": server_faults(cluster)})


class Nemesis:
    """Causes faults in a thread of its own: each of them once in a random order, then all in another order."""

    def __init__(self, cluster: Cluster, faults: Sequence[Fault], seed: str, *, calm_s: float, strikes: list[Strike]) -> None:
        """`calm_s` is the mean time between two faults. Each one is added to `strikes`."""
        self._cluster = cluster
        self._faults = faults
        self._rng = random.Random(seed)
        self._calm_s = calm_s
        self._strikes = strikes

    def run(self, is_over: threading.Event) -> None:
        """Works until the end. Everything has recovered when it returns, except what restarts by itself."""
        for fault in self._order():
            if is_over.wait(self._rng.uniform(0.5, 1.5) * self._calm_s):
                return
            began_s = time.monotonic()
            with fault.harm(self._cluster) as has_struck:
                is_over.wait(self._rng.uniform(fault.least_s, fault.most_s))
            if has_struck:
                self._strikes.append(Strike(fault.name, began_s, time.monotonic() - began_s))

    def _order(self) -> Iterator[Fault]:
        while self._faults:
            yield from self._rng.sample(self._faults, len(self._faults))


@contextlib.contextmanager
def _signalled(name: str, number: signal.Signals, cluster: Cluster) -> Iterator[bool]:
    yield cluster.send(name, number)


@contextlib.contextmanager
def _stopped(name: str, cluster: Cluster) -> Iterator[bool]:
    with cluster.stopped(name) as was_there:
        yield was_there


@contextlib.contextmanager
def _stopped_beside_another(cluster: Cluster) -> Iterator[bool]:
    """The other is a relay of this process. It begins before and ends after."""
    producer = EventProducer(cluster.settings)
    other = OutboxRelay(cluster.settings, producer)
    thread = threading.Thread(target=other.run)
    thread.start()
    try:
        with cluster.stopped("relay") as was_there:
            yield was_there
    finally:
        other.stop()
        thread.join()
        producer.close()


@contextlib.contextmanager
def _killed_backend(cluster: SingleServers) -> Iterator[bool]:
    """Any backend. The server then ends all of them, and recovers."""
    backends = cluster.backends()[:1]
    for backend in backends:
        with contextlib.suppress(psutil.NoSuchProcess):
            backend.kill()
    yield bool(backends)


@contextlib.contextmanager
def _cut(proxy: PostgresProxy) -> Iterator[bool]:
    yield proxy.cut() > 0


@contextlib.contextmanager
def made_read_only(cluster: Cluster) -> Iterator[bool]:
    """The former primary of a failover behaves like this. PostgreSQL may die meanwhile, because of the other nemesis or of a lost backend."""
    url = cluster.settings.owner_url
    with contextlib.ExitStack() as harm:
        try:
            harm.enter_context(read_only(url))
        except OperationalError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _losing(what: Lost, proxy: PostgresProxy) -> Iterator[bool]:
    before, deadline = proxy.losses, time.monotonic() + LOSS_WAITS_S
    proxy.lose_next(what)
    while proxy.losses == before and time.monotonic() < deadline:
        time.sleep(0.02)
    proxy.lose_next(None)
    yield proxy.losses > before


@contextlib.contextmanager
def during(harm: contextlib.AbstractContextManager[None]) -> Iterator[bool]:
    """The same, as a fault that always harms."""
    with harm:
        yield True
