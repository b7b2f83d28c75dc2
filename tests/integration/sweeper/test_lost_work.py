"""The sweeper finds lost work and drives it on, and leaves work alone that is only queued (invariant 5)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from consumers.splitter import SplitterHandler
from consumers.upkeep.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import cancel_batch, retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import UNKNOWN_ID, Position, advance_progress
from orchestrator.storage.sweeping import Queues, note_resent
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import FAILED
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item, mentors
from tests.support.sweeping import COMMAND_TOPICS, Broker, queued, sweep


def test_lost_results_are_folded_from_the_dedup_table(pipeline: Pipeline, sweeper: Sweeper) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    pipeline.take(Topic.RESULTS)
    assert sweep(sweeper, pipeline.engine) == Swept(folded=3)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not sweep(sweeper, pipeline.engine)


def decided_long_ago(pipeline: Pipeline, since: timedelta) -> tuple[UUID, list[OutgoingEvent]]:
    """A batch that was decided this long ago, and its results, which are on no topic."""
    batch_id = pipeline.submit([*mentors(2), item("nobody")])
    pipeline.drain_until_registered()
    results = pipeline.take(Topic.RESULTS)
    pipeline.forget_what_was_published()
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.outcome SET created_at = created_at - :since"), {"since": since})
    return batch_id, results


def announced(pipeline: Pipeline) -> list[tuple[bytes, str, bytes]]:
    pipeline.relay()
    return sorted(map(without_time, pipeline.take(Topic.RESULTS)))


def without_time(event: OutgoingEvent) -> tuple[bytes, str, bytes]:
    """Without its time, because the test has changed the time."""
    return dict(event.headers)["ce_id"], event.key, event.value


def test_row_50_result_that_was_lost_with_its_command_is_announced_again(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    """The registration died between its commit and the results, and the command disappeared before its redelivery."""
    batch_id, results = decided_long_ago(pipeline, timedelta(minutes=90))
    broker.ids[Topic.RESULTS], broker.ends[Topic.RESULTS, 0], broker.ends[Topic.RESULTS, 1] = "first", 7, 0
    for _ in range(2):
        assert not sweep(patient_sweeper, pipeline.engine), "the results may be queued"
    broker.handled(Topic.RESULTS)
    assert sweep(patient_sweeper, pipeline.engine) == Swept(folded=3)
    assert pipeline.status(batch_id).batch.status == "partial"
    assert announced(pipeline) == sorted(map(without_time, results))
    assert not sweep(patient_sweeper, pipeline.engine)


@pytest.mark.parametrize(
    ("progress", "minutes", "is_lost"),
    [
        (Position(7, "first"), 90, True),
        (Position(7, UNKNOWN_ID), 90, True),
        (Position(6, "first"), 90, False),
        (Position(9, "second"), 90, False),
        (None, 90, False),
        (Position(7, "first"), 50, False),
    ],
    ids=[
        "passed",
        "passed, of an unknown incarnation",
        "before the end",
        "of another incarnation",
        "never read",
        "decided just now",
    ],
)
def test_a_result_may_be_queued_until_the_aggregator_has_passed_it(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker, progress: Position | None, minutes: int, is_lost: bool
) -> None:
    decided_long_ago(pipeline, timedelta(minutes=minutes))
    broker.ids[Topic.RESULTS], broker.ends[Topic.RESULTS, 0] = "first", 7
    assert not sweep(patient_sweeper, pipeline.engine)
    if progress is not None:
        with pipeline.engine.begin() as connection:
            advance_progress(connection, {(Topic.RESULTS, 0): progress})
    assert sweep(patient_sweeper, pipeline.engine).folded == (3 if is_lost else 0)
    assert len(announced(pipeline)) == (3 if is_lost else 0)


def test_results_that_have_waited_long_for_the_aggregator_are_folded_and_not_announced(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    """The aggregator is away, and the results are in its queue."""
    decided_long_ago(pipeline, timedelta(minutes=121))
    broker.ids[Topic.RESULTS], broker.ends[Topic.RESULTS, 0] = "first", 7
    assert sweep(patient_sweeper, pipeline.engine) == Swept(folded=3)
    assert announced(pipeline) == []


def test_the_pause_between_resends_doubles_each_time(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    key, pause = OutcomeKey(str(batch_id), 0, 1), timedelta(minutes=1)
    pauses = []
    with pipeline.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO orchestrator.sweep_watch (batch_id, position, attempt, organization_id, stage, next_at)"
                " VALUES (:b, 0, 1, :o, 'splitter', now())"
            ),
            {"b": batch_id, "o": ORGANIZATION},
        )
        for _ in range(4):
            note_resent(connection, [key], gone=[], pause=pause, max_resends=3)
            waits = connection.execute(text("SELECT next_at - clock_timestamp() FROM orchestrator.sweep_watch")).scalar_one()
            pauses.append(round(waits / pause))
    assert pauses == [1, 2, 4, 8]


def test_queued_commands_are_never_sent_again(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.handled(Topic.BATCHES)
    for _ in range(5):
        assert sweep(sweeper, pipeline.engine).resent == 0
        broker.written(Topic.COMMANDS)


def test_a_batch_in_the_outbox_is_not_stuck(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    pipeline.submit(mentors(3))
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    for _ in range(3):
        assert not sweep(sweeper, pipeline.engine)


def test_lost_commands_are_sent_again_after_the_queues_have_passed_them(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.take(Topic.COMMANDS)
    assert sweep(sweeper, pipeline.engine) == Swept(watched=3)
    broker.handled(Topic.BATCHES)
    assert not sweep(sweeper, pipeline.engine), "the splitter has passed it, but the registration has not"
    assert not sweep(sweeper, pipeline.engine)
    broker.handled(*COMMAND_TOPICS)
    assert sweep(sweeper, pipeline.engine) == Swept(resent=3)
    assert not sweep(sweeper, pipeline.engine), "the command that was sent again is in the outbox"
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not sweep(sweeper, pipeline.engine)
    with pipeline.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM orchestrator.sweep_watch")).scalar_one() == 0


def test_commands_that_the_splitter_produced_late_get_their_own_mark(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The splitter was behind when the item was first seen. So its command is newer than that mark, and not lost."""
    pipeline.submit(mentors(1))
    pipeline.relay()
    sweep(sweeper, pipeline.engine)
    broker.handled(*COMMAND_TOPICS)
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.written(Topic.COMMANDS)
    broker.handled(Topic.BATCHES)
    for _ in range(3):
        assert sweep(sweeper, pipeline.engine).resent == 0
    broker.handled(*COMMAND_TOPICS)
    assert sweep(sweeper, pipeline.engine).resent == 1


def test_an_item_that_stays_lost_fails_with_an_internal_error(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = pipeline.submit(mentors(2))
    total = Swept()
    results: list[OutgoingEvent] = []
    for _ in range(20):
        swept = sweep(sweeper, pipeline.engine)
        total = replace(total, resent=total.resent + swept.resent, given_up=total.given_up + swept.given_up)
        assert pipeline.status(batch_id).batch.counts.failed == total.given_up, "the items must not wait for another sweep"
        pipeline.relay()
        results += pipeline.take(Topic.RESULTS)
        pipeline.queues.clear()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    assert (total.resent, total.given_up) == (4, 2)
    lines = logged(caplog, Action.ITEM_GIVEN_UP)
    assert [(line["batch"], line["position"], line["attempt"]) for line in lines] == [
        (str(batch_id), 0, 1),
        (str(batch_id), 1, 1),
    ]
    view = pipeline.status(batch_id)
    assert view.batch.status == "failed"
    assert view.batch.errors_by_code == {"internal_error": 2}
    assert view.items[0].error is not None
    assert view.items[0].error.retryable is True
    # The failure is announced like any other outcome, because a replay knows no other way.
    assert [dict(event.headers)["ce_type"] for event in results] == [FAILED.encode()] * 2
    assert not pipeline.handle(pipeline.aggregator, results).refused
    assert pipeline.status(batch_id).batch.counts.failed == 2


@pytest.fixture
def sweeper_of_small_lanes(pipeline: Pipeline, settings: Settings, broker: Broker) -> Sweeper:
    """For it and the splitter, three items are a bulk batch. It sends again once."""
    pipeline.handlers = (SplitterHandler(bulk_threshold_items=2, max_items=settings.max_items), *pipeline.handlers[1:])
    policy = SweepPolicy.of(settings)
    return Sweeper(replace(policy, quiet=timedelta(0), resend_pause=timedelta(0), max_resends=1, bulk_threshold_items=2), broker)


def test_a_command_that_is_sent_again_is_the_first_one_byte_for_byte_in_its_lane(
    pipeline: Pipeline, sweeper_of_small_lanes: Sweeper, broker: Broker
) -> None:
    """One of three got lost: of the submission, of a retry of all, and of a retry of two."""

    def lose_one() -> tuple[OutgoingEvent, OutgoingEvent]:
        """Returns the first command, and the one that the sweeper sends."""
        pipeline.relay()
        pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
        lost, *others = pipeline.take(*COMMAND_TOPICS)
        pipeline.handle(pipeline.registration, others)
        pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
        for _ in range(3):
            broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
            sweep(sweeper_of_small_lanes, pipeline.engine)
        pipeline.relay()
        (again,) = pipeline.take(*COMMAND_TOPICS)
        pipeline.handle(pipeline.registration, [again])
        pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
        return lost, again

    batch_id = pipeline.submit([item(f"nobody-{number}") for number in range(3)])
    lost, again = lose_one()
    assert (again, again.topic) == (lost, Topic.COMMANDS_BULK)

    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    lost, again = lose_one()
    assert (again, again.topic) == (lost, Topic.COMMANDS_BULK)

    two = [each.item_id for each in pipeline.status(batch_id).items[:2]]
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=two))
    lost, again = lose_one()
    assert (again, again.topic) == (lost, Topic.COMMANDS)


def test_the_result_of_giving_up_is_in_the_lane_of_its_command(
    pipeline: Pipeline, sweeper_of_small_lanes: Sweeper, broker: Broker
) -> None:
    """A command that arrives after all gets the same result, byte for byte."""
    pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    late, *others = pipeline.take(Topic.COMMANDS_BULK)
    pipeline.handle(pipeline.registration, others)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    given_up = 0
    for _ in range(6):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        given_up += sweep(sweeper_of_small_lanes, pipeline.engine).given_up
        pipeline.relay()
    assert given_up == 1
    (announced,) = pipeline.take(Topic.RESULTS)
    pipeline.handle(pipeline.registration, [late])
    assert pipeline.take(Topic.RESULTS) == [announced]


def test_a_cancelled_batch_is_not_driven_on(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.queues.clear()
    assert sweep(sweeper, pipeline.engine).watched == 2
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    pipeline.relay()
    for _ in range(3):
        assert not sweep(sweeper, pipeline.engine)


def test_lost_items_are_driven_on_within_a_minute_after_the_queue_has_passed_them(settings: Settings) -> None:
    """Three sweeps after the quiet time are enough, as the tests above count. Invariant 5 allows a minute."""
    assert settings.sweep_stuck_after_ms + 3 * settings.sweep_interval_ms <= 60_000


@pytest.fixture
def crowd(pipeline: Pipeline) -> None:
    """Adds 5,000 mentors."""
    with pipeline.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO registration.mentor"
                " SELECT :org, 'mentor-' || n, 'Mentor', 'chapter-1' FROM generate_series(101, 5000) n"
            ),
            {"org": ORGANIZATION},
        )


@pytest.mark.usefixtures("crowd")
def test_a_long_queue_is_not_flooded_and_its_lost_commands_are_sent_again(
    pipeline: Pipeline, settings: Settings, broker: Broker
) -> None:
    """5,000 commands wait. That is more than one sweep watches, and every sweep finds them quiet. Ten of them are lost on the way."""
    lost = 10
    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0), max_items=400)
    sweeper = Sweeper(policy, broker)
    batches = [pipeline.submit(mentors(100, first=first)) for first in range(1, 5_000, 100)]
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.handled(Topic.BATCHES)
    queued = pipeline.take(*COMMAND_TOPICS)
    assert len(queued) == 5_000
    broker.ends[Topic.COMMANDS, 0] = len(queued)
    total = Swept()
    for first in range(0, len(queued), 500):
        total += sweep(sweeper, pipeline.engine)
        pipeline.handle(pipeline.registration, queued[first : first + 500][: 500 - lost // 10])
        if first + 500 < len(queued):
            with pipeline.engine.begin() as connection:
                advance_progress(connection, {(Topic.COMMANDS, 0): Position(first + 500, "first")})
    total += sweep(sweeper, pipeline.engine)
    assert (total.watched, total.resent) == (5_000, 0), "all must be watched, and no queued command may be sent again"
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    broker.handled(*COMMAND_TOPICS)
    assert sweep(sweeper, pipeline.engine) == Swept(resent=lost)
    pipeline.drain()
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"completed"}
    assert not sweep(sweeper, pipeline.engine)


@pytest.mark.usefixtures("crowd")
def test_an_outage_that_lost_more_than_a_transaction_holds_is_swept_at_once(
    pipeline: Pipeline, settings: Settings, broker: Broker
) -> None:
    """Everything in Kafka is lost. Three sweeps do for all items what they do for one."""
    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0), max_items=40)
    sweeper = Sweeper(policy, broker)
    batches = [pipeline.submit(mentors(100, first=first)) for first in (1, 101, 201)]
    pipeline.relay()
    pipeline.queues.clear()
    total = Swept()
    for _ in range(3):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(sweeper, pipeline.engine)
    assert total == Swept(watched=300, resent=300)
    pipeline.drain()
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"completed"}


def test_a_mark_is_taken_after_the_outbox_was_read(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    """An event that leaves the outbox while the broker is asked is behind the mark, and is not lost when the mark is passed."""
    queued(pipeline, broker)
    asked: list[int] = []

    def ends(topics: Sequence[Topic]) -> Queues:
        if Topic.RESULTS not in topics:
            with pipeline.engine.begin() as connection:
                asked.append(connection.execute(text("SELECT count(*) FROM orchestrator.sweep_watch")).scalar_one())
            for topic in COMMAND_TOPICS:
                broker.written(topic)
        return broker(topics)

    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0))
    assert sweep(Sweeper(policy, ends), pipeline.engine).watched == 2
    with pipeline.engine.begin() as connection:
        offsets = connection.execute(text("SELECT offsets FROM orchestrator.sweep_mark")).scalar_one()
    assert {each["topic"]: each["next_offset"] for each in offsets}["commands"] == broker.ends[Topic.COMMANDS, 0]


def test_an_item_whose_event_leaves_the_outbox_while_the_broker_is_asked_is_not_watched_yet(
    pipeline: Pipeline, settings: Settings, broker: Broker
) -> None:
    """The event is behind the ends that the broker has named."""
    pipeline.submit(mentors(2))

    def ends(topics: Sequence[Topic]) -> Queues:
        found = broker(topics)
        if Topic.RESULTS not in topics:
            with pipeline.engine.begin() as connection:
                connection.execute(text("DELETE FROM orchestrator.outbox"))
        return found

    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0))
    assert sweep(Sweeper(policy, ends), pipeline.engine).watched == 0


def test_a_batchs_refused_event_does_not_hide_its_items_from_the_sweeper(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """Its `BatchSubmitted` will never be accepted, and an event for its followers waits. Each item is sent by itself."""
    batch_id = pipeline.submit(mentors(2))
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.outbox SET slot = -1 - slot, held_for = 'refused', held_why = 'too large'"))
        connection.execute(
            text(
                "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at)"
                " VALUES (-1, :org, :b, 'lifecycle', 'k', '[]', '{}', now())"
            ),
            {"org": ORGANIZATION, "b": batch_id},
        )
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(3)), Swept()) == Swept(watched=2, resent=2)
