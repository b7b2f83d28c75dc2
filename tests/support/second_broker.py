"""A second broker beside an embedded one, so that a partition's leader can be elsewhere."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from confluent_kafka.admin import AdminClient

from compose.embedded.home import Home
from compose.embedded.infrastructure import Infrastructure
from compose.embedded.kafka import KafkaBroker
from compose.embedded.process import Child
from tests.support.waiting import PATIENCE_S, eventually

NODE = 2


class SecondBroker(KafkaBroker):
    """Joins the cluster of the first, which stays the only controller."""

    def __init__(self, home: Home, first: Home) -> None:
        super().__init__(home)
        self._first = first

    def _settings(self, log_directory: Path) -> Mapping[str, str]:
        [voters] = re.findall(
            "^(controller.quorum.voters)=(.*)$", (self._first.path / "kafka.properties").read_text(), re.MULTILINE
        )
        return {
            **super()._settings(log_directory),
            "process.roles": "broker",
            "node.id": str(NODE),
            "listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            voters[0]: voters[1],
        }

    def _cluster_id(self) -> str:
        [found] = re.findall("^cluster.id=(.*)$", (self._first.path / "kafka" / "meta.properties").read_text(), re.MULTILINE)
        return str(found)


class RunningBroker:
    """The process of a second broker."""

    def __init__(self, broker: SecondBroker, home: Home) -> None:
        self._broker = broker
        self._child = Child(broker.program(), home.records)
        self.start()

    def start(self) -> None:
        self._child.start()
        self._child.wait_ready(self._broker.is_ready, time.monotonic() + self._broker.start_timeout_s)

    def kill(self) -> None:
        self._child.kill()


@contextlib.contextmanager
def second_broker(first: Infrastructure, path: Path) -> Iterator[RunningBroker]:
    home = Home(path)
    home.create()
    broker = SecondBroker(home, first.home)
    broker.prepare()
    running = RunningBroker(broker, home)
    try:
        yield running
    finally:
        running.kill()
        admin = AdminClient({"bootstrap.servers": first.endpoints.kafka_bootstrap_servers})
        # Until then clients are sent to it.
        eventually(lambda: NODE not in admin.list_topics(timeout=PATIENCE_S).brokers)
