"""What the sweeper's statements select, clause by clause: items that wait, are watched, lost or forgotten."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from consumers.upkeep.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process.settings import Settings
from orchestrator.storage import sweeping
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.storage.sweeping import Queue
from schemas.envelope import Topic
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item, mentors
from tests.support.plans import without_indexes
from tests.support.sweeping import COMMAND_TOPICS, Broker, run, sweep
from tests.support.upstream import in_parts


def lost(pipeline: Pipeline, count: int = 2, first: int = 1) -> UUID:
    """A batch whose commands are on no topic."""
    batch_id = pipeline.submit(mentors(count, first=first))
    pipeline.relay()
    pipeline.queues.clear()
    return batch_id


HOUR_MS = 3_600_000


def sweeper(settings: Settings, broker: Broker, **policy: object) -> Sweeper:
    eager = {"quiet": timedelta(0), "resend_pause": timedelta(0)} | policy
    return Sweeper(replace(SweepPolicy.of(settings), **eager), broker)  # type: ignore[arg-type]


WAITING = {
    "batches": (Topic.BATCHES, "NULL", True),
    "commands": (Topic.COMMANDS, "NULL", True),
    "commands in the bulk lane": (Topic.COMMANDS_BULK, "NULL", True),
    "held for a place": (Topic.COMMANDS, "'commands/0'", True),
    "refused": (Topic.COMMANDS, "'refused'", False),
    "for those who follow it": (Topic.LIFECYCLE, "NULL", False),
    "a result": (Topic.RESULTS, "NULL", False),
}


@pytest.mark.parametrize(("topic", "held_for", "hides"), WAITING.values(), ids=WAITING)
def test_a_waiting_event_of_a_batch_may_lead_to_its_items(
    pipeline: Pipeline, settings: Settings, broker: Broker, topic: Topic, held_for: str, hides: bool
) -> None:
    batch_id, other = lost(pipeline), lost(pipeline, first=10)
    put = (
        "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at, held_for)"
        f" VALUES (0, :org, :b, :topic, 'k', '[]', '{{}}', now(), {held_for})"
    )
    run(pipeline, put, org=ORGANIZATION, b=batch_id, topic=topic.value)
    swept = sweeper(settings, broker)
    assert sweep(swept, pipeline.engine).watched == (2 if hides else 4)

    def gets_a_mark() -> bool:
        """Whether items of the other batch that were sent again do."""
        sent = "UPDATE orchestrator.sweep_watch SET stage = 'registration', mark_id = NULL WHERE batch_id = :b"
        run(pipeline, sent, b=other)
        with pipeline.engine.begin() as connection:
            mark = sweeping.new_mark(connection)
            sweeping.advance(connection, mark, passed_by_splitter=[])
            return sweeping.is_waited_for(connection, mark)

    assert gets_a_mark(), "the event is of the first batch"
    # They get it when their events have left the outbox.
    run(pipeline, "UPDATE orchestrator.outbox SET batch_id = :b", b=other)
    assert gets_a_mark() is not hides


def test_items_that_changed_a_moment_ago_are_left_alone(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    lost(pipeline)
    pipeline.submit(mentors(2, first=10))
    pipeline.drain_until_registered()
    pipeline.queues.clear()
    patient = sweeper(settings, broker, quiet=timedelta(hours=1))
    assert not sweep(patient, pipeline.engine)
    # These began long ago, and were decided just now.
    run(
        pipeline,
        "UPDATE orchestrator.batch_item SET attempt_at = now() - interval '2 hours' WHERE mentor_id IN ('mentor-10', 'mentor-11')",
    )
    assert not sweep(patient, pipeline.engine)


def test_the_outcome_of_an_earlier_attempt_does_not_count_for_the_present_one(
    pipeline: Pipeline, settings: Settings, broker: Broker
) -> None:
    batch_id = pipeline.submit([item("nobody"), item("no one")])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.relay()
    pipeline.queues.clear()
    run(pipeline, "UPDATE orchestrator.outcome SET created_at = now() - interval '2 hours'")
    with pipeline.engine.begin() as connection:
        assert sweeping.decided_not_folded(connection, quiet=timedelta(0), aside=[], limit=9) == []
    assert sweep(sweeper(settings, broker), pipeline.engine) == Swept(watched=2)


RUNNING = (
    ("status = 'processing'", True),
    ("status = 'cancelled'", True),
    ("status = 'cancelled', completed_at = now()", False),
    ("status = 'completed', completed_at = now()", False),
    ("status = 'pending'", False),
)


@pytest.mark.parametrize(("state", "is_found"), RUNNING)
def test_only_pending_items_of_running_batches_are_watched_or_folded(pipeline: Pipeline, state: str, is_found: bool) -> None:
    """Others have pending items only in a damaged database."""
    decided = pipeline.submit(mentors(1, first=10))
    pipeline.drain_until_registered()
    lost(pipeline)
    with pipeline.engine.connect() as connection:
        connection.execute(text(f"UPDATE orchestrator.batch SET {state}"))
        found = sweeping.decided_not_folded(connection, quiet=timedelta(0), aside=[], limit=9)
        watched = sweeping.watch_quiet_items(connection, sweeping.new_mark(connection), quiet=timedelta(0), limit=9)
        collected = sweeping.unfinished_collections(connection, patience=timedelta(0), aside=[], limit=9)
        connection.rollback()
    assert len(collected) == (2 if "pending" in state else 0), "the others are not being collected"
    assert ([each.batch_id for each in found], watched) == (([str(decided)], 2) if is_found else ([], 0))


def test_an_outcome_is_lost_if_it_was_old_when_the_first_of_the_handled_partitions_was_seen(pipeline: Pipeline) -> None:
    """Older ones than twice the quiet time are found in any case."""
    quiet, hour, moment = timedelta(hours=1), timedelta(hours=1), timedelta(microseconds=1)
    ids = [pipeline.submit(mentors(1, first=first)) for first in range(1, 6)]
    pipeline.drain_until_registered()
    ages = (5 * hour + moment, 5 * hour, 4 * hour + moment, 2 * hour + hour / 60, 2 * hour - hour / 60)
    with pipeline.engine.connect() as connection:
        # The second has moved since it was seen. Another queue stands.
        queues = (("results", 0, 7, 3), ("results", 1, 3, 4), ("results", 2, 7, 2), ("commands", 0, 3, 9))
        for topic, partition, handled, hours in queues:
            put = (
                "INSERT INTO orchestrator.queue_end VALUES (:t, :p, 'id', 7, :handled, NULL, now() - :hours * interval '1 hour')"
            )
            connection.execute(text(put), {"t": topic, "p": partition, "handled": handled, "hours": hours})
        advance_progress(connection, {(Topic.RESULTS, 1): Position(7, "id"), (Topic.RESULTS, 2): Position(5, "id")})
        for batch_id, age in zip(ids, ages, strict=True):
            decided = text("UPDATE orchestrator.outcome SET created_at = now() - :age WHERE batch_id = :b")
            connection.execute(decided, {"age": age, "b": batch_id})
        found = sweeping.decided_not_folded(connection, quiet=quiet, aside=[], limit=9)
        assert {each.batch_id: each.is_lost for each in found} == {
            str(batch_id): is_lost for batch_id, is_lost in zip(ids[:4], (True, False, False, False), strict=True)
        }
        # All were seen just now.
        connection.execute(text("UPDATE orchestrator.queue_end SET seen_at = now()"))
        for batch_id, age in zip(ids, (hour, hour + moment, hour - moment, hour, hour), strict=True):
            connection.execute(decided, {"age": age, "b": batch_id})
        [one] = sweeping.decided_not_folded(connection, quiet=quiet, aside=[], limit=9)
        assert (one.batch_id, one.is_lost) == (str(ids[1]), True)
        connection.rollback()


def test_the_pause_between_resends_is_waited_for(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    lost(pipeline)
    swept, total = sweeper(settings, broker, resend_pause=timedelta(hours=1)), Swept()
    for _ in range(6):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(swept, pipeline.engine)
        pipeline.relay()
        pipeline.queues.clear()
    assert total == Swept(watched=2, resent=2)
    run(pipeline, "UPDATE orchestrator.sweep_watch SET next_at = now() - interval '1 second' WHERE position = 0")
    total += sweep(swept, pipeline.engine)
    assert total.resent == 3


def test_the_settings_decide_when_an_item_is_stuck_and_when_it_is_sent_again(
    pipeline: Pipeline, settings: Settings, broker: Broker
) -> None:
    patient = settings.model_copy(update={"sweep_stuck_after_ms": 2 * HOUR_MS, "sweep_interval_ms": HOUR_MS})
    swept, total = Sweeper(SweepPolicy.of(patient), broker), Swept()
    lost(pipeline)
    for position, minutes in ((0, 110), (1, 130)):
        age = "UPDATE orchestrator.batch_item SET attempt_at = now() - make_interval(mins => :m) WHERE position = :p"
        run(pipeline, age, m=minutes, p=position)
    pipeline.forget_what_was_published()
    for _ in range(3):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(swept, pipeline.engine)
    assert total == Swept(watched=1, resent=1)
    with pipeline.engine.begin() as connection:
        waits = connection.execute(text("SELECT next_at - clock_timestamp() FROM orchestrator.sweep_watch")).scalar_one()
    assert timedelta(minutes=50) < waits <= timedelta(hours=1)


def test_the_settings_decide_how_long_a_batch_is_collected(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    ids = [uuid4() for _ in range(3)]
    for batch_id in ids:
        pipeline.queues[Topic.BATCHES] += in_parts(batch_id, [2, 2])[:1]
    pipeline.drain()
    for batch_id, minutes in ((ids[0], -1), (ids[1], 1)):
        age = "UPDATE orchestrator.batch SET submitted_at = now() - make_interval(hours => :hours, mins => :minutes) WHERE batch_id = :b"
        run(pipeline, age, hours=settings.parts_timeout_hours, minutes=minutes, b=batch_id)
    assert sweep(sweeper(settings, broker), pipeline.engine) == Swept(batches_ended=1)
    with pipeline.engine.begin() as connection:
        left = connection.execute(text("SELECT batch_id FROM orchestrator.batch")).scalars().all()
    assert set(left) == {ids[0], ids[2]}


def in_order(pages: Sequence[Sequence[str]], ids: Sequence[UUID]) -> bool:
    """Whether the pages for the limits 1, 2, 3 and 4 have the first one, two, three and all three ids."""
    return [list(page) for page in pages] == [[str(each) for each in ids[:most]] for most in (1, 2, 3, 4)]


def test_collections_are_ended_in_order_up_to_a_limit_without_those_set_aside(pipeline: Pipeline) -> None:
    ids = sorted(uuid4() for _ in range(3))
    for batch_id in reversed(ids):
        pipeline.queues[Topic.BATCHES] += in_parts(batch_id, [2, 2])[:1]
        pipeline.drain()

    def overdue(most: int, *aside: UUID) -> list[str]:
        with pipeline.engine.begin() as connection:
            without_indexes(connection)
            found = sweeping.unfinished_collections(connection, patience=timedelta(0), aside=list(map(str, aside)), limit=most)
        return [each.batch_id for each in found]

    assert in_order([overdue(most) for most in (1, 2, 3, 4)], ids)
    assert overdue(9, ids[1]) == [str(ids[0]), str(ids[2])]


def test_results_are_folded_in_order_up_to_a_limit_without_those_set_aside(pipeline: Pipeline) -> None:
    ids = sorted(pipeline.submit(mentors(1, first=first)) for first in (1, 2, 3))
    pipeline.drain_until_registered()
    # A changed row lies behind all others of its table.
    for batch_id in reversed(ids):
        for table in ("batch", "batch_item"):
            run(pipeline, f"UPDATE orchestrator.{table} SET organization_id = organization_id WHERE batch_id = :b", b=batch_id)

    def lost_results(most: int, *aside: UUID) -> list[str]:
        with pipeline.engine.begin() as connection:
            without_indexes(connection)
            found = sweeping.decided_not_folded(connection, quiet=timedelta(0), aside=list(map(str, aside)), limit=most)
        return [each.batch_id for each in found]

    assert in_order([lost_results(most) for most in (1, 2, 3, 4)], ids)
    assert lost_results(9, ids[1]) == [str(ids[0]), str(ids[2])]


def test_lost_commands_are_found_in_order_up_to_a_limit_without_those_set_aside(pipeline: Pipeline) -> None:
    ids = sorted(lost(pipeline, 1, first) for first in (1, 2, 3))
    with pipeline.engine.begin() as connection:
        mark = sweeping.new_mark(connection)
        counts = [sweeping.watch_quiet_items(connection, mark, quiet=timedelta(0), limit=most) for most in (1, 1, 2)]
        assert counts == [1, 1, 1], "items that are watched already must not count"
        connection.execute(text("UPDATE orchestrator.sweep_watch SET stage = 'registration'"))

    def commands(most: int, *aside: UUID) -> list[str]:
        passed = sweeping.PassedMarks([mark], [])
        with pipeline.engine.begin() as connection:
            found = sweeping.lost_commands(connection, passed, max_resends=5, aside=list(map(str, aside)), limit=most)
        return [each.batch_id for each in found]

    assert in_order([commands(most) for most in (1, 2, 3, 4)], ids)
    assert commands(9, ids[1]) == [str(ids[0]), str(ids[2])]


def test_an_item_is_hopeless_after_its_last_resend_unless_its_batch_was_cancelled_or_its_command_was_lost_with_its_topic(
    pipeline: Pipeline,
) -> None:
    """What a cancel left unresolved is sent again until the external service responds."""
    cancelled, running, early = (lost(pipeline, 1, first) for first in (1, 2, 3))
    with pipeline.engine.begin() as connection:
        mark = sweeping.new_mark(connection)
        sweeping.watch_quiet_items(connection, mark, quiet=timedelta(0), limit=9)
        for statement in (
            "UPDATE orchestrator.sweep_watch SET stage = 'registration', resends = CASE WHEN batch_id = :early THEN 4 ELSE 5 END",
            "UPDATE orchestrator.batch SET cancelled_at = now() WHERE batch_id = :cancelled",
        ):
            ids = {"early": early, "cancelled": cancelled}
            connection.execute(text(statement), {name: value for name, value in ids.items() if f":{name}" in statement})
        handled, gone = (
            sweeping.lost_commands(connection, passed, max_resends=5, aside=(), limit=9)
            for passed in (sweeping.PassedMarks([mark], []), sweeping.PassedMarks([], [mark]))
        )
    assert {each.key.batch_id: each.is_hopeless for each in handled} == {
        str(cancelled): False,
        str(running): True,
        str(early): False,
    }
    assert [each.is_hopeless for each in gone] == [False] * 3


def test_a_requests_size_is_that_of_the_submission_or_of_the_retry_that_began_the_attempt(pipeline: Pipeline) -> None:
    retried = pipeline.submit([item("nobody"), item("no one"), *mentors(1)])
    other = pipeline.submit([item("nobody"), *mentors(1, first=9)])
    pipeline.drain()
    for batch_id in (retried, other):
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    keys = [OutcomeKey(str(batch_id), *place) for batch_id in (retried, other) for place in ((0, 1), (0, 2), (1, 1), (1, 2))]
    with pipeline.engine.begin() as connection:
        found = sweeping.sizes_of_requests(connection, keys)
        connection.execute(text("DELETE FROM orchestrator.item_history"))
        unknown = sweeping.sizes_of_requests(connection, keys)
    first = {OutcomeKey(str(other), 1, 1): 2}
    assert found == first | {
        OutcomeKey(str(retried), 0, 2): 2,
        OutcomeKey(str(retried), 1, 2): 2,
        OutcomeKey(str(other), 0, 2): 1,
    }
    assert unknown == first


@pytest.mark.parametrize(
    ("then", "now", "is_gone"),
    [("a", "a", False), ("a", "b", True), ("a", "", False), ("", "b", False), ("", "", False), ("a", None, False)],
)
def test_a_topic_was_replaced_if_both_ids_are_known_and_differ(
    pipeline: Pipeline, then: str, now: str | None, is_gone: bool
) -> None:
    """A missing topic is waited for."""
    queues = {} if now is None else {(Topic.BATCHES, 0): Queue(0, 5, now)}
    with pipeline.engine.begin() as connection:
        mark = sweeping.new_mark(connection)
        sweeping.set_mark(connection, mark, [Topic.BATCHES], {(Topic.BATCHES, 0): Queue(0, 5, then)})
        passed = sweeping.passed_marks(connection, [Topic.BATCHES], queues)
    assert passed == ([], [mark] if is_gone else [])


@pytest.mark.parametrize(("first", "end", "is_gone"), [(5, 9, True), (4, 9, False), (0, 4, True), (0, 5, False)])
def test_records_before_a_mark_are_gone_if_the_topic_begins_at_the_mark_or_ends_before_it(
    pipeline: Pipeline, first: int, end: int, is_gone: bool
) -> None:
    """They have expired, or a broker without topic ids shows a topic that was replaced."""
    with pipeline.engine.begin() as connection:
        mark = sweeping.new_mark(connection)
        sweeping.set_mark(connection, mark, [Topic.BATCHES], {(Topic.BATCHES, 0): Queue(0, 5, "a")})
        passed = sweeping.passed_marks(connection, [Topic.BATCHES], {(Topic.BATCHES, 0): Queue(first, end, "a")})
    assert passed == ([], [mark] if is_gone else [])


def test_each_mark_has_its_own_offsets(pipeline: Pipeline) -> None:
    """The second is taken later, when the topic has more records."""
    end = {(Topic.BATCHES, 0): Queue(0, 9, "a")}
    with pipeline.engine.begin() as connection:
        marks = [sweeping.new_mark(connection) for _ in range(3)]
        for mark, offset in zip(marks, (5, 9, 6), strict=True):
            sweeping.set_mark(connection, mark, [Topic.BATCHES], {(Topic.BATCHES, 0): Queue(0, offset, "a")})
        advance_progress(connection, {(Topic.BATCHES, 0): Position(6, "a")})
        passed = sweeping.passed_marks(connection, [Topic.BATCHES], end)
    assert (sorted(passed.handled), passed.gone) == ([marks[0], marks[2]], [])


def test_only_items_that_still_wait_are_watched(pipeline: Pipeline) -> None:
    failed = pipeline.submit([item("nobody"), *mentors(1)])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, failed, RetryRequest())
    decided = pipeline.submit(mentors(1, first=5))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, [one for one in pipeline.take(Topic.BATCHES) if one.key == str(decided)])
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    restored = pipeline.submit(mentors(1, first=30))
    pipeline.drain()
    # A restored database may lack the outcome of an item that has its result.
    run(pipeline, "DELETE FROM orchestrator.outcome WHERE batch_id = :b", b=restored)
    waiting = lost(pipeline, first=20)
    with pipeline.engine.begin() as connection:
        marks = [sweeping.new_mark(connection) for _ in range(3)]
        watched = [
            (failed, 0, 1, marks[0]),  # It was retried since.
            (failed, 0, 2, marks[1]),
            (failed, 1, 1, marks[0]),  # It succeeded.
            (decided, 0, 1, marks[0]),  # It is decided, and not folded yet.
            (restored, 0, 1, marks[0]),  # It succeeded.
            (waiting, 0, 1, marks[1]),
            (waiting, 0, 2, marks[0]),  # The attempt does not exist.
            (uuid4(), 0, 1, marks[0]),  # The batch does not exist.
        ]
        for batch_id, position, attempt, mark in watched:
            connection.execute(
                text("INSERT INTO orchestrator.sweep_watch VALUES (:b, :p, :a, :org, 'splitter', :mark, 0, now())"),
                {"b": batch_id, "p": position, "a": attempt, "org": ORGANIZATION, "mark": mark},
            )
        sweeping.forget_moved(connection)
        left = connection.execute(text("SELECT batch_id, position, attempt FROM orchestrator.sweep_watch")).all()
        assert {tuple(row) for row in left} == {(failed, 0, 2), (waiting, 0, 1)}
        assert connection.execute(text("SELECT mark_id FROM orchestrator.sweep_mark")).scalars().all() == [marks[1]]


def test_a_new_mark_is_for_items_that_the_splitter_passed_or_that_were_sent_again(pipeline: Pipeline) -> None:
    """An item that already waits for the registration keeps its mark. With a new one in each sweep, it would never be sent again."""
    batch_id = lost(pipeline, 4)
    with pipeline.engine.begin() as connection:
        passed, other, new = (sweeping.new_mark(connection) for _ in range(3))
        watched = (("splitter", passed), ("registration", passed), ("splitter", other), ("registration", None))
        for position, (stage, mark) in enumerate(watched):
            connection.execute(
                text("INSERT INTO orchestrator.sweep_watch VALUES (:b, :p, 1, :org, :stage, :mark, 0, now())"),
                {"b": batch_id, "p": position, "org": ORGANIZATION, "stage": stage, "mark": mark},
            )
        sweeping.advance(connection, new, passed_by_splitter=[passed])
        left = connection.execute(text("SELECT stage, mark_id FROM orchestrator.sweep_watch ORDER BY position")).all()
    assert [tuple(row) for row in left] == [
        ("registration", new),
        ("registration", passed),
        ("splitter", other),
        ("registration", new),
    ]


def test_one_process_sweeps_at_a_time(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    lost(pipeline)
    with pipeline.engine.begin() as rival:
        assert sweeping.try_lock(rival)
        assert sweep(sweeper(settings, broker), pipeline.engine).watched == 0
    assert sweep(sweeper(settings, broker), pipeline.engine).watched == 2


def test_no_step_does_anything_while_another_process_sweeps(pipeline: Pipeline, settings: Settings, broker: Broker) -> None:
    """Each step has something to do: commands to send again, outcomes to fold, a collection to end, and queues to look at."""

    def queues_seen() -> int:
        with pipeline.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM orchestrator.queue_end")).scalar_one())

    swept = sweeper(settings, broker, parts_patience=timedelta(0))
    lost(pipeline)
    assert sweep(swept, pipeline.engine) == Swept(watched=2)
    broker.handled(Topic.BATCHES)
    assert not sweep(swept, pipeline.engine)
    assert not sweep(swept, pipeline.engine)
    broker.handled(*COMMAND_TOPICS)
    pipeline.submit(mentors(3, first=10))
    pipeline.drain_until_registered()
    pipeline.queues.clear()
    pipeline.queues[Topic.BATCHES] += in_parts(uuid4(), [2, 2])[:1]
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    run(pipeline, "DELETE FROM orchestrator.queue_end")
    with pipeline.engine.begin() as rival:
        assert sweeping.try_lock(rival)
        assert sweep(swept, pipeline.engine) == Swept()
        assert queues_seen() == 0
    assert sweep(swept, pipeline.engine) == Swept(folded=3, resent=2, batches_ended=1)
    assert queues_seen() == 3
