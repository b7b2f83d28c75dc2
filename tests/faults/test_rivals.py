"""Rows 22, 29 and 31 of the fault catalogue: two processes do the same at the same moment, without knowing of each other."""

import contextlib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import pytest
from sqlalchemy import Connection, Engine, text

from consumers.registration import RegistrationHandler
from orchestrator.batches.model import NewBatch
from orchestrator.batches.operations import submit_bulk_registration
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.port import Candidate, Decision
from orchestrator.storage.outbox import SLOTS
from producers.producer import EventProducer
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.faults.roles import (
    CountingLoop,
    aggregator_role,
    assert_exactly_once,
    count,
    expanded,
    fold,
    registration_role,
    running_relay,
    running_role,
    splitter_role,
    wait_until_completed,
)
from tests.support.kafka import Seen, committed_offsets, reading, write_raw
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item, mentors
from tests.support.publishing import SettledAtOnce
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("topics")


# --- Rows 22 and 31 -------------------------------------------------------------------------------------------------------------


class MeetsItsRival(InProcessRegistrationService):
    """Decides nothing until its rival has got as far. Then both have seen that there is no outcome, and neither has written one."""

    def __init__(self, meet: threading.Barrier) -> None:
        super().__init__(EARLIEST_YEAR)
        self._meet = meet
        self._has_met = False

    def register(self, connection: Connection, candidates: Sequence[Candidate], at: datetime) -> Sequence[Decision]:
        if not self._has_met:
            self._has_met = True
            self._meet.wait(PATIENCE_S)
        return super().register(connection, candidates, at)


class Rival(RegistrationHandler):
    """A member of a group that reads one topic, so that each of two members gets partitions of it."""

    topics: tuple[Topic, ...] = (Topic.COMMANDS,)


@contextlib.contextmanager
def rivals(settings: Settings) -> Iterator[tuple[int, int]]:
    """Runs two members of the registration's group, which wait for each other in their first transactions. Yields a partition of each."""
    meet = threading.Barrier(2)
    with (
        running_role(settings, Rival(MeetsItsRival(meet))) as one,
        running_role(settings, Rival(MeetsItsRival(meet))) as other,
    ):
        eventually(lambda: is_shared(settings, one, other))
        yield min(one.partitions(Topic.COMMANDS)), min(other.partitions(Topic.COMMANDS))


def is_shared(settings: Settings, one: CountingLoop, other: CountingLoop) -> bool:
    mine, theirs = one.partitions(Topic.COMMANDS), other.partitions(Topic.COMMANDS)
    return bool(mine and theirs) and not mine & theirs and len(mine | theirs) == settings.topic_partitions


def write(settings: Settings, commands: Sequence[OutgoingEvent], *, partition: int) -> None:
    write_raw(settings, Topic.COMMANDS, [(command.value, dict(command.headers)) for command in commands], partition=partition)


def test_row_22_the_same_message_handled_at_the_same_instant_twice(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    batch_id = pipeline.submit(mentors(20))
    commands = expanded(pipeline, batch_id)
    with rivals(settings) as partitions, reading(settings, Topic.RESULTS) as results:
        for partition in partitions:
            write(settings, commands, partition=partition)
        found = results.wait_for(40)
        eventually(lambda: sum(committed_offsets(settings, "registration", Topic.COMMANDS).values()) == 40)
    fold(pipeline, found)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=20)
    # The loser announces the winner's result, with the winner's time.
    told = Counter((each.id, each.headers["ce_time"], each.value) for each in found)
    assert sorted(told.values()) == [2] * 20


def test_row_31_two_coordinators_race_for_the_same_mentor_type_and_date(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO registration.coordinator VALUES (:org, 'coord-2', 'Coordinator', 'coordinator')",
            "INSERT INTO registration.coordinator_scope VALUES (:org, 'coord-2', 'chapter-1')",
        ):
            connection.execute(text(statement), {"org": ORGANIZATION})
    batches = [
        NewBatch(new_batch_id(), "coord-1", None, False, [item("mentor-1"), item("mentor-2")], "1" * 32),
        NewBatch(new_batch_id(), "coord-2", None, False, [item("mentor-3"), item("mentor-1")], "2" * 32),
    ]
    with rivals(settings) as partitions, reading(settings, Topic.RESULTS) as results:
        for batch, partition in zip(batches, partitions, strict=True):
            pipeline.call(submit_bulk_registration, ADMIN, batch)
            write(settings, expanded(pipeline, batch.batch_id), partition=partition)
        fold(pipeline, results.wait_for(4))
    views = [pipeline.status(batch.batch_id) for batch in batches]
    assert sorted(view.batch.status for view in views) == ["completed", "partial"]
    [error] = [one.error for view in views for one in view.items if one.error]
    [winner] = [one for view in views for one in view.items if one.values.mentor_id == "mentor-1" and one.activity_id]
    assert (error.code, error.conflicting_activity_id) == ("duplicate_activity", str(winner.activity_id))
    assert count(engine, "registration.activity WHERE attributed_to = 'mentor-1'") == 1
    assert_exactly_once(engine, settings, activities=3)


# --- Row 29 ---------------------------------------------------------------------------------------------------------------------


class Held(SettledAtOnce):
    """A publisher that takes as long as the test wants."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        self.has_begun.set()
        assert self.may_go_on.wait(HELD_S)
        self._producer.publish(events)


def test_row_29_holder_of_the_advisory_locks_loses_its_session_unnoticed(
    settings: Settings, engine: Engine, pipeline: Pipeline, publisher: EventProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while there are two owners of the slots. Events that one has begun to publish are published by the other, too."""
    settings = settings.model_copy(update={"relay_poll_ms": 100})
    monkeypatch.setattr(events, "MAX_PART_ITEMS", 10)
    batches = [pipeline.submit(mentors(30, first=1 + 30 * number)) for number in range(3)]
    held = Held(publisher)
    with running_relay(settings, held) as first, reading(settings, Topic.BATCHES) as topic:
        assert held.has_begun.wait(PATIENCE_S)
        end_relays(engine)
        with running_relay(settings) as second:
            eventually(lambda: len(second.slots) == SLOTS)
            eventually(lambda: count(engine, "orchestrator.outbox") == 0)
            assert len(first.slots) == SLOTS, "the first relay must not have noticed yet"
            held.may_go_on.set()
            eventually(lambda: len(first.slots) == len(second.slots) == SLOTS // 2)
            assert not first.slots & second.slots
            published = list(topic.wait_for(12))
            with (
                running_role(settings, splitter_role(settings)),
                running_role(settings, registration_role()),
                running_role(settings, aggregator_role()),
            ):
                # The slot's present owner publishes the new batch.
                batches.append(pipeline.submit(mentors(10, first=91)))
                wait_until_completed(engine, batches)
    for copies in by(published, lambda each: each.id):
        assert {each.value for each in copies} == {copies[0].value}, (
            "copies of an event must be identical, so that consumers recognize them"
        )
    for of_batch in by(published, lambda each: each.key):
        assert [each.data["part"] for each in of_batch] == [1, 2, 3, 1], (
            "only events that had been published before may come again, in their order"
        )
    assert_exactly_once(engine, settings, activities=100)


def end_relays(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
                    WHERE application_name = 'bulkreg relay' AND datname = current_database()""")
        )


def by(records: Sequence[Seen], key: Callable[[Seen], str]) -> list[list[Seen]]:
    """The records grouped by key, in their order."""
    found: dict[str, list[Seen]] = defaultdict(list)
    for each in records:
        found[key(each)].append(each)
    return list(found.values())
