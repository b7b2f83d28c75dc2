"""An example of each body of the HTTP contract, for its documentation. The responses are those of docs/http.md, which a test compares with a
running product; other tests validate the rest against the models."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from schemas.api.activities import ActivitiesResponse, ActivitySummaryResponse, OneActivityResponse
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
from schemas.api.directory import ActivityTypesResponse, ChaptersResponse, CoordinatorsResponse, MentorsResponse
from schemas.api.files import ReadFileResponse
from schemas.api.forgetting import ForgettingResponse, MentorToForget
from schemas.api.health import HealthResponse
from schemas.api.items import OneItemResponse
from schemas.api.me import MeResponse
from schemas.api.periods import PeriodClosing, PeriodHistoryResponse, PeriodResponse
from schemas.api.previews import PreviewResponse
from schemas.api.receipts import CheckpointResponse, ConsistencyResponse, ReceiptKeysResponse, ReceiptResponse
from schemas.api.retries import RetriedResponse, Retry
from schemas.api.revocations import ActivityRevocation, BatchRevocation, RevokedActivityResponse, RevokedResponse
from schemas.api.submissions import ItemsSubmission, MentorsSubmission
from schemas.api.templates import NewTemplate, TemplateChange, TemplateResponse, TemplatesResponse
from schemas.api.webhooks import (
    DeliveriesResponse,
    DeliveryResponse,
    NewWebhook,
    WebhookChangeResponse,
    WebhookChangesResponse,
    WebhookResponse,
    WebhooksResponse,
    WebhookWithSecretResponse,
)
from schemas.mistakes import COORDINATOR_UNKNOWN, Mistake

Json = dict[str, Any]

BATCH_ID = "01a20651-14d3-7a55-8b41-6a1a3bd2c0f1"
ITEM_ID = "01a20651-14d3-8a55-8b41-6a1a3bd00002"
_TIME = "2026-03-26T10:00:00.000000Z"

_IDENTITY: Json = {"organization_id": "nordlys", "coordinator_id": "ingrid", "submitted_by": "ingrid"}
_VISIT: Json = {"activity_type": "hospital_visit", "activity_date": "2025-04-01"}
_INACTIVE: Json = {
    "code": "mentor_inactive",
    "message": "The mentor was not active on this date",
    "retryable": False,
    "field": "activity_date",
}

_ACCEPTED: Json = {
    "batch_id": BATCH_ID,
    **_IDENTITY,
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
    "submitted_at": _TIME,
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
    **_IDENTITY,
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
    "submitted_at": _TIME,
    "completed_at": _TIME,
}
_CANCELLED: Json = {
    "batch_id": "01a20651-14d3-7a55-8b41-6a1a3bd2c0f2",
    **_IDENTITY,
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
    "submitted_at": _TIME,
    "completed_at": _TIME,
    "cancelled_at": _TIME,
    "cancelled_by": "ingrid",
    "cancellation_reason": "Wrong week",
    "unresolved": 0,
}
_ITEMS: list[Json] = [
    {
        "item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00000",
        "position": 0,
        "mentor_id": "astrid-01",
        **_VISIT,
        "duration_minutes": 60,
        "status": "success",
        "attempt": 1,
        "activity_id": "01a20651-14d3-8a55-9b41-6a1a3bd00000",
    },
    {
        "item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00001",
        "position": 1,
        "mentor_id": "bjorn-02",
        **_VISIT,
        "duration_minutes": 45,
        "status": "success",
        "attempt": 1,
        "activity_id": "01a20651-14d3-8a55-9b41-6a1a3bd00001",
    },
    {
        "item_id": ITEM_ID,
        "position": 2,
        "mentor_id": "dag-04",
        **_VISIT,
        "duration_minutes": 60,
        "status": "failed",
        "attempt": 1,
        "client_reference": "row 4",
        "error": _INACTIVE,
    },
]
_CORRECTED: Json = {
    **_ITEMS[2],
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
                **_VISIT,
                "duration_minutes": 60,
                "notes": None,
                "override_duplicates": False,
            },
            "error": _INACTIVE,
            "attempted_at": _TIME,
            "correction": {"activity_date": "2024-12-16"},
            "retried_by": "ingrid",
            "retried_at": _TIME,
        }
    ],
}
del _CORRECTED["error"]

_TEMPLATE: Json = {
    "name": "Monday group",
    "mentor_ids": ["astrid-01", "bjorn-02", "eva-05"],
    "activity_type": "peer_session",
    "duration_minutes": 90,
    "weekday": 1,
}
_SAVED_TEMPLATE: Json = {
    "template_id": "01a20651-14d3-7a55-8b41-6a1a3bd2c0f3",
    "coordinator_id": "ingrid",
    **_TEMPLATE,
    "version": 1,
    "changed_at": _TIME,
}
_ACTIVITY: Json = {
    "activity_id": _ITEMS[0]["activity_id"],
    "mentor_id": "astrid-01",
    "coordinator_id": "ingrid",
    "chapter_id": "bergen",
    "activity_type": "hospital_visit",
    "activity_date": "2025-04-01",
    "duration_minutes": 60,
    "overrides_duplicate": False,
    "registered_at": _TIME,
    "revoked_at": None,
    "revoked_by": None,
    "revocation_reason": None,
    "batch_id": BATCH_ID,
    "item_id": _ITEMS[0]["item_id"],
}

_WEBHOOK: Json = {
    "webhook_id": "01a20651-14d3-7a55-8b41-6a1a3bd2c0f3",
    "url": "https://attendance.example.org/bulk-registration",
    "events": ["BatchCompleted", "ActivitiesRevoked"],
    "enabled": True,
    "disabled_at": None,
    "disabled_because": None,
    "failing_since": None,
    "previous_secret_until": None,
    "created_by": "kari",
    "created_at": _TIME,
}
_WEBHOOK_CHANGE: Json = {
    "webhook_id": _WEBHOOK["webhook_id"],
    "change": "created",
    "because": None,
    "url": _WEBHOOK["url"],
    "events": _WEBHOOK["events"],
    "changed_by": "kari",
    "channel": "api",
    "changed_at": _TIME,
}
_DELIVERY: Json = {
    "event_id": "5f0c5b1e-7a3d-5b0e-9d6c-3d7c1a1f7a10",
    "event_type": "BatchCompleted",
    "state": "pending",
    "created_at": _TIME,
    "attempts": 1,
    "attempted_at": _TIME,
    "next_attempt_at": "2026-03-26T10:00:05.000000Z",
    "problem": "status",
    "status": 500,
    "response": "Internal Server Error",
    "took_ms": 12,
}

_RECEIPT_KEY = "bulkreg.example.org+35c29a48+AUvq3isjNDC5cYuqzs8P4FHLIqILbXmlqfxa2HOI4vc8"
_CHECKPOINT = (
    "bulkreg.example.org/nordlys\n2\nikxeT8poRMIAFF37mm3NsPSGpZkGjcWPz3ycJmk0gDg=\n\n"
    "— bulkreg.example.org NcKaSGHTfeEg3K9u748wBxbHWrh8T11lE7ySjtTpSyTCyP8qDsSpPK8dKTyziVpdfLNocztWJrpf0MrKU3k1bO+PNgY=\n"
)

EXAMPLES: Mapping[type[BaseModel], Json] = {
    ItemsSubmission: {
        "label": "Tuesday visits",
        "items": [
            {"mentor_id": "astrid-01", **_VISIT, "duration_minutes": 60},
            {"mentor_id": "bjorn-02", **_VISIT, "duration_minutes": 45, "notes": "Two patients"},
            {"mentor_id": "dag-04", **_VISIT, "duration_minutes": 60, "client_reference": "row 4"},
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
    BatchWithItemsResponse: {**_FINISHED, "items": _ITEMS, "next_item_cursor": None},
    BatchEvent: {**_RUNNING, "items": [_ITEMS[0], _ITEMS[2]], "full": False},
    UpdatedResponse: {**_FINISHED, "label": "Visits, week 14"},
    RetriedResponse: {**_ACCEPTED, "pending": 1, "completed": 2, "retried": 1},
    CancelledResponse: _CANCELLED,
    BatchRevocation: {"reason": "Wrong date"},
    RevokedResponse: {
        "batch_id": "01a20651-14d3-7a55-8b41-6a1a3bd2c0f3",
        "organization_id": "nordlys",
        "coordinator_id": "ingrid",
        "submitted_by": "ingrid",
        "label": None,
        "status": "completed",
        "total_items": 2,
        "pending": 0,
        "completed": 2,
        "failed": 0,
        "cancelled": 0,
        "revoked": 2,
        "errors_by_code": {},
        "needs_attention": False,
        "submitted_at": _TIME,
        "completed_at": _TIME,
        "total_revoked": 2,
        "already_revoked": 0,
        "unresolved": 0,
        "kept": [],
    },
    PeriodClosing: {"closed_through": "2025-12-31", "reason": "The report for 2025 is sent"},
    PeriodResponse: {"closed_through": "2025-12-31", "version": 1, "unresolved": 0},
    ReceiptResponse: {
        "version": 1,
        "checkpoint": _CHECKPOINT,
        "keys": [_RECEIPT_KEY],
        "items": [
            {
                "item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00000",
                "index": 1,
                "leaf": {
                    "change": "registered",
                    "activity_id": "01a20651-14d3-8a55-9b41-6a1a3bd00000",
                    "organization_id": "nordlys",
                    "mentor": "b28fcbf9092f12e50d088b6da79102644110ee0e465f087967de324a858ee9a1",
                    "activity_type": "hospital_visit",
                    "activity_date": "2025-04-01",
                    "duration_minutes": 60,
                    "by": "5a150c04bc611bb4f9a654d0278a23a5da4845200f6eac0d0052aadba629fd60",
                    "at": "2026-03-26T10:00:00.214000Z",
                    "batch_id": "01a20651-14d3-7a55-8b41-6a1a3bd2c0f1",
                    "item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00000",
                    "attempt": 1,
                },
                "proof": ["j4yA15rduCa4VJoJ4AXvfMXQLWh0Gba5nYgWcxGuWak="],
                "people": {
                    "mentor": {"id": "astrid-01", "salt": "MmG0qPvlS0fAEJscxxqctbqkx7xT5vhDanvXV6c6jVk="},
                    "by": {"id": "ingrid", "salt": "w6aoUw27R4+3CmyoxyY6lLoLCMqNaulnnJys0DZj7HQ="},
                },
            }
        ],
    },
    CheckpointResponse: {"checkpoint": _CHECKPOINT},
    ConsistencyResponse: {
        "origin": "bulkreg.example.org/nordlys",
        "from": 1,
        "to": 2,
        "from_root": "j4yA15rduCa4VJoJ4AXvfMXQLWh0Gba5nYgWcxGuWak=",
        "to_root": "ikxeT8poRMIAFF37mm3NsPSGpZkGjcWPz3ycJmk0gDg=",
        "proof": ["+1XusmfktZojBYWMcFhka/bEM++FvoPDIjKLz4LAeVQ="],
    },
    ReceiptKeysResponse: {"keys": [{"key": _RECEIPT_KEY, "current": True}]},
    PeriodHistoryResponse: {
        "closed_through": "2025-12-31",
        "version": 1,
        "unresolved": 0,
        "history": [
            {
                "version": 1,
                "closed_through": "2025-12-31",
                "previously": None,
                "reason": "The report for 2025 is sent",
                "changed_by": "styret",
                "channel": "api",
                "changed_at": _TIME,
            }
        ],
        "next_cursor": None,
    },
    ActivityRevocation: {"reason": "Wrong mentor"},
    ActivitiesResponse: {"data": [_ACTIVITY], "next_cursor": None},
    OneActivityResponse: {
        **_ACTIVITY,
        "history": [
            {"at": _TIME, "kind": "submitted", "by": "ingrid", "channel": "api"},
            {"at": _TIME, "kind": "registered", "by": "ingrid", "channel": "api"},
        ],
    },
    ActivitySummaryResponse: {
        "groups": [
            {
                "activity_type": "hospital_visit",
                "month": "2025-04",
                "live": {"activities": 2, "minutes": 120},
                "revoked": {"activities": 1, "minutes": 60},
            }
        ],
        "live": {"activities": 2, "minutes": 120},
        "revoked": {"activities": 1, "minutes": 60},
    },
    RevokedActivityResponse: {
        "activity_id": _ITEMS[0]["activity_id"],
        "batch_id": BATCH_ID,
        "item_id": _ITEMS[0]["item_id"],
        "revoked": 1,
        "already_revoked": 0,
        "revoked_at": _TIME,
        "revoked_by": "ingrid",
        "revocation_reason": "Wrong mentor",
    },
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
    MeResponse: {
        "subject": "ingrid",
        "name": "Ingrid Solvang",
        "role": "coordinator",
        "organization": {
            "organization_id": "nordlys",
            "name": "Nordlys likepersonforening",
            "time_zone": "Europe/Oslo",
            "today": "2026-03-26",
            "closed_through": None,
        },
        "limits": {
            "max_items": 10000,
            "max_batch_bytes": 16777216,
            "max_file_bytes": 10485760,
            "max_notes_length": 2000,
            "max_duration_minutes": 1440,
            "earliest_date": "1990-01-01",
        },
        "features": {"preview": True, "revoke": True},
        "session_ends_at": "2026-03-26T22:00:00Z",
    },
    NewTemplate: _TEMPLATE,
    TemplateChange: {**_TEMPLATE, "duration_minutes": 60},
    TemplateResponse: _SAVED_TEMPLATE,
    TemplatesResponse: {"data": [_SAVED_TEMPLATE], "next_cursor": None},
    MentorToForget: {"mentor_id": "mentor-17"},
    ForgettingResponse: {
        "forgetting_id": "01997f3c-2f4e-7b1a-8e35-0c2f9d1b6a77",
        "state": "done",
        "pseudonym": "forgotten-5f0c9a7e2b41d683c90e",
        "requested_by": "admin-1",
        "requested_at": "2026-03-26T10:00:00.000000Z",
        "changed_rows": 41,
        "done_at": "2026-03-26T10:00:07.000000Z",
    },
    NewWebhook: {"url": _WEBHOOK["url"], "events": _WEBHOOK["events"]},
    WebhookResponse: _WEBHOOK,
    WebhookWithSecretResponse: {**_WEBHOOK, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="},
    WebhooksResponse: {"data": [_WEBHOOK]},
    WebhookChangeResponse: _WEBHOOK_CHANGE,
    WebhookChangesResponse: {"data": [_WEBHOOK_CHANGE], "next_cursor": None},
    DeliveryResponse: _DELIVERY,
    DeliveriesResponse: {"data": [_DELIVERY], "next_cursor": None},
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
    MentorsResponse: {
        "data": [
            {
                "mentor_id": "bjorn-02",
                "name": "Bjørn Haugen",
                "chapter_id": "bergen",
                "active_from": "2020-08-15",
                "active_until": None,
                "active": True,
            }
        ],
        "next_cursor": None,
    },
    ChaptersResponse: {"data": [{"chapter_id": "bergen", "name": "Bergen og omegn"}], "next_cursor": None},
    ActivityTypesResponse: {
        "data": [{"activity_type": "hospital_visit", "name": "Sykehusbesøk", "default_minutes": 60, "minimum_minutes": None}],
        "next_cursor": "aG9zcGl0YWxfdmlzaXQ=",
    },
    CoordinatorsResponse: {
        "data": [{"coordinator_id": "ingrid", "name": "Ingrid Solvang", "role": "coordinator"}],
        "next_cursor": None,
    },
    HealthResponse: {"status": "ok", "checks": {"database": {"ok": True}}},
}

# The mistakes in the examples of problems, by code.
MISTAKES: Mapping[str, Sequence[Mistake]] = {
    "invalid_request": [
        Mistake("/items/0/activity_date", "not_a_date", "must be a valid date, like 2026-03-25"),
        Mistake("/items/1/mentor_id", "empty", "must not be empty"),
        Mistake("/items/1/duration_minutes", "wrong_type", "must be an integer"),
    ],
    "coordinator_unknown": [COORDINATOR_UNKNOWN],
    "organization_required": [Mistake("/organization_id", "organization_required", "The token is for several organizations.")],
    "organization_differs": [Mistake("/organization_id", "organization_differs", "Two organizations are named.")],
}
MEMBERS: Mapping[str, Json] = {
    "plan_changed": {
        "differences": [{"position": 0, "mentor_id": "cecilie-03", "planned": "success", "now": "duplicate_activity"}]
    },
}

# Examples that are not JSON, by operation. They show the first item of the batch.
TEXTS: Mapping[str, str] = {
    "readFile": "Navn;Dato;Minutter;Rom\nAstrid Moe;25.03.2026;60;4\nBjørn Haugen;25/03/2026;1,5 h;4\n",
    "downloadCsv": (
        '"position","item_id","client_reference","mentor_id","activity_type","activity_date","duration_minutes","status","attempt",'
        '"activity_id","error_code","error_message","error_field","conflicting_activity_id",'
        '"revoked_at","revoked_by","revocation_reason"\r\n'
        '0,"01a20651-14d3-8a55-8b41-6a1a3bd00000","","astrid-01","hospital_visit","2025-04-01",60,"success",1,'
        '"01a20651-14d3-8a55-9b41-6a1a3bd00000","","","","","","",""\r\n'
    ),
    "downloadNdjson": f"{json.dumps(_ITEMS[0])}\n",
    "downloadActivitiesCsv": (
        '"activity_id","mentor_id","coordinator_id","chapter_id","activity_type","activity_date","duration_minutes","overrides_duplicate",'
        '"registered_at","revoked_at","revoked_by","revocation_reason","batch_id","item_id"\r\n'
        f'"{_ACTIVITY["activity_id"]}","astrid-01","ingrid","bergen","hospital_visit","2025-04-01",60,"false","{_TIME}","","","",'
        f'"{BATCH_ID}","{_ACTIVITY["item_id"]}"\r\n'
    ),
    "downloadActivitiesNdjson": f"{json.dumps(_ACTIVITY)}\n",
    "followBatch": f"retry: 2000\n\nid: 3\nevent: batch\ndata: {json.dumps(EXAMPLES[BatchEvent])}\n\n",
}
