"""Examples of activities, and what an auditor reads about them."""

from collections.abc import Mapping

from pydantic import BaseModel

from schemas.api.activities import ActivitiesResponse, ActivitySummaryResponse, OneActivityResponse
from schemas.api.forgetting import ForgettingResponse, MentorToForget
from schemas.api.periods import PeriodClosing, PeriodHistoryResponse, PeriodResponse
from schemas.api.receipts import CheckpointResponse, ConsistencyResponse, ReceiptKeysResponse, ReceiptResponse
from schemas.api.revocations import ActivityRevocation, BatchRevocation, RevokedActivityResponse, RevokedResponse
from schemas.examples.batches import ITEMS
from schemas.examples.common import BATCH_ID, TIME, Json

ACTIVITY: Json = {
    "activity_id": ITEMS[0]["activity_id"],
    "mentor_id": "astrid-01",
    "coordinator_id": "ingrid",
    "chapter_id": "bergen",
    "activity_type": "hospital_visit",
    "activity_date": "2025-04-01",
    "duration_minutes": 60,
    "overrides_duplicate": False,
    "registered_at": TIME,
    "revoked_at": None,
    "revoked_by": None,
    "revocation_reason": None,
    "batch_id": BATCH_ID,
    "item_id": ITEMS[0]["item_id"],
}
_RECEIPT_KEY = "bulkreg.example.org+35c29a48+AUvq3isjNDC5cYuqzs8P4FHLIqILbXmlqfxa2HOI4vc8"
_CHECKPOINT = (
    "bulkreg.example.org/nordlys\n2\nikxeT8poRMIAFF37mm3NsPSGpZkGjcWPz3ycJmk0gDg=\n\n"
    "— bulkreg.example.org NcKaSGHTfeEg3K9u748wBxbHWrh8T11lE7ySjtTpSyTCyP8qDsSpPK8dKTyziVpdfLNocztWJrpf0MrKU3k1bO+PNgY=\n"
)

EXAMPLES: Mapping[type[BaseModel], Json] = {
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
        "submitted_at": TIME,
        "completed_at": TIME,
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
                "changed_at": TIME,
            }
        ],
        "next_cursor": None,
    },
    ActivityRevocation: {"reason": "Wrong mentor"},
    ActivitiesResponse: {"data": [ACTIVITY], "next_cursor": None},
    OneActivityResponse: {
        **ACTIVITY,
        "history": [
            {"at": TIME, "kind": "submitted", "by": "ingrid", "channel": "api"},
            {"at": TIME, "kind": "registered", "by": "ingrid", "channel": "api"},
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
        "activity_id": ITEMS[0]["activity_id"],
        "batch_id": BATCH_ID,
        "item_id": ITEMS[0]["item_id"],
        "revoked": 1,
        "already_revoked": 0,
        "revoked_at": TIME,
        "revoked_by": "ingrid",
        "revocation_reason": "Wrong mentor",
    },
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
}
