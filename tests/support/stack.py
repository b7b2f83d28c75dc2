"""The PostgreSQL and the Kafka that the tests use: from packages, in containers, or given ones."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from sqlalchemy import create_engine, make_url, text

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.kafka import KafkaBroker
from compose.embedded.postgres import PostgresServer
from compose.embedded.process import Program
from tests.support.forwarding import forwarded
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from testcontainers.core.docker_client import DockerClient

POSTGRES_IMAGE = "postgres:18"
KAFKA_IMAGE = "apache/kafka:4.3.1"
CONTAINERS_READY_WITHIN_S = 120.0
EXTERNAL = ("BULKREG_DATABASE_URL", "BULKREG_KAFKA_BOOTSTRAP_SERVERS")
"""The variables with the servers of the kind `external`, in the order of `Stack`."""


@dataclass(frozen=True)
class Stack:
    """The addresses of both. The PostgreSQL user may create databases and roles."""

    postgres_url: str
    kafka_bootstrap_servers: str


def chosen_kind() -> str:
    """Returns the value of BULKREG_TEST_STACK: `embedded` (the default), `containers` or `external`."""
    return os.environ.get("BULKREG_TEST_STACK") or "embedded"


def check_choice(kind: str) -> None:
    """Raises pytest.UsageError, which says what is missing, if this machine can't run a stack of the kind."""
    if kind not in ("embedded", "containers", "external"):
        raise pytest.UsageError(f"BULKREG_TEST_STACK is embedded, containers or external, not {kind!r}")
    if kind == "external" and (missing := [name for name in EXTERNAL if name not in os.environ]):
        raise pytest.UsageError(f"BULKREG_TEST_STACK=external needs {' and '.join(missing)}")
    if kind == "containers":
        _find_engine()


def _find_engine() -> None:
    # Imported here, because at import it looks for an engine and warns about it.
    from docker.errors import DockerException  # type: ignore[import-untyped]
    from testcontainers.core.docker_client import DockerClient

    try:
        DockerClient().client.close()
    except DockerException as error:
        raise pytest.UsageError(f"BULKREG_TEST_STACK=containers needs a Docker engine, and none answers: {error}") from error


@contextlib.contextmanager
def running_stack(kind: str, home: Path) -> Iterator[Stack]:
    """Yields a stack of a kind that `check_choice` has accepted."""
    if kind == "embedded":
        servers = Infrastructure(home)
        servers.services["kafka"] = _PatientKafka(servers.home)
        servers.services[PostgresServer.name] = _ForgetfulPostgres(servers.home)
        with servers as endpoints:
            yield Stack(endpoints.postgres_url, endpoints.kafka_bootstrap_servers)
        for path in home.iterdir():
            if path.name == servers.home.logs.name:
                continue  # what may be kept, if a test has failed
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif kind == "containers":
        with _containers() as stack:
            yield stack
    else:
        yield Stack(*(os.environ[name] for name in EXTERNAL))


# Whether data is on the disk when it is said to be. Nothing that tests keep on this server has to outlive a crash of the machine, and a
# disk may be slow. What kills a server has one of its own.
_FLUSHES = ("fsync", "full_page_writes")


class _ForgetfulPostgres(PostgresServer):
    """PostgreSQL that never waits for the disk, unless it is told to by `durable`. The passwords of its roles are cheap to try: a test
    opens ten connections, and deriving a key 4,096 times took a third of the time of each."""

    def prepare(self) -> None:
        super().prepare()
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = off\n" for name in _FLUSHES)
            file.write("scram_iterations = 1\n")

    def program(self) -> Program:
        program = super().program()
        # On the command line they could not be changed any more.
        options = [each for each in program.command if each.partition("=")[0] in _FLUSHES]
        command = list(program.command)
        for option in options:
            at = command.index(option)
            del command[at - 1 : at + 1]  # with its -c
        return replace(program, command=command)


class _PatientKafka(KafkaBroker):
    """Kafka that a machine may hold up for a minute: the two seconds of an embedded broker are for those that are killed."""

    def prepare(self) -> None:
        super().prepare()
        with self._properties.open("a") as file:
            file.write("broker.session.timeout.ms=60000\n")  # of two lines for one name, the last counts


@contextlib.contextmanager
def durable(server_url: str) -> Iterator[None]:
    """Meanwhile the server flushes to the disk, as that of a deployment does."""
    engine = create_engine(make_url(server_url).set(drivername="postgresql+psycopg2"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def is_on(name: str) -> bool:
            return bool(connection.scalar(text("SELECT current_setting(:name) = 'on'"), {"name": name}))

        off = [name for name in _FLUSHES if not is_on(name)]
        for name in off:
            connection.execute(text(f"ALTER SYSTEM SET {name} = on"))
        connection.execute(text("SELECT pg_reload_conf()"))
        eventually(lambda: all(map(is_on, off)))
        yield
        for name in off:
            connection.execute(text(f"ALTER SYSTEM RESET {name}"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


@contextlib.contextmanager
def _containers() -> Iterator[Stack]:
    from testcontainers.core.container import DockerContainer

    postgres = DockerContainer(POSTGRES_IMAGE, env={"POSTGRES_USER": "bulkreg", "POSTGRES_PASSWORD": "bulkreg"})
    # A generic container, because testcontainers' own KafkaContainer expects another image's layout.
    kafka = DockerContainer(KAFKA_IMAGE, env=_KAFKA_ENVIRONMENT).with_command(["bash", "-c", _START_KAFKA])
    published_at = _published_at(postgres.get_docker_client())
    if published_at is not None:
        # Only there, and not on every interface of the machine. Docker's client takes an address in place of a port.
        postgres.ports[str(_POSTGRES_PORT)] = kafka.ports[str(_KAFKA_PORT)] = (published_at,)  # type: ignore[assignment]
    with postgres, kafka, contextlib.ExitStack() as forwarding:
        addresses: Sequence[str] = [
            f"{published_at or container.get_container_host_ip()}:{container.get_exposed_port(port)}"
            for container, port in ((postgres, _POSTGRES_PORT), (kafka, _KAFKA_PORT))
        ]
        if published_at != "127.0.0.1":
            addresses = forwarding.enter_context(forwarded(*addresses))
        stack = Stack(f"postgresql://bulkreg:bulkreg@{addresses[0]}/bulkreg", addresses[1])
        # The broker tells its clients the address for further connections, which is known only now.
        told = kafka.exec(["bash", "-c", f"echo {stack.kafka_bootstrap_servers} > {_ADDRESS_FILE}"])
        assert told.exit_code == 0, told.output
        eventually(lambda: _answers(stack), within_s=CONTAINERS_READY_WITHIN_S, what="PostgreSQL and Kafka in containers")
        yield stack


def _published_at(client: "DockerClient") -> str | None:
    """The address of the engine's machine at which the tests reach published ports. None: they reach the containers' own addresses,
    because they run in a container on the same network."""
    mode = client.get_connection_mode().value
    if mode == "bridge_ip":
        return None
    if mode == "gateway_ip":
        [network, *_] = client.client.networks.get("bridge").attrs["IPAM"]["Config"]
        # Some engines name only the subnet. The gateway is its first address.
        return str(network.get("Gateway") or next(ip_network(network["Subnet"]).hosts()))
    return socket.gethostbyname(client.host())


_POSTGRES_PORT, _KAFKA_PORT, _INSIDE_PORT = 5432, 9092, 9094

_ADDRESS_FILE = "/tmp/address"
_START_KAFKA = f"""
    until read -r address < {_ADDRESS_FILE}; do sleep 0.1; done 2>/dev/null
    KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://$address,INSIDE://localhost:{_INSIDE_PORT} exec /etc/kafka/docker/run
"""
_KAFKA_ENVIRONMENT = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_LISTENERS": f"PLAINTEXT://:{_KAFKA_PORT},INSIDE://localhost:{_INSIDE_PORT},CONTROLLER://localhost:9093",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    # The broker also connects to itself, to ask about a transaction. The address for clients is the machine's, which it does not reach.
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
    # As in the embedded broker (compose/embedded/kafka.py), so that tests which kill a consumer take as long.
    "KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS": "5000",
    "KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "100",
    "KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS": "1000",
}


def _answers(stack: Stack) -> bool:
    try:
        psycopg2.connect(stack.postgres_url, connect_timeout=2).close()
        return bool(
            AdminClient({"bootstrap.servers": stack.kafka_bootstrap_servers, "log_level": 0}).list_topics(timeout=2).brokers
        )
    except (psycopg2.OperationalError, KafkaException):
        return False
