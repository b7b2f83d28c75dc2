"""What got lost is found and driven on; what is only queued is left alone (specification, 8, invariant 5)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from consumers.splitter import SplitterHandler
from consumers.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.model import RetryRequest
from orchestrator.operations import cancel_batch, retry_failed_items
from orchestrator.settings import Settings
from orchestrator.storage.progress import advance_progress
from orchestrator.storage.sweeping import Offsets
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import FAILED
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item, mentors

COMMAND_TOPICS = (Topic.COMMANDS, Topic.COMMANDS_BULK)


class Broker:
    """Where the topics end, as the sweeper asks; and how far the consumers are, which a test decides."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.ends: dict[tuple[Topic, int], int] = {(Topic.BATCHES, 0): 1, (Topic.COMMANDS, 0): 1}

    def __call__(self, topics: Sequence[Topic]) -> Offsets:
        return {place: end for place, end in self.ends.items() if place[0] in topics}

    def handled(self, *topics: Topic) -> None:
        """The consumers of these topics have come to the end."""
        with self._pipeline.engine.begin() as connection:
            advance_progress(connection, {place: end for place, end in self.ends.items() if place[0] in topics})

    def written(self, topic: Topic) -> None:
        """Somebody has published to this topic."""
        self.ends[topic, 0] += 1


@pytest.fixture
def broker(pipeline: Pipeline) -> Broker:
    return Broker(pipeline)


@pytest.fixture
def sweeper(settings: Settings, broker: Broker) -> Sweeper:
    eager = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0), max_resends=2)
    return Sweeper(eager, broker)


def test_lost_results_are_folded_from_the_dedup_table(pipeline: Pipeline, sweeper: Sweeper) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    pipeline.take(Topic.RESULTS)
    assert sweeper.sweep(pipeline.engine) == Swept(folded=3)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not sweeper.sweep(pipeline.engine)


def test_queued_commands_are_never_sent_again(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.handled(Topic.BATCHES)
    for _ in range(5):
        assert sweeper.sweep(pipeline.engine).resent == 0
        broker.written(Topic.COMMANDS)


def test_batch_in_the_outbox_is_not_stuck(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    pipeline.submit(mentors(3))
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    for _ in range(3):
        assert not sweeper.sweep(pipeline.engine)


def test_lost_commands_are_sent_again_once_the_queues_have_passed_them(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.take(Topic.COMMANDS)
    assert sweeper.sweep(pipeline.engine) == Swept(watched=3)
    broker.handled(Topic.BATCHES)
    assert not sweeper.sweep(pipeline.engine), "the splitter is past it; the registration is not"
    assert not sweeper.sweep(pipeline.engine)
    broker.handled(*COMMAND_TOPICS)
    assert sweeper.sweep(pipeline.engine) == Swept(resent=3)
    assert not sweeper.sweep(pipeline.engine), "what was sent again is in the outbox"
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not sweeper.sweep(pipeline.engine)
    with pipeline.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM orchestrator.sweep_watch")).scalar_one() == 0


def test_commands_that_the_splitter_produced_late_get_a_mark_of_their_own(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The splitter was behind when the item was first seen: its command is newer than that mark, and not lost."""
    pipeline.submit(mentors(1))
    pipeline.relay()
    sweeper.sweep(pipeline.engine)
    broker.handled(*COMMAND_TOPICS)
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.written(Topic.COMMANDS)
    broker.handled(Topic.BATCHES)
    for _ in range(3):
        assert sweeper.sweep(pipeline.engine).resent == 0
    broker.handled(*COMMAND_TOPICS)
    assert sweeper.sweep(pipeline.engine).resent == 1


def test_item_that_stays_lost_ends_as_internal_error(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    batch_id = pipeline.submit(mentors(2))
    total = Swept()
    results: list[OutgoingEvent] = []
    for _ in range(20):
        swept = sweeper.sweep(pipeline.engine)
        total = replace(total, resent=total.resent + swept.resent, given_up=total.given_up + swept.given_up)
        pipeline.relay()
        results += pipeline.take(Topic.RESULTS)
        pipeline.queues.clear()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    assert (total.resent, total.given_up) == (4, 2)
    view = pipeline.status(batch_id)
    assert view.batch.status == "failed"
    assert view.batch.errors_by_code == {"internal_error": 2}
    assert view.items[0].error is not None
    assert view.items[0].error["retryable"] is True
    # And it is announced as any other outcome: a replay knows no other way.
    assert [dict(event.headers)["ce_type"] for event in results] == [FAILED.encode()] * 2
    assert not pipeline.handle(pipeline.aggregator, results).refused
    assert pipeline.status(batch_id).batch.counts.failed == 2


@pytest.fixture
def sweeper_of_small_lanes(pipeline: Pipeline, settings: Settings, broker: Broker) -> Sweeper:
    """Three items are many, to it and to the splitter; it sends again once."""
    pipeline.handlers = (SplitterHandler(bulk_threshold_items=2, max_items=settings.max_items), *pipeline.handlers[1:])
    policy = SweepPolicy.of(settings)
    return Sweeper(replace(policy, quiet=timedelta(0), resend_pause=timedelta(0), max_resends=1, bulk_threshold_items=2), broker)


def test_what_is_sent_again_is_the_first_command_byte_for_byte_in_its_lane(
    pipeline: Pipeline, sweeper_of_small_lanes: Sweeper, broker: Broker
) -> None:
    """One of three got lost: of the submission, of a retry of all, and of a retry of two."""

    def lose_one() -> tuple[OutgoingEvent, OutgoingEvent]:
        """The first command, and the one that the sweeper sends."""
        pipeline.relay()
        pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
        lost, *others = pipeline.take(*COMMAND_TOPICS)
        pipeline.handle(pipeline.registration, others)
        pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
        for _ in range(3):
            broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
            sweeper_of_small_lanes.sweep(pipeline.engine)
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


def test_result_of_what_is_given_up_is_of_the_lane_of_its_command(
    pipeline: Pipeline, sweeper_of_small_lanes: Sweeper, broker: Broker
) -> None:
    """A command that comes after all is answered with the same result, byte for byte."""
    pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    late, *others = pipeline.take(Topic.COMMANDS_BULK)
    pipeline.handle(pipeline.registration, others)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    given_up = 0
    for _ in range(6):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        given_up += sweeper_of_small_lanes.sweep(pipeline.engine).given_up
        pipeline.relay()
    assert given_up == 1
    (announced,) = pipeline.take(Topic.RESULTS)
    pipeline.handle(pipeline.registration, [late])
    assert pipeline.take(Topic.RESULTS) == [announced]


def test_cancelled_batch_is_not_driven_on(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.queues.clear()
    assert sweeper.sweep(pipeline.engine).watched == 2
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    pipeline.relay()
    for _ in range(3):
        assert not sweeper.sweep(pipeline.engine)


def test_lost_items_are_driven_on_within_a_minute_of_the_queue_having_passed_them(settings: Settings) -> None:
    """Three sweeps after the quiet time are enough, as the tests above count; invariant 5 allows a minute."""
    assert settings.sweep_stuck_after_ms + 3 * settings.sweep_interval_ms <= 60_000


@pytest.fixture
def crowd(pipeline: Pipeline) -> None:
    """5,000 more mentors."""
    with pipeline.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO registration.mentor"
                " SELECT :org, 'mentor-' || n, 'Mentor', 'chapter-1' FROM generate_series(101, 5000) n"
            ),
            {"org": ORGANIZATION},
        )


@pytest.mark.usefixtures("crowd")
def test_long_queue_is_not_flooded_and_what_it_lost_is_sent_again(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    """5,000 commands wait, more than one sweep watches, and every sweep finds them quiet. Ten of them are lost on the way."""
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
        total += sweeper.sweep(pipeline.engine)
        pipeline.handle(pipeline.registration, queued[first : first + 500][: 500 - lost // 10])
        if first + 500 < len(queued):
            with pipeline.engine.begin() as connection:
                advance_progress(connection, {(Topic.COMMANDS, 0): first + 500})
    total += sweeper.sweep(pipeline.engine)
    assert (total.watched, total.resent) == (5_000, 0), "all are watched, and what is only queued is not sent again"
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    broker.handled(*COMMAND_TOPICS)
    assert sweeper.sweep(pipeline.engine) == Swept(resent=lost)
    pipeline.drain()
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"completed"}
    assert not sweeper.sweep(pipeline.engine)


@pytest.mark.usefixtures("crowd")
def test_outage_that_lost_more_than_a_transaction_holds_is_swept_at_once(
    pipeline: Pipeline, settings: Settings, broker: Broker
) -> None:
    """Everything in Kafka is gone: what three sweeps find of one item, they find of all."""
    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0), max_items=40)
    sweeper = Sweeper(policy, broker)
    batches = [pipeline.submit(mentors(100, first=first)) for first in (1, 101, 201)]
    pipeline.relay()
    pipeline.queues.clear()
    total = Swept()
    for _ in range(3):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweeper.sweep(pipeline.engine)
    assert total == Swept(watched=300, resent=300)
    pipeline.drain()
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"completed"}
