"""Parts of the API by themselves: tags, and views as JSON."""

from dataclasses import replace
from typing import Any

import pytest

from api.endpoints import presentation
from api.http.etag import query_hash
from api.load.watching import is_settled
from orchestrator.batches.model import (
    AttemptView,
    BatchPage,
    ItemError,
    ItemValues,
    ItemView,
    KeptItem,
    Revocation,
    Revoked,
    RevokedActivity,
    StatusView,
)
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from schemas.api.batches import OneBatchQuery
from schemas.statuses import KeptBecause
from tests.support.api_parts import ACTIVITY_ID, BATCH_ID, ITEM_ID, VIEW, moment

# --- Tags -----------------------------------------------------------------------------------------------------------------------------

QUERIES: list[dict[str, Any]] = [
    {},
    {"item_limit": 7},
    {"items": "failed"},
    {"items": "success"},
    {"item_cursor": "7"},
    {"item_cursor": "8"},
    {"names": "true"},
]


def test_a_tag_depends_on_every_field_of_the_query_but_the_wait() -> None:
    assert {name for query in QUERIES for name in query} | {"wait"} == OneBatchQuery.model_fields.keys()
    assert len({query_hash(OneBatchQuery(**query).model_dump(exclude={"wait"})) for query in QUERIES}) == len(QUERIES)


# --- Views as JSON --------------------------------------------------------------------------------------------------------------------

SHOWN = {
    "batch_id": BATCH_ID,
    "organization_id": "the-organization",
    "coordinator_id": "the-coordinator",
    "submitted_by": "the-sender",
    "label": "the label",
    "status": "cancelled",
    "total_items": 10,
    "pending": 1,
    "completed": 2,
    "failed": 3,
    "cancelled": 4,
    "revoked": 11,
    "errors_by_code": {"mentor_not_found": 3},
    "needs_attention": False,
    "submitted_at": moment(1),
    "completed_at": moment(3),
    "cancelled_at": moment(4),
    "cancelled_by": "the-canceller",
    "cancellation_reason": "the reason",
}


def test_each_field_of_a_batch_has_its_own_place() -> None:
    assert presentation.batch(VIEW) == SHOWN
    running = replace(
        VIEW, status=BatchStatus.PROCESSING, completed_at=None, cancelled_at=None, cancelled_by=None, cancellation_reason=None
    )
    absent = {"completed_at", "cancelled_at", "cancelled_by", "cancellation_reason"}
    expected = {name: value for name, value in SHOWN.items() if name not in absent}
    of_running = {"status": "processing", "needs_attention": True, "progress": running.progress}
    assert presentation.batch(running) == expected | of_running
    page = presentation.batches(BatchPage([VIEW], 12, None), number=3, limit=4, next_cursor="there")
    assert page == {"data": [SHOWN], "pagination": {"page": 3, "limit": 4, "total": 12, "next_cursor": "there"}}


ITEM = ItemView(
    ITEM_ID,
    8,
    ItemValues("the-mentor", "the-type", moment(6).date(), 45, "a note", True),
    "the reference",
    ItemStatus.FAILED,
    2,
    ACTIVITY_ID,
    ItemError("x", "an x", retryable=True, field="notes", conflicting_activity_id="another"),
    "success",
    Revocation(moment(9), "the-revoker", "the mistake"),
    "the-request",
)
SHOWN_ITEM = {
    "item_id": ITEM_ID,
    "position": 8,
    "mentor_id": "the-mentor",
    "activity_type": "the-type",
    "activity_date": moment(6).date(),
    "duration_minutes": 45,
    "status": "failed",
    "attempt": 2,
    "client_reference": "the reference",
    "activity_id": ACTIVITY_ID,
    "error": {
        "code": "x",
        "message": "an x",
        "retryable": True,
        "field": "notes",
        "conflicting_activity_id": "another",
    },
    "revoked_at": moment(9),
    "revoked_by": "the-revoker",
    "revocation_reason": "the mistake",
    "revocation_request": "the-request",
    "plan_changed": True,
}
REVOKED = {name: SHOWN_ITEM[name] for name in ("revoked_at", "revoked_by", "revocation_reason")}


def test_each_field_of_an_item_has_its_own_place() -> None:
    assert presentation.item(ITEM) == SHOWN_ITEM
    bare = replace(
        ITEM, client_reference=None, activity_id=None, error=None, planned=None, revocation=None, revocation_request=None
    )
    absent = {"client_reference", "activity_id", "error", "plan_changed", "revocation_request", *REVOKED}
    assert presentation.item(bare) == {name: value for name, value in SHOWN_ITEM.items() if name not in absent}
    attempt = AttemptView(
        1, {"mentor_id": "m"}, ItemError("y", "a y", retryable=False), moment(7), {"mentor_id": "n"}, "somebody", moment(8)
    )
    assert presentation.one_item(ITEM, [attempt]) == SHOWN_ITEM | {
        "notes": "a note",
        "override_duplicates": True,
        "history": [
            {
                "attempt": 1,
                "submitted": {"mentor_id": "m"},
                "error": {"code": "y", "message": "a y", "retryable": False},
                "attempted_at": moment(7),
                "correction": {"mentor_id": "n"},
                "retried_by": "somebody",
                "retried_at": moment(8),
            }
        ],
    }
    for after, cursor in ((None, None), (0, "0"), (8, "8")):
        assert presentation.batch_with_items(StatusView(VIEW, [ITEM], after)) == SHOWN | {
            "items": [SHOWN_ITEM],
            "next_item_cursor": cursor,
        }


def test_the_result_of_a_revocation_is_shown() -> None:
    result = Revoked(VIEW, revoked=2, already_revoked=3, kept=[KeptItem(ITEM_ID, KeptBecause.WINDOW_OVER)], unresolved=4)
    assert presentation.revoked(result) == SHOWN | {
        "revoked": 2,
        "total_revoked": 11,
        "already_revoked": 3,
        "unresolved": 4,
        "kept": [{"item_id": ITEM_ID, "code": "revocation_window_over"}],
    }
    assert ITEM.revocation is not None
    for before, counted in ((False, (1, 0)), (True, (0, 1))):
        shown = presentation.revoked_activity(RevokedActivity(ACTIVITY_ID, BATCH_ID, ITEM_ID, ITEM.revocation, before))
        assert shown == REVOKED | {
            "activity_id": ACTIVITY_ID,
            "batch_id": BATCH_ID,
            "item_id": ITEM_ID,
            "revoked": counted[0],
            "already_revoked": counted[1],
        }


@pytest.mark.parametrize(
    ("status", "pending", "settled"),
    [
        (BatchStatus.PENDING, 1, False),
        (BatchStatus.PROCESSING, 1, False),
        (BatchStatus.PROCESSING, 0, False),
        (BatchStatus.COMPLETED, 0, True),
        (BatchStatus.PARTIAL, 0, True),
        (BatchStatus.FAILED, 0, True),
        (BatchStatus.CANCELLED, 0, True),
        (BatchStatus.CANCELLED, 1, False),
    ],
)
def test_a_batch_is_settled_when_no_item_is_pending(status: BatchStatus, pending: int, settled: bool) -> None:
    assert is_settled(replace(VIEW, status=status, counts=Counts(pending, 1, 1, 1))) is settled
