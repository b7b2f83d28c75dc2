"""Rows 8, 9, 11 and 12 of the fault catalogue: between the outbox and the topic. Row 10 is in test_servers.py, which freezes a broker."""

import ctypes
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaError, Producer, cimpl
from sqlalchemy import Engine

from orchestrator.batches.publishing import Delivery
from orchestrator.batches.repository import EventOf
from orchestrator.process.failpoints import EXIT_CODE, Failpoint
from orchestrator.process.settings import Settings
from orchestrator.storage.outbox import insert_events, slot_of
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from tests.faults.roles import (
    armed,
    assert_exactly_once,
    count,
    relay_process,
    running_flow,
    running_relay,
    wait_until_completed,
)
from tests.support.kafka import reading
from tests.support.pipeline import ORGANIZATION, Pipeline, mentors
from tests.support.process import in_process
from tests.support.upstream import submitted, upstream_items
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("topics")

ITEMS = 20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return armed(settings, relay_poll_ms=100)


def test_row_8_killed_between_produce_and_mark_published(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    """The same event is published twice, and has its effect once."""
    batch_id = pipeline.submit(mentors(ITEMS))
    with in_process(relay_process, armed(settings, failpoints=f"{Failpoint.RELAY_AFTER_PUBLISH}=crash@1")) as process:
        assert process.wait(PATIENCE_S) == EXIT_CODE
    assert count(engine, "orchestrator.outbox") == 1
    with reading(settings, Topic.BATCHES) as batches, running_flow(settings):
        first, second = batches.wait_for(2)
        assert (first.id, first.key, first.headers, first.value) == (second.id, second.key, second.headers, second.value)
        wait_until_completed(engine, [batch_id])
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
    assert_exactly_once(engine, settings, activities=ITEMS)


def test_row_9_lower_id_that_commits_late_is_published(settings: Settings, engine: Engine) -> None:
    later = uuid4()
    late = next(candidate for candidate in iter(uuid4, None) if slot_of(candidate) == slot_of(later))

    def event(batch_id: UUID) -> OutgoingEvent:
        return submitted(batch_id, upstream_items(1))

    with running_relay(settings), reading(settings, Topic.BATCHES) as topic:
        with engine.begin() as held_open:
            insert_events(held_open, [EventOf(ORGANIZATION, late, event(late))])
            with engine.begin() as connection:
                insert_events(connection, [EventOf(ORGANIZATION, later, event(later))])
            topic.wait_for(1)
            eventually(lambda: count(engine, "orchestrator.outbox") == 0)
        assert [seen.key for seen in topic.wait_for(2)] == [str(later), str(late)]


class BreakingProducer(EventProducer):
    """Raises a fatal error in the next call of the named method."""

    breaks_in = ""

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        self._break_in("send")
        return super().send(events)

    def _produce_when_there_is_room(self, event: OutgoingEvent, index: int, delivery: Any) -> None:
        self._break_in("_produce_when_there_is_room")
        super()._produce_when_there_is_room(event, index, delivery)

    def _flush(self, producer: Producer, timeout_s: float) -> None:
        self._break_in("_flush")
        super()._flush(producer, timeout_s)

    def _break_in(self, method: str) -> None:
        if method != self.breaks_in:
            return
        self.breaks_in = ""
        # The handle is the first field of the Python object. The library has a function for such tests, which is loaded with the module.
        handle = ctypes.c_void_p.from_address(id(self._producer) + object.__basicsize__)
        raise_fatal_error = ctypes.CDLL(cimpl.__file__).rd_kafka_test_fatal_error
        raise_fatal_error.argtypes = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        assert raise_fatal_error(handle, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"by a test") == KafkaError.NO_ERROR


@pytest.mark.parametrize("method", ["send", "_produce_when_there_is_room", "_flush"])
def test_row_11_fatal_error_of_the_idempotent_producer(
    pipeline: Pipeline, settings: Settings, engine: Engine, method: str
) -> None:
    """It is noticed by the first event, by an event that waits for room, and by the flush of queued events."""
    producer = BreakingProducer(settings, {"queue.buffering.max.messages": 5})
    for number in range(10):
        pipeline.submit(mentors(1, first=1 + number))
    producer.breaks_in = method
    with running_relay(settings, producer), reading(settings, Topic.BATCHES) as topic:
        eventually(lambda: len({seen.id for seen in topic.read()}) == 10)
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
    producer.close()
    assert not producer.breaks_in


def test_row_12_producer_queue_full_is_back_pressure(settings: Settings) -> None:
    producer = EventProducer(settings, {"queue.buffering.max.messages": 5, "linger.ms": 0})
    written = [submitted(uuid4(), upstream_items(1)) for _ in range(100)]
    producer.publish(written)
    producer.close()
    with reading(settings, Topic.BATCHES) as topic:
        assert {seen.value for seen in topic.wait_for(100)} == {event.value for event in written}
        assert len(topic.records) == 100
