"""Revocations of registered activities."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.api.base import NOT_EMPTY, Request, Response
from schemas.api.batches import BatchResponse
from schemas.api.reading import read_with
from schemas.fields import Flag, RevocationReason, one_of
from schemas.mistakes import Mistake, pointer, size_mistakes
from schemas.statuses import KeptBecause


class BatchRevocation(Request):
    """Which activities of a batch to revoke, and why: those of the named items, or all."""

    reason: Annotated[RevocationReason, Field(description="For auditors.")]
    item_ids: Annotated[tuple[UUID, ...], NOT_EMPTY] | None = None
    dry_run: Annotated[Flag, Field(description="Only return what would be revoked; change nothing.")] = False


class ActivityRevocation(Request):
    """Why an activity is revoked."""

    reason: Annotated[RevocationReason, Field(description="For auditors.")]


def read_revocation(raw: Any, *, max_items: int) -> BatchRevocation:
    """A revocation. Raises one RefusedRequestError with all mistakes that can be found without the batch."""
    sizes: list[Mistake] = []
    if isinstance(raw, dict) and isinstance(entries := raw.get("item_ids"), list):
        sizes += size_mistakes(pointer("item_ids"), entries, max_items)
        raw = raw | {"item_ids": entries[:max_items]}
    return read_with(BatchRevocation, raw, {"item_ids": UUID}, sizes=sizes)


class KeptResponse(Response):
    """An item whose activity was not revoked, and why."""

    item_id: UUID
    code: Annotated[KeptBecause, one_of(*KeptBecause)]


class RevokedResponse(BatchResponse, title="RevokedResponse"):
    """The batch, and the result of the revocation."""

    revoked: Annotated[int, Field(description="How many activities this call revoked.")]
    total_revoked: Annotated[int, Field(description="How many activities of the whole batch this and earlier calls revoked.")]
    already_revoked: Annotated[int, Field(description="How many of the activities had been revoked before this call.")]
    unresolved: Annotated[
        int, Field(description="How many activities an external registration service was asked to revoke and has not answered.")
    ]
    kept: tuple[KeptResponse, ...]


class RevokedActivityResponse(Response):
    """A revoked activity. `revoked` is 1 if this call revoked it, `already_revoked` is 1 if an earlier one did."""

    activity_id: UUID
    batch_id: UUID
    item_id: UUID
    revoked: int
    already_revoked: int
    revoked_at: AwareDatetime
    revoked_by: str
    revocation_reason: str
