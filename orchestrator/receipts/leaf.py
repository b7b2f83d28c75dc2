"""Leaves: one registration or revocation of a record, as the log keeps it. A leaf names no person and has no notes."""

import hashlib
import hmac
from datetime import UTC, date, datetime
from typing import Literal
from uuid import UUID

from orchestrator.receipts.canonical import canonical_json
from schemas.api.receipts import LeafResponse

SALT_SIZE = 32


def person_hash(salt: bytes, person_id: str) -> str:
    """How a leaf writes a person: without the salt, nobody can tell who it is."""
    return hmac.digest(salt, person_id.encode(), hashlib.sha256).hex()


def leaf(
    *,
    change: Literal["registered", "revoked"],
    activity_id: UUID,
    organization_id: str,
    mentor: str,
    activity_type: str,
    activity_date: date,
    duration_minutes: int,
    by: str,
    at: datetime,
    batch_id: UUID,
    item_id: UUID,
    attempt: int | None,
    before_log: bool = False,
) -> LeafResponse:
    """A leaf. `mentor` and `by` are hashes (`person_hash`). The attempt of an old record may be unknown."""
    return LeafResponse(
        change=change,
        activity_id=str(activity_id),
        organization_id=organization_id,
        mentor=mentor,
        activity_type=activity_type,
        activity_date=activity_date.isoformat(),
        duration_minutes=duration_minutes,
        by=by,
        at=f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        batch_id=str(batch_id),
        item_id=str(item_id),
        attempt=attempt,
        before_log=True if before_log else None,
    )


def leaf_bytes(leaf: LeafResponse) -> bytes:
    """The leaf as it is hashed: its canonical JSON."""
    return canonical_json(leaf.model_dump(mode="json", exclude_none=True))
