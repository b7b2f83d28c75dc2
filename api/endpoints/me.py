"""The caller, as the API knows them."""

import math
from datetime import UTC, date, datetime
from typing import Any

from api.endpoints.calls import Call, Reply
from api.load.files import MAX_FILE_BYTES
from orchestrator.process.settings import Settings
from orchestrator.registration.rules import MAX_DURATION_MINUTES, MAX_REGISTRATION_NOTES_LENGTH
from schemas.fields import MAX_NOTES_LENGTH


def me(call: Call) -> Reply:
    """`GET /me`: who the caller is, in which organization, and what they can do there."""
    actor, settings = call.actor(), call.service.settings
    is_registered_here = settings.registration_url is None
    organization, name = call.service.database.directory(
        actor.organization_id, lambda directory: directory.organization(actor.organization_id, actor.subject)
    )
    body = {
        "subject": actor.subject,
        "name": name,
        "role": actor.role,
        "organization": organization,
        "limits": _limits(settings),
        "features": {"preview": is_registered_here, "revoke": is_registered_here or settings.registration_revokes},
        "session_ends_at": _time(call.identity.expires_at),
    }
    return Reply(200, body, {"Cache-Control": "no-store"})


def _limits(settings: Settings) -> dict[str, Any]:
    """The limits on a submission. An external registration service has rules of its own."""
    has_rules = settings.registration_url is None
    return {
        "max_items": settings.max_items,
        "max_batch_bytes": settings.max_batch_bytes,
        "max_file_bytes": MAX_FILE_BYTES,
        "max_notes_length": MAX_REGISTRATION_NOTES_LENGTH if has_rules else MAX_NOTES_LENGTH,
        "max_duration_minutes": MAX_DURATION_MINUTES if has_rules else None,
        "earliest_date": date(settings.earliest_activity_year, 1, 1) if has_rules else None,
    }


def _time(seconds: float) -> datetime | None:
    """The time of a token's end. There is none without authentication, nor for a time after the year 9999."""
    try:
        return None if math.isinf(seconds) else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        return None
