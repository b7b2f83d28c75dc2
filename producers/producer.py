"""Publishes events: produced idempotently, acknowledged by all in-sync replicas, or reported as not."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orchestrator.kafka_settings import kafka_logger
from orchestrator.publishing import DeliveryError
from orchestrator.settings import Settings
from producers.client import producer_config
from schemas.envelope import OutgoingEvent, Topic

_logger = logging.getLogger(__name__)

# Between two looks at a queue that is full, or at a flush that takes its time. The delivery timeout ends both.
_WAIT_S = 1.0


class EventProducer:
    """The `Publisher` on Kafka. For one thread: `publish` waits for everything that was produced."""

    def __init__(self, settings: Settings, overrides: Mapping[str, str | int | bool] | None = None) -> None:
        """`overrides` are librdkafka properties. Raises UnsafeKafkaError, KafkaException for a property that can't be."""
        self._config = producer_config(settings) | dict(overrides or {})
        self._logger = kafka_logger(settings, "producer")
        self._names = {topic: topic.on_cluster(settings.topic_prefix) for topic in Topic}
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        return Producer(self._config, logger=self._logger)

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Produces all and returns when all are acknowledged. Raises DeliveryError; producing the same events again is right then.

        Waits while the queue is full, and at most the delivery timeout for each event.
        """
        delivery = _Delivery(len(events))
        produce, names = self._producer.produce, self._names
        for index, event in enumerate(events):
            report = partial(delivery.report, index)
            try:
                produce(names[event.topic], event.value, event.key, headers=list(event.headers), on_delivery=report)
            except BufferError:
                self._produce_when_there_is_room(event, index, delivery)
            except KafkaException as error:
                delivery.failed(index, error.args[0])
        self._wait_for(delivery)
        if delivery.fatal:
            # An idempotent producer that can't tell any more what it has sent refuses everything from then on.
            _logger.error("producer_rebuilt: %s", delivery.detail)
            self._producer = self._new_producer()
        if delivery.unacknowledged:
            raise DeliveryError(sorted(delivery.unacknowledged), delivery.detail)

    def _produce_when_there_is_room(self, event: OutgoingEvent, index: int, delivery: "_Delivery") -> None:
        report = partial(delivery.report, index)
        while True:
            try:
                self._producer.poll(_WAIT_S)
                self._producer.produce(
                    self._names[event.topic], event.value, event.key, headers=list(event.headers), on_delivery=report
                )
            except BufferError:
                continue
            except KafkaException as error:
                delivery.failed(index, error.args[0])
            return

    def _wait_for(self, delivery: "_Delivery") -> None:
        try:
            while self._producer.flush(_WAIT_S):
                pass
        except (KafkaException, SystemError) as error:
            # Only a fatal error is raised. It is while there may still be reports to call, and one that is called then ends in SystemError.
            delivery.all_failed(str(error))

    def is_reachable(self) -> bool:
        """Whether a broker answers now; waits for a second at most."""
        try:
            return bool(self._producer.list_topics(self._names[Topic.BATCHES], timeout=_WAIT_S).brokers)
        except KafkaException:
            return False

    def close(self) -> None:
        """Ends the client's threads. Nothing is outstanding: `publish` waits."""
        self._producer.close()


class _Delivery:
    """What has become of one `publish`. `report` is called by librdkafka for failures only, and nothing may raise there."""

    __slots__ = ("_events", "detail", "fatal", "unacknowledged")

    def __init__(self, events: int) -> None:
        self._events = events
        self.unacknowledged: set[int] = set()
        self.fatal = False
        self.detail = ""

    def report(self, index: int, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.failed(index, error)

    def failed(self, index: int, error: KafkaError) -> None:
        self.unacknowledged.add(index)
        self.fatal = self.fatal or error.fatal() or error.code() == KafkaError._FATAL
        self.detail = str(error)

    def all_failed(self, detail: str) -> None:
        """After a fatal error nobody can tell any more what was acknowledged."""
        self.unacknowledged.update(range(self._events))
        self.fatal = True
        self.detail = detail
