"""A page of activities is read in the order of an index with every filter: nothing is sorted, however many activities there are."""

from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from orchestrator.storage.database import transact
from orchestrator.storage.statements import read_statements
from tests.support.pipeline import ORGANIZATION, Pipeline, mentors

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
