"""What the sweeper observes: queues that stand, starts of roles, and the oldest event of the outbox."""

from datetime import timedelta

from sqlalchemy import text

from consumers.upkeep.sweeper import Sweeper
from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from orchestrator.storage import observing
from orchestrator.storage.observing import QueueState
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.storage.sweeping import Queue, Queues
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from tests.support.pipeline import Pipeline
from tests.support.plans import without_indexes
from tests.support.shown import shown
from tests.support.sweeping import Broker, run, sweep


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
    sweep(sweeper, pipeline.engine)
    assert standing() == {"batches": True, "commands": True, "commands-bulk": False, "lifecycle": True}
    first = since(Topic.COMMANDS)
    broker.written(Topic.COMMANDS)
    sweep(sweeper, pipeline.engine)
    assert since(Topic.COMMANDS) == first, "more records wait, and it has not moved"
    assert shown(metrics.QUEUE_RECORDS.labels("commands")) == 2
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.queue_end SET stands_since = stands_since - interval '1 hour'"))
    sweep(sweeper, pipeline.engine)
    assert 3_600 <= shown(metrics.QUEUE_STANDS_SECONDS.labels("commands")) < 7_200
    with pipeline.engine.begin() as connection:
        advance_progress(connection, {(Topic.COMMANDS, 0): Position(1, "first")})
    sweep(sweeper, pipeline.engine)
    assert since(Topic.COMMANDS) != first, "it has moved, and is still behind"
    broker.handled(Topic.COMMANDS, Topic.BATCHES, Topic.LIFECYCLE)
    sweep(sweeper, pipeline.engine)
    assert standing() == {"batches": False, "commands": False, "commands-bulk": False, "lifecycle": False}
    # The topic was created again, so progress on the old one does not count.
    broker.ids[Topic.COMMANDS] = "second"
    sweep(sweeper, pipeline.engine)
    assert standing()["commands"]
    del broker.ids[Topic.COMMANDS]
    sweep(sweeper, pipeline.engine)
    assert "commands" not in standing(), "a missing topic is no queue"
    assert not [each for each in verify(pipeline.engine, settings).breaches if "queue_stands" in each.detail]
    with pipeline.engine.begin() as connection:
        advance_progress(connection, {(Topic.BATCHES, 0): Position(0, "second")})
        connection.execute(text("UPDATE orchestrator.queue_end SET stands_since = now() - interval '1 hour', handled = 0"))
    broker.ids[Topic.BATCHES] = "second"
    sweep(sweeper, pipeline.engine)
    assert not [each for each in verify(pipeline.engine, settings).breaches if "queue_stands" in each.detail], (
        "progress on another topic of this name must not count"
    )


def note(pipeline: Pipeline, queues: Queues) -> dict[Topic, QueueState]:
    with pipeline.engine.begin() as connection:
        return observing.note_queues(connection, queues)


def test_a_queues_size_is_the_sum_of_its_topics_partitions(pipeline: Pipeline) -> None:
    queues = {
        (Topic.COMMANDS, 0): Queue(0, 10, "id"),
        (Topic.COMMANDS, 1): Queue(3, 9, "id"),
        (Topic.COMMANDS, 2): Queue(0, 5, "id"),
        (Topic.RESULTS, 0): Queue(0, 4, "id"),
        (Topic.BATCHES, 0): Queue(2, 2, "id"),
    }
    with pipeline.engine.begin() as connection:
        positions = {
            (Topic.COMMANDS, 0): Position(4, "id"),
            (Topic.COMMANDS, 2): Position(5, "another"),
            (Topic.RESULTS, 0): Position(4, ""),
        }
        advance_progress(connection, positions)
    told = note(pipeline, queues)
    # Expired records do not wait, and progress on another topic of this name does not count.
    assert {topic: state.waiting for topic, state in told.items()} == {
        Topic.COMMANDS: 6 + 6 + 5,
        Topic.RESULTS: 0,
        Topic.BATCHES: 0,
    }
    run(pipeline, "UPDATE orchestrator.queue_end SET stands_since = stands_since - (partition + 1) * interval '1 hour'")
    told = note(pipeline, queues)
    assert 3 * 3_600 <= told[Topic.COMMANDS].stands_s < 3 * 3_600 + 600
    assert told[Topic.RESULTS].stands_s == told[Topic.BATCHES].stands_s == 0
    with pipeline.engine.connect() as connection:
        for hours, partitions in ((0.5, [0, 1, 2]), (1.5, [1, 2]), (2.5, [2])):
            standing = observing.standing_partitions(
                connection, [Topic.COMMANDS, Topic.RESULTS], trouble_after=timedelta(hours=hours)
            )
            assert standing == [(Topic.COMMANDS, partition) for partition in partitions]
        assert observing.standing_partitions(connection, [Topic.RESULTS], trouble_after=timedelta(hours=0.5)) == []
    run(pipeline, "UPDATE orchestrator.queue_end SET seen_at = seen_at - interval '40 minutes'")
    with pipeline.engine.connect() as connection:
        assert observing.standing_partitions(connection, [Topic.COMMANDS], trouble_after=timedelta(hours=0.5)) == []
    del queues[Topic.COMMANDS, 2]
    told = note(pipeline, queues)
    assert (told[Topic.COMMANDS].waiting, told[Topic.COMMANDS].stands_s < 3 * 3_600) == (12, True)
    with pipeline.engine.connect() as connection:
        standing = observing.standing_partitions(connection, [Topic.COMMANDS], trouble_after=timedelta(hours=0.5))
    assert standing == [(Topic.COMMANDS, 0), (Topic.COMMANDS, 1)], "they were seen again"


def test_a_partition_stands_if_it_was_seen_within_the_limit_and_has_not_moved_for_longer(pipeline: Pipeline) -> None:
    hour, moment = timedelta(hours=1), timedelta(microseconds=1)
    insert = text("INSERT INTO orchestrator.queue_end VALUES ('commands', 0, 'id', 7, 3, now() - :stands, now() - :seen)")
    for stands, seen, is_found in (
        (hour + moment, timedelta(), True),
        (hour, timedelta(), False),
        (2 * hour, hour - moment, True),
        (2 * hour, hour, False),
    ):
        # In one transaction, in which the clock stands still.
        with pipeline.engine.connect() as connection:
            connection.execute(insert, {"stands": stands, "seen": seen})
            found = observing.standing_partitions(connection, [Topic.COMMANDS], trouble_after=hour)
            connection.rollback()
        assert found == ([(Topic.COMMANDS, 0)] if is_found else []), (stands, seen)


def test_a_queue_stands_since_it_was_first_seen_at_its_present_place(pipeline: Pipeline) -> None:
    queue = {(Topic.COMMANDS, 0): Queue(0, 10, "old")}

    def stands(first_seen: bool) -> bool:
        """Whether it stands. If this is the first time that it is seen so, it stands since now; otherwise since an hour ago."""
        hours = round(note(pipeline, queue)[Topic.COMMANDS].stands_s / 3_600)
        run(pipeline, "UPDATE orchestrator.queue_end SET stands_since = stands_since - interval '1 hour'")
        with pipeline.engine.begin() as connection:
            is_behind = connection.execute(text("SELECT stands_since IS NOT NULL FROM orchestrator.queue_end")).scalar_one()
        assert hours == (0 if first_seen or not is_behind else 1)
        return bool(is_behind)

    def handled(offset: int, topic_id: str) -> None:
        with pipeline.engine.begin() as connection:
            advance_progress(connection, {(Topic.COMMANDS, 0): Position(offset, topic_id)})

    assert stands(first_seen=True)
    assert stands(first_seen=False)
    handled(4, "old")
    assert stands(first_seen=True), "it has moved, so it stands only since now"
    assert stands(first_seen=False)
    queue = {(Topic.COMMANDS, 0): Queue(4, 10, "new")}
    assert stands(first_seen=True), "it is another topic, so it stands only since now"
    assert stands(first_seen=False)
    handled(10, "new")
    assert not stands(first_seen=True), "it is at its end, so it must not stand"
    queue = {(Topic.COMMANDS, 0): Queue(4, 12, "new")}
    assert stands(first_seen=True)
    assert stands(first_seen=False)


def test_starts_of_a_role_are_counted_by_host_for_ten_minutes_and_kept_for_a_day(pipeline: Pipeline) -> None:
    put = text("INSERT INTO orchestrator.role_start VALUES (:role, :host, now() - :minutes * interval '1 minute')")
    with pipeline.engine.begin() as connection:
        for role, host, minutes in (
            ("splitter", "a", 9),
            ("splitter", "a", 11),
            ("splitter", "b", 1),
            ("relay", "a", 1),
            ("relay", "a", 1_441),
        ):
            connection.execute(put, {"role": role, "host": host, "minutes": minutes})
        assert observing.note_starts(connection, ["splitter", "api"], host="a") == {"splitter": 2, "api": 1}
        kept = connection.execute(text("SELECT count(*) FROM orchestrator.role_start")).scalar_one()
    assert kept == 4 + 2


def test_the_oldest_event_of_the_relays_own_slots_is_found_even_if_it_is_held(pipeline: Pipeline) -> None:
    put = text(
        "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at)"
        " VALUES (:slot, 'o', gen_random_uuid(), 'batches', 'k', '[]', '{}', now() - :s * interval '1 second')"
    )
    with pipeline.engine.begin() as connection:
        for slot, seconds in ((0, 1_000), (0, 10), (1, 2_000), (-3, 3_000), (2, 5)):
            connection.execute(put, {"slot": slot, "s": seconds})
        # A changed row stands behind the others in the table's file. Its number still says that it is the oldest.
        old = "slot IN (0, -3) AND created_at < now() - interval '900 seconds'"
        connection.execute(text(f"UPDATE orchestrator.outbox SET key = 'l' WHERE {old}"))
        without_indexes(connection)
        ages = [round(observing.oldest_outbox_row_s(connection, owned), -2) for owned in ([0], [0, 1], [2], [0, 2], [3], [])]
        of_all = [round(observing.read_figures(connection).outbox_oldest_s, -2)]
        connection.execute(text("DELETE FROM orchestrator.outbox WHERE slot <> 0"))
        of_all.append(round(observing.read_figures(connection).outbox_oldest_s, -2))
    assert (ages, of_all) == ([1_000, 2_000, 3_000, 3_000, 0, 0], [3_000, 1_000])
