"""`bulkreg groups` on real servers: where a new group begins to read, and what is left when the command is stopped half-way.

The coordinator is well here; tests/faults/test_group_coordinator.py has one that is not.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool
from typer.testing import Result

from cli.commands.groups import GroupedRole
from consumers.aggregator import AggregatorHandler
from consumers.loop.coordinator import BrokerQuestion
from consumers.notifying.recording import RecordingHandler
from consumers.registration import RegistrationHandler
from consumers.splitter import SplitterHandler
from consumers.upkeep import groups
from consumers.upkeep.groups import TOPICS, Described, Groups, NoGroupServedError
from orchestrator.process.settings import Settings
from orchestrator.storage.consumer_groups import FIRST_GENERATION, note_generation, read_generation
from orchestrator.storage.progress import Position, advance_progress
from producers.producer import EventProducer
from schemas.envelope import Topic
from tests.support import command_line
from tests.support.kafka import replace_topic
from tests.support.toy import command
from tests.support.waiting import PATIENCE_S

ROLE = "registration"
RECORDS, MARGIN = 40, 3
REFUSED = Described("NOT_COORDINATOR", "", 0, frozenset())


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.groups._TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(groups, "_MARGIN", MARGIN)


@pytest.fixture
def asked(settings: Settings, topics: None) -> Groups:
    return Groups(settings, timeout_s=PATIENCE_S)


@pytest.fixture
def refused(asked: Groups, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of groups that no coordinator serves: the role's first."""
    names = {asked._name(ROLE, FIRST_GENERATION)}
    described = Groups._described
    monkeypatch.setattr(Groups, "_described", lambda self, name: REFUSED if name in names else described(self, name))
    return names


@pytest.fixture
def handled(settings: Settings, engine: Engine, publisher: EventProducer, asked: Groups) -> dict[int, Position]:
    """Commands that are all handled, by partition."""
    publisher.publish([command(number) for number in range(RECORDS)])
    ends = {place: queue for place, queue in asked._ends([Topic.COMMANDS]).items() if queue.next_offset}
    assert len(ends) > 1
    positions = {place: Position(queue.next_offset, queue.topic_id) for place, queue in ends.items()}
    with engine.begin() as connection:
        advance_progress(connection, positions)
    return {partition: position for (_, partition), position in positions.items()}


def offsets(settings: Settings, name: str) -> dict[int, tuple[int, str | None]]:
    """Returns what the group has committed for the commands, with the metadata."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    [future] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)], request_timeout=PATIENCE_S).values()
    topic = Topic.COMMANDS.on_cluster(settings.topic_prefix)
    return {place.partition: (place.offset, place.metadata) for place in future.result().topic_partitions if place.topic == topic}


def generation(engine: Engine) -> int:
    with engine.connect() as connection:
        return read_generation(connection, ROLE)


def test_a_new_group_begins_before_what_may_not_be_published_yet(
    settings: Settings, engine: Engine, asked: Groups, refused: set[str], handled: dict[int, Position]
) -> None:
    renewal = asked.renew(engine, ROLE)
    assert renewal.renewed
    assert renewal.name == asked._name(ROLE, generation(engine))
    assert offsets(settings, renewal.name) == {
        partition: (max(0, position.next_offset - MARGIN), position.topic_id) for partition, position in handled.items()
    }
    again = asked.renew(engine, ROLE)
    assert (again.name, again.renewed) == (renewal.name, False)


@pytest.mark.parametrize(
    ("since", "is_all"), [(datetime(2020, 1, 1, tzinfo=UTC), True), (datetime(2100, 1, 1, tzinfo=UTC), False)]
)
def test_a_new_group_reads_again_what_was_written_since_a_time(
    settings: Settings, engine: Engine, asked: Groups, handled: dict[int, Position], since: datetime, is_all: bool
) -> None:
    assert all(position.next_offset > MARGIN for position in handled.values())
    renewal = asked.renew(engine, ROLE, since=since)
    assert renewal.renewed
    assert offsets(settings, renewal.name) == {
        partition: (0 if is_all else position.next_offset - MARGIN, position.topic_id) for partition, position in handled.items()
    }


def test_a_recreated_topic_is_read_from_its_beginning(
    settings: Settings, engine: Engine, asked: Groups, refused: set[str], handled: dict[int, Position]
) -> None:
    replace_topic(settings, Topic.COMMANDS)
    assert offsets(settings, asked.renew(engine, ROLE).name) == {}


def test_row_66_command_that_is_stopped_half_way_can_be_repeated(
    settings: Settings,
    engine: Engine,
    asked: Groups,
    refused: set[str],
    handled: dict[int, Position],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stops(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(groups, "note_generation", stops)
        with pytest.raises(KeyboardInterrupt):
            asked.renew(engine, ROLE)
    assert generation(engine) == FIRST_GENERATION
    renewal = asked.renew(engine, ROLE)
    assert renewal.renewed
    assert offsets(settings, renewal.name).keys() == handled.keys()


def test_a_group_that_is_not_served_either_is_passed_over(
    engine: Engine, asked: Groups, refused: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is handled yet, so the group needs no offsets and is only asked for."""
    seen: list[str] = []
    described = Groups._described

    def first_is_refused(self: Groups, name: str) -> Described:
        seen.append(name)
        return REFUSED if len(seen) == 2 else described(self, name)

    monkeypatch.setattr(Groups, "_described", first_is_refused)
    assert asked.renew(engine, ROLE).name == seen[2]
    assert len(set(seen)) == 3


def test_without_any_served_group_the_generation_stays(engine: Engine, asked: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Groups, "_described", lambda *_: REFUSED)
    with pytest.raises(NoGroupServedError, match="check the brokers"):
        asked.renew(engine, ROLE)
    assert generation(engine) == FIRST_GENERATION


def test_an_error_about_the_caller_is_no_refusal(asked: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidding:
        def describe_consumer_groups(self, names: list[str], **_: object) -> dict[str, Any]:
            raise KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))

    monkeypatch.setattr(asked, "_admin", Forbidding())
    with pytest.raises(KafkaException):
        asked._described("any")


def test_the_generation_never_decreases(engine: Engine) -> None:
    with engine.begin() as connection:
        for number in (2, 4, 3):
            note_generation(connection, ROLE, number)
    assert generation(engine) == 4


def bulkreg(settings: Settings, *arguments: str) -> Result:
    return command_line.bulkreg(settings, "groups", *arguments)


def test_the_command_lists_and_renews(settings: Settings, refused: set[str], handled: dict[int, Position]) -> None:
    listed = bulkreg(settings, "list", "--json")
    assert listed.exit_code == 3, listed.output
    found = json.loads(listed.stdout)["groups"]
    assert {each["role"]: each["is_served"] for each in found} == {
        "splitter": True,
        "registration": False,
        "aggregator": True,
        "notifier": True,
    }
    assert [each["state"] for each in found if not each["is_served"]] == ["NOT_COORDINATOR"]
    assert all(each["state"] for each in found)
    renewed = bulkreg(settings, "renew", ROLE, "--json")
    assert renewed.exit_code == 0, renewed.output
    assert json.loads(renewed.stdout)["renewed"]
    assert bulkreg(settings, "list").exit_code == 0
    kept = bulkreg(settings, "renew", "splitter")
    assert "keeps it" in kept.stdout + kept.stderr


@pytest.fixture
def one_member(asked: Groups, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says which of the commands' partitions the only member of the role's group is given, as the coordinator tells it: one set for each
    look, the last one for all later ones."""
    names = [topic.on_cluster(asked._settings.topic_prefix) for topic in TOPICS[ROLE]]
    described = Groups._described

    def told(*assigned: set[int], state: str = "stable") -> None:
        looks = iter(assigned)
        partitions = {(names[1], partition) for partition in range(3)}
        last: set[int] = set()

        def describe(self: Groups, name: str) -> Described:
            nonlocal last
            if name != self._name(ROLE, FIRST_GENERATION):
                return described(self, name)
            last = next(looks, last)
            return Described(None, state, 1, frozenset(partitions | {(names[0], partition) for partition in last}))

        monkeypatch.setattr(Groups, "_described", describe)

    monkeypatch.setattr(groups, "_BETWEEN_TRIES_S", 0.0)
    return told


def test_row_79_partitions_that_nobody_reads_are_listed_and_the_group_is_renewed(
    settings: Settings, one_member: Callable[..., None], handled: dict[int, Position]
) -> None:
    one_member({1})
    listed = bulkreg(settings, "list", "--json")
    assert listed.exit_code == 3, listed.output
    unread = {each["role"]: each["unread"] for each in json.loads(listed.stdout)["groups"]}
    assert unread == {"splitter": [], "registration": ["commands/0", "commands/2"], "aggregator": [], "notifier": []}
    renewed = bulkreg(settings, "renew", ROLE, "--json")
    assert json.loads(renewed.stdout)["renewed"], renewed.output
    assert bulkreg(settings, "list").exit_code == 0


def test_a_group_that_is_about_to_give_its_partitions_away_is_kept(
    engine: Engine, asked: Groups, one_member: Callable[..., None], handled: dict[int, Position]
) -> None:
    one_member({1}, {0, 1, 2})
    assert not asked.renew(engine, ROLE).renewed
    one_member({1}, state="reconciling")
    assert not asked.renew(engine, ROLE).renewed
    one_member({0, 1}, {0, 1}, {0, 1, 2})
    assert not asked.renew(engine, ROLE).renewed


def test_no_transaction_waits_while_kafka_is_asked(engine: Engine, asked: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that does not respond takes longer than the database lets a transaction be idle."""
    busy: list[int] = []
    described = Groups._described

    def describe(self: Groups, name: str) -> Described:
        pool = engine.pool
        assert isinstance(pool, QueuePool)
        busy.append(pool.checkedout())
        return described(self, name)

    monkeypatch.setattr(Groups, "_described", describe)
    assert len(list(asked.all(engine))) == len(list(asked.all_queued(engine))) == len(TOPICS)
    assert busy == [0] * 2 * len(TOPICS)


def test_every_role_that_has_a_group_is_known() -> None:
    handlers = (SplitterHandler, RegistrationHandler, AggregatorHandler, RecordingHandler)
    assert {handler.name: handler.topics for handler in handlers} == TOPICS
    assert set(GroupedRole) == TOPICS.keys()


def test_the_coordinator_is_asked_about_the_group_that_is_named(settings: Settings, topics: None) -> None:
    """After a renewal, the same process asks about another group."""
    topic = Topic.COMMANDS.on_cluster(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    offsets_of = {f"{settings.topic_prefix}.first": 3, f"{settings.topic_prefix}.second": 5}
    for name, offset in offsets_of.items():
        place = ConsumerGroupTopicPartitions(name, [TopicPartition(topic, 0, offset)])
        [future] = admin.alter_consumer_group_offsets([place], request_timeout=PATIENCE_S).values()
        future.result()
    question = BrokerQuestion(settings, ROLE, topic)
    for name, offset in offsets_of.items():
        assert [each.offset for each in question(name).result(PATIENCE_S)] == [offset]
