"""Rows 47 to 49 of the fault catalogue: one topic, event or partition is in trouble, and the others are not affected."""

import os
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from sqlalchemy import Engine, text

from consumers.loop.deliveries import Deliveries
from orchestrator.batches.publishing import Delivery, DeliveryError, Trouble
from orchestrator.batches.repository import EventOf
from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.outbox import insert_events
from producers.producer import EventProducer
from producers.relay import MAX_FLIGHT_ROWS
from producers.topics import create_topics
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import event_id
from tests.faults.roles import (
    CountingLoop,
    armed,
    assert_exactly_once,
    committed,
    count,
    expanded,
    fold,
    registration_role,
    running_loop_of,
    running_relay,
)
from tests.support.kafka import reading
from tests.support.pipeline import ORGANIZATION, Pipeline, mentors
from tests.support.publishing import SettledAtOnce
from tests.support.shown import shown
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("topics")

# More than the relay reads from the outbox in one round.
MANY = 600


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return armed(settings, relay_poll_ms=100)


def event(topic: Topic, batch_id: UUID, number: int = 0, padding: bytes = b"") -> OutgoingEvent:
    identity = event_id("test", batch_id, number)
    value = b'{"number":%d,"padding":"%s"}' % (number, padding)
    return OutgoingEvent(topic, str(batch_id), (("ce_id", str(identity).encode()),), value)


def insert(engine: Engine, events: Sequence[OutgoingEvent]) -> None:
    with engine.begin() as connection:
        insert_events(connection, [EventOf(ORGANIZATION, UUID(each.key), each) for each in events])


def held(engine: Engine) -> list[tuple[str, str]]:
    """The rows that are held, and why."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT held_for, held_why FROM orchestrator.outbox WHERE held_for IS NOT NULL"))
        return [(row.held_for, row.held_why) for row in found]


# --- Row 47 ---------------------------------------------------------------------------------------------------------------------


def test_row_47_deleted_topic_does_not_stop_others(settings: Settings, engine: Engine) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    name = Topic.LIFECYCLE.on_cluster(settings.topic_prefix)
    admin.delete_topics([name])[name].result()
    eventually(lambda: admin.list_topics(name, timeout=PATIENCE_S).topics[name].error is not None)
    batches = [uuid4() for _ in range(MANY)]
    insert(engine, [event(Topic.LIFECYCLE, each, number) for each in batches for number in range(2)])
    with running_relay(settings), reading(settings, Topic.BATCHES) as topic:
        insert(engine, [event(Topic.BATCHES, each) for each in batches])
        topic.wait_for(MANY)
        insert(engine, [event(Topic.BATCHES, each, 1) for each in batches])
        topic.wait_for(2 * MANY)
        eventually(lambda: count(engine, "orchestrator.outbox") == 2 * MANY)
        create_topics(settings)
        with reading(settings, Topic.LIFECYCLE) as lifecycle:
            records = lifecycle.wait_for(2 * MANY)
            eventually(lambda: count(engine, "orchestrator.outbox") == 0)
    numbers: dict[str, list[object]] = {}
    for record in records:
        numbers.setdefault(record.key, []).append(record.data["number"])
    assert numbers == {str(each): [0, 1] for each in batches}


class Forbidding(SettledAtOnce):
    """A broker that can refuse everything for one topic."""

    def __init__(self) -> None:
        self.forbidden: set[Topic] = {Topic.LIFECYCLE}
        self.accepted: list[OutgoingEvent] = []
        self.refusals = 0

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        refused = [index for index, each in enumerate(events) if each.topic in self.forbidden]
        self.accepted += [each for each in events if each.topic not in self.forbidden]
        self.refusals += len(refused)
        if refused:
            raise DeliveryError(dict.fromkeys(refused, Trouble("Broker: Topic authorization failed")))


def test_row_47_forbidden_topic_does_not_stop_others_and_is_not_hammered(settings: Settings, engine: Engine) -> None:
    broker = Forbidding()
    insert(engine, [event(Topic.LIFECYCLE, uuid4()) for _ in range(MANY)])
    with running_relay(settings, broker):
        for _ in range(3):
            insert(engine, [event(Topic.BATCHES, uuid4()) for _ in range(MANY)])
            eventually(lambda: count(engine, "orchestrator.outbox") == MANY)
        assert all(held_for == "lifecycle" for held_for, _ in held(engine))
        # One round before the trouble is known, and then an occasional probe of each slot.
        assert broker.refusals < MANY + 500
        broker.forbidden.clear()
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
    assert len(broker.accepted) == 4 * MANY


# --- Row 48 ---------------------------------------------------------------------------------------------------------------------


def limit_topic(settings: Settings, topic: Topic, max_message_bytes: int) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    entry = ConfigEntry("max.message.bytes", str(max_message_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic.on_cluster(settings.topic_prefix), incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    described = ConfigResource(ResourceType.TOPIC, topic.on_cluster(settings.topic_prefix))

    def is_known() -> bool:
        [found] = admin.describe_configs([described]).values()
        return bool(found.result()["max.message.bytes"].value == str(max_message_bytes))

    eventually(is_known)


def test_row_48_too_large_event_waits_with_its_batch_and_is_not_tried_again(settings: Settings, engine: Engine) -> None:
    """The broker refuses a whole record batch. Only an event that it refuses alone is to blame."""
    limit_topic(settings, Topic.BATCHES, 20_000)
    guilty, others = uuid4(), [uuid4() for _ in range(MANY)]
    large = event(Topic.BATCHES, guilty, 0, os.urandom(20_000).hex().encode())
    insert(engine, [large, event(Topic.BATCHES, guilty, 1)])
    # Together they exceed the topic's limit, too.
    insert(engine, [event(Topic.BATCHES, each, 0, os.urandom(100).hex().encode()) for each in others])
    refused = metrics.OUTBOX_REFUSED.labels("batches")
    before = shown(refused)
    with running_relay(settings), reading(settings, Topic.BATCHES) as topic:
        topic.wait_for(MANY)
        eventually(lambda: count(engine, "orchestrator.outbox") == 2)
        insert(engine, [event(Topic.BATCHES, each, 1) for each in others])
        topic.wait_for(2 * MANY)
        eventually(lambda: count(engine, "orchestrator.outbox") == 2)
        [(held_for, why)] = held(engine)
        assert held_for == "refused"
        assert "too large" in why
        assert shown(refused) == before + 1
        assert not [seen for seen in topic.read() if seen.key == str(guilty)]
    limit_topic(settings, Topic.BATCHES, 1_000_000)
    with running_relay(settings), reading(settings, Topic.BATCHES) as topic:
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
        found = topic.wait_for(2 * MANY + 2)
    assert [seen.data["number"] for seen in found if seen.key == str(guilty)] == [0, 1]


class Refusing(SettledAtOnce):
    """A broker that refuses some events because of their content."""

    def __init__(self) -> None:
        self.sent = 0

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        self.sent += len(events)
        raise DeliveryError({0: Trouble("Broker: Message size too large", is_permanent=True)})


def test_row_48_roles_do_not_repeat_an_event_that_can_never_be_delivered() -> None:
    broker = Refusing()
    pending = Deliveries("registration", broker).send([event(Topic.RESULTS, uuid4(), number) for number in range(3)])
    assert pending.is_done
    assert broker.sent == 3


# --- Row 49 ---------------------------------------------------------------------------------------------------------------------


class Withholding(EventProducer):
    """Withholds the acknowledgements of some partitions, like a broker that is cut off after it has received the events."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.withheld: set[str] = set()
        self.kept: list[tuple[Delivery, int]] = []

    def _report(self, delivery: Delivery, index: int, error: KafkaError | None, message: Message) -> None:
        if error is None and f"{delivery.events[index].topic.value}/{message.partition()}" in self.withheld:
            self.kept.append((delivery, index))
        else:
            super()._report(delivery, index, error, message)

    def poll(self, timeout_s: float) -> None:
        super().poll(timeout_s)
        if not self.withheld:
            for delivery, index in self.kept:
                delivery.settle(index)
            self.kept.clear()


@pytest.fixture
def withholding(settings: Settings) -> Iterator[Withholding]:
    producer = Withholding(settings)
    yield producer
    producer.close()


def test_row_49_partition_without_acknowledgements_does_not_stop_others_in_the_relay(
    settings: Settings, engine: Engine, withholding: Withholding
) -> None:
    withholding.withheld = {"batches/0"}
    with running_relay(settings, withholding), reading(settings, Topic.BATCHES) as topic:
        insert(engine, [event(Topic.BATCHES, uuid4()) for _ in range(MANY)])
        topic.wait_for(MANY)
        stuck = len([seen for seen in topic.read() if seen.partition == 0])
        eventually(lambda: count(engine, "orchestrator.outbox") == stuck)
        # Once the partition is known to be in trouble, nothing is sent to it.
        eventually(lambda: shown(metrics.OUTBOX_PLACES_IN_TROUBLE) == 1)
        later = [event(Topic.BATCHES, uuid4()) for _ in range(2 * MAX_FLIGHT_ROWS)]
        of_it = sum(withholding.place(each) == "batches/0" for each in later)
        for start in range(0, len(later), MANY):
            insert(engine, later[start : start + MANY])
            eventually(lambda: count(engine, "orchestrator.outbox WHERE slot >= 0") == stuck)
        eventually(lambda: count(engine, "orchestrator.outbox") == stuck + of_it)
        assert len([seen for seen in topic.read() if seen.partition == 0]) == stuck
        assert {held_for for held_for, _ in held(engine)} == {"batches/0"}
        withholding.withheld = set()
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
        assert len({seen.id for seen in topic.wait_for(MANY + len(later))}) == MANY + len(later)


def test_row_49_partition_without_acknowledgements_does_not_stop_others_in_a_role(
    pipeline: Pipeline, settings: Settings, engine: Engine, publisher: EventProducer, withholding: Withholding
) -> None:
    batches = [pipeline.submit(mentors(5, first=1 + 5 * number)) for number in range(10)]
    commands = [expanded(pipeline, batch) for batch in batches[:1]]
    commands = [commands[0][start : start + 5] for start in range(0, 50, 5)]
    withholding.withheld = {f"results/{partition}" for partition in range(settings.topic_partitions)}
    own = create_database_engine(settings.worker_url, settings, connections=1, application_name="registration")
    loop = CountingLoop(settings, registration_role(), own, withholding)
    with running_loop_of(loop), reading(settings, Topic.RESULTS) as results:
        for number, of_batch in enumerate(commands, start=1):
            publisher.publish(of_batch)
            # Each record is handled and sent while nothing before it has been acknowledged.
            results.wait_for(5 * number)
        assert committed(settings, "registration", Topic.COMMANDS) == 0
        withholding.withheld = set()
        eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == 50)
        fold(pipeline, results.records)
    own.dispose()
    assert {pipeline.status(batch).batch.status for batch in batches} == {"completed"}
    assert_exactly_once(engine, settings, activities=50)


def test_row_49_outstanding_events_are_bounded() -> None:
    class Silent(SettledAtOnce):
        def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
            return Delivery(events)

    clock = iter(range(10**9))
    deliveries = Deliveries("registration", Silent(), lambda: float(next(clock)))
    sent = 0
    while deliveries.has_room:
        deliveries.send([event(Topic.RESULTS, uuid4(), number) for number in range(500)])
        sent += 500
    assert sent == 20_000
