"""Closes and reopens periods as the API does it, in a transaction of the API's role."""

from collections.abc import Set
from datetime import date
from secrets import token_hex

from orchestrator.batches.model import Actor, Idempotency
from orchestrator.batches.periods import PeriodRequest, PeriodSaved, change_period
from orchestrator.registration.periods import PostgresPeriods
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from tests.support.pipeline import ADMIN, Pipeline


def close(
    pipeline: Pipeline,
    closed_through: date | None,
    *,
    actor: Actor = ADMIN,
    reason: str = "the report is sent",
    key: str | None = None,
    versions: Set[int] | None = None,
) -> PeriodSaved:
    """Closes the period through this date; an earlier one, or None, reopens it."""
    idempotency = Idempotency(token_hex(16) if key is None else key, f"{closed_through} {reason}".encode())
    return transact(
        pipeline.api,
        lambda connection: change_period(
            PostgresActivityRepository(connection),
            PostgresPeriods(connection),
            actor,
            PeriodRequest(closed_through, reason),
            idempotency,
            versions=versions,
        ),
        organizations=[actor.organization_id],
    )
