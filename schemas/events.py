"""Every event on every topic: its data as a pydantic model, and the one function that builds it.

Fields are only ever added, with defaults, and readers ignore unknown fields (docs/events.md, Evolution). The models define what a reader
accepts. The functions write the same bytes every time, because times and values come from stored rows and ids are derived.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError

from schemas import strict_json
from schemas.envelope import (
    ITEM_HEADERS,
    SOURCE,
    TYPE_PREFIX,
    Envelope,
    Header,
    OutgoingEvent,
    Topic,
    UnreadableError,
    headers,
    id_of_trace,
    is_sampled,
    rfc3339,
)
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
from schemas.ids import MAX_POSITIONS, EventIds, content_id, event_id
from schemas.mistakes import (
    MOST_MISTAKES,
    Entries,
    Mistake,
    duplicate_mentors,
    first_of,
    mentor_type_and_date,
    mistakes_in,
    pointer,
    size_mistakes,
)
from schemas.statuses import BatchStatus

MAX_PART_ITEMS = 500
MAX_PART_BYTES = 512 * 1024
MAX_BATCH_BYTES = 16 * 1024 * 1024
"""The default limit on all parts of a batch together; the same as for a batch sent by HTTP."""
MAX_EVENT_JSON_VALUES = 1_000_000
"""More values than a record has room for. As Python objects they take 80 MB."""
MAX_CANCELLED_RUNS = 20_000
"""The most runs in one event. A run has at most 28 bytes, so these take a quarter of the largest message. A batch of a million items may have
half a million runs."""


MAX_REVOKED_RUNS = 20_000
"""The most runs in one event, as for a cancel. A run has at most 19 bytes."""
LATER_EVENTS_COME_ON = frozenset({Topic.BATCHES})
"""The topics to which later versions may add types that are effective without a consumer (docs/decisions/0034-undo.md)."""


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


_BY_TOPIC: Mapping[Topic, Mapping[str, type[EventData]]] = {
    topic: {type_name(model): model for model in models} for topic, models in EVENTS.items()
}

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


def read_event(topic: Topic, envelope: Envelope) -> EventData:
    """The data of an event. Its type selects one of the schemas that its topic allows. Raises UnreadableError.

    An event of ours with a type that belongs to no topic comes from a later version. It is read as a LaterEvent.

    Other services write to the batches topic, so its JSON is parsed strictly. Only we write to the other topics, so these take the fast path.
    """
    model = _BY_TOPIC[topic].get(envelope.type)
    if model is None and _is_of_later_version(topic, envelope):
        return LaterEvent()
    if model is None:
        raise UnreadableError("unknown_type", f"no event of this type belongs on {topic.value}")
    try:
        if topic is not Topic.BATCHES:
            data: EventData = model.__pydantic_validator__.validate_json(envelope.data)
            return data
        document = strict_json.loads(envelope.data, max_depth=strict_json.MAX_JSON_DEPTH, max_values=MAX_EVENT_JSON_VALUES)
        return _read_submitted(document) if model is BatchSubmitted else model.model_validate(document)
    except strict_json.BadJsonError as error:
        raise UnreadableError("not_json", str(error)) from error
    except ValidationError as error:
        raise InvalidEventError(model, _places(error), None) from error


def _is_of_later_version(topic: Topic, envelope: Envelope) -> bool:
    is_ours = envelope.source == SOURCE and envelope.type.startswith(TYPE_PREFIX)
    return topic in LATER_EVENTS_COME_ON and is_ours and not any(envelope.type in known for known in _BY_TOPIC.values())


def _read_submitted(document: Any) -> BatchSubmitted:
    """A part. Raises InvalidEventError, with the mistakes for the sender. If there are too many items, only the first MAX_PART_ITEMS are
    checked."""
    items = document.get("items") if isinstance(document, dict) else None
    shown = document
    sizes: list[Mistake] = []
    if isinstance(items, list):
        sizes = size_mistakes("/items", items, MAX_PART_ITEMS)
        shown = document | {"items": items[:MAX_PART_ITEMS]}
    try:
        submitted = BatchSubmitted.model_validate(shown)
        if not sizes:
            return submitted
    except ValidationError as error:
        mistakes = first_of(chain(sizes, mistakes_in(BatchSubmitted, shown, error, _ENTRIES), _duplicates(shown)))
    else:
        mistakes = first_of(chain(sizes, _duplicates(shown)))
    raise InvalidEventError(BatchSubmitted, [(each.pointer, each.detail) for each in mistakes], _malformed(document, mistakes))


_ENTRIES: Entries = {"items": SubmittedItem}


def _duplicates(document: Any) -> Iterator[Mistake]:
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        return iter(())
    return duplicate_mentors(map(mentor_type_and_date, items), place_of_mentor, lambda index: _position(items[index], index))


def _malformed(document: Any, mistakes: Sequence[Mistake]) -> MalformedSubmission | None:
    """The malformed submission to reject; None if its batch or organization can't be read."""
    if not isinstance(document, dict):
        return None
    try:
        return MalformedSubmission.model_validate(
            {"batch_id": document.get("batch_id"), "organization_id": document.get("organization_id"), "mistakes": mistakes}
        )
    except ValidationError:
        return None


def _places(error: ValidationError) -> Sequence[tuple[str, str]]:
    """The places at which an event does not match its type, with messages without values."""
    if error.error_count() > MOST_MISTAKES:
        return [("", f"has {error.error_count():,} mistakes")]
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return [(pointer(*each["loc"]), each["msg"]) for each in found]


def place_of_mentor(index: int) -> str:
    """The pointer to an item's mentor in a `BatchSubmitted`. `index` is the item's place in the list, not its position in the batch."""
    return pointer("items", index, "mentor_id")


def _position(item: dict[str, Any], index: int) -> int:
    """The item's position if it has a valid one, so that nothing else is repeated to the sender; else its index."""
    position = item.get("position")
    return position if type(position) is int and 0 <= position < MAX_POSITIONS else index


class InvalidEventError(UnreadableError):
    """Data that does not match the event's type. On the topics of our own roles, that includes data that is not JSON.

    It has the places, but never a value, because values may be notes.
    """

    def __init__(self, model: type[EventData], places: Sequence[tuple[str, str]], submission: MalformedSubmission | None) -> None:
        shown = "; ".join(f"{place}: {message}" for place, message in places[:20])
        super().__init__("invalid_data", f"not a {model.__name__}: {shown}")
        self.submission = submission
        """The rejection to send; None if the batch or its organization can't be read."""


# --- Building -----------------------------------------------------------------------------------------------------------------


def _event(
    topic: Topic,
    event_type: str,
    identity: tuple[object, ...],
    time: datetime,
    trace_id: str,
    key: str,
    data: Mapping[str, Any],
) -> OutgoingEvent:
    return _event_of(topic, event_type, event_id(event_type, *identity), time, trace_id, key, orjson.dumps(data))


def _event_of(
    topic: Topic, event_type: str, identity: UUID, time: datetime, trace_id: str, key: str, value: bytes
) -> OutgoingEvent:
    return OutgoingEvent(topic, key, headers(identity, event_type, time, trace_id, subject=key), value)


def batch_submitted(
    *,
    batch_id: UUID,
    organization_id: str,
    coordinator_id: str,
    label: str | None,
    override_duplicates: bool,
    part: int,
    parts: int,
    total_items: int,
    submitted_by: str,
    channel: str,
    items: Sequence[bytes],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """One part of an accepted batch, without notes. Each item is already JSON."""
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "coordinator_id": coordinator_id,
        "label": label,
        "override_duplicates": override_duplicates,
        "part": part,
        "parts": parts,
        "total_items": total_items,
        "submitted_by": submitted_by,
        "channel": channel,
        "items": orjson.Fragment(b"[" + b",".join(items) + b"]"),
    }
    return _event(Topic.BATCHES, BATCH_SUBMITTED, (batch_id, part), time, trace_id, str(batch_id), data)


def batch_retry_requested(
    *,
    batch_id: UUID,
    organization_id: str,
    retry_number: int,
    part: int,
    retried_by: str,
    items: Sequence[Mapping[str, Any]],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """One part of a retry. The first part's id is derived from batch and retry number; further parts add their number."""
    identity = (batch_id, retry_number) if part == 1 else (batch_id, retry_number, part)
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "retry_number": retry_number,
        "part": part,
        "retried_by": retried_by,
        "items": items,
    }
    return _event(Topic.BATCHES, BATCH_RETRY_REQUESTED, identity, time, trace_id, str(batch_id), data)


def batch_cancelled(
    *,
    batch_id: UUID,
    organization_id: str,
    reason: str | None,
    cancelled_by: str,
    counts: Mapping[str, int],
    cancelled_positions: Sequence[tuple[int, int, int]],
    time: datetime,
    trace_id: str,
) -> list[OutgoingEvent]:
    """The cancel of a batch, which happens once, in parts of at most MAX_CANCELLED_RUNS runs."""
    starts = range(0, max(1, len(cancelled_positions)), MAX_CANCELLED_RUNS)
    return [
        _cancelled_part(
            part,
            batch_id=batch_id,
            organization_id=organization_id,
            reason=reason,
            cancelled_by=cancelled_by,
            counts=counts,
            cancelled_positions=cancelled_positions[start : start + MAX_CANCELLED_RUNS],
            time=time,
            trace_id=trace_id,
        )
        for part, start in enumerate(starts, start=1)
    ]


def _cancelled_part(
    part: int,
    *,
    batch_id: UUID,
    organization_id: str,
    reason: str | None,
    cancelled_by: str,
    counts: Mapping[str, int],
    cancelled_positions: Sequence[tuple[int, int, int]],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """One part of a cancel. The first part's id is derived from the batch; further parts add their number."""
    identity = (batch_id,) if part == 1 else (batch_id, part)
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "part": part,
        "reason": reason,
        "cancelled_by": cancelled_by,
        **counts,
        "cancelled_positions": cancelled_positions,
    }
    return _event(Topic.BATCHES, BATCH_CANCELLED, identity, time, trace_id, str(batch_id), data)


def batch_relabelled(
    *, batch_id: UUID, organization_id: str, label: str | None, version: int, time: datetime, trace_id: str
) -> OutgoingEvent:
    """An edited label. The id includes the time, because versions restart if a batch was removed before all its parts had arrived."""
    data = {"batch_id": batch_id, "organization_id": organization_id, "label": label, "version": version}
    return _event(Topic.BATCHES, BATCH_RELABELLED, (batch_id, version, rfc3339(time)), time, trace_id, str(batch_id), data)


def batch_deleted(*, batch_id: UUID, organization_id: str, version: int, time: datetime, trace_id: str) -> OutgoingEvent:
    """The deletion of a batch, which happens once."""
    data = {"batch_id": batch_id, "organization_id": organization_id, "version": version}
    return _event(Topic.BATCHES, BATCH_DELETED, (batch_id,), time, trace_id, str(batch_id), data)


def activities_revoked(
    *,
    batch_id: UUID,
    organization_id: str,
    revocation: int,
    reason: str,
    revoked_by: str,
    revoked_positions: Sequence[tuple[int, int]],
    time: datetime,
    trace_id: str,
) -> list[OutgoingEvent]:
    """A revocation, for both of its topics, in parts of MAX_REVOKED_RUNS.

    The id includes the time, because versions restart if a batch was removed before all its parts had arrived. Of a purged batch, which has no
    version, only one activity is revoked at a time, so the id includes its position.
    """
    published: list[OutgoingEvent] = []
    for part, start in enumerate(range(0, len(revoked_positions), MAX_REVOKED_RUNS), start=1):
        runs = revoked_positions[start : start + MAX_REVOKED_RUNS]
        identity = (batch_id, revocation, rfc3339(time), part) if revocation else (batch_id, rfc3339(time), runs[0][0])
        data = {
            "batch_id": batch_id,
            "organization_id": organization_id,
            "revocation": revocation,
            "part": part,
            "reason": reason,
            "revoked_by": revoked_by,
            "revoked_at": rfc3339(time),
            "revoked_positions": runs,
        }
        published += [
            _event(topic, ACTIVITIES_REVOKED, identity, time, trace_id, str(batch_id), data)
            for topic in (Topic.BATCHES, Topic.LIFECYCLE)
        ]
    return published


def period_changed(
    *,
    organization_id: str,
    number: int,
    closed_through: date | None,
    previously: date | None,
    reason: str,
    changed_by: str,
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """A change of an organization's closed period: PeriodClosed if more is closed than before, else PeriodReopened.

    The key is the organization. The id includes the time, because numbers can occur again after a restore.
    """
    is_closed = closed_through is not None and (previously is None or closed_through > previously)
    data = {
        "organization_id": organization_id,
        "number": number,
        "closed_through": closed_through,
        "previously": previously,
        "reason": reason,
        "changed_by": changed_by,
        "changed_at": rfc3339(time),
    }
    event_type = PERIOD_CLOSED if is_closed else PERIOD_REOPENED
    identity = (organization_id, number, rfc3339(time))
    return _event(Topic.LIFECYCLE, event_type, identity, time, trace_id, organization_id, data)


def checkpoint_signed(
    *, organization_id: str, log: int, origin: str, size: int, root: bytes, checkpoint: str, time: datetime, trace_id: str
) -> OutgoingEvent:
    """A signed checkpoint. The key is the organization. The id includes the time, because a restored database may sign the same again."""
    data = {
        "organization_id": organization_id,
        "log": log,
        "origin": origin,
        "size": size,
        "root": base64.b64encode(root).decode(),
        "checkpoint": checkpoint,
        "signed_at": rfc3339(time),
    }
    identity = (origin, size, rfc3339(time))
    return _event(Topic.LIFECYCLE, CHECKPOINT_SIGNED, identity, time, trace_id, organization_id, data)


def batch_completed(
    *,
    batch_id: UUID,
    organization_id: str,
    status: str,
    counts: Mapping[str, int],
    retry_number: int,
    completed_at: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """The completion event."""
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "status": status,
        **counts,
        "retry_number": retry_number,
        "completed_at": rfc3339(completed_at),
    }
    return _event(Topic.LIFECYCLE, BATCH_COMPLETED, (batch_id, retry_number), completed_at, trace_id, str(batch_id), data)


def batch_rejected(
    *,
    batch_id: UUID,
    organization_id: str,
    rejected_source: str,
    rejected_event_id: str,
    batch_continues: bool,
    mistakes: Sequence[Mistake],
    time: datetime,
    trace_id: str,
) -> OutgoingEvent:
    """The rejection of an upstream event.

    The same record can be rejected again for another reason after the batch that it contradicts has changed, and a batch can be incomplete
    twice. So the id includes the content and the time.
    """
    data = {
        "batch_id": batch_id,
        "organization_id": organization_id,
        "rejected_event_id": rejected_event_id,
        "batch_continues": batch_continues,
        "problems": [mistake._asdict() for mistake in mistakes],
    }
    value = orjson.dumps(data)
    identity = content_id(BATCH_REJECTED, rejected_source, rejected_event_id, rfc3339(time), value=value)
    return _event_of(Topic.LIFECYCLE, BATCH_REJECTED, identity, time, trace_id, str(batch_id), value)


def dead_letter_redriven(*, dead_letter_id: UUID, time: datetime, trace_id: str) -> OutgoingEvent:
    """The record of a redrive. A dead letter can be redriven more than once."""
    data = {"dead_letter_id": dead_letter_id, "redriven_at": rfc3339(time)}
    return _event(
        Topic.DEAD_LETTER, DEAD_LETTER_REDRIVEN, (dead_letter_id, rfc3339(time)), time, trace_id, str(dead_letter_id), data
    )


# Commands and results are the hot path: one call per item. The caller's `ItemEventHeaders` encodes headers that a batch has in common once per
# batch. Only ids and values are encoded per item.


class ItemEventHeaders:
    """The headers of the item events of one batch."""

    __slots__ = ("_flags", "_time", "_time_bytes", "_trace")

    _TYPES: Mapping[str, tuple[EventIds, bytes]] = {
        event_type: (EventIds(event_type), event_type.encode())
        for event_type in (REGISTER_ACTIVITY, REVOKE_ACTIVITY, SUCCEEDED, FAILED, CANCELLED)
    }

    def __init__(self, trace: str) -> None:
        self._trace, self._flags = f"00-{id_of_trace(trace)}-", "-01" if is_sampled(trace) else "-00"
        self._time: datetime | None = None
        self._time_bytes = b""

    def of(self, event_type: str, item_id: UUID | str, attempt: int, time: datetime) -> tuple[Header, ...]:
        """The headers of one event. Its span id is taken from its own id."""
        ids, type_bytes = self._TYPES[event_type]
        event = ids.text(item_id, attempt)
        if time is not self._time:
            # The items of a set usually have the same time.
            self._time, self._time_bytes = time, rfc3339(time).encode()
        return (
            *ITEM_HEADERS,
            ("ce_id", event.encode()),
            ("ce_type", type_bytes),
            ("ce_time", self._time_bytes),
            ("traceparent", f"{self._trace}{event[-12:]}{event[:4]}{self._flags}".encode()),
        )


def register_activity(data: Mapping[str, Any], item_headers: tuple[Header, ...], *, bulk: bool) -> OutgoingEvent:
    """A command. Its key is organization + mentor, so that a large batch spreads over the partitions."""
    topic = Topic.COMMANDS_BULK if bulk else Topic.COMMANDS
    return OutgoingEvent(topic, f"{data['organization_id']}:{data['mentor_id']}", item_headers, orjson.dumps(data))


def revoke_activity(data: Mapping[str, Any], item_headers: tuple[Header, ...], *, bulk: bool) -> OutgoingEvent:
    """A command to ask an external service. Its key is the item, so that a large batch spreads over the partitions."""
    return OutgoingEvent(Topic.COMMANDS_BULK if bulk else Topic.COMMANDS, str(data["item_id"]), item_headers, orjson.dumps(data))


RESULTS_PER_KEY = 100


def result(data: Mapping[str, Any], item_headers: tuple[Header, ...], *, batch_id: str, position: int) -> OutgoingEvent:
    """A result. Its key is the batch and a hundred positions, so that a small batch stays together, and a large one does not delay others by
    filling one partition (docs/architecture.md, Fairness)."""
    return OutgoingEvent(Topic.RESULTS, f"{batch_id}:{position // RESULTS_PER_KEY}", item_headers, orjson.dumps(data))
