"""Each statement on the way of a batch reads and writes rows of this batch only, however many others there are.

A statement that also returns other rows is slow on large tables, although its caller ignores them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, event, text

from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.model import Idempotency, NewBatch, RetryRequest
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    dismiss_batch,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from orchestrator.storage import prepared
from schemas.envelope import Topic
from schemas.ids import new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, mentors
from tests.support.revoking import revoke
from tests.support.sweeping import purge
from tests.support.upstream import submitted, upstream_item


@pytest.fixture
def touched(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many rows each statement has returned or written at most, by its text."""
    most: dict[str, int] = {}

    def note(sql: str, cursor: Any) -> None:
        most[sql] = max(most.get(sql, 0), cursor.rowcount)

    def executed(_connection: Connection, cursor: Any, statement: str, *_: object) -> None:
        note(statement, cursor)

    run = prepared.run

    def noting(connection: Connection, sql: str, parameters: Any, **named: Any) -> Any:
        cursor = run(connection, sql, parameters, **named)
        note(named["prepared"].sql if named.get("prepared") else sql, cursor)
        return cursor

    monkeypatch.setattr(prepared, "run", noting)
    engines = (pipeline.engine, pipeline.api)
    for engine in engines:
        event.listen(engine, "after_cursor_execute", executed)
    yield most
    for engine in engines:
        event.remove(engine, "after_cursor_execute", executed)


def with_one_failed_item(pipeline: Pipeline, mentor: str, key: str) -> UUID:
    batch = NewBatch(new_batch_id(), COORDINATOR, None, False, [item(mentor)], "1" * 32)
    pipeline.call(submit_bulk_registration, ADMIN, batch, Idempotency(key, b"hash"))
    return batch.batch_id


@contextmanager
def everything_noted(touched: dict[str, int]) -> Iterator[None]:
    touched.clear()
    yield
    assert touched, "no statement was seen"
    # An operation publishes several events. A registration returns a row for itself, and one for each item that is not registered.
    several = ("orchestrator.outbox", "INSERT INTO registration.activity")
    assert [sql for sql, rows in touched.items() if rows > 1 and not any(part in sql for part in several)] == []


def test_no_statement_on_the_way_of_a_batch_touches_rows_of_others(pipeline: Pipeline, touched: dict[str, int]) -> None:
    others = [pipeline.submit([*mentors(2, first=10 * number), item(f"nobody-{number}")]) for number in range(1, 5)]
    pipeline.drain()
    for batch_id in others[:3]:
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(), Idempotency(f"retry {batch_id}", b"hash"))
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO orchestrator.tombstone SELECT gen_random_uuid(), 'o', '', now() FROM generate_series(1, 5)")
        )
    with everything_noted(touched):
        failed = with_one_failed_item(pipeline, "nobody", "a key")
        pipeline.drain()
        pipeline.status(failed)
        pipeline.call(dismiss_batch, ADMIN, failed)
        pipeline.call(relabel_batch, ADMIN, failed, "label")
        pipeline.call(retry_failed_items, ADMIN, failed, RetryRequest(), Idempotency("again", b"hash"))
        pipeline.call(cancel_batch, ADMIN, failed, "a reason")
        pipeline.drain()
        succeeded = pipeline.submit(mentors(1))
        pipeline.drain_until_registered()
        late = list(pipeline.queues[Topic.RESULTS])
        pipeline.drain()
        revoke(pipeline, succeeded)
        upstream = new_batch_id()
        pipeline.queues[Topic.BATCHES].append(submitted(upstream, [upstream_item(0, "mentor-50")]))
        pipeline.drain()
        assert pipeline.status(upstream).batch.status == "completed"
        for batch_id in (failed, succeeded):
            pipeline.call(delete_batch, ADMIN, batch_id)
            pipeline.drain()
            purge(Purger(PurgePolicy(purge_after=timedelta(0), keys_after=timedelta(days=7))), pipeline.engine)
        pipeline.handle(pipeline.aggregator, late)
