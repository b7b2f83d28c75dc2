"""Where topics begin and end, as the sweeper asks the broker, and which incarnation of a topic exists."""

import gc
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from consumers.loop.topic_ids import BrokerTopicIds
from consumers.upkeep import end_offsets
from consumers.upkeep.end_offsets import BrokerEndOffsets
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import UNKNOWN_ID
from orchestrator.storage.sweeping import Queue
from schemas.envelope import Topic

SETTINGS = Settings(topic_prefix="test")
BATCHES, COMMANDS, RESULTS = (topic.on_cluster("test") for topic in (Topic.BATCHES, Topic.COMMANDS, Topic.RESULTS))


def settled(value: object) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class Broker:
    """Stands in for the admin client."""

    def __init__(self) -> None:
        self.ids: dict[str, str | Exception] = {BATCHES: "b1", COMMANDS: "c1"}
        self.partitions: dict[str, int] = {BATCHES: 1, COMMANDS: 2}
        self.when_asked_for_ends: dict[str, str | Exception] = {}
        """The topics that are replaced during the calls."""
        self.asked: list[TopicPartition] = []

    def describe_topics(self, topics: TopicCollection, request_timeout: float) -> Mapping[str, Future[Any]]:
        assert request_timeout > 0
        missing = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        known = {name: self.ids.get(name, missing) for name in topics.topic_names}
        return {
            name: settled(value if isinstance(value, Exception) else SimpleNamespace(topic_id=value))
            for name, value in known.items()
        }

    def list_topics(self, timeout: float) -> Any:
        assert timeout > 0
        counts = {name: SimpleNamespace(partitions=dict.fromkeys(range(count))) for name, count in self.partitions.items()}
        return SimpleNamespace(topics=counts)

    def list_offsets(self, specs: Mapping[TopicPartition, Any], request_timeout: float) -> Mapping[TopicPartition, Future[Any]]:
        assert request_timeout > 0
        self.asked += specs
        [is_first] = {"Earliest" in type(each).__name__ or "EARLIEST" in repr(each).upper() for each in specs.values()}
        self.ids |= self.when_asked_for_ends
        offsets = {place: 10 * place.partition + (3 if is_first else 8) for place in specs}
        return {place: settled(SimpleNamespace(offset=offset)) for place, offset in offsets.items()}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(end_offsets, "AdminClient", lambda *_, **__: broker)
    return broker


def asked(*topics: Topic) -> Mapping[tuple[Topic, int], Queue]:
    return BrokerEndOffsets(SETTINGS)(topics)


ALL: Sequence[Topic] = (Topic.BATCHES, Topic.COMMANDS, Topic.RESULTS)


def test_each_partition_has_a_beginning_an_end_and_an_incarnation(broker: Broker) -> None:
    assert asked(*ALL) == {
        (Topic.BATCHES, 0): Queue(3, 8, "b1"),
        (Topic.COMMANDS, 0): Queue(3, 8, "c1"),
        (Topic.COMMANDS, 1): Queue(13, 18, "c1"),
    }


def test_a_topic_that_not_every_broker_knows_yet_is_left_out(broker: Broker) -> None:
    del broker.partitions[COMMANDS]
    broker.partitions[RESULTS] = 1
    assert set(asked(*ALL)) == {(Topic.BATCHES, 0)}


def test_without_topics_nothing_is_asked_for(broker: Broker) -> None:
    assert asked(Topic.RESULTS) == {}
    assert broker.asked == []


@pytest.mark.parametrize("replaced", [{COMMANDS: "c2"}, {RESULTS: "r1"}])
def test_ends_that_may_be_of_either_incarnation_are_not_used(broker: Broker, replaced: dict[str, str | Exception]) -> None:
    broker.when_asked_for_ends = replaced
    with pytest.raises(KafkaException, match="replaced"):
        asked(*ALL)


def test_a_refusal_by_the_broker_is_raised(broker: Broker) -> None:
    broker.ids[COMMANDS] = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaException):
        asked(*ALL)


def test_a_broker_without_topic_ids_still_returns_topics(broker: Broker) -> None:
    broker.ids[BATCHES] = "AAAAAAAAAAAAAAAAAAAAAA"
    assert asked(Topic.BATCHES) == {(Topic.BATCHES, 0): Queue(3, 8, UNKNOWN_ID)}


def test_a_question_to_which_no_broker_responds_leaves_no_client_behind() -> None:
    """Its threads would go on connecting until the next collection of cycles, perhaps for hours."""
    ask = BrokerTopicIds(Settings(kafka_bootstrap_servers="127.0.0.1:1"), "splitter")
    before = _admin_clients()
    gc.disable()
    try:
        has_response = _has_response(ask)
        left = _admin_clients() - before
    finally:
        gc.enable()
    assert not has_response
    assert left == 0


def _has_response(ask: BrokerTopicIds) -> bool:
    try:
        ask([Topic.BATCHES], timeout_s=0.1)
    except KafkaException:
        return False
    return True


def _admin_clients() -> int:
    return sum(isinstance(each, AdminClient) for each in gc.get_objects())
