"""A page of activities is read in the order of an index with every filter: nothing is sorted, however many activities there are. The history of
one is in its order, and of its organization."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import retry_failed_items
from orchestrator.registration.reading import ActivityReader
from orchestrator.storage.database import transact
from orchestrator.storage.statements import read_statements
from schemas.ids import DerivedIds
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, item, mentors
from tests.support.plans import without_indexes

_PAGE = read_statements("orchestrator/registration/sql/reading.sql")["page"].sql
_NOTHING: dict[str, Any] = dict.fromkeys(
    ("date_from", "date_to", "activity_type", "chapter_id", "coordinator_id", "mentor_id", "revoked", "after_date", "after_id")
)
_DAY = date(2026, 3, 25)


@pytest.mark.parametrize("after", [{}, {"after_date": _DAY, "after_id": UUID(int=1)}], ids=["first", "deep"])
@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "activity_by_date"),
        ({"date_from": _DAY, "date_to": _DAY}, "activity_by_date"),
        ({"activity_type": "visit"}, "activity_by_type"),
        ({"chapter_id": "chapter-1"}, "activity_by_chapter"),
        ({"coordinator_id": "coord-1"}, "activity_by_coordinator"),
        ({"mentor_id": "mentor-1"}, "activity_by_mentor"),
        ({"revoked": True}, "activity_revoked"),
        ({"revoked": False}, "activity_by_date"),
    ],
    ids=["none", "period", "type", "chapter", "coordinator", "mentor", "revoked", "live"],
)
def test_each_filter_has_an_index_in_the_order_of_the_page(
    pipeline: Pipeline, given: dict[str, Any], index: str, after: dict[str, Any]
) -> None:
    pipeline.submit(mentors(3))
    pipeline.drain()
    parameters = _NOTHING | given | after | {"organization_id": ORGANIZATION, "limit": 100}

    def plan(connection: Any) -> str:
        # PostgreSQL would read a small table completely, and sort it.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        connection.execute(text("SET LOCAL enable_sort = off"))
        return "\n".join(connection.execute(text(f"EXPLAIN {_PAGE}"), parameters).scalars())

    found = transact(pipeline.api, plan, organizations=[ORGANIZATION])
    assert "Sort" not in found, found
    assert f"using {index} on" in found, found


def test_the_history_of_an_activity_is_in_order_and_of_its_organization_wherever_its_rows_are(pipeline: Pipeline) -> None:
    """Other organizations have rows about the same activity. The role that reads here sees them."""
    batch_id = pipeline.submit([item("nobody", notes="a note")])
    pipeline.drain()
    for number in range(2):
        if number:
            with pipeline.engine.begin() as connection:
                connection.execute(
                    text("INSERT INTO registration.mentor VALUES (:o, 'nobody', 'N', 'chapter-1')"), {"o": ORGANIZATION}
                )
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
        pipeline.drain()
    assert erase(pipeline, batch_id)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET submitted_at = '2026-03-25T12:00:00Z'"))
        connection.execute(
            text("UPDATE orchestrator.item_history SET attempt_at = '2026-03-25T12:00:00Z', retried_at = attempt_at")
        )
        # The first attempt's row lies behind the other's.
        connection.execute(text("UPDATE orchestrator.item_history SET retried_at = '2026-03-25T12:00:00Z' WHERE attempt = 2"))
        connection.execute(text("UPDATE orchestrator.item_history SET retried_at = '2026-03-25T12:00:00Z' WHERE attempt = 1"))
        for table, column in (("audit", "submitted_by"), ("notes_erasure", "erased_by")):
            connection.execute(text(f"CREATE TEMP TABLE theirs ON COMMIT DROP AS SELECT * FROM registration.{table}"))
            connection.execute(text(f"UPDATE theirs SET organization_id = 'org-other', {column} = 'somebody'"))
            if table == "audit":
                connection.execute(text("UPDATE theirs SET audit_id = audit_id + 100"))
            else:
                connection.execute(text("UPDATE theirs SET attempt = attempt + 1"))
            connection.execute(text(f"INSERT INTO registration.{table} OVERRIDING SYSTEM VALUE SELECT * FROM theirs"))
            connection.execute(text("DROP TABLE theirs"))
    activity_id = UUID(str(DerivedIds(batch_id).activity_id(0)))
    with pipeline.engine.begin() as connection:
        without_indexes(connection)
        activities = ActivityReader(connection)
        assert activities.one("org-other", activity_id) is None
        activity = activities.one(ORGANIZATION, activity_id)
        assert activity is not None
        told = [(entry.kind, entry.attempt) for entry in activities.trail(activity)]
    assert told == [
        ("submitted", None),
        ("failed", 1),
        ("failed", 2),
        ("retried", 2),
        ("retried", 3),
        ("registered", None),
        ("notes_erased", None),
    ]
