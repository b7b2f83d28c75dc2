"""Examples of batches, their items, and files with lists."""

from collections.abc import Mapping

from pydantic import BaseModel

from schemas.api.batches import (
    BatchesResponse,
    BatchEvent,
    BatchResponse,
    BatchWithItemsResponse,
    Cancellation,
    CancelledResponse,
    CancellingUpdate,
    Relabelling,
    TicketResponse,
    UpdatedResponse,
)
from schemas.api.files import ReadFileResponse
from schemas.api.items import OneItemResponse
from schemas.api.previews import PreviewResponse
from schemas.api.retries import RetriedResponse, Retry
from schemas.api.submissions import ItemsSubmission, MentorsSubmission
from schemas.examples.common import BATCH_ID, IDENTITY, ITEM_ID, TIME, VISIT, Json

_INACTIVE: Json = {
    "code": "mentor_inactive",
    "message": "The mentor was not active on this date",
    "retryable": False,
    "field": "activity_date",
}
_ACCEPTED: Json = {
    "batch_id": BATCH_ID,
    **IDENTITY,
    "label": "Tuesday visits",
    "status": "processing",
    "total_items": 3,
    "pending": 3,
    "completed": 0,
    "failed": 0,
    "cancelled": 0,
    "revoked": 0,
    "errors_by_code": {},
    "needs_attention": False,
    "progress": None,
    "submitted_at": TIME,
}
_RUNNING: Json = {
    **_ACCEPTED,
    "pending": 1,
    "completed": 1,
    "failed": 1,
    "errors_by_code": {"mentor_inactive": 1},
    "needs_attention": True,
    "progress": {"percent": 66.6, "items_per_second": 20.0, "estimated_completion_at": "2026-03-26T10:00:00.150000Z"},
}
_FINISHED: Json = {
    "batch_id": BATCH_ID,
    **IDENTITY,
    "label": "Tuesday visits",
    "status": "partial",
    "total_items": 3,
    "pending": 0,
    "completed": 2,
    "failed": 1,
    "cancelled": 0,
    "revoked": 0,
    "errors_by_code": {"mentor_inactive": 1},
    "needs_attention": True,
    "submitted_at": TIME,
    "completed_at": TIME,
}
_CANCELLED: Json = {
    "batch_id": "01a20651-14d3-7a55-8b41-6a1a3bd2c0f2",
    **IDENTITY,
    "label": None,
    "status": "cancelled",
    "total_items": 2,
    "pending": 0,
    "completed": 0,
    "failed": 0,
    "cancelled": 2,
    "revoked": 0,
    "errors_by_code": {},
    "needs_attention": False,
    "submitted_at": TIME,
    "completed_at": TIME,
    "cancelled_at": TIME,
    "cancelled_by": "ingrid",
    "cancellation_reason": "Wrong week",
    "unresolved": 0,
}
ITEMS: list[Json] = [
    {
        "item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00000",
        "position": 0,
        "mentor_id": "astrid-01",
        **VISIT,
        "duration_minutes": 60,
        "status": "success",
        "attempt": 1,
        "activity_id": "01a20651-14d3-8a55-9b41-6a1a3bd00000",
    },
    {
        "item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00001",
        "position": 1,
        "mentor_id": "bjorn-02",
        **VISIT,
        "duration_minutes": 45,
        "status": "success",
        "attempt": 1,
        "activity_id": "01a20651-14d3-8a55-9b41-6a1a3bd00001",
    },
    {
        "item_id": ITEM_ID,
        "position": 2,
        "mentor_id": "dag-04",
        **VISIT,
        "duration_minutes": 60,
        "status": "failed",
        "attempt": 1,
        "client_reference": "row 4",
        "error": _INACTIVE,
    },
]
_CORRECTED: Json = {
    **ITEMS[2],
    "activity_date": "2024-12-16",
    "mentor_name": "Dag Nesse",
    "activity_type_name": "Sykehusbesøk",
    "status": "success",
    "attempt": 2,
    "activity_id": "01a20651-14d3-8a55-9b41-6a1a3bd00002",
    "notes": None,
    "override_duplicates": False,
    "history": [
        {
            "attempt": 1,
            "submitted": {
                "mentor_id": "dag-04",
                **VISIT,
                "duration_minutes": 60,
                "notes": None,
                "override_duplicates": False,
            },
            "error": _INACTIVE,
            "attempted_at": TIME,
            "correction": {"activity_date": "2024-12-16"},
            "retried_by": "ingrid",
            "retried_at": TIME,
        }
    ],
}
del _CORRECTED["error"]

EXAMPLES: Mapping[type[BaseModel], Json] = {
    ItemsSubmission: {
        "label": "Tuesday visits",
        "items": [
            {"mentor_id": "astrid-01", **VISIT, "duration_minutes": 60},
            {"mentor_id": "bjorn-02", **VISIT, "duration_minutes": 45, "notes": "Two patients"},
            {"mentor_id": "dag-04", **VISIT, "duration_minutes": 60, "client_reference": "row 4"},
        ],
    },
    MentorsSubmission: {
        "mentor_ids": ["eva-05", "grete-07"],
        "activity": {"activity_type": "training", "activity_date": "2025-04-02", "duration_minutes": 90},
    },
    Relabelling: {"label": "Visits, week 14"},
    CancellingUpdate: {"status": "cancelled", "cancellation_reason": "Wrong week"},
    Cancellation: {"cancellation_reason": "Wrong week"},
    Retry: {"corrections": [{"item_id": ITEM_ID, "activity_date": "2024-12-16"}]},
    BatchResponse: _ACCEPTED,
    BatchesResponse: {"data": [_FINISHED], "pagination": {"page": 1, "limit": 20, "total": 1, "next_cursor": None}},
    BatchWithItemsResponse: {**_FINISHED, "items": ITEMS, "next_item_cursor": None},
    BatchEvent: {**_RUNNING, "items": [ITEMS[0], ITEMS[2]], "full": False},
    UpdatedResponse: {**_FINISHED, "label": "Visits, week 14"},
    RetriedResponse: {**_ACCEPTED, "pending": 1, "completed": 2, "retried": 1},
    CancelledResponse: _CANCELLED,
    OneItemResponse: _CORRECTED,
    PreviewResponse: {
        "plan": "…",
        "items": [
            {
                "position": 0,
                "mentor_id": "cecilie-03",
                "mentor_name": "Cecilie Vik",
                "activity_type_name": "Opplæring",
                "outcome": "success",
            },
            {
                "position": 1,
                "mentor_id": "kari-11",
                "mentor_name": None,
                "activity_type_name": "Opplæring",
                "outcome": "failed",
                "error": {
                    "code": "out_of_scope",
                    "message": "The coordinator may not register for this mentor",
                    "retryable": False,
                    "field": "mentor_id",
                },
            },
        ],
        "counts": {"success": 1, "failed": 1},
    },
    TicketResponse: {"ticket": "…", "expires_at": "2026-03-26T10:01:00.000000Z"},
    ReadFileResponse: {
        "items": [
            {
                "row": 2,
                "client_reference": "row 2",
                "mentor_name": "Astrid Moe",
                "activity_date": "2026-03-25",
                "duration_minutes": 60,
            },
            {"row": 3, "client_reference": "row 3", "mentor_name": "Bjørn Haugen", "duration_minutes": 90},
        ],
        "mistakes": [
            {
                "row": 3,
                "column": "Dato",
                "field": "activity_date",
                "code": "slashes",
                "detail": "has slashes, which some read as day/month and others as month/day; write 2026-03-25 or 25.03.2026 instead",
                "value": "25/03/2026",
            }
        ],
        "ignored_columns": ["Rom"],
        "remarks": [],
    },
}
