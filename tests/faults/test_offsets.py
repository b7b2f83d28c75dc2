"""Rows 7, 15, 17 and 18 of the fault catalogue: what a consumer has done, and what offset its group has."""

import itertools
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from sqlalchemy import Connection, Engine

from consumers.loop import runtime
from consumers.loop.client_errors import ExpelledError
from consumers.loop.handler import Handled, Lane, Record
from consumers.registration import RegistrationHandler
from consumers.splitter import SplitterHandler
from orchestrator.batches.model import NewItem
from orchestrator.process.failpoints import EXIT_CODE, Failpoint, InjectedError
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from producers.producer import EventProducer
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import EventData
from tests.faults.roles import (
    armed,
    assert_exactly_once,
    committed,
    count,
    expanded,
    fold,
    registration_process,
    registration_role,
    running_role,
    shorten_session,
    splitter_role,
)
from tests.support.kafka import TopicReader, reading, write_raw
from tests.support.pipeline import DAY, Pipeline, item, mentors
from tests.support.process import in_process
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("topics")

ITEMS = 20
# For row 17: enough items that members can join and leave meanwhile.
MANY_ITEMS = 400

# Shorter than the settings allow, or heartbeats would come in between.
MAX_POLL_INTERVAL_MS = 3_000


@pytest.mark.parametrize("window", [Failpoint.CONSUMER_AFTER_HANDLE_COMMIT, Failpoint.CONSUMER_AFTER_PRODUCE])
def test_row_7_killed_between_database_commit_and_offset_commit(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine, window: Failpoint
) -> None:
    """The next process announces what was decided: for the first time, or again with the same event."""
    batch_id = pipeline.submit(mentors(ITEMS))
    publisher.publish(expanded(pipeline, batch_id))
    shorten_session(settings, "registration")
    with in_process(registration_process, armed(settings, failpoints=f"{window}=crash@1")) as process:
        assert process.wait(PATIENCE_S) == EXIT_CODE
    decided = count(engine, "orchestrator.outcome")
    assert decided
    assert committed(settings, "registration", Topic.COMMANDS) == 0
    announced = decided if window is Failpoint.CONSUMER_AFTER_PRODUCE else 0
    with running_role(settings, registration_role()), reading(settings, Topic.RESULTS) as results:
        found = results.wait_for(announced + ITEMS)
        eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == ITEMS)
    assert len({(result.id, result.value) for result in found}) == ITEMS
    fold(pipeline, found)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=ITEMS)


def test_row_75_killed_while_the_offsets_of_several_micro_batches_wait_for_their_commit(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    """Under load offsets are committed at intervals. The next process gets again what was done since, and announces the same."""
    batch_id = pipeline.submit(mentors(ITEMS))
    publisher.publish(expanded(pipeline, batch_id))
    shorten_session(settings, "registration")
    small = armed(settings, failpoints=f"{Failpoint.CONSUMER_AFTER_HANDLE_COMMIT}=crash@4", max_batch_records=ITEMS // 4)
    with in_process(registration_process, small) as process:
        assert process.wait(PATIENCE_S) == EXIT_CODE
    decided = count(engine, "orchestrator.outcome")
    assert committed(settings, "registration", Topic.COMMANDS) < decided
    with running_role(settings, registration_role()), reading(settings, Topic.RESULTS) as results:
        eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == ITEMS)
        eventually(lambda: len({(result.id, result.value) for result in results.read()}) == ITEMS)
    fold(pipeline, results.records)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=ITEMS)


class Zombie(RegistrationHandler):
    """Stands still until the test lets it go on: first in the thread of its transaction, then in the thread that polls."""

    def __init__(self) -> None:
        super().__init__(InProcessRegistrationService(EARLIEST_YEAR))
        self.is_handling = threading.Event()
        self.may_go_on = threading.Event()

    def lane(self, topic: Topic, data: EventData) -> Lane:
        if self.is_handling.is_set():
            assert self.may_go_on.wait(HELD_S)
        return super().lane(topic, data)

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        self.is_handling.set()
        assert self.may_go_on.wait(HELD_S)
        return super().handle(connection, records)


def overtake(
    zombie: Zombie, settings: Settings, commands: Sequence[OutgoingEvent], publisher: EventProducer, results: TopicReader
) -> None:
    """The zombie gets half of the commands. When it has been silent for too long, another member gets all of them."""
    with running_role(armed(settings, max_poll_interval_ms=MAX_POLL_INTERVAL_MS), zombie) as expelled:
        publisher.publish(commands[: ITEMS // 2])
        eventually(zombie.is_handling.is_set)
        publisher.publish(commands[ITEMS // 2 :])
        with running_role(settings, registration_role()):
            results.wait_for(ITEMS)
            eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == ITEMS)
        zombie.may_go_on.set()
        eventually(lambda: expelled.has_ended)


def test_row_15_consumer_that_polls_too_late_is_fenced_and_ends(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    """It holds half of a batch while another member handles the whole batch, and learns of that only afterwards."""
    batch_id = pipeline.submit(mentors(ITEMS))
    commands = expanded(pipeline, batch_id)
    shorten_session(settings, "registration")
    with reading(settings, Topic.RESULTS) as results:
        with pytest.raises(ExpelledError):
            overtake(Zombie(), settings, commands, publisher, results)
        assert committed(settings, "registration", Topic.COMMANDS) == ITEMS
        assert len({(result.id, result.value) for result in results.read()}) == ITEMS
        fold(pipeline, results.records)
        assert pipeline.status(batch_id).batch.status == "completed"
        # As its supervisor would restart it.
        publisher.publish(expanded(pipeline, pipeline.submit(mentors(1, first=1 + ITEMS))))
        with running_role(settings, registration_role()):
            results.wait_for(len(results.records) + 1)
    assert_exactly_once(engine, settings, activities=ITEMS + 1)


class RefusedConsumer(Consumer):
    """Refuses every second commit, as brokers do during a rebalance. (librdkafka retries those itself, so a test does not see them.)"""

    answers = itertools.cycle(
        [None, KafkaError.STALE_MEMBER_EPOCH, None, KafkaError.REBALANCE_IN_PROGRESS, None, KafkaError.ILLEGAL_GENERATION]
    )

    def commit(self, *arguments: Any, **named: Any) -> Any:
        code = next(self.answers)
        if code is not None:
            raise KafkaException(KafkaError(code))
        return super().commit(*arguments, **named)


def test_row_17_commit_during_a_rebalance(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one member works through a batch, others join and leave. None of them may end before it is told to."""
    monkeypatch.setattr(runtime, "Consumer", RefusedConsumer)
    settings = armed(settings, max_batch_records=5)
    batch_id = pipeline.submit([item(f"mentor-{n % 100 + 1}", day=DAY - timedelta(days=n // 100)) for n in range(MANY_ITEMS)])
    publisher.publish(expanded(pipeline, batch_id))
    shorten_session(settings, "registration")
    with reading(settings, Topic.RESULTS) as results, running_role(settings, registration_role()):
        while len(found := {result.id for result in results.read()}) < MANY_ITEMS:
            with running_role(settings, registration_role()):
                eventually(lambda: len({result.id for result in results.read()}) >= min(MANY_ITEMS, len(found) + 100))
        eventually(lambda: committed(settings, "registration", Topic.COMMANDS_BULK) == MANY_ITEMS)
    assert len({(result.id, result.value) for result in results.records}) == MANY_ITEMS
    fold(pipeline, results.records)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=MANY_ITEMS)


def submitted(pipeline: Pipeline, items: Sequence[NewItem]) -> list[OutgoingEvent]:
    """The events of an accepted batch."""
    pipeline.submit(items)
    pipeline.relay()
    return pipeline.take(Topic.BATCHES)


class PollingAhead(SplitterHandler):
    """Handles its first record only after this many records have been polled."""

    def __init__(self, settings: Settings, records: int) -> None:
        super().__init__(bulk_threshold_items=settings.bulk_threshold_items, max_items=settings.max_items)
        self._outstanding = records
        self._all_polled = threading.Event()

    def lane(self, topic: Topic, data: EventData) -> Lane:
        self._outstanding -= 1
        if not self._outstanding:
            self._all_polled.set()
        return super().lane(topic, data)

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        assert self._all_polled.wait(PATIENCE_S)
        return super().handle(connection, records)


def test_row_18_only_the_contiguous_prefix_is_committed(
    pipeline: Pipeline, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small batch overtakes parts of a large batch that lie before it in their partition. Then the splitter dies."""
    monkeypatch.setattr(events, "MAX_PART_ITEMS", 10)
    parts = submitted(pipeline, mentors(40))
    written = [*parts[:3], *submitted(pipeline, mentors(2, first=41)), *parts[3:]]
    write_raw(settings, Topic.BATCHES, [(event.value, dict(event.headers)) for event in written], partition=0)
    settings = armed(settings, bulk_threshold_items=20, max_batch_records=1)
    # The lanes take turns, so the splitter handles a part first, and then the small batch.
    dying = armed(settings, failpoints=f"{Failpoint.CONSUMER_BEFORE_HANDLE}=raise@3")
    with pytest.raises(InjectedError), running_role(dying, PollingAhead(settings, len(written))) as dead:
        eventually(lambda: dead.has_ended)
    with reading(settings, Topic.COMMANDS) as commands, reading(settings, Topic.COMMANDS_BULK) as bulk_commands:
        commands.wait_for(2)
        assert committed(settings, "splitter", Topic.BATCHES) == 1, "committed an offset behind parts that are not done"
        with running_role(settings, splitter_role(settings)):
            eventually(lambda: len({command.id for command in bulk_commands.read()}) == 40)
            eventually(lambda: committed(settings, "splitter", Topic.BATCHES) == len(written))
