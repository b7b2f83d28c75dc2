"""Undo as the API does it, in a transaction of the API's role."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from orchestrator.batches.model import Actor, RevocationRequest, Revoked, RevokedActivity
from orchestrator.batches.revoke import RevocationPolicy, revoke_activity, revoke_batch
from tests.support.pipeline import COORDINATOR_ACTOR, Pipeline

POLICY = RevocationPolicy(timedelta(days=30))
REASON = "wrong date"


def revoke(
    pipeline: Pipeline,
    batch_id: UUID,
    *,
    actor: Actor = COORDINATOR_ACTOR,
    item_ids: Sequence[UUID] | None = None,
    reason: str = REASON,
    **named: Any,
) -> Revoked:
    """Takes back a batch, or some of its items."""
    return pipeline.call_with(
        pipeline.records, revoke_batch, actor, batch_id, RevocationRequest(reason, item_ids), POLICY, **named
    )


def revoke_one(pipeline: Pipeline, activity_id: UUID, *, actor: Actor = COORDINATOR_ACTOR, **named: Any) -> RevokedActivity:
    """Takes back one activity."""
    return pipeline.call_with(pipeline.records, revoke_activity, actor, activity_id, REASON, POLICY, **named)
