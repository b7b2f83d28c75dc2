"""Every event on every topic: its data as a pydantic model, and its type.

Fields are only ever added, with defaults, and readers ignore unknown fields (docs/events.md, Evolution). The models define what a reader
accepts.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from schemas.envelope import TYPE_PREFIX, Topic
from schemas.fields import (
    CalendarDate,
    Flag,
    Id,
    Int32,
    Label,
    Notes,
    Reason,
    RevocationReason,
    StoredDate,
    StoredId,
    one_of,
)
from schemas.ids import MAX_POSITIONS
from schemas.mistakes import Mistake
from schemas.statuses import BatchStatus

MAX_PART_ITEMS = 500
MAX_PART_BYTES = 512 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024
"""The default limit on all parts of a batch together; the same as for a batch sent by HTTP."""


def _null_means(default: object) -> BeforeValidator:
    """Makes JSON null in an optional field mean the same as an absent field. The published schema does not mention null."""
    return BeforeValidator(lambda value: default if value is None else value)


PartNumber = Annotated[int, Field(ge=1, le=MAX_POSITIONS, strict=True)]
Position = Annotated[int, Field(ge=0, lt=MAX_POSITIONS, strict=True)]
Attempt = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


class EventData(BaseModel):
    """The base of all event data: unknown fields are ignored, values are never coerced."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SubmittedItem(EventData):
    """One mentor's registration in a `BatchSubmitted`."""

    position: Position
    mentor_id: Id
    activity_type: Id
    activity_date: CalendarDate
    duration_minutes: Int32
    notes: Notes | None = None
    client_reference: Id | None = None
    override_duplicates: Flag | None = None
    """Absent: the batch's."""


class BatchSubmitted(EventData):
    """A batch, or one part of it. The only event that other services send to the product. `batch_id` is the sender's idempotency key."""

    batch_id: UUID
    organization_id: Id
    coordinator_id: Id
    label: Label | None = None
    override_duplicates: Annotated[Flag, _null_means(False)] = False
    part: Annotated[PartNumber, _null_means(1)] = 1
    parts: Annotated[PartNumber, _null_means(1)] = 1
    total_items: Annotated[int, Field(ge=1, le=MAX_POSITIONS, strict=True)] | None = None
    submitted_by: str | None = None
    """The submitter, in our own events. A replay needs it; an upstream service need not send it."""
    channel: str | None = None
    # `size_mistakes` checks these limits, and reports them with the mistakes that the schema can't find.
    items: Annotated[tuple[SubmittedItem, ...], Field(json_schema_extra={"minItems": 1, "maxItems": MAX_PART_ITEMS})]


class MalformedSubmission(EventData):
    """The readable part of a `BatchSubmitted` that breaks its schema: the sender to notify, and the mistakes. Not an event itself."""

    batch_id: UUID
    organization_id: Id
    mistakes: tuple[Mistake, ...]


class RetriedItem(EventData):
    """One item of a retry: the attempt that begins, and the values that a correction changed."""

    position: Position
    attempt: Attempt
    correction: dict[str, Any] | None = None


class BatchRetryRequested(EventData):
    """Failed items begin a new attempt. At most MAX_PART_ITEMS in one event."""

    batch_id: UUID
    organization_id: Id
    retry_number: Attempt
    part: Attempt = 1
    retried_by: str | None = None
    items: Annotated[tuple[RetriedItem, ...], Field(max_length=MAX_PART_ITEMS), FailFast()]


class CountsData(EventData):
    """The counts of a batch. `total_items = pending + completed + failed + cancelled`, always."""

    total_items: Count
    pending: Count
    completed: Count
    failed: Count
    cancelled: Count


class BatchCancelled(CountsData):
    """A batch was cancelled. The cancel is effective without a consumer; the event is for replays.

    With many runs, there are several parts, each with the same counts. The order of the parts does not matter.
    """

    batch_id: UUID
    organization_id: Id
    part: Attempt = 1
    reason: Reason | None = None
    cancelled_by: str | None = None
    cancelled_positions: Annotated[tuple[tuple[Position, Position, Attempt], ...], FailFast()] = ()
    """Runs of cancelled items: first position, last position, attempt."""


class BatchRelabelled(EventData):
    """The label was edited."""

    batch_id: UUID
    organization_id: Id
    label: Label | None
    version: Count


class BatchDeleted(EventData):
    """A finished batch was removed from view."""

    batch_id: UUID
    organization_id: Id
    version: Count


class ActivitiesRevoked(EventData):
    """Activities of a batch were revoked. Their items stay successful. The revocation is effective without a consumer.

    The event is on the topic batches for replays, and on lifecycle, with the same id and bytes, for upstream services. With many runs, there are
    several parts. The order of the parts does not matter.
    """

    batch_id: UUID
    organization_id: Id
    revocation: Count
    """The batch's version after this revocation; 0 for a purged batch, of which only activities are left."""
    part: Attempt = 1
    reason: RevocationReason
    revoked_by: str
    revoked_at: str
    revoked_positions: Annotated[tuple[tuple[Position, Position], ...], FailFast()]
    """Runs of revoked items: first position, last position."""


class PeriodClosed(EventData):
    """An organization's records up to a date are closed: nothing dated on or before `closed_through` is registered or revoked after this."""

    organization_id: Id
    number: Attempt
    """Which change of the organization's closed period this is. After a restored database, numbers can occur again, at another time."""
    closed_through: StoredDate
    previously: StoredDate | None = None
    """The last closed day before; absent or null: nothing was closed."""
    reason: RevocationReason
    changed_by: str
    changed_at: str


class PeriodReopened(EventData):
    """Records after an earlier date, or all, can be registered and revoked again."""

    organization_id: Id
    number: Attempt
    closed_through: StoredDate | None = None
    """The last day that is still closed; absent or null: nothing is."""
    previously: StoredDate
    reason: RevocationReason
    changed_by: str
    changed_at: str


class CheckpointSigned(EventData):
    """The size and the root of an organization's log of records, signed. Receipts refer to it (docs/receipts.md)."""

    organization_id: Id
    log: Attempt
    """Which log of the organization this is. A log with a higher number replaces the ones before it."""
    origin: str
    size: Annotated[int, Field(ge=1, le=2**53 - 1, strict=True)]
    root: str
    """In base64."""
    checkpoint: str
    """Origin, size and root as a signed note (C2SP tlog-checkpoint)."""
    signed_at: str


class LaterEvent(EventData):
    """An event of a type that a later version of the product has added. Its data is not read."""


class RegisterActivity(EventData):
    """The command to register an item in attempt n. It has the values of that attempt, except for the notes, which stay in the database."""

    batch_id: UUID
    item_id: UUID
    position: Position
    attempt: Attempt
    organization_id: StoredId
    coordinator_id: StoredId
    mentor_id: StoredId
    activity_type: StoredId
    activity_date: StoredDate
    duration_minutes: Int32
    override_duplicates: Flag = False


class RevokeActivity(EventData):
    """The command to ask an external registration service to revoke an item's activity. `request` counts the requests of the item."""

    batch_id: UUID
    item_id: UUID
    position: Position
    request: Attempt
    organization_id: StoredId


class ItemErrorData(EventData, title="ItemError"):
    """Why an item failed: a stable code, a message for people, and the details that a correction needs."""

    code: StoredId
    message: str
    retryable: Flag
    field: str | None = None
    conflicting_activity_id: UUID | None = None


class Result(EventData):
    """Announces the outcome of (item, attempt) in the dedup table."""

    batch_id: UUID
    item_id: UUID
    position: Position
    attempt: Attempt
    organization_id: StoredId
    bulk: Flag = False
    """Whether the item came through the bulk lane. The result is then folded with the bulk lane's weight."""


class RegistrationSucceeded(Result):
    """The activity exists."""

    activity_id: UUID


class RegistrationFailed(Result):
    """The item was not registered, with the reason."""

    error: ItemErrorData


class RegistrationCancelled(Result):
    """The batch was cancelled before this item was registered."""


class BatchCompleted(CountsData):
    """A batch is terminal. Sent again after each retry."""

    batch_id: UUID
    organization_id: Id
    status: Annotated[BatchStatus, one_of(BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED)]
    retry_number: Count
    completed_at: str


class MistakeData(EventData, title="Problem"):
    """One mistake in a request: its place (a JSON pointer), a stable code, and a message for people."""

    pointer: str
    code: str
    detail: str


class BatchRejected(EventData):
    """An upstream batch, or a message that claims to be part of one, was refused."""

    batch_id: UUID
    organization_id: str
    rejected_event_id: str
    batch_continues: Flag
    problems: tuple[MistakeData, ...]


class DeadLetter(EventData):
    """Where an unreadable record came from, and why it was put aside. The record itself is in `key` and `value`, as base64. Of a record that is
    too large for the topic, they have the beginning."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    headers: dict[str, str]
    key: str | None
    value: str | None
    key_truncated: Flag = False
    """`key` is only the beginning of the record's key."""
    value_truncated: Flag = False
    """`value` is only the beginning of the record's value. The topic has the whole record, until its retention ends."""
    value_bytes: int | None = None
    """The number of bytes in the record's value."""


class DeadLetterRedriven(EventData):
    """A dead letter was sent to its original topic again. This event is on the dead-letter topic, so that listings need no other topic."""

    dead_letter_id: UUID
    redriven_at: str


EVENTS: Mapping[Topic, tuple[type[EventData], ...]] = {
    Topic.BATCHES: (BatchSubmitted, BatchRetryRequested, BatchCancelled, BatchRelabelled, BatchDeleted, ActivitiesRevoked),
    Topic.COMMANDS: (RegisterActivity, RevokeActivity),
    Topic.COMMANDS_BULK: (RegisterActivity, RevokeActivity),
    Topic.RESULTS: (RegistrationSucceeded, RegistrationFailed, RegistrationCancelled),
    Topic.LIFECYCLE: (BatchCompleted, BatchRejected, ActivitiesRevoked, PeriodClosed, PeriodReopened, CheckpointSigned),
    Topic.DEAD_LETTER: (DeadLetter, DeadLetterRedriven),
}


def type_name(model: type[EventData]) -> str:
    """The CloudEvents type of a model, e.g. `no.bulk-registration.BatchSubmitted.v1`."""
    return f"{TYPE_PREFIX}{model.__name__}.v1"


BATCH_SUBMITTED = type_name(BatchSubmitted)
BATCH_RETRY_REQUESTED = type_name(BatchRetryRequested)
BATCH_CANCELLED = type_name(BatchCancelled)
BATCH_RELABELLED = type_name(BatchRelabelled)
BATCH_DELETED = type_name(BatchDeleted)
ACTIVITIES_REVOKED = type_name(ActivitiesRevoked)
PERIOD_CLOSED = type_name(PeriodClosed)
PERIOD_REOPENED = type_name(PeriodReopened)
CHECKPOINT_SIGNED = type_name(CheckpointSigned)
REGISTER_ACTIVITY = type_name(RegisterActivity)
REVOKE_ACTIVITY = type_name(RevokeActivity)
SUCCEEDED = type_name(RegistrationSucceeded)
FAILED = type_name(RegistrationFailed)
CANCELLED = type_name(RegistrationCancelled)
BATCH_COMPLETED = type_name(BatchCompleted)
BATCH_REJECTED = type_name(BatchRejected)
DEAD_LETTER = type_name(DeadLetter)
DEAD_LETTER_REDRIVEN = type_name(DeadLetterRedriven)
