"""The product on a cluster that a test may damage: the servers belong to the test, the roles to `bulkreg up`."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from uuid import UUID

import psutil
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError

from compose.embedded.home import Home
from compose.embedded.infrastructure import Infrastructure
from compose.embedded.kafka import KafkaBroker
from compose.embedded.layout import CLUSTER
from compose.embedded.postgres import PostgresServer
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.cluster.load import MENTORS, SOME, Accepted, Load, Place, Took, ended, took
from tests.support.pipeline import standard_directory
from tests.support.product import Product, running_product
from tests.support.waiting import PATIENCE_S, eventually

BROKERS = ("kafka-1", "kafka-2", "kafka-3")
HEALED_WITHIN_S = 300.0


@dataclass
class Bed:
    """A running product and its servers."""

    servers: Infrastructure
    product: Product
    settings: Settings
    engine: Engine
    """Of the owner, at the database that accepts changes."""
    _numbers: "count[int]" = field(default_factory=count)

    def load(self) -> Load:
        """Clients of this product."""
        stack = self.product.stack
        return Load(stack["api"], stack["token"], self._numbers)

    def roles(self) -> dict[str, int]:
        """The process of each role. Another process means that the role has ended."""
        return {role: pids[0] for role, pids in self.product.stack["pids"].items()}

    def broker_id(self, name: str) -> int:
        """A broker's id in Kafka."""
        return BROKERS.index(name) + 1

    def broker(self, name: str) -> KafkaBroker:
        """A broker, with its ports."""
        return broker_of(self.servers, name)

    def postgres(self, name: str) -> PostgresServer:
        """A PostgreSQL server, with its port and the URL that leads to it alone."""
        return postgres_of(self.servers, name)

    def stop_server(self, name: str) -> None:
        """Stops a server as an operator does."""
        child = self.servers.children[name]
        child.signal_stop()
        child.wait(time.monotonic() + self.servers.services[name].stop_timeout_s)

    def leaders(self) -> dict[Place, int]:
        """The leader of each partition of the product's topics."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap_servers, "log_level": 0})
        known = admin.list_topics(timeout=PATIENCE_S).topics
        return {
            (topic, number): partition.leader
            for topic in Topic
            for number, partition in known[topic.on_cluster(self.settings.topic_prefix)].partitions.items()
        }

    def coordinators(self) -> dict[str, int]:
        """The broker that coordinates the group of each role."""
        admin = AdminClient({"bootstrap.servers": self.settings.kafka_bootstrap_servers, "log_level": 0})
        groups = {f"{self.settings.topic_prefix}.{role}": role for role in ("splitter", "registration", "aggregator")}
        futures = admin.describe_consumer_groups(list(groups), request_timeout=PATIENCE_S)
        return {groups[group]: future.result().coordinator.id for group, future in futures.items()}

    @contextlib.contextmanager
    def stopped(self, server: str) -> Iterator[None]:
        """Stops a server with SIGSTOP while the block runs: its connections stay, and nothing comes from it."""
        process = psutil.Process(self.servers.pids[server])
        family = [process, *process.children(recursive=True)]
        for each in family:
            each.suspend()
        try:
            yield
        finally:
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()

    def go_on(self, load: Load) -> None:
        """Returns when some of the batches that are submitted from now on have ended."""
        first = len(load.accepted)
        eventually(
            lambda: len(self._ended(load.accepted[first:])) >= SOME,
            within_s=HEALED_WITHIN_S,
            what="more batches that have ended",
        )

    def _ended(self, batches: Sequence[Accepted]) -> dict[UUID, float]:
        """As `ended`. While no database accepts changes, nothing has ended."""
        try:
            return ended(self.engine, batches)
        except OperationalError:
            return {}

    def wait_until_ended(self, batches: Sequence[Accepted]) -> None:
        """Returns when all have succeeded. Nobody restarts anything meanwhile."""
        wanted = {batch.batch_id for batch in batches}
        eventually(lambda: wanted <= self._ended(batches).keys(), within_s=HEALED_WITHIN_S, what="every accepted batch ended")

    def report(self, name: str, load: Load, batches: Sequence[Accepted] | None = None) -> Took:
        """Prints how long batches took: these, or all."""
        measured = took(self.engine, load.accepted if batches is None else batches)
        print(f"\n| {name} | {measured} | {load.refused} |")
        return measured

    def check(self, load: Load) -> None:
        """Everything that was accepted is done, once, and `verify` finds nothing."""
        self.wait_until_ended(load.accepted)
        self.product.bulkreg("verify")


def broker_of(servers: Infrastructure, name: str) -> KafkaBroker:
    """A broker of a cluster."""
    server = servers.services[name]
    assert isinstance(server, KafkaBroker)
    return server


def postgres_of(servers: Infrastructure, name: str) -> PostgresServer:
    """A PostgreSQL server of a cluster."""
    server = servers.services[name]
    assert isinstance(server, PostgresServer)
    return server


@contextlib.contextmanager
def running_bed(folder: Path) -> Iterator[Bed]:
    """Starts servers and roles, and stops them when the block ends."""
    servers = Infrastructure(folder / "servers", layout=CLUSTER)
    with servers as endpoints, running_roles(servers, folder / "roles", endpoints.postgres_url) as bed:
        yield bed


@contextlib.contextmanager
def product_on(kafka: str, database_url: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Product]:
    """Starts the roles on servers at these addresses. `environment` has further settings."""
    home = Home(folder)
    home.create()
    home.port("api")  # Not the usual port, which may be taken.
    del home  # This also ends the reservation of the port.
    addresses = {
        "BULKREG_DATABASE_URL": database_url,
        "BULKREG_KAFKA_BOOTSTRAP_SERVERS": kafka,
        "BULKREG_TOPIC_REPLICATION_FACTOR": str(len(BROKERS)),
    }
    with running_product(folder, {**(environment or {}), **addresses}) as product:
        yield product


@contextlib.contextmanager
def running_roles(servers: Infrastructure, folder: Path, database_url: str) -> Iterator[Bed]:
    """Starts the roles on running servers. They reach the database by this URL."""
    kafka = servers.endpoints.kafka_bootstrap_servers
    with product_on(kafka, database_url, folder) as product:
        settings = Settings(
            database_url=SecretStr(servers.endpoints.postgres_url), kafka_bootstrap_servers=kafka, topic_replication_factor=3
        )
        engine = create_engine(settings.owner_url, pool_pre_ping=True)
        standard_directory(engine, mentor_count=MENTORS)
        try:
            yield Bed(servers, product, settings, engine)
        finally:
            engine.dispose()
