"""How long the coordinator of a group may refuse it, and what counts as a refusal."""

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumers.loop.config import group_id
from consumers.loop.coordinator import ASK_EVERY_S, REFUSED_AFTER_S, CoordinatorWatch
from consumers.upkeep.groups import offsets_partition


class Kafka:
    """What it says about each group, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.error: int | None = None
        self.asked: list[str] = []
        self.is_silent = False
        self.watch = CoordinatorWatch(self.describe, clock=lambda: self.now)
        self.watch.joined("group")

    def describe(self, group: str) -> "Future[Any]":
        self.asked.append(group)
        future: Future[Any] = Future()
        if not self.is_silent:
            if self.error is None:
                future.set_result(None)
            else:
                future.set_exception(KafkaException(KafkaError(self.error)))
        return future

    def look(self, *, after_s: float = ASK_EVERY_S, has_contact: bool = True) -> bool:
        """Passes the time and looks twice: a question, and its result."""
        self.now += after_s
        return self.watch.look(has_contact=has_contact) or self.watch.look(has_contact=has_contact)


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


def test_it_asks_from_time_to_time_about_the_group_that_was_joined(kafka: Kafka) -> None:
    assert not kafka.look(after_s=ASK_EVERY_S - 0.1)
    assert not kafka.asked
    assert kafka.look(after_s=0.1)
    kafka.watch.joined("group.2")
    assert kafka.look()
    assert kafka.asked == ["group", "group.2"]


def test_a_refusal_counts_when_it_lasts(kafka: Kafka) -> None:
    kafka.error = KafkaError.NOT_COORDINATOR
    while kafka.now + ASK_EVERY_S < REFUSED_AFTER_S:
        assert kafka.look()
        assert kafka.watch.refusal is None
        assert kafka.watch.complaint("registration") is None
    assert kafka.look()
    assert kafka.watch.refusal == "NOT_COORDINATOR"
    assert "bulkreg groups renew registration" in str(kafka.watch.complaint("registration"))
    kafka.error = None
    assert kafka.look()
    assert kafka.watch.refusal is None


def test_a_refusal_lasts_since_the_group_was_last_served(kafka: Kafka) -> None:
    assert kafka.look(after_s=2 * REFUSED_AFTER_S)
    kafka.error = KafkaError.NOT_COORDINATOR
    assert kafka.look()
    assert kafka.watch.refusal is None
    assert kafka.look(after_s=REFUSED_AFTER_S)
    assert kafka.watch.refusal == "NOT_COORDINATOR"


def test_a_group_that_was_joined_now_has_its_own_minute(kafka: Kafka) -> None:
    kafka.error = KafkaError.COORDINATOR_NOT_AVAILABLE
    kafka.look(after_s=REFUSED_AFTER_S)
    assert kafka.watch.refusal is not None
    kafka.watch.joined("group.2")
    assert kafka.watch.refusal is None


def test_what_was_asked_about_the_group_before_does_not_count(kafka: Kafka) -> None:
    assert kafka.look()
    assert kafka.watch.is_served
    kafka.is_silent = True
    assert not kafka.look()
    kafka.watch.joined("group.2")
    assert not kafka.watch.is_served
    kafka.is_silent = False
    assert kafka.look()
    assert kafka.asked == ["group", "group", "group.2"]


def test_the_time_without_a_broker_does_not_count(kafka: Kafka) -> None:
    kafka.error = KafkaError._TIMED_OUT
    kafka.look(after_s=2 * REFUSED_AFTER_S, has_contact=False)
    assert kafka.watch.refusal is None
    kafka.look()
    assert kafka.watch.refusal is None


def test_an_error_about_the_caller_is_no_refusal_of_the_coordinator(kafka: Kafka) -> None:
    kafka.error = KafkaError.GROUP_AUTHORIZATION_FAILED
    assert kafka.look(after_s=2 * REFUSED_AFTER_S)
    assert kafka.watch.refusal is None


def test_it_asks_one_question_at_a_time(kafka: Kafka) -> None:
    kafka.is_silent = True
    for _ in range(3):
        assert not kafka.look()
    assert len(kafka.asked) == 1


def test_each_generation_has_a_name_of_its_own() -> None:
    assert [group_id("bulkreg", "splitter", generation) for generation in (1, 2, 3)] == [
        "bulkreg.splitter",
        "bulkreg.splitter.2",
        "bulkreg.splitter.3",
    ]


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("g1", 2),
        ("g1.2", 2),
        ("bulk-registration.splitter", 1),
        ("bulk-registration.registration", 1),
        ("bulk-registration.aggregator", 1),
    ],
)
def test_the_partition_of_a_group_is_kafkas(name: str, partition: int) -> None:
    """These are where a broker with four partitions had them."""
    assert offsets_partition(name, 4) == partition
