"""Examples of an organization: its directory, templates and webhooks; of the caller, and of the health."""

from collections.abc import Mapping

from pydantic import BaseModel

from schemas.api.directory import ActivityTypesResponse, ChaptersResponse, CoordinatorsResponse, MentorsResponse
from schemas.api.health import HealthResponse
from schemas.api.me import MeResponse
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
from schemas.examples.common import TIME, Json

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
    "changed_at": TIME,
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
    "created_at": TIME,
}
_WEBHOOK_CHANGE: Json = {
    "webhook_id": _WEBHOOK["webhook_id"],
    "change": "created",
    "because": None,
    "url": _WEBHOOK["url"],
    "events": _WEBHOOK["events"],
    "changed_by": "kari",
    "channel": "api",
    "changed_at": TIME,
}
_DELIVERY: Json = {
    "event_id": "5f0c5b1e-7a3d-5b0e-9d6c-3d7c1a1f7a10",
    "event_type": "BatchCompleted",
    "state": "pending",
    "created_at": TIME,
    "attempts": 1,
    "attempted_at": TIME,
    "next_attempt_at": "2026-03-26T10:00:05.000000Z",
    "problem": "status",
    "status": 500,
    "response": "Internal Server Error",
    "took_ms": 12,
}

EXAMPLES: Mapping[type[BaseModel], Json] = {
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
    NewWebhook: {"url": _WEBHOOK["url"], "events": _WEBHOOK["events"]},
    WebhookResponse: _WEBHOOK,
    WebhookWithSecretResponse: {**_WEBHOOK, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="},
    WebhooksResponse: {"data": [_WEBHOOK]},
    WebhookChangeResponse: _WEBHOOK_CHANGE,
    WebhookChangesResponse: {"data": [_WEBHOOK_CHANGE], "next_cursor": None},
    DeliveryResponse: _DELIVERY,
    DeliveriesResponse: {"data": [_DELIVERY], "next_cursor": None},
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
