"""Row 26 of the fault catalogue: a batch of 10,000 beside a batch of 1."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from consumers.loop.handler import Handled, Handler, Lane, Record
from orchestrator.batches.model import NewBatch
from orchestrator.batches.operations import cancel_batch, submit_bulk_registration
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from schemas.events import MAX_PART_ITEMS, BatchSubmitted, EventData, RegisterActivity, Result
from schemas.ids import new_batch_id
from tests.faults.roles import (
    aggregator_role,
    assert_exactly_once,
    registration_role,
    running_relay,
    running_role,
    splitter_role,
    status_of,
)
from tests.support.kafka import made_topics, reading
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, Pipeline, item, mentors
from tests.support.waiting import HELD_S, eventually

ITEMS = 10_000
BATCH_RECORDS = 100


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    """Settings with one partition of each topic, so that each record is behind those written before it."""
    changed = settings.model_copy(update={"topic_partitions": 1, "relay_poll_ms": 100, "max_batch_records": BATCH_RECORDS})
    with made_topics(changed):
        yield changed


class Metered:
    """A role that handles one micro-batch of the large batch while the small batch arrives. It handles the next one only when the test lets
    it. A small batch that is behind more than one would never finish."""

    def __init__(self, handler: Handler, large: UUID, small: UUID, may_go_on: threading.Event) -> None:
        self.name, self.topics = handler.name, handler.topics
        self.longest = 0
        self._handler = handler
        self._large, self._small = large, small
        self._may_go_on = may_go_on
        self._small_has_come = threading.Event()
        self._turns_of_the_large = 0

    def lane(self, topic: Topic, data: EventData) -> Lane:
        if batch_of(data) == self._small:
            self._small_has_come.set()
        return self._handler.lane(topic, data)

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        self.longest = max(self.longest, len(records))
        if any(batch_of(record.data) == self._large for record in records):
            self._turns_of_the_large += 1
            assert (self._small_has_come if self._turns_of_the_large == 1 else self._may_go_on).wait(HELD_S)
        return self._handler.handle(connection, records)

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        return self._handler.give_up(connection, record, error)


def batch_of(data: EventData) -> UUID:
    return cast("BatchSubmitted | RegisterActivity | Result", data).batch_id


def test_row_26_small_batch_waits_for_one_micro_batch_of_a_large_one_in_each_role(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    """Counts micro-batches instead of measuring time. The outbox comes before the roles; test_relay.py checks that the parts of a large
    batch let others pass."""
    large = pipeline.submit([item(f"mentor-{n % 100 + 1}", day=DAY - timedelta(days=1 + n // 100)) for n in range(ITEMS)])
    small = new_batch_id()
    may_go_on = threading.Event()
    splitter, registration, aggregator = (
        Metered(role, large, small, may_go_on) for role in (splitter_role(settings), registration_role(), aggregator_role())
    )
    with (
        running_relay(settings),
        running_role(settings, splitter),
        running_role(settings, registration),
        running_role(settings.model_copy(update={"max_batch_records": BATCH_RECORDS // 10}), aggregator),
    ):
        try:
            with reading(settings, Topic.BATCHES) as batches:
                batches.wait_for(ITEMS // MAX_PART_ITEMS)
            pipeline.call(submit_bulk_registration, ADMIN, NewBatch(small, COORDINATOR, None, False, mentors(1), "1" * 32))
            eventually(lambda: status_of(engine, small) == "completed", what="the small batch")
            beside = pipeline.status(large).batch
            stopped = pipeline.call(cancel_batch, ADMIN, large, None).batch
        finally:
            may_go_on.set()
    assert (beside.status, beside.counts.pending >= ITEMS - BATCH_RECORDS) == ("processing", True)
    assert max(role.longest for role in (splitter, registration, aggregator)) == BATCH_RECORDS, (
        "a transaction handled more than one micro-batch"
    )
    assert_exactly_once(engine, settings, activities=1 + stopped.counts.completed)
