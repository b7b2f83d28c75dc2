"""What each operation on a batch writes, column by column, and that it leaves every other batch as it was.

Each test reads all rows of all tables before and after an operation, and compares them.
"""

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Actor, CorrectedItem, Idempotency, RetryRequest, Revocation, Role
from orchestrator.batches.operations import cancel_batch, delete_batch, dismiss_batch, relabel_batch, retry_failed_items
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.corrections import Correction
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from tests.support.changed_rows import Bystanders, clock, differences, finished, somebody, tables
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item
from tests.support.revoking import revoke


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


def test_erasure_of_notes(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """Of the last of three items. Another batch has such notes as well."""
    finished(pipeline)
    batch_id = finished(pipeline)
    before, began = tables(pipeline), clock(pipeline)
    with bystanders.untouched(batch_id):
        assert erase(pipeline, batch_id, 2)
    after = tables(pipeline)
    old, new = before.of("batch", batch_id), after.of("batch", batch_id)
    version = old["version"] + 1
    assert began < new["changed_at"] < clock(pipeline)
    assert differences(old, new) == {"version": version, "changed_at": new["changed_at"]}
    items = [differences(before.of("batch_item", batch_id, n), after.of("batch_item", batch_id, n)) for n in range(3)]
    assert items == [{}, {}, {"notes": None, "changed_version": version}]


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
