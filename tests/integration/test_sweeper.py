"""The sweeper finds lost work and drives it on, and leaves work alone that is only queued (invariant 5)."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import create_engine, text

from consumers.splitter import SplitterHandler
from consumers.upkeep.purger import PurgePolicy, Purger
from consumers.upkeep.sweep_loop import SweepLoop
from consumers.upkeep.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, relabel_batch, retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import UNKNOWN_ID, Position, advance_progress
from orchestrator.storage.sweeping import Queue, Queues, note_resent
from orchestrator.verification.verify import verify
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import FAILED
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item, mentors
from tests.support.upstream import in_parts
from tests.support.waiting import eventually

COMMAND_TOPICS = (Topic.COMMANDS, Topic.COMMANDS_BULK)


class Broker:
    """Says where the topics end, as the broker would, and how far the consumers are. The test decides both."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.ends: dict[tuple[Topic, int], int] = {(Topic.BATCHES, 0): 1, (Topic.COMMANDS, 0): 1, (Topic.COMMANDS_BULK, 0): 0}
        self.firsts: dict[tuple[Topic, int], int] = {}
        self.ids: dict[Topic, str] = dict.fromkeys((Topic.BATCHES, *COMMAND_TOPICS), "first")

    def __call__(self, topics: Sequence[Topic]) -> Queues:
        return {
            place: Queue(self.firsts.get(place, 0), end, self.ids[place[0]])
            for place, end in self.ends.items()
            if place[0] in topics and place[0] in self.ids
        }

    def handled(self, *topics: Topic) -> None:
        """The consumers of these topics have reached the end."""
        with self._pipeline.engine.begin() as connection:
            advance_progress(
                connection,
                {place: Position(end, self.ids[place[0]]) for place, end in self.ends.items() if place[0] in topics},
            )

    def written(self, topic: Topic) -> None:
        """A record was published to this topic."""
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
        assert not patient_sweeper.sweep(pipeline.engine), "the results may be queued"
    broker.handled(Topic.RESULTS)
    assert patient_sweeper.sweep(pipeline.engine) == Swept(folded=3)
    assert pipeline.status(batch_id).batch.status == "partial"
    assert announced(pipeline) == sorted(map(without_time, results))
    assert not patient_sweeper.sweep(pipeline.engine)


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
    assert not patient_sweeper.sweep(pipeline.engine)
    if progress is not None:
        with pipeline.engine.begin() as connection:
            advance_progress(connection, {(Topic.RESULTS, 0): progress})
    assert patient_sweeper.sweep(pipeline.engine).folded == (3 if is_lost else 0)
    assert len(announced(pipeline)) == (3 if is_lost else 0)


def test_results_that_have_waited_long_for_the_aggregator_are_folded_and_not_announced(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    """The aggregator is away, and the results are in its queue."""
    decided_long_ago(pipeline, timedelta(minutes=121))
    broker.ids[Topic.RESULTS], broker.ends[Topic.RESULTS, 0] = "first", 7
    assert patient_sweeper.sweep(pipeline.engine) == Swept(folded=3)
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
        assert sweeper.sweep(pipeline.engine).resent == 0
        broker.written(Topic.COMMANDS)


def test_a_batch_in_the_outbox_is_not_stuck(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    pipeline.submit(mentors(3))
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    for _ in range(3):
        assert not sweeper.sweep(pipeline.engine)


def test_lost_commands_are_sent_again_after_the_queues_have_passed_them(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.take(Topic.COMMANDS)
    assert sweeper.sweep(pipeline.engine) == Swept(watched=3)
    broker.handled(Topic.BATCHES)
    assert not sweeper.sweep(pipeline.engine), "the splitter has passed it, but the registration has not"
    assert not sweeper.sweep(pipeline.engine)
    broker.handled(*COMMAND_TOPICS)
    assert sweeper.sweep(pipeline.engine) == Swept(resent=3)
    assert not sweeper.sweep(pipeline.engine), "the command that was sent again is in the outbox"
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not sweeper.sweep(pipeline.engine)
    with pipeline.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM orchestrator.sweep_watch")).scalar_one() == 0


def test_commands_that_the_splitter_produced_late_get_their_own_mark(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The splitter was behind when the item was first seen. So its command is newer than that mark, and not lost."""
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


def test_an_item_that_stays_lost_fails_with_an_internal_error(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = pipeline.submit(mentors(2))
    total = Swept()
    results: list[OutgoingEvent] = []
    for _ in range(20):
        swept = sweeper.sweep(pipeline.engine)
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
        given_up += sweeper_of_small_lanes.sweep(pipeline.engine).given_up
        pipeline.relay()
    assert given_up == 1
    (announced,) = pipeline.take(Topic.RESULTS)
    pipeline.handle(pipeline.registration, [late])
    assert pipeline.take(Topic.RESULTS) == [announced]


def test_a_cancelled_batch_is_not_driven_on(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.queues.clear()
    assert sweeper.sweep(pipeline.engine).watched == 2
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    pipeline.relay()
    for _ in range(3):
        assert not sweeper.sweep(pipeline.engine)


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
        total += sweeper.sweep(pipeline.engine)
        pipeline.handle(pipeline.registration, queued[first : first + 500][: 500 - lost // 10])
        if first + 500 < len(queued):
            with pipeline.engine.begin() as connection:
                advance_progress(connection, {(Topic.COMMANDS, 0): Position(first + 500, "first")})
    total += sweeper.sweep(pipeline.engine)
    assert (total.watched, total.resent) == (5_000, 0), "all must be watched, and no queued command may be sent again"
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    broker.handled(*COMMAND_TOPICS)
    assert sweeper.sweep(pipeline.engine) == Swept(resent=lost)
    pipeline.drain()
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"completed"}
    assert not sweeper.sweep(pipeline.engine)


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
        total += sweeper.sweep(pipeline.engine)
    assert total == Swept(watched=300, resent=300)
    pipeline.drain()
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"completed"}


# --- Incarnations of topics (docs/decisions/0024-incarnations.md) -------------------------------------------------------------


def queued(pipeline: Pipeline, broker: Broker, count: int = 2) -> UUID:
    """A batch that was split, and whose commands wait, on topics with many handled records."""
    for topic in (Topic.BATCHES, *COMMAND_TOPICS):
        broker.ends[topic, 0] = 1_000
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    batch_id = pipeline.submit(mentors(count))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    broker.written(Topic.BATCHES)
    broker.handled(Topic.BATCHES)
    broker.ends[Topic.COMMANDS, 0] += count
    return batch_id


def replace_topics(broker: Broker, topic_id: str, *, end: int = 0) -> None:
    """Deletes all topics and creates them again. This many records have been written to the new ones."""
    broker.ids = dict.fromkeys(broker.ids, topic_id)
    broker.ends = dict.fromkeys(broker.ends, end)


@pytest.mark.parametrize("end", [2, 1_000, 5_000])
def test_row_50_progress_of_a_replaced_topic_does_not_count_for_the_new_one(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, end: int
) -> None:
    """The new topic ends before, at or behind the old one's end: it was restored from a copy, or filled again."""
    batch_id = queued(pipeline, broker)
    replace_topics(broker, "second", end=end)
    total = sum((sweeper.sweep(pipeline.engine) for _ in range(20)), Swept())
    assert total == Swept(watched=2), "a queued command must not be sent again"
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_row_50_commands_lost_with_their_topic_are_sent_again_and_do_not_count_against_the_item(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The topics are replaced more often than an item may be sent again."""
    batch_id = queued(pipeline, broker)
    total = sweeper.sweep(pipeline.engine)
    for number in range(6):
        replace_topics(broker, f"incarnation-{number}")
        pipeline.queues.clear()
        for _ in range(3):
            total += sweeper.sweep(pipeline.engine)
        pipeline.relay()
        broker.ends = dict.fromkeys(broker.ends, 2)
        total += sweeper.sweep(pipeline.engine)
    assert (total.watched, total.resent, total.given_up) == (2, 12, 0)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_row_50_commands_lost_on_a_new_incarnation_are_given_up_as_on_the_first(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    queued(pipeline, broker)
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(2)), Swept()) == Swept(watched=2)
    replace_topics(broker, "second")
    total = Swept()
    for _ in range(20):
        total += sweeper.sweep(pipeline.engine)
        pipeline.relay()
        pipeline.queues.clear()
        broker.ends = dict.fromkeys(broker.ends, 7)
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    assert (total.resent, total.given_up) == (2 + 4, 2), "once because of its topic, and then as often as any item"


def test_a_missing_topic_is_waited_for(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    """It was deleted, and does not exist yet again. Its commands are not sent until it does."""
    queued(pipeline, broker)
    assert sweeper.sweep(pipeline.engine).watched == 2
    del broker.ids[Topic.COMMANDS]
    for _ in range(3):
        assert not sweeper.sweep(pipeline.engine)
    broker.ids[Topic.COMMANDS] = "second"
    broker.ends = dict.fromkeys(broker.ends, 0)
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(3)), Swept()) == Swept(resent=2)


def test_commands_that_expired_before_they_were_handled_are_sent_again(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The consumers were away for longer than the retention time, and nothing was written since. So they never get a record."""
    batch_id = queued(pipeline, broker)
    assert sweeper.sweep(pipeline.engine).watched == 2
    pipeline.queues.clear()
    broker.firsts = dict(broker.ends)
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(3)), Swept()) == Swept(resent=2)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_a_broker_without_topic_ids_shows_a_replaced_topic_by_its_end(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    broker.ids = dict.fromkeys(broker.ids, UNKNOWN_ID)
    batch_id = queued(pipeline, broker)
    broker.ends = dict.fromkeys(broker.ends, 2)
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(6)), Swept()) == Swept(watched=2)
    broker.ends = dict.fromkeys(broker.ends, 0)
    pipeline.queues.clear()
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(3)), Swept()) == Swept(resent=2), (
        "the topic's end is before the mark, so it was replaced"
    )
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_progress_of_the_previous_version_counts(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    """It has no topic id. The consumer has not been upgraded yet, or the partition has been idle since."""
    queued(pipeline, broker)
    broker.handled(*COMMAND_TOPICS)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.consumer_progress SET topic_id = ''"))
    pipeline.queues.clear()
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(3)), Swept()) == Swept(watched=2, resent=2)


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
    assert Sweeper(policy, ends).sweep(pipeline.engine).watched == 2
    with pipeline.engine.begin() as connection:
        offsets = connection.execute(text("SELECT offsets FROM orchestrator.sweep_mark")).scalar_one()
    assert {each["topic"]: each["next_offset"] for each in offsets}["commands"] == broker.ends[Topic.COMMANDS, 0]


# --- One batch among many ----------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(settings: Settings) -> Iterator[Callable[[str, UUID], None]]:
    """Makes every change of a batch's rows in a table fail."""
    owner = create_engine(settings.owner_url)

    def breaks(table: str, batch_id: UUID) -> None:
        with owner.begin() as connection:
            connection.execute(
                text(
                    "CREATE FUNCTION orchestrator.breaks() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'broken'; END $$"
                )
            )
            for event, row in (("INSERT OR UPDATE", "NEW"), ("DELETE", "OLD")):
                connection.execute(
                    text(
                        f"CREATE TRIGGER breaks_{row} BEFORE {event} ON {table} FOR EACH ROW"
                        f" WHEN ({row}.batch_id = '{batch_id}') EXECUTE FUNCTION orchestrator.breaks()"
                    )
                )

    yield breaks
    owner.dispose()


def set_aside(step: str) -> float:
    return float(metrics.SWEEP_SET_ASIDE.labels(step)._value.get())


def test_row_51_a_batch_that_can_not_be_folded_does_not_stop_others(
    pipeline: Pipeline, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    """Its counts are damaged, so that any move of an item would make them negative."""
    batches = [pipeline.submit(mentors(3, first=first)) for first in range(1, 22, 3)]
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    pipeline.take(Topic.RESULTS)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET pending = 0, failed = 3 WHERE batch_id = :b"), {"b": batches[3]})
    before = set_aside("fold")
    assert sweeper.sweep(pipeline.engine) == Swept(folded=18)
    assert set_aside("fold") == before + 1
    assert [(line["batch"], line["step"]) for line in logged(caplog, Action.BATCH_SET_ASIDE)] == [(str(batches[3]), "fold")]
    assert {pipeline.status(each).batch.status for each in batches if each != batches[3]} == {"completed"}


def test_row_51_a_batch_that_can_not_be_sent_again_does_not_stop_others(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, broken: Callable[[str, UUID], None]
) -> None:
    batches = [pipeline.submit(mentors(2, first=first)) for first in range(1, 10, 2)]
    pipeline.relay()
    pipeline.queues.clear()
    broken("orchestrator.outbox", batches[1])
    total = Swept()
    for _ in range(4):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweeper.sweep(pipeline.engine)
    assert total == Swept(watched=10, resent=8)
    pipeline.drain()
    assert [pipeline.status(each).batch.status for each in batches] == [
        "processing" if each == batches[1] else "completed" for each in batches
    ]


def test_row_51_a_batch_that_can_not_be_given_up_does_not_stop_others(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, broken: Callable[[str, UUID], None]
) -> None:
    batches = [pipeline.submit(mentors(2, first=first)) for first in range(1, 10, 2)]
    broken("orchestrator.outcome", batches[1])
    total = Swept()
    for _ in range(12):
        pipeline.relay()
        pipeline.queues.clear()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweeper.sweep(pipeline.engine)
    assert total.given_up == 8
    assert [pipeline.status(each).batch.status for each in batches] == [
        "processing" if each == batches[1] else "failed" for each in batches
    ]


def test_row_51_a_collection_that_can_not_be_ended_does_not_stop_others(
    pipeline: Pipeline, settings: Settings, broker: Broker, broken: Callable[[str, UUID], None]
) -> None:
    collecting = [uuid4() for _ in range(5)]
    for batch_id in collecting:
        pipeline.queues[Topic.BATCHES] += in_parts(batch_id, [2, 2])[:1]
    pipeline.drain()
    broken("orchestrator.batch_part", collecting[2])
    sweeper = Sweeper(replace(SweepPolicy.of(settings), parts_patience=timedelta(0)), broker)
    assert sweeper.sweep(pipeline.engine).batches_ended == 4


# --- Batches that never come to rest -------------------------------------------------------------------------------------------


@pytest.fixture
def patient_sweeper(settings: Settings, broker: Broker) -> Sweeper:
    """A sweeper for which an hour without changes is quiet."""
    return Sweeper(replace(SweepPolicy.of(settings), quiet=timedelta(hours=1), resend_pause=timedelta(0)), broker)


def long_ago(pipeline: Pipeline, batch_id: UUID) -> None:
    """Makes the batch's items two hours older, as if nobody had touched them since. Events contain these times, so those sent again differ."""
    pipeline.forget_what_was_published()
    with pipeline.engine.begin() as connection:
        for statement in (
            "UPDATE orchestrator.batch SET changed_at = changed_at - interval '2 hours' WHERE batch_id = :b",
            "UPDATE orchestrator.batch_item SET attempt_at = attempt_at - interval '2 hours' WHERE batch_id = :b",
            "UPDATE orchestrator.outcome SET created_at = created_at - interval '2 hours' WHERE batch_id = :b",
        ):
            connection.execute(text(statement), {"b": batch_id})


def test_row_51_a_batch_that_is_edited_all_the_time_is_swept(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.queues.clear()
    long_ago(pipeline, batch_id)
    total = Swept()
    for number in range(4):
        pipeline.call(relabel_batch, ADMIN, batch_id, f"label {number}")
        pipeline.relay()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += patient_sweeper.sweep(pipeline.engine)
    assert total == Swept(watched=2, resent=2)


def test_row_51_lost_results_of_a_batch_that_is_edited_all_the_time_are_folded(
    pipeline: Pipeline, patient_sweeper: Sweeper
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain_until_registered()
    pipeline.queues.clear()
    long_ago(pipeline, batch_id)
    pipeline.call(relabel_batch, ADMIN, batch_id, "again")
    assert patient_sweeper.sweep(pipeline.engine).folded == 2


def test_row_51_a_lost_item_is_sent_again_although_other_items_are_retried_all_the_time(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    failing = [each for each in commands if orjson.loads(each.value)["mentor_id"] == "nobody"]
    pipeline.handle(pipeline.registration, failing)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    long_ago(pipeline, batch_id)
    total = Swept()
    for _ in range(4):
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
        pipeline.drain()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += patient_sweeper.sweep(pipeline.engine)
    assert total == Swept(watched=1, resent=1)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts.completed == 1


# --- The loop ------------------------------------------------------------------------------------------------------------------


def test_row_51_a_failing_step_does_not_stop_other_steps(
    pipeline: Pipeline, sweeper: Sweeper, settings: Settings, broken: Callable[[str, UUID], None]
) -> None:
    """The broker is away, and one deleted batch can't be purged. Results are folded, and another deleted batch is purged."""
    deleted = [pipeline.submit(mentors(1, first=first)) for first in (1, 2, 3)]
    pipeline.drain()
    for each in deleted:
        pipeline.call(delete_batch, ADMIN, each)
    broken("orchestrator.batch_item", deleted[1])
    batch_id = pipeline.submit(mentors(2, first=10))
    pipeline.drain_until_registered()
    pipeline.queues.clear()

    def no_broker(_topics: Sequence[Topic]) -> Queues:
        raise RuntimeError("a bug, or a client that can't go on")

    sweeper._end_offsets = no_broker
    purger = Purger(PurgePolicy(purge_after=timedelta(0), keys_after=timedelta(days=7)))
    loop = SweepLoop(sweeper, purger, pipeline.engine, interval_s=0.001)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        eventually(lambda: pipeline.status(batch_id).batch.status == "completed")
        with pipeline.engine.connect() as connection:
            count = text("SELECT count(*) FROM orchestrator.batch WHERE deleted_at IS NOT NULL")
            eventually(lambda: connection.execute(count).scalar_one() == 1)
        assert thread.is_alive()
        eventually(lambda: loop.health.failing)
        check = loop.health.check(max_loop_age_s=30)
        assert not check.ok
        assert "drive_on" in (check.detail or "")
        sweeper._end_offsets = lambda _topics: {}
        eventually(lambda: loop.health.check(max_loop_age_s=30).ok)
    finally:
        loop.stop()
        thread.join()


# --- How the sweeper sees the queues -------------------------------------------------------------------------------------------


def test_row_53_a_queue_that_does_not_move_stands_since_it_was_first_seen_so(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, settings: Settings
) -> None:
    def standing() -> dict[str, bool]:
        with pipeline.engine.connect() as connection:
            rows = connection.execute(text("SELECT topic, stands_since IS NOT NULL AS stands FROM orchestrator.queue_end"))
            return {row.topic: row.stands for row in rows}

    def since(topic: Topic) -> object:
        with pipeline.engine.connect() as connection:
            found = text("SELECT stands_since FROM orchestrator.queue_end WHERE topic = :topic")
            return connection.execute(found, {"topic": topic.value}).scalar_one()

    # The notifier's queue is observed, too.
    broker.ids[Topic.LIFECYCLE] = "first"
    broker.ends[Topic.LIFECYCLE, 0] = 1
    sweeper.sweep(pipeline.engine)
    assert standing() == {"batches": True, "commands": True, "commands-bulk": False, "lifecycle": True}
    first = since(Topic.COMMANDS)
    broker.written(Topic.COMMANDS)
    sweeper.sweep(pipeline.engine)
    assert since(Topic.COMMANDS) == first, "more records wait, and it has not moved"
    assert metrics.QUEUE_RECORDS.labels("commands")._value.get() == 2
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.queue_end SET stands_since = stands_since - interval '1 hour'"))
    sweeper.sweep(pipeline.engine)
    assert 3_600 <= metrics.QUEUE_STANDS_SECONDS.labels("commands")._value.get() < 7_200
    with pipeline.engine.begin() as connection:
        advance_progress(connection, {(Topic.COMMANDS, 0): Position(1, "first")})
    sweeper.sweep(pipeline.engine)
    assert since(Topic.COMMANDS) != first, "it has moved, and is still behind"
    broker.handled(Topic.COMMANDS, Topic.BATCHES, Topic.LIFECYCLE)
    sweeper.sweep(pipeline.engine)
    assert standing() == {"batches": False, "commands": False, "commands-bulk": False, "lifecycle": False}
    # The topic was created again, so progress on the old one does not count.
    broker.ids[Topic.COMMANDS] = "second"
    sweeper.sweep(pipeline.engine)
    assert standing()["commands"]
    del broker.ids[Topic.COMMANDS]
    sweeper.sweep(pipeline.engine)
    assert "commands" not in standing(), "a missing topic is no queue"
    assert not [each for each in verify(pipeline.engine, settings).breaches if "queue_stands" in each.detail]
    with pipeline.engine.begin() as connection:
        advance_progress(connection, {(Topic.BATCHES, 0): Position(0, "second")})
        connection.execute(text("UPDATE orchestrator.queue_end SET stands_since = now() - interval '1 hour', handled = 0"))
    broker.ids[Topic.BATCHES] = "second"
    sweeper.sweep(pipeline.engine)
    assert not [each for each in verify(pipeline.engine, settings).breaches if "queue_stands" in each.detail], (
        "progress on another topic of this name must not count"
    )


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
    assert sum((sweeper.sweep(pipeline.engine) for _ in range(3)), Swept()) == Swept(watched=2, resent=2)
