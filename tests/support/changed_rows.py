"""All rows of all tables before and after an operation, and batches that it must leave as they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from orchestrator.batches.model import Idempotency, NewItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, dismiss_batch, relabel_batch, retry_failed_items
from schemas.envelope import Topic
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item
from tests.support.upstream import in_parts

Row = Mapping[str, Any]
Key = tuple[Any, ...]

# By table, the columns that identify a row.
TABLES = {
    "batch": ("batch_id",),
    "batch_dismissal": ("batch_id", "version"),
    "batch_edit": ("batch_id", "version"),
    "batch_item": ("batch_id", "position"),
    "batch_part": ("batch_id", "part"),
    "dispatch": ("batch_id", "position"),
    "idempotency_key": ("organization_id", "subject", "key"),
    "item_history": ("batch_id", "position", "attempt"),
    "outcome": ("batch_id", "position", "attempt"),
    "revocation_request": ("batch_id", "position"),
    "tombstone": ("batch_id",),
}


@dataclass(frozen=True)
class Tables:
    """All rows, by table and key."""

    rows: Mapping[str, Mapping[Key, Row]]

    def of(self, table: str, *key: object) -> Row:
        return self.rows[table][key]

    def without(self, batch_id: UUID) -> Mapping[str, Mapping[Key, Row]]:
        return {
            table: {key: row for key, row in rows.items() if row.get("batch_id") != batch_id} for table, rows in self.rows.items()
        }


def tables(pipeline: Pipeline) -> Tables:
    def read(connection: Connection, table: str, names: tuple[str, ...]) -> Mapping[Key, Row]:
        found = connection.execute(text(f"SELECT * FROM orchestrator.{table}")).mappings()
        return {tuple(row[name] for name in names): dict(row) for row in found}

    with pipeline.engine.begin() as connection:
        return Tables({table: read(connection, table, names) for table, names in TABLES.items()})


def differences(before: Row, after: Row) -> Row:
    """The columns that changed, with their new values."""
    assert before.keys() == after.keys()
    return {name: value for name, value in after.items() if value != before[name]}


def clock(pipeline: Pipeline) -> datetime:
    with pipeline.engine.begin() as connection:
        moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment


class Bystanders:
    """A batch in each state in which a statement with a missing or too weak batch condition would change something."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        # First those whose outcomes are folded. The last ones are not.
        self.failed = pipeline.submit([item("nobody"), item("mentor-1")])
        self.retried = pipeline.submit([item("no one")])
        self.deleted = pipeline.submit([item("mentor-2")])
        self.edited = pipeline.submit([item("mentor-3")])
        self.dismissed = pipeline.submit([item("nobody"), item("mentor-7")])
        pipeline.drain()
        pipeline.call(retry_failed_items, ADMIN, self.retried, RetryRequest(), Idempotency("retry", b"of a bystander"))
        pipeline.drain()
        pipeline.call(delete_batch, ADMIN, self.deleted)
        pipeline.call(relabel_batch, ADMIN, self.edited, "edited")
        pipeline.call(dismiss_batch, ADMIN, self.dismissed)
        self.cancelled = pipeline.submit([item("mentor-4")])
        pipeline.call(cancel_batch, ADMIN, self.cancelled, "a reason")
        self.collecting = uuid4()
        pipeline.queues[Topic.BATCHES] += in_parts(self.collecting, [1, 2, 1])[:2]
        pipeline.drain()
        # One item is registered and not folded, and one pending.
        self.unfolded = pipeline.submit([item("mentor-5"), item("nobody at all")])
        pipeline.drain_until_registered()
        pipeline.take(Topic.RESULTS)
        self.pending = pipeline.submit([item("mentor-6"), item("nobody")])
        asked = "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
        with pipeline.engine.begin() as connection:
            connection.execute(
                text(f"{asked} VALUES (:id, 0, :org, 1, 'asked', now())"), {"id": self.pending, "org": ORGANIZATION}
            )
            requested = (
                "INSERT INTO orchestrator.revocation_request (batch_id, position, organization_id, state, asked_at, asked_by"
            )
            connection.execute(
                text(
                    f"{requested}, channel, reason, is_bulk, sent_at) VALUES (:id, 0, :org, 'asked', now(), 'x', 'x', 'x', false, now())"
                ),
                {"id": self.dismissed, "org": ORGANIZATION},
            )
        pipeline.relay()
        pipeline.queues.clear()

    @contextmanager
    def untouched(self, batch_id: UUID) -> Iterator[None]:
        """Checks that the block changes only rows of this batch."""
        before = tables(self.pipeline).without(batch_id)
        yield
        assert tables(self.pipeline).without(batch_id) == before


_numbers = count(101)


def somebody() -> NewItem:
    """An item for a mentor that no other test uses."""
    return item(f"mentor-{next(_numbers)}")


def finished(pipeline: Pipeline) -> UUID:
    """One item that succeeded, between two that failed, all folded."""
    batch_id = pipeline.submit([item("nobody-1"), somebody(), item("nobody-2", notes="old", minutes=45)], label="Subject")
    pipeline.drain()
    return batch_id
