"""Asks the coordinator of a role's consumer group whether it serves the group.

The client itself does not tell: a member that is refused for ever looks like one that has no partition because there are more members than
partitions. So the loop asks with another client. Decision 43 says when a coordinator refuses a group.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

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
    }
)

Question = Callable[[str], "Future[Any]"]
"""Asks about the group of this name. The future has the group's description, or raises KafkaException."""


class BrokerQuestion:
    """The question to the broker. Its client begins with the first question."""

    def __init__(self, settings: Settings, role: str) -> None:
        """Raises UnsafeKafkaError."""
        self._config = connection_config(settings)
        self._logger = kafka_logger(settings, role)
        self._admin: AdminClient | None = None

    def __call__(self, group: str) -> "Future[Any]":
        """Returns at once."""
        if self._admin is None:
            self._admin = AdminClient(self._config, logger=self._logger)
        [future] = self._admin.describe_consumer_groups([group], request_timeout=_TIMEOUT_S).values()
        return future


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

    def joined(self, group: str) -> None:
        """Notes that the loop has joined this group now."""
        now = self._clock()
        self._group, self._asked, self._refusal = group, None, None
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
        if self._refusal is None:
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
