"""Asks the coordinator of a role's consumer group whether it serves the group.

The client itself does not say so: a member that is refused for ever looks like one that has no partition because there are more members than
partitions. So the loop asks with another client. Decision 43 says when a coordinator refuses a group.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.settings import Settings

ASK_EVERY_S = 15.0
# A restarted broker that is slow or has many offsets to load serves its groups sooner than this.
REFUSED_AFTER_S = 60.0
_TIMEOUT_S = 10.0

# What is said about a group that no coordinator serves. Any other error is the coordinator's own about the group or the caller.
UNSERVED = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
    }
)

Question = Callable[[str], "Future[Any]"]
"""Asks about the group of this name. The future raises KafkaException if the coordinator does not serve it."""


class BrokerQuestion:
    """The question to the coordinator: what has the group committed? Its client begins with the first question, and joins no group.

    An admin client could describe the group. But when the connection to the coordinator is lost at the wrong moment, librdkafka uses a
    request of the admin client that it has already freed, and ends the process (librdkafka issue 4605; row 66 of docs/faults.md).
    """

    def __init__(self, settings: Settings, role: str, topic: str) -> None:
        """`topic` is any topic that the group reads. Raises UnsafeKafkaError."""
        self._config = connection_config(settings) | {"enable.auto.commit": False}
        self._logger = kafka_logger(settings, role)
        self._place = TopicPartition(topic, 0)
        self._group = ""
        self._client: Consumer | None = None

    def __call__(self, group: str) -> "Future[Any]":
        """Returns at once. The question before must have ended."""
        future: Future[Any] = Future()
        # A daemon: a process that ends does not wait for an answer.
        threading.Thread(target=self._ask, args=(group, future), name="coordinator-question", daemon=True).start()
        return future

    def _ask(self, group: str, future: "Future[Any]") -> None:
        try:
            if self._client is None or self._group != group:
                self._client, self._group = Consumer(self._config | {"group.id": group}, logger=self._logger), group
            while self._client.poll(0) is not None:
                pass  # Reports about connections, which nobody else reads.
            future.set_result(self._client.committed([self._place], timeout=_TIMEOUT_S))
        except BaseException as error:  # The caller raises it.
            future.set_exception(error)
            # A client that has lost its coordinator may never find it again (row 78 of docs/faults.md). The next question has a new one.
            self._client = None


class CoordinatorWatch:
    """Whether the coordinator serves the group of one loop. Only the thread that polls uses it."""

    def __init__(self, ask: Question, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._group = ""
        self._asked: Future[Any] | None = None
        self._served_at = clock()
        self._ask_at = self._served_at + ASK_EVERY_S
        self._refusal: str | None = None
        self.is_served = False
        """Whether the coordinator's last reply was no refusal."""

    def joined(self, group: str) -> None:
        """Notes that the loop has joined this group now."""
        now = self._clock()
        self._group, self._asked, self._refusal, self.is_served = group, None, None, False
        self._served_at, self._ask_at = now, now + ASK_EVERY_S

    def look(self, *, has_contact: bool) -> bool:
        """Asks when it is time to. Returns True when the result of a question has just come. While no broker responds, the time does not
        count."""
        now = self._clock()
        if not has_contact:
            self._served_at = now
        if self._asked is None:
            if now >= self._ask_at:
                self._asked = self._ask(self._group)
            return False
        if not self._asked.done():
            return False
        try:
            self._asked.result()
        except KafkaException as exception:
            error = exception.args[0]
            self._refusal = error.name() if error.code() in UNSERVED else None
        else:
            self._refusal = None
        self.is_served = self._refusal is None
        if self.is_served:
            self._served_at = now
        self._asked, self._ask_at = None, now + ASK_EVERY_S
        return True

    @property
    def refusal(self) -> str | None:
        """Kafka's name of the refusal, if the group has been refused for so long that it is no passing state."""
        return self._refusal if self._clock() - self._served_at >= REFUSED_AFTER_S else None

    def complaint(self, role: str) -> str | None:
        """The message about a group that is refused."""
        if self.refusal is None:
            return None
        return (
            f"Kafka's coordinator does not serve the group {self._group} ({self.refusal}), so nothing is handled; "
            f"run: bulkreg groups renew {role}"
        )
