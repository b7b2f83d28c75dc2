"""What a submission, a batch in parts, a rejection and the purge write, column by column, and that they leave every other batch as it was.

Each test reads all rows of all tables before and after an operation, and compares them.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.model import Actor, Idempotency, NewBatch, NewItem, RetryRequest, Role
from orchestrator.batches.operations import delete_batch, relabel_batch, retry_failed_items, submit_bulk_registration
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.purging import purge_batches
from schemas.envelope import Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.changed_rows import Bystanders, Row, clock, differences, finished, tables
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item
from tests.support.sweeping import purge
from tests.support.upstream import SOURCE, TRACE, in_parts, submitted, upstream_item


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
        assert purge(Purger(policy), pipeline.engine).items == 3
    tombstone = tables(pipeline).of("tombstone", batch_id)
    assert (tombstone["organization_id"], tombstone["content_hash"]) == (ORGANIZATION, before["content_hash"])


def test_only_a_deleted_batch_can_be_purged(pipeline: Pipeline, bystanders: Bystanders) -> None:
    others = [bystanders.failed, bystanders.cancelled, bystanders.unfolded, bystanders.pending, bystanders.collecting]
    before = tables(pipeline)
    with pipeline.engine.begin() as connection:
        assert purge_batches(connection, [str(batch_id) for batch_id in others], max_items=100) == (0, 0)
    assert tables(pipeline) == before
