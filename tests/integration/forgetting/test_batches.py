"""Forgetting beside batches: which it waits for, which it locks, and how much it does in one transaction."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import cancel_batch, retry_failed_items
from orchestrator.directory import forgetting, person_rewriting, person_rows
from orchestrator.directory.forgetting import BATCH_COSTS_ITEMS, Forgot, Limits
from orchestrator.process.settings import Settings
from orchestrator.storage.locks import take_batches
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from tests.support.forgetting import KEY, NAME, NOTE, OTHER, PERSON, ask, find, forget, forgetter, named_in
from tests.support.pipeline import ADMIN, DAY, ORGANIZATION, item
from tests.support.plans import rows_read
from tests.support.replaying import RecordingPipeline, compared, run
from tests.support.revoking import revoke
from tests.support.two_transactions import begun_meanwhile
from tests.support.upstream import submitted, upstream_item


def test_it_waits_for_a_batch_that_began_before(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    asked = ask(pipeline)
    assert ask(pipeline).forgetting_id == asked.forgetting_id, "the request is open"
    running = pipeline.submit([item(PERSON, notes=NOTE), item(OTHER)])
    assert forgetter().work(pipeline.engine) == Forgot(rows=0, people=0, waiting=1)
    pipeline.drain()
    assert forgetter().work(pipeline.engine).people == 1
    assert pipeline.status(running).batch.counts.completed == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize("emptied_by", ["the cancellation", "forgetting"])
def test_an_upstream_batch_that_was_cancelled_before_all_its_parts_came_keeps_nothing_of_the_person(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, emptied_by: str
) -> None:
    """A version before kept the items of its parts."""
    batch_id, others = uuid4(), f"{PERSON}.b"
    part = submitted(
        batch_id,
        [upstream_item(0, PERSON, notes=NOTE), upstream_item(1, others, notes="she came")],
        part=1,
        parts=2,
        total_items=3,
    )
    pipeline.handle(pipeline.splitter, [part])
    with owner.connect() as connection:
        items = connection.execute(text("SELECT items FROM orchestrator.batch_part")).scalar_one()
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    pipeline.drain()
    if emptied_by == "forgetting":
        with owner.begin() as connection:
            connection.execute(
                text("UPDATE orchestrator.batch_part SET items = CAST(:items AS jsonb)"), {"items": orjson.dumps(items).decode()}
            )
        before = pipeline.status(batch_id).batch
        forget(pipeline)
        assert pipeline.status(batch_id).batch.version == before.version + 1
    assert named_in(owner, NOTE, "she came") == set()
    with owner.connect() as connection:
        assert connection.execute(text("SELECT items FROM orchestrator.batch_part")).scalars().all() == [[]]
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
    assert verify(pipeline.engine, settings).breaches == []


def test_a_batch_that_does_not_name_the_person_is_not_locked(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The other person's id begins with the forgotten one's, so that only a closer look tells them apart."""
    named = pipeline.submit([item(PERSON)])
    other = pipeline.submit([item(OTHER, notes=f"{OTHER} came")], label=f"for {OTHER}")
    pipeline.drain()
    ask(pipeline)
    with owner.begin() as connection:
        take_batches(connection, [other])
        assert forgetter(limits=Limits()).work(pipeline.engine).people == 1
    assert named_in(owner, PERSON) == set()
    assert pipeline.status(named).batch.status == "completed"


def test_another_persons_activity_in_a_batch_that_names_the_person_is_not_locked(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """Nor is it waited for, while somebody uses it."""
    pipeline.submit([item(PERSON), item(OTHER)])
    pipeline.drain()
    ask(pipeline)
    with owner.begin() as using:
        using.execute(text("SELECT FROM registration.activity WHERE attributed_to = :other FOR UPDATE"), {"other": OTHER})
        assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON) == set()


def test_the_persons_activities_are_locked_in_the_order_of_their_key(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Which is that of their dates here. Neither the items nor the rows lie in it, and no index is used. Somebody uses the last one."""
    pipeline.submit([item(PERSON), item(PERSON, day=DAY - timedelta(days=1))])
    pipeline.drain()
    run(owner, f"UPDATE registration.activity SET created_at = created_at WHERE activity_date < '{DAY}'")
    ways = ("indexscan", "indexonlyscan", "bitmapscan")
    run(owner, *(f'ALTER DATABASE "{owner.url.database}" SET enable_{way} = off' for way in ways))
    pipeline.engine.dispose()
    ask(pipeline)
    use = text("SELECT FROM registration.activity WHERE activity_date = :day FOR UPDATE")
    free: list[Any] = []

    def look() -> None:
        with pipeline.engine.connect() as connection:
            free.extend(connection.scalars(text("SELECT activity_date FROM registration.activity FOR UPDATE SKIP LOCKED")))

    begun_meanwhile(
        pipeline.engine,
        lambda connection: connection.execute(use, {"day": DAY}),
        lambda _: forgetter().work(pipeline.engine),
        look=look,
    )
    assert free == []


def test_a_template_that_is_changed_meanwhile_keeps_the_change(pipeline: RecordingPipeline, owner: Engine) -> None:
    pipeline.submit([item(PERSON)])
    pipeline.drain()
    run(
        owner,
        "INSERT INTO orchestrator.template (template_id, organization_id, coordinator_id, name, mentor_ids, activity_type,"
        " duration_minutes, version, changed_at) VALUES"
        f" (gen_random_uuid(), '{ORGANIZATION}', 'coord-1', 'all', '{{{PERSON}}}', 'visit', 60, 1, now())",
    )
    ask(pipeline)
    add = text("UPDATE orchestrator.template SET mentor_ids = mentor_ids || CAST(:other AS text)")
    begun_meanwhile(
        pipeline.engine,
        lambda connection: connection.execute(add, {"other": OTHER}),
        lambda _: forgetter().work(pipeline.engine),
    )
    with owner.connect() as connection:
        assert connection.scalar(text("SELECT mentor_ids FROM orchestrator.template")) == [OTHER]
    assert named_in(owner, PERSON) == set()


def test_a_transaction_locks_few_batches_and_those_that_run_keep_no_others_from_it(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = [pipeline.submit([item(PERSON, day=DAY - timedelta(days=day)), item(OTHER)]) for day in range(1, 8)]
    pipeline.drain()
    asked = ask(pipeline)
    running = pipeline.submit([item(PERSON)])
    locked: list[int] = []
    lock = PostgresActivityRepository.lock_batches

    def noted(repository: PostgresActivityRepository, batch_ids: Sequence[UUID]) -> None:
        locked.append(len(batch_ids))
        lock(repository, batch_ids)

    monkeypatch.setattr(PostgresActivityRepository, "lock_batches", noted)
    assert forgetter(limits=Limits(items=2 * BATCH_COSTS_ITEMS)).work(pipeline.engine).waiting == 1
    assert (max(locked), sum(locked)) == (2, len(ended))
    with owner.connect() as connection:
        left = connection.execute(text("SELECT batch_id FROM orchestrator.batch_item WHERE mentor_id = :id"), {"id": PERSON})
        assert left.scalars().all() == [running]
    pipeline.drain()
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).done_at is not None
    assert named_in(owner, PERSON) == set()
    assert verify(pipeline.engine, settings).breaches == []


def test_no_more_text_is_looked_at_between_two_statements_than_takes_a_second(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a session that is idle in a transaction for longer than 15 s, and the same step would be tried again for good."""
    notes = [f"{letter * 1_500} {PERSON}" for letter in "abcd"]
    ended = [
        pipeline.submit([item("nobody", day=DAY - timedelta(days=day), notes=note) for note in notes]) for day in range(1, 4)
    ]
    large = "another's, of which much is to be read " * 60
    ended += [pipeline.submit([item(PERSON, day=DAY - timedelta(days=day)), item("nobody", notes=large)]) for day in range(5, 7)]
    pipeline.drain()
    for group in range(3):
        run(
            owner,
            "INSERT INTO orchestrator.template (template_id, organization_id, coordinator_id, name, mentor_ids, activity_type,"
            " duration_minutes, version, changed_at) VALUES"
            f" (gen_random_uuid(), '{ORGANIZATION}', 'coord-1', repeat('{group}', 1500) || ' {PERSON}', '{{}}', 'visit', 60, 1, now())",
        )
    locked, read = [], []
    lock, read_rows = PostgresActivityRepository.lock_batches, person_rows.read_rows

    def locking(repository: PostgresActivityRepository, batch_ids: Sequence[UUID]) -> None:
        locked.append(len(batch_ids))
        lock(repository, batch_ids)

    def reading(*arguments: Any, **named: Any) -> Sequence[Any]:
        rows = read_rows(*arguments, **named)
        read.append(sum(len(value) for row in rows for value in row if isinstance(value, str) and PERSON in value))
        return rows

    monkeypatch.setattr(PostgresActivityRepository, "lock_batches", locking)
    for module in (forgetting, person_rewriting):
        monkeypatch.setattr(module, "read_rows", reading)
    ask(pipeline)
    assert forgetter(limits=Limits(text_bytes=4_000)).work(pipeline.engine).people == 1
    assert 3_000 < max(read) <= 4_000
    assert (max(locked), sum(locked)) == (1, len(ended))
    assert named_in(owner, PERSON) == set()
    assert verify(pipeline.engine, settings).breaches == []


def test_it_waits_for_a_batch_of_which_only_a_part_has_come(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The items move from the parts to a table of their own when the last part comes, which may be after that table was searched."""
    upstream = uuid4()
    first = submitted(upstream, [upstream_item(0, PERSON, notes=NOTE)], part=1, parts=2, total_items=2)
    second = submitted(upstream, [upstream_item(1, OTHER)], part=2, parts=2, total_items=2)
    pipeline.queues[Topic.BATCHES].append(first)
    pipeline.drain()
    ask(pipeline)
    assert forgetter().work(pipeline.engine).waiting == 1
    pipeline.queues[Topic.BATCHES].append(second)
    pipeline.drain()
    assert pipeline.status(upstream).batch.counts.failed == 1, "the mentor is unknown by now"
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()


def test_it_waits_for_an_event_that_is_not_published_yet(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item(PERSON, notes=NOTE)])
    pipeline.drain()
    ask(pipeline)
    revoke(pipeline, batch_id, reason=f"{PERSON} was ill", actor=ADMIN)
    assert forgetter().work(pipeline.engine).waiting == 1
    pipeline.drain()
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()


def test_it_waits_for_an_item_in_doubt_of_a_cancelled_batch(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item(PERSON, notes=NOTE)])
    in_doubt = (
        "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
        " VALUES (:batch_id, 0, :organization, 1, 'asked', now())"
    )
    with owner.begin() as connection:
        connection.execute(text(in_doubt), {"batch_id": batch_id, "organization": ORGANIZATION})
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    assert pipeline.status(batch_id).batch.counts.pending == 1
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM orchestrator.outbox"))
    ask(pipeline)
    assert forgetter().work(pipeline.engine) == Forgot(waiting=1)
    assert pipeline.status(batch_id).items[0].values.mentor_id == PERSON, "the service has to be asked for the same item again"


def test_only_the_texts_of_the_batches_that_are_rewritten_are_measured(pipeline: RecordingPipeline) -> None:
    named, other = pipeline.submit([item(PERSON, kind="unknown")]), pipeline.submit([item(OTHER, kind="unknown")])
    pipeline.drain()
    for batch_id in (named, other):
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
        pipeline.drain()
    with rows_read(pipeline.engine, "AS text_bytes") as counts:
        forget(pipeline)
    assert set(counts) == {1}
