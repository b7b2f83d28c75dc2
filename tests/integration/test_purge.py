"""Batches that were deleted long ago are removed for good, a chunk at a time. Tombstones, activities and their audit stay (docs/states.md)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, text

from consumers.upkeep.purger import Purged, PurgePolicy, Purger
from orchestrator.batches.errors import ConflictError, NotFoundError
from orchestrator.batches.model import BatchFilter, Idempotency, NewBatch, RetryRequest
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    dismiss_batch,
    list_batches,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from orchestrator.process.settings import Settings
from orchestrator.storage.console_sessions import remove_ended_sessions
from orchestrator.storage.purging import deleted_batches, expire_keys, purge_batches
from orchestrator.verification.verify import verify
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import BATCH_REJECTED
from schemas.ids import new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors, standard_directory
from tests.support.plans import without_indexes
from tests.support.sweeping import purge
from tests.support.upstream import in_parts, submitted, upstream_items

OF_BATCHES = (
    "batch", "batch_dismissal", "batch_edit", "batch_item", "outcome", "item_history", "batch_part", "dispatch", "revocation_request",
)  # fmt: skip
"""The tables from which a purge removes everything."""

NOW = PurgePolicy(purge_after=timedelta(0), keys_after=timedelta(days=7))


class RememberingPipeline(Pipeline):
    """The flow, which keeps every event that went through it."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings, engine)
        self.seen: list[OutgoingEvent] = []

    def take(self, *topics: Topic) -> list[OutgoingEvent]:
        taken = super().take(*topics)
        self.seen += taken
        return taken

    def again(self) -> None:
        """Delivers everything that was ever published once more, role by role."""
        before = list(self.seen)
        for handler in self.handlers:
            self.handle(handler, [event for event in before if event.topic in handler.topics])
        self.drain()


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RememberingPipeline]:
    standard_directory(engine)
    pipeline = RememberingPipeline(settings, engine)
    yield pipeline
    pipeline.close()


def rows(pipeline: Pipeline, sql: str, **values: object) -> list[tuple[Any, ...]]:
    with pipeline.engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(sql), values)]


def left(pipeline: Pipeline, *batch_ids: UUID) -> Mapping[str, int]:
    """How many rows of these batches each table has."""
    counts = {}
    for table in OF_BATCHES:
        [(counts[table],)] = rows(
            pipeline, f"SELECT count(*) FROM orchestrator.{table} WHERE batch_id = ANY (:ids)", ids=list(batch_ids)
        )
    return {table: count for table, count in counts.items() if count}


def records_of_funding(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return rows(pipeline, "SELECT * FROM registration.activity ORDER BY activity_id") + rows(
        pipeline, "SELECT * FROM registration.audit ORDER BY audit_id"
    )


def finished(pipeline: Pipeline, count: int, first: int = 1) -> UUID:
    batch_id = pipeline.submit(mentors(count, first=first))
    pipeline.drain()
    return batch_id


def deleted(pipeline: Pipeline, batch_id: UUID) -> UUID:
    pipeline.call(delete_batch, ADMIN, batch_id)
    pipeline.drain()
    return batch_id


def every_kind(pipeline: RememberingPipeline) -> list[UUID]:
    """Deleted batches: one was retried, one cancelled half-way, one came from upstream in parts, and one never got all its parts."""
    retried = pipeline.submit([*mentors(2), item("nobody", notes="a note")])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, retried, RetryRequest())
    cancelled = pipeline.submit(mentors(3, first=10))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:1])
    pipeline.call(cancel_batch, ADMIN, cancelled, "a mistake")
    upstream, collecting = uuid4(), uuid4()
    pipeline.queues[Topic.BATCHES] += in_parts(upstream, [2, 2], label="whole")
    pipeline.queues[Topic.BATCHES] += in_parts(collecting, [20, 20])[:1]
    pipeline.drain()
    pipeline.call(cancel_batch, ADMIN, collecting, None)
    pipeline.drain()
    return [deleted(pipeline, batch_id) for batch_id in (retried, cancelled, upstream, collecting)]


def test_only_the_tombstone_the_activities_and_their_audit_are_left(pipeline: RememberingPipeline, settings: Settings) -> None:
    purged = every_kind(pipeline)
    kept = finished(pipeline, 2, first=50)
    before, funding = left(pipeline, kept), records_of_funding(pipeline)
    hashes = rows(
        pipeline, "SELECT batch_id, content_hash FROM orchestrator.batch WHERE deleted_at IS NOT NULL ORDER BY batch_id"
    )

    began = datetime.now(UTC)
    assert purge(Purger(NOW), pipeline.engine) == Purged(batches=4, items=3 + 3 + 4)
    assert all(purged_at > began for (purged_at,) in rows(pipeline, "SELECT purged_at FROM orchestrator.tombstone"))

    assert left(pipeline, *purged) == {}
    assert left(pipeline, kept) == before
    assert records_of_funding(pipeline) == funding
    assert rows(pipeline, "SELECT batch_id, content_hash FROM orchestrator.tombstone ORDER BY batch_id") == hashes
    assert {owner for (owner,) in rows(pipeline, "SELECT organization_id FROM orchestrator.tombstone")} == {ORGANIZATION}
    assert [batch.batch_id for batch in pipeline.call(list_batches, ADMIN, BatchFilter()).batches] == [kept]
    with pytest.raises(NotFoundError):
        pipeline.call(delete_batch, ADMIN, purged[0])
    assert verify(pipeline.engine, settings).breaches == []
    assert not purge(Purger(NOW), pipeline.engine)


def test_late_events_change_nothing(pipeline: RememberingPipeline, settings: Settings) -> None:
    purged = every_kind(pipeline)
    purge(Purger(NOW), pipeline.engine)
    funding, refused = records_of_funding(pipeline), list(pipeline.refused)
    pipeline.again()
    assert left(pipeline, *purged) == {}
    assert records_of_funding(pipeline) == funding
    assert pipeline.refused == refused, "a late event must not be put aside"
    assert verify(pipeline.engine, settings).breaches == []


def test_a_result_is_refused_only_if_its_batch_exists_without_that_outcome(
    pipeline: RememberingPipeline,
) -> None:
    """Results of a purged batch are only late, and the other results of the set are folded."""
    finished(pipeline, 1)
    [late] = [event for event in pipeline.seen if event.topic is Topic.RESULTS]
    deleted(pipeline, UUID(orjson.loads(late.value)["batch_id"]))
    purge(Purger(NOW), pipeline.engine)
    batch_id = pipeline.submit(mentors(3, first=10))
    pipeline.drain_until_registered()
    first, second, third = pipeline.take(Topic.RESULTS)

    def saying(event: OutgoingEvent, **changes: object) -> OutgoingEvent:
        return event._replace(value=orjson.dumps(orjson.loads(event.value) | changes))

    results = [
        first,
        saying(first, position=99),
        late,
        second,
        saying(second, attempt=2),
        saying(third, batch_id=str(uuid4())),
        third,
    ]
    refused = pipeline.handle(pipeline.aggregator, results).refused
    assert [(index, error.reason) for index, error in refused] == [(place, "no_such_outcome") for place in (1, 4, 5)]
    assert pipeline.status(batch_id).batch.counts.completed == 3


@pytest.mark.parametrize("keys", [2, 3, 5])
def test_expiring_more_keys_than_one_transaction_removes(pipeline: RememberingPipeline, keys: int) -> None:
    for number in range(keys):
        batch = NewBatch(new_batch_id(), COORDINATOR, None, False, [item(f"mentor-{number + 1}")], "1" * 32)
        pipeline.call(submit_bulk_registration, ADMIN, batch, Idempotency(f"key-{number}", b"hash"))
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.idempotency_key SET created_at = now() - interval '30 days'"))
    assert purge(Purger(replace(NOW, max_items=1)), pipeline.engine) == Purged(keys=keys)
    assert rows(pipeline, "SELECT count(*) FROM orchestrator.idempotency_key") == [(0,)]


@pytest.mark.parametrize("max_chunks", [1, 2, 3])
def test_an_interrupted_purge_is_continued(pipeline: RememberingPipeline, settings: Settings, max_chunks: int) -> None:
    """Each round is a process that dies after a number of commits. In between, everything is delivered again."""
    batches = [deleted(pipeline, finished(pipeline, count, first)) for count, first in ((25, 1), (3, 40), (3, 50))]
    funding = records_of_funding(pipeline)
    purger = Purger(replace(NOW, max_items=10, max_batches=2, max_chunks=max_chunks))
    removed = []
    while purged := purge(purger, pipeline.engine):
        removed.append(purged.items)
        assert verify(pipeline.engine, settings).breaches == []
        pipeline.again()
        assert records_of_funding(pipeline) == funding
        assert verify(pipeline.engine, settings).breaches == []
        for batch_id in batches:
            with pytest.raises(NotFoundError):
                pipeline.status(batch_id)
    assert max(removed) <= 10 * max_chunks
    assert sum(removed) == 31
    assert left(pipeline, *batches) == {}
    assert pipeline.refused == []


def test_nothing_is_purged_before_its_time(pipeline: RememberingPipeline, settings: Settings) -> None:
    recent, old, alive = (finished(pipeline, 2, first) for first in (1, 10, 20))
    deleted(pipeline, recent)
    deleted(pipeline, old)
    hours = settings.purge_after_hours
    age = text("UPDATE orchestrator.batch SET deleted_at = now() - make_interval(hours => :hours) WHERE batch_id = :id")
    with pipeline.engine.begin() as connection:
        connection.execute(age, {"hours": hours - 1, "id": recent})
        connection.execute(age, {"hours": hours + 1, "id": old})
    assert purge(Purger(PurgePolicy.of(settings)), pipeline.engine) == Purged(batches=1, items=2)
    assert left(pipeline, old) == {}
    assert left(pipeline, recent)
    assert left(pipeline, alive)


def test_purging_before_the_topics_retention_is_refused() -> None:
    """Otherwise an event on a topic might find neither its batch nor the tombstone."""
    with pytest.raises(ValidationError, match="must be smaller than purge_after_hours"):
        Settings(topic_retention_hours=48, purge_after_hours=48)


def test_sessions_of_the_console_that_have_ended_are_removed(pipeline: RememberingPipeline, settings: Settings) -> None:
    with pipeline.engine.begin() as connection:
        for minutes in (29, 31, 1_000):
            connection.execute(
                text("""
                    INSERT INTO orchestrator.console_session (session_hash, organization_id, subject, role, used_at)
                    VALUES (sha256(CAST(:minutes AS text)::bytea), 'org', 'coord', 'admin', now() - make_interval(mins => :minutes))
                """),
                {"minutes": minutes},
            )
    purger = Purger(replace(PurgePolicy.of(settings), max_items=1))
    assert purge(purger, pipeline.engine) == Purged(sessions=2)
    assert not purge(purger, pipeline.engine)


def test_the_session_that_has_been_idle_for_longest_is_removed_first(pipeline: RememberingPipeline) -> None:
    subjects = {41: "b", 43: "a", 42: "c"}
    left: list[set[str]] = []
    with pipeline.engine.begin() as connection:
        for minutes, subject in subjects.items():
            connection.execute(
                text(
                    "INSERT INTO orchestrator.console_session (session_hash, organization_id, subject, role, used_at)"
                    " VALUES (sha256(:subject), 'org', :name, 'admin', now() - make_interval(mins => :minutes))"
                ),
                {"subject": subject.encode(), "name": subject, "minutes": minutes},
            )
        for _ in subjects:
            assert remove_ended_sessions(connection, max_sessions=1) == 1
            left.append(set(connection.execute(text("SELECT subject FROM orchestrator.console_session")).scalars()))
    assert left == [{"b", "c"}, {"b"}, set()]


def test_keys_expire(pipeline: RememberingPipeline, settings: Settings) -> None:
    def submit(key: str, mentor: str) -> UUID:
        batch = NewBatch(new_batch_id(), COORDINATOR, None, False, [item(mentor)], "1" * 32)
        return pipeline.call(submit_bulk_registration, ADMIN, batch, Idempotency(key, b"hash")).batch.batch_id

    old, recent = submit("old", "mentor-1"), submit("recent", "mentor-2")
    age = text("UPDATE orchestrator.idempotency_key SET created_at = now() - make_interval(days => :days) WHERE key = :key")
    with pipeline.engine.begin() as connection:
        connection.execute(age, {"days": settings.idempotency_key_days + 1, "key": "old"})
        connection.execute(age, {"days": settings.idempotency_key_days - 1, "key": "recent"})
    assert purge(Purger(PurgePolicy.of(settings)), pipeline.engine) == Purged(keys=1)
    assert submit("recent", "mentor-2") == recent
    assert submit("old", "mentor-3") != old


def test_key_outlives_its_batch(pipeline: RememberingPipeline) -> None:
    """A client that repeats a submission is told that its batch was deleted, even after the purge. The submission is never accepted twice."""
    batch = NewBatch(new_batch_id(), COORDINATOR, None, False, mentors(1), "1" * 32)
    pipeline.call(submit_bulk_registration, ADMIN, batch, Idempotency("key", b"hash"))
    pipeline.drain()
    deleted(pipeline, batch.batch_id)
    purge(Purger(NOW), pipeline.engine)
    again = replace(batch, batch_id=new_batch_id())
    with pytest.raises(ConflictError):
        pipeline.call(submit_bulk_registration, ADMIN, again, Idempotency("key", b"hash"))


def test_an_upstream_id_stays_taken(pipeline: RememberingPipeline) -> None:
    """Other content under the id of a purged batch is refused as before, and so is the same id from another organization."""
    batch_id = uuid4()
    pipeline.queues[Topic.BATCHES].append(submitted(batch_id, upstream_items(2)))
    pipeline.drain()
    deleted(pipeline, batch_id)
    purge(Purger(NOW), pipeline.engine)
    for event in (submitted(batch_id, upstream_items(3), label="other"), submitted(batch_id, [], organization_id="org-other")):
        handled = pipeline.handle(pipeline.splitter, [event])
        assert [error.reason for _, error in handled.refused] in (["batch_differs"], ["batch_id_taken"])
    pipeline.relay()
    rejections = [event for event in pipeline.take(Topic.LIFECYCLE) if ("ce_type", BATCH_REJECTED.encode()) in event.headers]
    assert len(rejections) == 2
    assert left(pipeline, batch_id) == {}


def test_nobody_waits_for_a_purge(pipeline: RememberingPipeline, settings: Settings) -> None:
    """A chunk is removed and not committed. An operation that had to wait for it would fail at the lock timeout."""
    first, second = (deleted(pipeline, finished(pipeline, 3, first)) for first in (1, 10))
    everything = list(pipeline.seen)
    with pipeline.engine.connect() as purging, purging.begin():
        due = deleted_batches(purging, after=timedelta(0), aside=(), max_batches=1)
        assert purge_batches(purging, [each.batch_id for each in due], max_items=100) == (1, 3)
        with pipeline.engine.begin() as rival:
            rival.execute(text("SET LOCAL lock_timeout = 1"))
            others = deleted_batches(rival, after=timedelta(0), aside=(), max_batches=9)
            assert purge_batches(rival, [each.batch_id for each in others], max_items=100) == (1, 3), (
                "another purge must not wait"
            )
        # Operations of others: a submission, a retry, a cancel, a delete; and late commands of the batch itself.
        running = finished(pipeline, 5, first=20)
        failing = pipeline.submit([item("nobody")])
        pipeline.drain()
        pipeline.call(retry_failed_items, ADMIN, failing, RetryRequest())
        pipeline.drain()
        deleted(pipeline, running)
        pipeline.handle(pipeline.registration, [event for event in everything if event.topic is Topic.COMMANDS])
        assert verify(pipeline.engine, settings).breaches == []
    assert left(pipeline, first, second) == {}


def test_a_batch_in_use_is_left_for_the_next_purge(pipeline: RememberingPipeline) -> None:
    batch_id = deleted(pipeline, finished(pipeline, 2))
    with pipeline.engine.connect() as folding, folding.begin():
        folding.execute(text("SELECT FROM orchestrator.batch WHERE batch_id = :id FOR NO KEY UPDATE"), {"id": batch_id})
        assert not purge(Purger(NOW), pipeline.engine)
    assert purge(Purger(NOW), pipeline.engine) == Purged(batches=1, items=2)


def test_a_batch_that_is_in_use_when_its_turn_comes_keeps_no_others_from_the_purge(pipeline: RememberingPipeline) -> None:
    used, free = (deleted(pipeline, finished(pipeline, 2, first)) for first in (1, 10))
    with pipeline.engine.connect() as folding, folding.begin(), pipeline.engine.begin() as purging:
        folding.execute(text("SELECT FROM orchestrator.batch WHERE batch_id = :id FOR NO KEY UPDATE"), {"id": used})
        purging.execute(text("SET LOCAL lock_timeout = 1"))
        assert purge_batches(purging, [str(used), str(free)], max_items=100) == (1, 2)
    assert left(pipeline, free) == {}
    assert purge(Purger(NOW), pipeline.engine) == Purged(batches=1, items=2)


def rows_by_position(pipeline: Pipeline, batch_id: UUID) -> Mapping[str, list[int]]:
    """The positions of which each table has rows, and for the tables of whole batches the number of rows."""
    found = {}
    for table in OF_BATCHES:
        is_of_items = table in ("batch_item", "outcome", "item_history", "dispatch", "revocation_request")
        what = "position" if is_of_items else "count(*)"
        found[table] = [
            value
            for (value,) in rows(
                pipeline, f"SELECT {what} FROM orchestrator.{table} WHERE batch_id = :id ORDER BY 1", id=batch_id
            )
        ]
    return found


def with_rows_in_every_table(pipeline: RememberingPipeline, first: int) -> UUID:
    """Three items that have failed twice, in a dismissed batch with a label. One outcome of each attempt."""
    batch_id = pipeline.submit([item(f"nobody-{first + number}") for number in range(3)])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "a label")
    pipeline.call(dismiss_batch, ADMIN, batch_id)
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        for insert in (
            "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at, answered_at)"
            " SELECT batch_id, position, organization_id, 2, 'withdrawn', now(), now() FROM orchestrator.batch_item WHERE batch_id = :id",
            "INSERT INTO orchestrator.revocation_request (batch_id, position, organization_id, state, asked_at, asked_by, channel, reason,"
            " answered_at, is_bulk, sent_at)"
            " SELECT batch_id, position, organization_id, 'revoked', now(), 'x', 'api', 'x', now(), false, now()"
            " FROM orchestrator.batch_item WHERE batch_id = :id",
        ):
            connection.execute(text(insert), {"id": batch_id})
    return batch_id


def test_a_chunk_removes_its_items_with_all_their_rows_and_nothing_else(pipeline: RememberingPipeline) -> None:
    """The first items first. Other batches have rows of the same positions, and one of them has no items."""
    purged, kept = (with_rows_in_every_table(pipeline, first) for first in (1, 10))
    empty = uuid4()
    pipeline.queues[Topic.BATCHES] += in_parts(empty, [20, 20])[:1]
    pipeline.drain()
    pipeline.call(cancel_batch, ADMIN, empty, None)
    pipeline.drain()
    deleted(pipeline, purged)
    before = [rows_by_position(pipeline, batch_id) for batch_id in (kept, empty)]
    assert before[0]["dispatch"] == before[0]["item_history"] == [0, 1, 2]
    assert before[1]["batch"] == before[1]["batch_part"] == [1]
    with pipeline.engine.begin() as connection:
        for position in (2, 1, 0):
            connection.execute(
                text("UPDATE orchestrator.batch_item SET notes = notes WHERE (batch_id, position) = (:id, :position)"),
                {"id": purged, "position": position},
            )
        without_indexes(connection)
        # A batch that was not deleted stays, although its id is among those to purge.
        assert purge_batches(connection, [str(each) for each in (purged, kept, empty)], max_items=2) == (0, 2)
    left_over = rows_by_position(pipeline, purged)
    of_items = ("batch_item", "dispatch", "item_history", "revocation_request")
    assert [left_over[table] for table in of_items] == [[2]] * len(of_items)
    assert left_over["outcome"] == [2, 2]
    assert purge(Purger(NOW), pipeline.engine) == Purged(batches=1, items=1)
    assert left(pipeline, purged) == {}
    assert [rows_by_position(pipeline, batch_id) for batch_id in (kept, empty)] == before
    assert rows(pipeline, "SELECT batch_id FROM orchestrator.tombstone") == [(purged,)]


def test_batches_are_due_in_the_order_of_their_deletion(pipeline: RememberingPipeline) -> None:
    """Without those that are set aside, that another purge holds, or of which a service still has to answer a request."""
    batches = [deleted(pipeline, finished(pipeline, 1, first)) for first in range(1, 6)]
    with pipeline.engine.begin() as connection:
        for place in (3, 0, 4, 2, 1):
            connection.execute(
                text("UPDATE orchestrator.batch SET deleted_at = now() - make_interval(hours => :hours) WHERE batch_id = :id"),
                {"hours": 9 - place, "id": batches[place]},
            )
        connection.execute(
            text(
                "INSERT INTO orchestrator.revocation_request (batch_id, position, organization_id, asked_at, asked_by, channel, reason, is_bulk,"
                " sent_at) VALUES (:id, 0, 'org', now(), 'x', 'api', 'x', false, now())"
            ),
            {"id": batches[1]},
        )

    def due(connection: Connection, most: int, *aside: UUID) -> list[UUID]:
        without_indexes(connection)
        found = deleted_batches(connection, after=timedelta(hours=1), aside=[str(each) for each in aside], max_batches=most)
        return [UUID(each.batch_id) for each in found]

    with pipeline.engine.begin() as connection:
        assert due(connection, 9, batches[2]) == [batches[0], batches[3], batches[4]]
        assert due(connection, 2) == [batches[0], batches[2]]
    with pipeline.engine.begin() as holding, pipeline.engine.begin() as other:
        assert due(holding, 1) == [batches[0]]
        assert due(other, 9) == batches[2:]


def test_the_oldest_keys_expire_first_and_each_by_itself(pipeline: RememberingPipeline) -> None:
    """Keys of others have the same words. One that a request is using is left for the next time."""
    insert = text(
        "INSERT INTO orchestrator.idempotency_key (organization_id, subject, key, request_hash, batch_id, created_at)"
        " VALUES (:org, :subject, :key, '', gen_random_uuid(), now() - make_interval(days => :days))"
    )
    kept = [("org", "one", "other"), ("org", "other", "key"), ("other", "one", "key")]
    with pipeline.engine.begin() as connection:
        for org, subject, key in kept:
            connection.execute(insert, {"org": org, "subject": subject, "key": key, "days": 1})
        for key, days in (("c", 20), ("key", 40), ("b", 30)):
            connection.execute(insert, {"org": "org", "subject": "one", "key": key, "days": days})

    def keys() -> list[tuple[Any, ...]]:
        columns = "organization_id, subject, key"
        return rows(pipeline, f"SELECT {columns} FROM orchestrator.idempotency_key ORDER BY {columns}")

    with pipeline.engine.begin() as connection:
        without_indexes(connection)
        assert expire_keys(connection, after=timedelta(days=7), max_keys=1) == 1
    assert keys() == sorted([*kept, ("org", "one", "b"), ("org", "one", "c")])
    with pipeline.engine.connect() as using, pipeline.engine.begin() as purging:
        using.execute(text("SELECT FROM orchestrator.idempotency_key WHERE key = 'b' FOR UPDATE"))
        purging.execute(text("SET LOCAL lock_timeout = 1"))
        assert expire_keys(purging, after=timedelta(days=7), max_keys=9) == 1
    assert keys() == sorted([*kept, ("org", "one", "b")])
