"""Row 59 of the fault catalogue: the audit is append-only, and names the record that each row is about."""

from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.operations import retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import sqlstate
from schemas.ids import DerivedIds
from tests.support.pipeline import ADMIN, DAY, Pipeline, item
from tests.support.revoking import revoke, revoke_one

INSUFFICIENT_PRIVILEGE = "42501"


def audit(pipeline: Pipeline) -> list[dict[str, Any]]:
    with pipeline.engine.begin() as connection:
        return [dict(row) for row in connection.execute(text("SELECT * FROM registration.audit ORDER BY audit_id")).mappings()]


@pytest.mark.parametrize("role", ["owner", "worker", "api"])
@pytest.mark.parametrize(
    "change",
    ["UPDATE registration.audit SET reason = 'another'", "DELETE FROM registration.audit", "TRUNCATE registration.audit"],
    ids=["update", "delete", "truncate"],
)
def test_row_59_nobody_can_change_or_remove_an_audit_row(pipeline: Pipeline, settings: Settings, role: str, change: str) -> None:
    pipeline.submit([item("mentor-1")])
    pipeline.drain()
    before = audit(pipeline)
    engine = create_engine({"owner": settings.owner_url, "worker": settings.worker_url, "api": settings.api_url}[role])
    with pytest.raises(DBAPIError) as refused, engine.begin() as connection:
        connection.execute(text(change))
    engine.dispose()
    assert sqlstate(refused.value) == INSUFFICIENT_PRIVILEGE
    assert audit(pipeline) == before
    assert len(before) == 1


def test_each_row_names_its_record(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("mentor-2")])
    pipeline.drain()
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(1)])
    told = [
        (row["action"], row["item_id"], row["activity_type"], row["activity_date"], row["duration_minutes"], row["attempt"])
        for row in audit(pipeline)
    ]
    record = ("visit", DAY, 60, 1)
    # One statement registers both, in the order of its plan.
    assert sorted(told) == [
        ("registered", ids.item_id(0), *record),
        ("registered", ids.item_id(1), *record),
        ("revoked", ids.item_id(1), *record),
    ]


def test_the_attempt_of_a_purged_item_comes_from_its_registrations_row(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.drain()
    corrections = [CorrectedItem(DerivedIds(batch_id).item_id(1), {"mentor_id": "mentor-2"})]
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=corrections))
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        for table in ("batch_item", "outcome", "batch_part", "batch"):
            connection.execute(text(f"DELETE FROM orchestrator.{table}"))
    for registered in audit(pipeline):
        revoke_one(pipeline, registered["activity_id"])
    assert [row["attempt"] for row in audit(pipeline)] == [1, 2, 1, 2]
