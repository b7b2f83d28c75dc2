"""A batch as the API shows it, and errors of the database as the API gets them."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.exc import DBAPIError, OperationalError

from orchestrator.batches.model import BatchView, Measurement
from orchestrator.batches.states import BatchStatus, Counts

BATCH_ID, ITEM_ID, ACTIVITY_ID = (UUID(int=number) for number in (1, 2, 3))


def moment(day: int) -> datetime:
    return datetime(2026, 3, day, tzinfo=UTC)


VIEW = BatchView(
    batch_id=BATCH_ID,
    organization_id="the-organization",
    coordinator_id="the-coordinator",
    submitted_by="the-sender",
    channel="the-channel",
    label="the label",
    status=BatchStatus.CANCELLED,
    counts=Counts(1, 2, 3, 4),
    retry_number=5,
    version=6,
    edit_version=7,
    submitted_at=moment(1),
    changed_at=moment(2),
    completed_at=moment(3),
    cancelled_at=moment(4),
    cancelled_by="the-canceller",
    cancellation_reason="the reason",
    trace_id="f" * 32,
    measurement=Measurement(moment(1), 10, moment(5)),
    errors_by_code={"mentor_not_found": 3},
    revoked=11,
)


class DriverError(Exception):
    """An error of the driver, with the database's code."""

    def __init__(self, pgcode: str | None) -> None:
        self.pgcode = pgcode


def of_database(code: str | None, *, lost: bool = False) -> DBAPIError:
    return OperationalError("SELECT", None, DriverError(code), connection_invalidated=lost)
