"""Rows 66 and 79 of the fault catalogue: a consumer group that its coordinator does not serve any more, or of which it gives partitions to
nobody. The tests have a broker of their own."""

import struct
from collections.abc import Iterator, Sequence
from uuid import uuid4

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from compose.doctor import examine
from compose.embedded.infrastructure import Infrastructure
from compose.findings import State
from consumers.loop import coordinator
from consumers.upkeep import groups
from consumers.upkeep.groups import Group, Groups, offsets_partition
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from schemas.envelope import Topic
from tests.faults.roles import (
    aggregator_role,
    assert_exactly_once,
    registration_role,
    running_relay,
    running_role,
    splitter_role,
    wait_until_completed,
)
from tests.support.databases import fresh_database
from tests.support.kafka import made_topics
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors, standard_directory
from tests.support.stack import Stack
from tests.support.waiting import PATIENCE_S, eventually

ITEMS = 10
OFFSETS_PARTITIONS = 4


def partition_of(prefix: str, role: str) -> int:
    return offsets_partition(f"{prefix}.{role}", OFFSETS_PARTITIONS)


@pytest.fixture
def own_settings(infrastructure: Stack, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A deployment on a Kafka of its own. Only the group of the registration role is on its partition of offsets."""
    prefix = next(
        prefix
        for prefix in iter(lambda: f"test-{uuid4().hex}", "")
        if partition_of(prefix, "registration") not in {partition_of(prefix, "splitter"), partition_of(prefix, "aggregator")}
    )
    own = Infrastructure(tmp_path_factory.mktemp("own-kafka"), postgres_url=infrastructure.postgres_url)
    with own as endpoints, fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(
            database_url=url,
            kafka_bootstrap_servers=endpoints.kafka_bootstrap_servers,
            topic_prefix=prefix,
            relay_poll_ms=50,
        )
        with made_topics(settings):
            yield settings


def write_to_group(settings: Settings, role: str, key: bytes, value: bytes) -> None:
    """Writes a record to the coordinator's partition, behind its back, and has the coordinator write to it: that shows it that the log is
    not as it thinks, so it loads the partition again."""
    partition = partition_of(settings.topic_prefix, role)
    # Kafka lets only this client write to the topic.
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "client.id": "__admin_client"})
    producer.produce("__consumer_offsets", key=key, value=value, partition=partition)
    assert producer.flush(PATIENCE_S) == 0
    write_as_coordinator(settings, partition)


def write_as_coordinator(settings: Settings, partition: int) -> bool:
    """Has the coordinator of the partition write to it. Returns whether it refuses."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    neighbour = next(name for name in map(str, range(1_000)) if offsets_partition(name, OFFSETS_PARTITIONS) == partition)
    place = TopicPartition(Topic.COMMANDS.on_cluster(settings.topic_prefix), 0, 0)
    wanted = ConsumerGroupTopicPartitions(neighbour, [place])
    [future] = admin.alter_consumer_group_offsets([wanted], request_timeout=PATIENCE_S).values()
    return any(found.error is not None for found in future.result().topic_partitions)


def break_coordinator(settings: Settings, role: str) -> None:
    """Writes a record that the coordinator can't replay. So loading fails, from then on for ever."""
    write_to_group(settings, role, b"\x00\x08\x00", b"\x00")
    eventually(lambda: write_as_coordinator(settings, partition_of(settings.topic_prefix, role)))


def give_partitions_to_nobody(settings: Settings, role: str, topic: Topic, partitions: Sequence[int]) -> None:
    """Has the coordinator believe that a member has the partitions that is none: a target assignment (key 7) without a member."""
    group, member = f"{settings.topic_prefix}.{role}", "nobody"
    key = struct.pack(">h", 7) + b"".join(struct.pack(">h", len(text)) + text.encode() for text in (group, member))
    name = topic.on_cluster(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    [described] = admin.describe_topics(TopicCollection([name]), request_timeout=PATIENCE_S).values()
    topic_id = described.result().topic_id
    bits = struct.pack(">qq", topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    # Compact arrays begin with their length and one; a zero ends each structure.
    numbers = bytes([len(partitions) + 1]) + b"".join(struct.pack(">i", each) for each in partitions)
    write_to_group(settings, role, key, struct.pack(">h", 0) + bytes([2]) + bits + numbers + bytes([0, 0]))


# The test starts a broker. tests/integration/test_groups.py and tests/unit/test_coordinator.py are quick.
@pytest.mark.full
def test_row_66_group_that_its_coordinator_refuses_for_ever(
    own_settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(coordinator, "ASK_EVERY_S", 0.2)
    monkeypatch.setattr(coordinator, "REFUSED_AFTER_S", 1.0)
    monkeypatch.setattr(groups, "_BETWEEN_TRIES_S", 0.2)
    engine = create_database_engine(own_settings.worker_url, own_settings, connections=4, application_name="test")
    standard_directory(engine)
    pipeline = Pipeline(own_settings, engine)
    with (
        running_relay(own_settings),
        running_role(own_settings, splitter_role(own_settings)) as splitter,
        running_role(own_settings, aggregator_role()) as aggregator,
    ):
        batches = [pipeline.submit(mentors(ITEMS))]
        with running_role(own_settings, registration_role()):
            wait_until_completed(engine, batches)
        break_coordinator(own_settings, "registration")
        batches.append(pipeline.submit(mentors(ITEMS, first=1 + ITEMS)))
        with running_role(own_settings, registration_role()) as registration:
            eventually(lambda: registration.health.failing)
            health = registration.health.check(max_loop_age_s=PATIENCE_S)
            assert not health.ok
            assert "does not serve the group" in str(health.detail)
            assert "bulkreg groups renew registration" in str(health.detail)
            lines = eventually(lambda: logged(caplog, Action.GROUP_REFUSED))
            assert [(line["role"], line["error"]) for line in lines] == [("registration", "NOT_COORDINATOR")]
            assert splitter.health.failing is None
            assert aggregator.health.failing is None
            [finding] = [each for each in examine(own_settings, {}) if each.subject.startswith("consumer group")]
            assert (finding.subject, finding.state) == (
                f"consumer group {own_settings.topic_prefix}.registration",
                State.UNREACHABLE,
            )
            assert "bulkreg groups renew registration" in str(finding.fix)

            asked = Groups(own_settings, timeout_s=PATIENCE_S)
            renewal = asked.renew(engine, "registration")
            assert renewal.renewed
            # The running role changes to the new group by itself.
            wait_until_completed(engine, batches)
            eventually(lambda: registration.health.check(max_loop_age_s=PATIENCE_S).ok)
            assert not asked.renew(engine, "registration").renewed
            found = {group.role: group for group in asked.all_queued(engine)}
            of_roles = [
                (role, group.trouble, group.members, group.waiting) for role, group in found.items() if role != "notifier"
            ]
            assert of_roles == [(role, None, 1, 0) for role in ("splitter", "registration", "aggregator")]
            assert found["registration"].name == renewal.name
    assert_exactly_once(engine, own_settings, activities=2 * ITEMS)
    pipeline.close()
    engine.dispose()


@pytest.mark.full
def test_row_79_partitions_that_the_coordinator_gives_to_nobody(own_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "ASK_EVERY_S", 0.2)
    monkeypatch.setattr(groups, "_BETWEEN_TRIES_S", 0.2)
    engine = create_database_engine(own_settings.worker_url, own_settings, connections=4, application_name="test")
    standard_directory(engine)
    pipeline = Pipeline(own_settings, engine)
    with (
        running_relay(own_settings),
        running_role(own_settings, splitter_role(own_settings)),
        running_role(own_settings, aggregator_role()),
    ):
        batches = [pipeline.submit(mentors(ITEMS))]
        with running_role(own_settings, registration_role()):
            wait_until_completed(engine, batches)
        asked = Groups(own_settings, timeout_s=PATIENCE_S)
        taken = [partition for topic, partition in asked.queues("registration") if topic is Topic.COMMANDS][1:]
        give_partitions_to_nobody(own_settings, "registration", Topic.COMMANDS, taken)
        batches.append(pipeline.submit(mentors(ITEMS, first=1 + ITEMS)))
        with running_role(own_settings, registration_role()):

            def found() -> Group:
                return next(group for group in asked.all(engine) if group.role == "registration")

            eventually(lambda: found().unread)
            group = found()
            assert (group.is_served, group.state, group.members) == (True, "stable", 1)
            assert group.unread == [f"commands/{partition}" for partition in taken]
            [finding] = [each for each in examine(own_settings, {}) if each.subject.startswith("consumer group")]
            assert (finding.subject, finding.state) == (f"consumer group {group.name}", State.UNREACHABLE)
            assert "bulkreg groups renew registration" in str(finding.fix)
            assert asked.renew(engine, "registration").renewed
            # The running role changes to the new group by itself, and gets all partitions.
            wait_until_completed(engine, batches)
            assert eventually(lambda: found().members)
            assert not asked.renew(engine, "registration").renewed
    assert_exactly_once(engine, own_settings, activities=2 * ITEMS)
    pipeline.close()
    engine.dispose()
