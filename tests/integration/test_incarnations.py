"""Topics that are deleted and created again while consumers use the old ones, on a real Kafka (docs/decisions/0024-incarnations.md)."""

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine, text

from consumers.loop.topic_ids import topic_ids
from consumers.upkeep.end_offsets import BrokerEndOffsets
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.storage.sweeping import Queues
from producers.producer import EventProducer
from schemas.envelope import Topic
from tests.support.kafka import committed_offsets, replace_topic
from tests.support.toy import ToyHandler, command, make_toy_table, running_loop, toy_positions
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("topics")


@pytest.fixture
def admin(settings: Settings) -> AdminClient:
    make_toy_table(settings)
    return AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})


def topic_id(admin: AdminClient, settings: Settings) -> str:
    return topic_ids(admin, [Topic.COMMANDS], prefix=settings.topic_prefix, timeout_s=PATIENCE_S)[Topic.COMMANDS]


def progress(engine: Engine) -> tuple[int, set[str]]:
    with engine.connect() as connection:
        row = connection.execute(
            text(
                "SELECT coalesce(sum(next_offset), 0) AS handled, array_agg(topic_id) AS ids FROM orchestrator.consumer_progress"
            )
        ).one()
        return row.handled, set(row.ids or ())


@pytest.mark.parametrize("second", [30, 900], ids=["ends before the old one did", "ends after it"])
def test_row_50_running_consumer_reads_all_of_a_recreated_topic(
    settings: Settings, engine: Engine, admin: AdminClient, second: int
) -> None:
    publisher = EventProducer(settings)
    publisher.publish([command(position) for position in range(300)])
    publisher.close()
    with running_loop(settings, ToyHandler()) as loop:
        eventually(lambda: progress(engine) == (300, {topic_id(admin, settings)}))
        replace_topic(settings, Topic.COMMANDS)
        publisher = EventProducer(settings)
        publisher.publish([command(position) for position in range(1_000, 1_000 + second)])
        publisher.close()
        eventually(lambda: len(toy_positions(engine)) == 300 + second)
        eventually(lambda: progress(engine) == (second, {topic_id(admin, settings)}))
        eventually(lambda: sum(committed_offsets(settings, ToyHandler.name, Topic.COMMANDS).values()) == second)
        assert not loop.has_ended


def test_row_50_offset_committed_for_an_earlier_incarnation_hides_no_record(
    settings: Settings, engine: Engine, admin: AdminClient
) -> None:
    """A consumer commits by topic name. It may do so after the topic was replaced, and the new topic may be longer by then."""
    publisher = EventProducer(settings)
    publisher.publish([command(position) for position in range(300)])
    publisher.close()
    name = Topic.COMMANDS.on_cluster(settings.topic_prefix)
    group = {"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": f"{settings.topic_prefix}.{ToyHandler.name}"}
    consumer = Consumer(group)
    consumer.commit(offsets=[TopicPartition(name, partition, 50, "another") for partition in range(3)], asynchronous=False)
    consumer.close()
    with running_loop(settings, ToyHandler()):
        eventually(lambda: len(toy_positions(engine)) == 300)
        eventually(lambda: sum(committed_offsets(settings, ToyHandler.name, Topic.COMMANDS).values()) == 300)
    with running_loop(settings, handler := ToyHandler()) as loop:
        eventually(lambda: loop.health.broker_contact)
        publisher = EventProducer(settings)
        publisher.publish([command(1_000)])
        publisher.close()
        eventually(lambda: len(toy_positions(engine)) == 301)
    assert handler.handled == [[1_000]], "an offset that was committed for this incarnation must count"


def test_row_50_progress_belongs_to_the_incarnation_that_wrote_it_last(engine: Engine) -> None:
    steps = [
        (Position(10, "a"), (10, {"a"})),
        (Position(7, "a"), (10, {"a"})),
        (Position(2, "b"), (2, {"b"})),
        (Position(3, "b"), (3, {"b"})),
    ]
    for position, expected in steps:
        with engine.begin() as connection:
            advance_progress(connection, {(Topic.COMMANDS, 0): position})
        assert progress(engine) == expected


def test_row_50_broker_reports_which_incarnation_ends_where(
    settings: Settings, admin: AdminClient, publisher: EventProducer
) -> None:
    publisher.publish([command(position) for position in range(30)])
    ends = BrokerEndOffsets(settings)
    first = ends([Topic.COMMANDS, Topic.BATCHES])
    assert {place[0] for place in first} == {Topic.COMMANDS, Topic.BATCHES}
    assert sum(queue.next_offset for queue in first.values()) == 30
    assert len({queue.topic_id for queue in first.values()} - {""}) == 2
    replace_topic(settings, Topic.COMMANDS)

    def asked() -> Queues:
        try:
            return ends([Topic.COMMANDS])
        except KafkaException:  # The new partitions have no leader yet. A sweep fails then, and the next one asks again.
            return {}

    second = eventually(asked)
    assert {queue.next_offset for queue in second.values()} == {0}
    assert not {queue.topic_id for queue in second.values()} & {queue.topic_id for queue in first.values()}
    elsewhere = settings.model_copy(update={"topic_prefix": "nothing-is-here"})
    assert BrokerEndOffsets(elsewhere)([Topic.COMMANDS]) == {}
