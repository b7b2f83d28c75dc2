"""What each operation writes, column by column, and that it leaves every other batch as it was.

Each test reads all rows of all tables before and after an operation, and compares them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text

from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Actor, CorrectedItem, Idempotency, NewBatch, NewItem, RetryRequest, Revocation, Role
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    dismiss_batch,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.purging import purge_batches
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.corrections import Correction
from schemas.envelope import Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.databases import fresh_database
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, standard_directory
from tests.support.revoking import revoke
from tests.support.stack import Stack
from tests.support.upstream import SOURCE, TRACE, in_parts, submitted, upstream_item

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


@pytest.fixture(scope="module")
def pipeline(infrastructure: Stack, template_database: str) -> Iterator[Pipeline]:
    """One set for all tests. What a test leaves behind are additional bystanders."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        engine = create_database_engine(settings.worker_url, settings, connections=5, application_name="test")
        standard_directory(engine, mentor_count=1_000)
        pipeline = Pipeline(settings, engine)
        yield pipeline
        pipeline.close()
        engine.dispose()


@pytest.fixture(scope="module")
def bystanders(pipeline: Pipeline) -> Bystanders:
    return Bystanders(pipeline)


@pytest.fixture(autouse=True)
def nothing_waits(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """Drops the events of earlier tests."""
    pipeline.relay()
    pipeline.queues.clear()


_numbers = count(101)


def somebody() -> NewItem:
    """An item for a mentor that no other test uses."""
    return item(f"mentor-{next(_numbers)}")


def finished(pipeline: Pipeline) -> UUID:
    """One item that succeeded, between two that failed, all folded."""
    batch_id = pipeline.submit([item("nobody-1"), somebody(), item("nobody-2", notes="old", minutes=45)], label="Subject")
    pipeline.drain()
    return batch_id


def test_relabel(pipeline: Pipeline, bystanders: Bystanders) -> None:
    batch_id = finished(pipeline)
    before, began = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id):
        pipeline.call(relabel_batch, ADMIN, batch_id, "Another")
    old, new = before.of("batch", batch_id), tables(pipeline).of("batch", batch_id)
    at, version = new["changed_at"], old["version"] + 1
    assert began < at < clock(pipeline)
    assert differences(old, new) == {
        "label": "Another",
        "version": version,
        "edit_version": old["edit_version"] + 1,
        "changed_at": at,
    }
    assert tables(pipeline).of("batch_edit", batch_id, version) == {
        "batch_id": batch_id,
        "version": version,
        "organization_id": ORGANIZATION,
        "kind": "relabelled",
        "label": "Another",
        "reason": None,
        "edited_by": None,
        "edited_at": at,
    }


def test_delete(pipeline: Pipeline, bystanders: Bystanders) -> None:
    batch_id = finished(pipeline)
    before, began = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id):
        pipeline.call(delete_batch, ADMIN, batch_id)
    old, new = before.of("batch", batch_id), tables(pipeline).of("batch", batch_id)
    at, version = new["deleted_at"], old["version"] + 1
    assert began < at < clock(pipeline)
    assert differences(old, new) == {
        "deleted_at": at,
        "version": version,
        "edit_version": old["edit_version"] + 1,
        "changed_at": at,
    }
    assert tables(pipeline).of("batch_edit", batch_id, version) == {
        "batch_id": batch_id,
        "version": version,
        "organization_id": ORGANIZATION,
        "kind": "deleted",
        "label": None,
        "reason": None,
        "edited_by": None,
        "edited_at": at,
    }


def test_dismissal(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """It is no edit: what else is known about the batch stays as it is."""
    batch_id = finished(pipeline)
    before, began = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id):
        pipeline.call(dismiss_batch, ADMIN, batch_id)
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    at, version = new["dismissed_at"], old["version"] + 1
    assert began < at < clock(pipeline)
    assert differences(old, new) == {"dismissed_at": at, "version": version, "changed_at": at}
    assert {key: row for key, row in after.rows["batch_dismissal"].items() if key[0] == batch_id} == {
        (batch_id, version): {
            "batch_id": batch_id,
            "version": version,
            "organization_id": ORGANIZATION,
            "dismissed_by": ADMIN.subject,
            "dismissed_at": at,
        }
    }
    assert [after.rows[table] for table in ("batch_edit", "batch_item")] == [
        before.rows[table] for table in ("batch_edit", "batch_item")
    ]


def test_cancel(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """One of three items is registered and not folded, one failed and not folded, and one pending."""
    batch_id = pipeline.submit([somebody(), item("nobody-1"), somebody()])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:2])
    before, began = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id):
        pipeline.call(cancel_batch, ADMIN, batch_id, "wrong week")
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    at, version = new["cancelled_at"], old["version"] + 1
    assert began < at < clock(pipeline)
    assert differences(old, new) == {
        "status": "cancelled",
        "pending": 0,
        "completed": 1,
        "failed": 1,
        "cancelled": 1,
        "version": version,
        "edit_version": old["edit_version"] + 1,
        "changed_at": at,
        "completed_at": at,
        "cancelled_at": at,
        "cancelled_by": ADMIN.subject,
        "cancellation_reason": "wrong week",
    }
    assert after.of("batch_edit", batch_id, version) == {
        "batch_id": batch_id,
        "version": version,
        "organization_id": ORGANIZATION,
        "kind": "cancelled",
        "label": None,
        "reason": "wrong week",
        "edited_by": ADMIN.subject,
        "edited_at": at,
    }
    registered, refused = after.of("outcome", batch_id, 0, 1), after.of("outcome", batch_id, 1, 1)
    items = [differences(before.of("batch_item", batch_id, n), after.of("batch_item", batch_id, n)) for n in range(3)]
    assert items == [
        {"status": "success", "activity_id": registered["activity_id"], "changed_version": version},
        {"status": "failed", "error": refused["error"], "changed_version": version},
        {"status": "cancelled", "changed_version": version},
    ]
    assert after.of("outcome", batch_id, 2, 1) == {
        "batch_id": batch_id,
        "position": 2,
        "attempt": 1,
        "organization_id": ORGANIZATION,
        "outcome": "cancelled",
        "activity_id": None,
        "error": None,
        "created_at": at,
    }


def test_retry(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """Of the two failed items, the first is retried without a change and the other with a correction. Then the first is retried again."""
    batch_id = finished(pipeline)
    ids = DerivedIds(batch_id)
    changes: Correction = {
        "mentor_id": "nobody-3",
        "activity_type": "camp",
        "activity_date": date(2026, 3, 1),
        "duration_minutes": 30,
        "notes": "new",
        "override_duplicates": True,
    }
    before, began = tables(pipeline), clock(pipeline)
    key = Idempotency("retry", b"of the subject")
    actor = Actor(ORGANIZATION, "another boss", Role.ADMIN)
    with bystanders.untouched(batch_id):
        request = RetryRequest(item_ids=[ids.item_id(0)], corrections=[CorrectedItem(ids.item_id(2), changes)])
        pipeline.call(retry_failed_items, actor, batch_id, request, key)
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    at, version = new["changed_at"], old["version"] + 1
    assert began < at < clock(pipeline)
    assert differences(old, new) == {
        "status": "processing",
        "pending": 2,
        "failed": 0,
        "retry_number": 1,
        "version": version,
        "changed_at": at,
        "completed_at": None,
        "measured_from": at,
        "measured_items": 2,
    }
    first, untouched, corrected = (
        differences(before.of("batch_item", batch_id, n), after.of("batch_item", batch_id, n)) for n in range(3)
    )
    began_anew = {"status": "pending", "attempt": 2, "attempt_at": at, "error": None, "changed_version": version}
    assert (first, untouched, corrected) == (began_anew, {}, began_anew | changes)
    old_item = before.of("batch_item", batch_id, 2)
    assert after.of("item_history", batch_id, 2, 1) == {
        "batch_id": batch_id,
        "position": 2,
        "attempt": 1,
        "organization_id": ORGANIZATION,
        "submitted": {
            "mentor_id": "nobody-2",
            "activity_type": "visit",
            "activity_date": "2026-03-25",
            "duration_minutes": 45,
            "notes": "old",
            "override_duplicates": False,
        },
        "error": old_item["error"],
        "attempt_at": old_item["attempt_at"],
        "correction": changes | {"activity_date": "2026-03-01"},
        "retried_by": "another boss",
        "retried_at": at,
    }
    assert after.of("item_history", batch_id, 0, 1)["correction"] is None
    used = after.of("idempotency_key", ORGANIZATION, "another boss", "retry")
    assert (used["batch_id"], bytes(used["request_hash"])) == (batch_id, b"of the subject")
    assert used["answer"] == {"retried": 2, "call_id": str(key.call_id)}

    # A retry of another item while one is pending: progress is measured for all that are pending from now on.
    first_again = [one for one in commands_of(pipeline) if str(ids.item_id(0)).encode() in one.value]
    pipeline.handle(pipeline.registration, first_again)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    with bystanders.untouched(batch_id):
        answer = pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    assert answer.retried == 1
    row = tables(pipeline).of("batch", batch_id)
    assert (row["measured_items"], row["measured_from"], row["retry_number"]) == (2, row["changed_at"], 2)
    assert [key[2] for key in sorted(tables(pipeline).rows["item_history"]) if key[:2] == (batch_id, 0)] == [1, 2]


def commands_of(pipeline: Pipeline) -> list[Any]:
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    return pipeline.take(Topic.COMMANDS)


def test_fold(pipeline: Pipeline, bystanders: Bystanders) -> None:
    batch_id = pipeline.submit([somebody(), item("nobody-1"), somebody()])
    commands = commands_of(pipeline)
    with bystanders.untouched(batch_id):
        results = pipeline.handle(pipeline.registration, commands).events
    before, began = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id):
        pipeline.handle(pipeline.aggregator, results[:2])
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    version = old["version"] + 1
    assert began < new["changed_at"] < clock(pipeline)
    assert differences(old, new) == {
        "pending": 1,
        "completed": 1,
        "failed": 1,
        "version": version,
        "changed_at": new["changed_at"],
    }
    registered, refused = after.of("outcome", batch_id, 0, 1), after.of("outcome", batch_id, 1, 1)
    items = [differences(before.of("batch_item", batch_id, n), after.of("batch_item", batch_id, n)) for n in range(3)]
    assert items == [
        {"status": "success", "activity_id": registered["activity_id"], "changed_version": version},
        {"status": "failed", "error": refused["error"], "changed_version": version},
        {},
    ]
    assert (registered["outcome"], registered["error"], registered["organization_id"]) == ("success", None, ORGANIZATION)
    assert (refused["outcome"], refused["activity_id"]) == ("failed", None)
    # The last outcome completes it.
    pipeline.handle(pipeline.aggregator, results[2:])
    ended = differences(new, tables(pipeline).of("batch", batch_id))
    assert ended == {
        "status": "partial",
        "pending": 0,
        "completed": 2,
        "version": version + 1,
        "changed_at": ended["changed_at"],
        "completed_at": ended["changed_at"],
    }


def test_revoke(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """The first and the last of three items are revoked. Their outcomes stay, and the other item is not changed."""
    batch_id = pipeline.submit([somebody(), somebody(), somebody()])
    pipeline.drain()
    before, began = tables(pipeline), clock(pipeline)
    ids = DerivedIds(batch_id)
    with bystanders.untouched(batch_id):
        revoke(pipeline, batch_id, actor=ADMIN, item_ids=[ids.item_id(0), ids.item_id(2)], reason="wrong date")
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    at, version = new["changed_at"], old["version"] + 1
    assert began < at < clock(pipeline)
    assert differences(old, new) == {
        "revoked": 2,
        "version": version,
        "edit_version": old["edit_version"] + 1,
        "changed_at": at,
    }
    assert after.of("batch_edit", batch_id, version) == {
        "batch_id": batch_id,
        "version": version,
        "organization_id": ORGANIZATION,
        "kind": "revoked",
        "label": None,
        "reason": "wrong date",
        "edited_by": ADMIN.subject,
        "edited_at": at,
    }
    taken_back = {
        "revoked_at": at,
        "revoked_by": ADMIN.subject,
        "revocation_reason": "wrong date",
        "changed_version": version,
    }
    items = [differences(before.of("batch_item", batch_id, n), after.of("batch_item", batch_id, n)) for n in range(3)]
    assert items == [taken_back, {}, taken_back]
    assert after.rows["outcome"] == before.rows["outcome"]


def test_request_to_revoke(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """What became of requests to an external service, for the first and the last of three items."""
    batch_id = pipeline.submit([somebody(), somebody(), somebody()])
    pipeline.drain()
    before, at = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id), pipeline.engine.begin() as connection:
        revocation = Revocation(at, "the boss", "wrong date")
        PostgresActivityRepository(connection).mark_requests(batch_id, {0: "unresolved", 2: "period_closed"}, revocation)
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    version = old["version"] + 1
    assert differences(old, new) == {"version": version, "edit_version": old["edit_version"] + 1, "changed_at": at}
    items = [differences(before.of("batch_item", batch_id, n), after.of("batch_item", batch_id, n)) for n in range(3)]
    assert items == [
        {"revocation_request": "unresolved", "changed_version": version},
        {},
        {"revocation_request": "period_closed", "changed_version": version},
    ]


def submission(batch_id: UUID, actor: Actor) -> tuple[Actor, NewBatch]:
    """A batch in which every value is different."""
    first = item("mentor-31", day=date(2026, 3, 1), kind="camp", minutes=10, notes="note 1")
    second = item("mentor-32", day=date(2026, 3, 2), kind="visit", minutes=20)
    items = [
        first._replace(client_reference='row "1"', planned="success"),
        second._replace(values=second.values._replace(override_duplicates=True), planned="mentor_not_found"),
    ]
    return actor, NewBatch(batch_id, COORDINATOR, "Monday group", False, items, "2" * 32)


def stored_item(values: NewItem, **others: object) -> Row:
    given = values.values
    return {
        "mentor_id": given.mentor_id,
        "activity_type": given.activity_type,
        "activity_date": given.activity_date,
        "duration_minutes": given.duration_minutes,
        "notes": given.notes,
        "override_duplicates": given.override_duplicates,
        "client_reference": values.client_reference,
        "planned": values.planned,
        "organization_id": ORGANIZATION,
        "status": "pending",
        "attempt": 1,
        "activity_id": None,
        "error": None,
        "revoked_at": None,
        "revoked_by": None,
        "revocation_reason": None,
        "revocation_request": None,
        **others,
    }


def test_submission(pipeline: Pipeline, bystanders: Bystanders) -> None:
    actor, batch = submission(new_batch_id(), Actor(ORGANIZATION, "the office", Role.ADMIN, "a channel"))
    began = clock(pipeline)
    with bystanders.untouched(batch.batch_id):
        pipeline.call(submit_bulk_registration, actor, batch, Idempotency("retry", b"of a submission"))
    after = tables(pipeline)
    row = dict(after.of("batch", batch.batch_id))
    at = row["submitted_at"]
    assert began < at < clock(pipeline)
    [part] = [row for key, row in after.rows["batch_part"].items() if key[0] == batch.batch_id]
    row.pop("content_hash")
    assert row == {
        "batch_id": batch.batch_id,
        "organization_id": ORGANIZATION,
        "coordinator_id": COORDINATOR,
        "submitted_by": "the office",
        "channel": "a channel",
        "label": "Monday group",
        "status": "processing",
        "total_items": 2,
        "pending": 2,
        "completed": 0,
        "failed": 0,
        "cancelled": 0,
        "retry_number": 0,
        "version": 1,
        "edit_version": 1,
        "parts": 1,
        "trace_id": "2" * 32,
        "submitted_at": at,
        "changed_at": at,
        "completed_at": None,
        "cancelled_at": None,
        "cancelled_by": None,
        "cancellation_reason": None,
        "deleted_at": None,
        "measured_from": None,
        "measured_items": None,
        "dismissed_at": None,
        "revoked": 0,
    }
    assert (part["part"], part["organization_id"], part["items"], part["received_at"]) == (1, ORGANIZATION, None, at)
    ids = DerivedIds(batch.batch_id)
    for position, given in enumerate(batch.items):
        assert after.of("batch_item", batch.batch_id, position) == stored_item(
            given,
            batch_id=batch.batch_id,
            position=position,
            item_id=ids.item_id(position),
            attempt_at=at,
            changed_version=1,
        )
    used = after.of("idempotency_key", ORGANIZATION, "the office", "retry")
    assert (used["batch_id"], bytes(used["request_hash"])) == (batch.batch_id, b"of a submission")
    # In the view, each value is in its own field.
    view = pipeline.status(batch.batch_id).batch
    assert (view.submitted_by, view.coordinator_id, view.channel, view.label, view.trace_id) == (
        "the office",
        COORDINATOR,
        "a channel",
        "Monday group",
        "2" * 32,
    )
    assert (view.measurement.began_at, view.measurement.pending) == (at, 2)
    assert [(one.values, one.client_reference, one.planned) for one in pipeline.status(batch.batch_id).items] == [
        (one.values, one.client_reference, one.planned) for one in batch.items
    ]


def test_batch_in_parts(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """The second part comes first. After the last part, the batch is processed."""
    batch_id = uuid4()
    upstream = [
        upstream_item(0, "mentor-31", activity_type="camp", activity_date="2026-03-01", duration_minutes=10, notes="note 1"),
        upstream_item(1, "mentor-32", client_reference='row "2"'),
        upstream_item(2, "mentor-33", notes="note 3"),
    ]
    fields: dict[str, Any] = {"parts": 2, "total_items": 3, "override_duplicates": True, "label": "Parts"}
    first, second = (
        submitted(batch_id, upstream[:2], part=1, **fields),
        submitted(batch_id, upstream[2:], part=2, **fields),
    )
    began = clock(pipeline)
    with bystanders.untouched(batch_id):
        pipeline.handle(pipeline.splitter, [second])
    collecting = tables(pipeline)
    old = dict(collecting.of("batch", batch_id))
    assert began < old["submitted_at"] <= old["changed_at"] < clock(pipeline)
    assert {
        name: old[name] for name in ("organization_id", "coordinator_id", "submitted_by", "channel", "label", "trace_id")
    } == {
        "organization_id": ORGANIZATION,
        "coordinator_id": COORDINATOR,
        "submitted_by": SOURCE,
        "channel": SOURCE,
        "label": "Parts",
        "trace_id": f"{TRACE}-01",
    }
    assert [old[name] for name in ("status", "total_items", "pending", "parts", "version")] == ["pending", 3, 3, 2, 1]
    part = collecting.of("batch_part", batch_id, 2)
    assert part["items"] == [[2, "mentor-33", "visit", "2026-03-25", 60, "note 3", None, True]]
    assert (part["organization_id"], began < part["received_at"] < clock(pipeline)) == (ORGANIZATION, True)
    assert bytes(part["content_hash"]) != bytes(part["public_hash"]), (
        "the hash of the published form must differ, because that form has no notes"
    )

    began = clock(pipeline)
    with bystanders.untouched(batch_id):
        commands = pipeline.handle(pipeline.splitter, [first]).events
    after = tables(pipeline)
    new = after.of("batch", batch_id)
    at = new["submitted_at"]
    assert began < at < clock(pipeline)
    assert differences(old, new) == {"status": "processing", "version": 2, "submitted_at": at, "changed_at": at}
    assert len(commands) == 2, "the other part must be published again"
    ids = DerivedIds(batch_id)
    given = [
        item("mentor-31", kind="camp", day=date(2026, 3, 1), minutes=10, notes="note 1"),
        item("mentor-32")._replace(client_reference='row "2"'),
        item("mentor-33", notes="note 3"),
    ]
    for position, one in enumerate(given):
        overriding = one._replace(values=one.values._replace(override_duplicates=True))
        assert after.of("batch_item", batch_id, position) == stored_item(
            overriding, batch_id=batch_id, position=position, item_id=ids.item_id(position), attempt_at=at, changed_version=2
        )
    assert [after.of("batch_part", batch_id, number)["items"] for number in (1, 2)] == [None, None]
    came_at = collecting.of("batch_part", batch_id, 2)["received_at"]
    pipeline.relay()
    [again] = pipeline.take(Topic.BATCHES)
    assert datetime.fromisoformat(dict(again.headers)["ce_time"].decode()) == came_at.astimezone(UTC)


@pytest.mark.parametrize("cause", ["a bad part", "an age"])
def test_rejection_of_a_collected_batch(pipeline: Pipeline, bystanders: Bystanders, cause: str) -> None:
    batch_id = uuid4()
    first, _ = in_parts(batch_id, [1, 1])
    pipeline.handle(pipeline.splitter, [first])
    pipeline.call(relabel_batch, ADMIN, batch_id, "edited")
    with bystanders.untouched(batch_id):
        if cause == "a bad part":
            assert pipeline.handle(pipeline.splitter, [submitted(batch_id, [{}], part=2, parts=2, total_items=2)]).refused
        else:
            with pipeline.engine.begin() as connection:
                assert CollectedParts(connection).forget(batch_id)
    assert not any(batch_id in key for rows in tables(pipeline).rows.values() for key in rows)


def test_only_a_batch_that_is_being_collected_can_be_forgotten(pipeline: Pipeline, bystanders: Bystanders) -> None:
    others = [bystanders.failed, bystanders.deleted, bystanders.cancelled, bystanders.unfolded, bystanders.pending, uuid4()]
    before = tables(pipeline)
    with pipeline.engine.begin() as connection:
        assert not any(CollectedParts(connection).forget(batch_id) for batch_id in others)
    assert tables(pipeline) == before


def test_purge(pipeline: Pipeline, bystanders: Bystanders) -> None:
    batch_id = finished(pipeline)
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batch_id)
    recently = text("UPDATE orchestrator.batch SET deleted_at = now() WHERE batch_id = :id")
    with pipeline.engine.begin() as connection:
        connection.execute(recently, {"id": bystanders.deleted})
        connection.execute(
            text("UPDATE orchestrator.batch SET deleted_at = now() - interval '2 days' WHERE batch_id = :id"), {"id": batch_id}
        )
    before = tables(pipeline).of("batch", batch_id)
    policy = PurgePolicy(purge_after=timedelta(days=1), keys_after=timedelta(days=7))
    with bystanders.untouched(batch_id):
        assert Purger(policy).purge(pipeline.engine).items == 3
    tombstone = tables(pipeline).of("tombstone", batch_id)
    assert (tombstone["organization_id"], tombstone["content_hash"]) == (ORGANIZATION, before["content_hash"])


def test_only_a_deleted_batch_can_be_purged(pipeline: Pipeline, bystanders: Bystanders) -> None:
    others = [bystanders.failed, bystanders.cancelled, bystanders.unfolded, bystanders.pending, bystanders.collecting]
    before = tables(pipeline)
    with pipeline.engine.begin() as connection:
        assert purge_batches(connection, [str(batch_id) for batch_id in others], max_items=100) == (0, 0)
    assert tables(pipeline) == before


Edit = Callable[[Pipeline, UUID], object]


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("relabelled", lambda pipeline, batch_id: pipeline.call(relabel_batch, ADMIN, batch_id, "Another")),
        ("deleted", lambda pipeline, batch_id: pipeline.call(delete_batch, ADMIN, batch_id)),
    ],
    ids=["relabel", "delete"],
)
def test_edit_of_a_batch_that_was_restored_to_an_older_version(pipeline: Pipeline, kind: str, edit: Edit) -> None:
    """Its new version was used already, by an edit that the restored row does not know. That edit stays, and the new one has its effect."""
    batch_id = finished(pipeline)
    version = pipeline.status(batch_id).batch.version + 1
    with pipeline.engine.begin() as connection:
        kept = text("INSERT INTO orchestrator.batch_edit VALUES (:id, :version, :org, 'relabelled', 'old', NULL, NULL, now())")
        connection.execute(kept, {"id": batch_id, "version": version, "org": ORGANIZATION})
    before = tables(pipeline)
    edit(pipeline, batch_id)
    after = tables(pipeline)
    assert after.rows["batch_edit"] == before.rows["batch_edit"]
    changed = differences(before.of("batch", batch_id), after.of("batch", batch_id))
    assert (kind == "deleted", kind == "relabelled") == ("deleted_at" in changed, "label" in changed)


def test_a_deleted_batch_can_not_be_changed(pipeline: Pipeline, bystanders: Bystanders) -> None:
    before = tables(pipeline)
    pipeline.call(delete_batch, ADMIN, bystanders.deleted)
    for operation in (
        lambda: pipeline.call(relabel_batch, ADMIN, bystanders.deleted, "late"),
        lambda: pipeline.call(cancel_batch, ADMIN, bystanders.deleted, "late"),
        lambda: pipeline.call(retry_failed_items, ADMIN, bystanders.deleted, RetryRequest()),
        lambda: pipeline.status(bystanders.deleted),
    ):
        with pytest.raises(NotFoundError):
            operation()
    with pipeline.engine.begin() as connection:
        repository = PostgresActivityRepository(connection)
        assert repository.lock_batch(bystanders.deleted) is None, "the batch was deleted after a reader had seen it"
        assert repository.find_batch(bystanders.deleted, or_deleted=True) is not None
    assert tables(pipeline) == before
