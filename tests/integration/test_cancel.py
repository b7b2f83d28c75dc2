"""A cancel is a fence: each item is either registered before it, and counted, or never registered (invariant 7)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sqlalchemy import text

from consumers.loop.handler import Record
from orchestrator.batches.operations import cancel_batch
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from schemas.events import EventData
from tests.support.pipeline import ADMIN, Pipeline, item, mentors, record
from tests.support.plans import without_indexes
from tests.support.waiting import eventually


def activities(pipeline: Pipeline, batch_id: object) -> int:
    with pipeline.engine.begin() as connection:
        return int(
            connection.execute(
                text("SELECT count(*) FROM registration.activity WHERE batch_id = :batch"), {"batch": batch_id}
            ).scalar_one()
        )


def test_no_command_under_way_is_registered_after_the_cancel(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(10))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    pipeline.handle(pipeline.registration, commands[:4])
    answer = pipeline.call(cancel_batch, ADMIN, batch_id, "wrong week")
    # The four outcomes were not folded yet. The cancel folds them before it counts.
    assert (answer.batch.counts.completed, answer.batch.counts.cancelled, answer.batch.counts.pending) == (4, 6, 0)
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert view.batch.status == "cancelled"
    assert view.batch.counts == answer.batch.counts
    assert view.batch.cancellation_reason == "wrong week"
    assert activities(pipeline, batch_id) == 4


def test_redelivered_command_of_a_cancelled_item_announces_the_cancel(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    handled = pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    assert [dict(event.headers)["ce_type"] for event in handled.events] == [b"no.bulk-registration.RegistrationCancelled.v1"]


def test_cancel_beside_four_registration_workers_is_exact(pipeline: Pipeline) -> None:
    """Four connections work in overlapping micro-batches, and the cancel queues among them."""
    with pipeline.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO registration.mentor SELECT :org, 'many-' || n, 'Mentor', 'chapter-1' FROM generate_series(1, 10000) n"
            ),
            {"org": ADMIN.organization_id},
        )
    batch_id = pipeline.submit([item(f"many-{number}") for number in range(1, 10_001)])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    records = [record(event, offset) for offset, event in enumerate(pipeline.take(Topic.COMMANDS_BULK))]
    assert len(records) == 10_000
    chunks = [records[first : first + 500] for first in range(0, len(records), 500)]
    lock = threading.Lock()
    begun = threading.Barrier(5)

    def work() -> None:
        begun.wait()
        while True:
            with lock:
                if not chunks:
                    return
                chunk: list[Record[EventData]] = chunks.pop()
            transact(pipeline.engine, partial(pipeline.registration.handle, records=chunk), give_up_after_s=30)

    with ThreadPoolExecutor(5) as threads:
        workers = [threads.submit(work) for _ in range(4)]
        begun.wait()
        # At this moment some items are registered, and four transactions are open.
        eventually(lambda: activities(pipeline, batch_id) >= 1_000, what="1,000 activities")
        answer = pipeline.call(cancel_batch, ADMIN, batch_id, None)
        registered_when_answered = activities(pipeline, batch_id)
        for worker in workers:
            worker.result()
    assert answer.batch.counts.completed == registered_when_answered == activities(pipeline, batch_id)
    assert 0 < answer.batch.counts.cancelled == 10_000 - registered_when_answered
    view = pipeline.status(batch_id)
    assert view.batch.counts == answer.batch.counts
    with pipeline.engine.begin() as connection:
        newer = connection.execute(
            text("""SELECT count(*) FROM orchestrator.outcome o JOIN orchestrator.batch b USING (batch_id)
                    WHERE o.created_at > b.cancelled_at""")
        ).scalar_one()
    assert newer == 0


# --- A database whose clock is set back ----------------------------------------------------------------------------------------


def breaches(pipeline: Pipeline, settings: Settings) -> list[str]:
    return [breach.detail.partition(":")[0] for breach in verify(pipeline.engine, settings).breaches]


def run(pipeline: Pipeline, sql: str, batch_id: object) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(text(sql), {"b": batch_id})


def test_row_32_a_decision_before_the_clock_was_set_back_is_no_breach_of_the_cancel(
    pipeline: Pipeline, settings: Settings
) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:1])
    run(pipeline, "UPDATE orchestrator.outcome SET created_at = now() + interval '1 hour' WHERE batch_id = :b", batch_id)
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    assert breaches(pipeline, settings) == []


def test_row_32_a_request_before_the_clock_was_set_back_is_no_breach_of_the_cancel(
    pipeline: Pipeline, settings: Settings
) -> None:
    """An external service responds after the cancel to a request from before it."""
    batch_id = pipeline.submit(mentors(1))
    pipeline.relay()
    asked = """
        INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)
        SELECT batch_id, position, organization_id, attempt, 'asked', now() + interval '1 hour'
        FROM orchestrator.batch_item WHERE batch_id = :b
    """
    run(pipeline, asked, batch_id)
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    answered = """
        INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, created_at)
        SELECT batch_id, position, 1, organization_id, 'cancelled', now() + interval '2 hours'
        FROM orchestrator.batch_item WHERE batch_id = :b
    """
    run(pipeline, answered, batch_id)
    assert "outcome_after_cancel" not in breaches(pipeline, settings)


def test_row_32_a_cancel_is_as_late_as_the_last_decision_and_request_of_its_batch(pipeline: Pipeline) -> None:
    batch_id, other = pipeline.submit(mentors(2)), pipeline.submit(mentors(2, first=10))
    pipeline.drain_until_registered()
    asked = """
        INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)
        SELECT batch_id, position, organization_id, attempt, 'asked', now() FROM orchestrator.batch_item
    """
    for column in ("outcome.created_at", "dispatch.dispatched_at"):
        table, name = column.split(".")
        hours = "CASE WHEN batch_id = :other THEN 5 WHEN position = 0 THEN 2 ELSE 1 END"
        with pipeline.engine.connect() as connection:
            connection.execute(text(asked))
            later = text(f"UPDATE orchestrator.{table} SET {name} = now() + {hours} * interval '1 hour'")
            connection.execute(later, {"other": other})
            last = connection.execute(text("SELECT now() + interval '2 hours'")).scalar_one()
            assert PostgresActivityRepository(connection).clock_after_decisions(batch_id) == last, column
            connection.rollback()


def test_row_32_a_decision_after_a_cancel_is_a_breach_although_the_clock_was_set_back(
    pipeline: Pipeline, settings: Settings
) -> None:
    """Simulates an item that the cancel overlooked: the test removes its outcome, and it is registered."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    run(pipeline, "UPDATE orchestrator.batch SET cancelled_at = now() + interval '1 hour' WHERE batch_id = :b", batch_id)
    run(pipeline, "DELETE FROM orchestrator.outcome WHERE batch_id = :b AND position = 1", batch_id)
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    assert "outcome_after_cancel" in breaches(pipeline, settings)


def test_the_cancelled_items_are_named_in_their_order_wherever_their_rows_lie(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(4))
    with pipeline.engine.begin() as connection:
        # A changed row lies behind all others.
        for position in (2, 0, 3, 1):
            connection.execute(
                text("UPDATE orchestrator.batch_item SET notes = notes WHERE (batch_id, position) = (:batch_id, :position)"),
                {"batch_id": batch_id, "position": position},
            )
        without_indexes(connection)
        repository = PostgresActivityRepository(connection)
        assert repository.cancel_pending(batch_id, repository.clock()) == [(position, 1) for position in range(4)]
