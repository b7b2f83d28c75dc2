"""Publishes events. The producer is idempotent; each event is acknowledged by all in-sync replicas, or reported as failed."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orchestrator.batches.publishing import PERMANENT_REFUSALS, Delivery, Trouble, failures
from orchestrator.process.actions import Action, log_action
from orchestrator.process.kafka_settings import kafka_logger
from orchestrator.process.settings import Settings
from producers.config import producer_config
from producers.partitions import partition_of
from schemas.envelope import OutgoingEvent, Topic

# How long one wait for room in the queue, or for a flush, lasts. Waiting repeats until the delivery timeout.
_WAIT_S = 1.0
# How often to ask for the partitions of a topic that has none.
_ASK_AGAIN_S = 5.0
# The client refuses events of a topic that it believes missing, and by itself checks again only after minutes.
_MISSING = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION})


class EventProducer:
    """Implements `Publisher` on Kafka."""

    def __init__(
        self, settings: Settings, overrides: Mapping[str, str | int | bool] | None = None, *, role: str | None = None
    ) -> None:
        """`overrides` are librdkafka properties. `role` names the publishing role in the log; None: a command.

        Raises UnsafeKafkaError, and KafkaException for an invalid property.
        """
        self._role = role
        self._config = producer_config(settings) | dict(overrides or {})
        self._logger = kafka_logger(settings, "producer")
        self._names = {topic: topic.on_cluster(settings.topic_prefix) for topic in Topic}
        self._live: set[Delivery] = set()
        self._refused: list[tuple[Delivery, int, KafkaError]] = []
        self._missing: set[Topic] = set()
        self._partitions: dict[Topic, int] = {}
        self._asked_at: dict[Topic, float] = {}
        self._topics_in_turn = cycle(Topic)
        self._is_in_contact = False
        self._unusable = ""
        self._producer = self._new_producer()
        self._alone: Producer | None = None

    def _new_producer(self, **more: str | int | bool) -> Producer:
        return Producer(self._config | more, logger=self._logger)

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Sends all events, and returns when all are acknowledged. Raises DeliveryError. Waits at most the delivery timeout for each
        event."""
        delivery = self.send(events)
        while delivery.outstanding:
            self.poll(_WAIT_S)
        if error := failures(delivery):
            raise error

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        """Implements `Publisher.send`."""
        self._look_for_missing({event.topic for event in events} & self._missing)
        delivery = Delivery(events)
        self._live.add(delivery)
        produce, names = self._producer.produce, self._names
        for index, event in enumerate(events):
            report = partial(self._report, delivery, index)
            try:
                produce(names[event.topic], event.value, event.key, headers=list(event.headers), on_delivery=report)
            except BufferError:
                self._produce_when_there_is_room(event, index, delivery)
            except KafkaException as error:
                self._failed(delivery, index, error.args[0])
        self._settle()
        return delivery

    def _produce_when_there_is_room(self, event: OutgoingEvent, index: int, delivery: Delivery) -> None:
        report = partial(self._report, delivery, index)
        while True:
            try:
                self._producer.poll(_WAIT_S)
                self._producer.produce(
                    self._names[event.topic], event.value, event.key, headers=list(event.headers), on_delivery=report
                )
            except BufferError:
                continue
            except KafkaException as error:
                self._failed(delivery, index, error.args[0])
            return

    def poll(self, timeout_s: float) -> None:
        """Implements `Publisher.poll`. Sends lingering events at once."""
        until = time.monotonic() + timeout_s
        self._flush(self._producer, timeout_s)
        self._settle()
        if self._alone is not None and len(self._alone):
            self._flush(self._alone, max(0.0, until - time.monotonic()))
            self._settle()

    def _flush(self, producer: Producer, timeout_s: float) -> None:
        try:
            producer.flush(timeout_s)
        except (KafkaException, SystemError) as error:
            # Only a fatal error is raised here. Delivery reports may still be pending then, and calling one of them ends in SystemError.
            self._unusable = str(error)

    def _report(self, delivery: Delivery, index: int, error: KafkaError | None, _message: Message) -> None:
        """Called by librdkafka inside poll and flush, where nothing may raise."""
        if error is None:
            # The same as `settle` does, without another call: this runs twice for each item.
            delivery.outstanding.discard(index)
        elif error.name() in PERMANENT_REFUSALS:
            self._refused.append((delivery, index, error))
        else:
            self._failed(delivery, index, error)

    def _report_alone(self, delivery: Delivery, index: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            delivery.settle(index)
        else:
            self._failed(delivery, index, error)

    def _failed(self, delivery: Delivery, index: int, error: KafkaError) -> None:
        # After a timeout the client may be asking the wrong broker, and may never stop: it keeps the leader of a deleted topic and does
        # not accept the leader of a new topic of that name (decision 24).
        if error.fatal() or error.code() in (KafkaError._FATAL, KafkaError._MSG_TIMED_OUT):
            self._unusable = str(error)
        if error.code() in _MISSING:
            self._missing.add(delivery.events[index].topic)
        delivery.settle(index, Trouble(str(error), error.name() in PERMANENT_REFUSALS))

    def _settle(self) -> None:
        """Does what the delivery reports must not do themselves."""
        if self._unusable:
            # After a fatal error an idempotent producer no longer knows what it has sent. It refuses every further event, and nobody can
            # tell which events were acknowledged.
            log_action(Action.PRODUCER_REBUILT, role=self._role, error=self._unusable)
            self._rebuild(self._unusable)
        refused, self._refused = self._refused, []
        if refused:
            self._send_alone(refused)
        self._live = {delivery for delivery in self._live if delivery.outstanding}

    def _rebuild(self, detail: str) -> None:
        for delivery in self._live:
            for index in list(delivery.outstanding):
                delivery.settle(index, Trouble(detail))
        self._take_last_reports()
        self._live.clear()
        self._refused.clear()
        self._unusable = ""
        self._producer = self._new_producer()
        self._alone = None

    def _take_last_reports(self) -> None:
        """Has the clients report what they will not send any more. The library never frees what belongs to a report that is not taken: an
        event, and those that were sent with it."""
        until = time.monotonic() + _WAIT_S
        for producer in filter(None, (self._producer, self._alone)):
            producer.purge()
            while len(producer) and (left_s := until - time.monotonic()) > 0:
                self._flush(producer, left_s)

    def _send_alone(self, refused: Sequence[tuple[Delivery, int, KafkaError]]) -> None:
        """Sends each event in a record batch of its own, because a broker that refuses one event refuses all of the same record batch."""
        if self._alone is None:
            self._alone = self._new_producer(**{"batch.num.messages": 1})
        for delivery, index, first_error in refused:
            event = delivery.events[index]
            try:
                self._alone.produce(
                    self._names[event.topic],
                    event.value,
                    event.key,
                    headers=list(event.headers),
                    on_delivery=partial(self._report_alone, delivery, index),
                )
            except BufferError:
                # The queue is full. The event is reported with a passing failure, so the caller sends it again.
                delivery.settle(index, Trouble(str(first_error)))
            except KafkaException as error:
                self._failed(delivery, index, error.args[0])

    def _look_for_missing(self, topics: set[Topic]) -> None:
        for topic in topics:
            if self._count_partitions(topic):
                self._missing.discard(topic)

    def place(self, event: OutgoingEvent) -> str:
        """Implements `Publisher.place`. The place has no partition while the topic's partitions are unknown."""
        # Mostly known since a time without trouble. In trouble, the question may go to the very broker that does not respond.
        count = self._partitions.get(event.topic, 0)
        if not count and time.monotonic() - self._asked_at.get(event.topic, float("-inf")) >= _ASK_AGAIN_S:
            count = self._count_partitions(event.topic)
        if not count:
            return event.topic.value
        return f"{event.topic.value}/{partition_of(event.key.encode(), count)}"

    def _count_partitions(self, topic: Topic) -> int:
        """Asks for the number of partitions, and keeps it. Returns 0 if no broker responds or the topic is missing."""
        name = self._names[topic]
        self._asked_at[topic] = time.monotonic()
        try:
            found = self._producer.list_topics(name, timeout=_WAIT_S)
        except KafkaException:
            return 0
        self._is_in_contact = bool(found.brokers)
        if count := len(found.topics[name].partitions):
            self._partitions[topic] = count
        return count

    def abandon(self) -> None:
        """Implements `Publisher.abandon`."""
        for producer in filter(None, (self._producer, self._alone)):
            producer.purge()
        self._live.clear()
        self._refused.clear()

    def is_reachable(self) -> bool:
        """Implements `Publisher.is_reachable`. Asks for the partitions of a topic, and the first time for those of all."""
        self._is_in_contact = False
        for topic in list(Topic) if not self._partitions else [next(self._topics_in_turn)]:
            self._count_partitions(topic)
            if not self._is_in_contact:
                break
        return self._is_in_contact

    def close(self) -> None:
        """Ends the client's threads. Does not wait for outstanding events."""
        for producer in filter(None, (self._producer, self._alone)):
            producer.purge()
            producer.close()
