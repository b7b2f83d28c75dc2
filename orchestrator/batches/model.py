"""The types of the domain: actors, submissions, and the views that are shown to people."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from schemas.corrections import Correction
from schemas.envelope import SOURCE
from schemas.statuses import KeptBecause

API_CHANNEL = "api"
"""The channel of HTTP requests, as batches and the audit record it."""

_OUR_CHANNELS = frozenset({API_CHANNEL, SOURCE})


class Role(StrEnum):
    """What a caller may do (docs/http.md, An address and a token)."""

    COORDINATOR = "coordinator"
    ADMIN = "admin"
    SERVICE = "service"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Actor:
    """The caller, in one organization. `channel` is where the request came from: `api`, or the `upstream_channel` of an event."""

    organization_id: str
    subject: str
    role: Role
    channel: str = API_CHANNEL

    @property
    def may_change(self) -> bool:
        """Auditors only read."""
        return self.role is not Role.AUDITOR

    @property
    def may_read_notes(self) -> bool:
        """Whether the caller may read notes. They may contain health data, so auditors may not."""
        return self.role is not Role.AUDITOR

    @property
    def sees_only_coordinator(self) -> str | None:
        """The coordinator whose batches the caller sees: a coordinator sees only his own. None: all of the organization."""
        return self.subject if self.role is Role.COORDINATOR else None


def upstream_channel(source: str) -> str:
    """The channel of a batch that came as an event: the sender's source, prefixed if it could be mistaken for one of our channels."""
    seen = unicodedata.normalize("NFKC", source).strip().casefold()
    return f"upstream:{source}" if seen in _OUR_CHANNELS else source


class ItemValues(NamedTuple):
    """What is registered for one mentor: the values that a correction can change."""

    mentor_id: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    notes: str | None = None
    override_duplicates: bool = False

    @property
    def identity(self) -> tuple[str, str, date]:
        """The values that must be unique in one submission."""
        return (self.mentor_id, self.activity_type, self.activity_date)


class NewItem(NamedTuple):
    """One item of a submission; its position is its place in the list."""

    values: ItemValues
    client_reference: str | None = None
    planned: str | None = None
    """What a preview predicted: `Outcome.SUCCESS` or an error code. None for a submission without a plan."""


Numbered = Sequence[tuple[int, NewItem]]
"""Items with their positions."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A well-formed submission. `batch_id` is chosen before the transaction, so that a repeated transaction creates one batch."""

    batch_id: UUID
    coordinator_id: str
    label: str | None
    override_duplicates: bool
    items: Sequence[NewItem]
    trace_id: str
    """The batch's trace, as `trace_of` in `schemas/envelope.py` describes it."""


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an item failed."""

    code: str
    message: str
    retryable: bool
    field: str | None = None
    conflicting_activity_id: str | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ItemError":
        """The error stored in a row."""
        return cls(
            code=stored["code"],
            message=stored["message"],
            retryable=stored["retryable"],
            field=stored.get("field"),
            conflicting_activity_id=stored.get("conflicting_activity_id"),
        )

    def as_json(self) -> dict[str, Any]:
        """The error as stored, published and shown, without empty fields. The order is fixed, because a repeated event must have the same
        bytes as the first, and jsonb does not keep the order."""
        full = {
            "code": self.code,
            "conflicting_activity_id": self.conflicting_activity_id,
            "field": self.field,
            "message": self.message,
            "retryable": self.retryable,
        }
        return {name: value for name, value in full.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The basis of a batch's speed. When its last attempts began, at `began_at`, `pending` items waited. It was read at `read_at`."""

    began_at: datetime
    pending: int
    read_at: datetime = field(compare=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a processing batch is, its speed, and when it finishes at that speed."""

    percent: float
    items_per_second: float
    estimated_completion_at: datetime


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch as its projection stands in one snapshot."""

    batch_id: UUID
    organization_id: str
    coordinator_id: str
    submitted_by: str
    channel: str
    label: str | None
    status: BatchStatus
    counts: Counts
    retry_number: int
    version: int
    edit_version: int
    submitted_at: datetime
    changed_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None
    cancelled_by: str | None
    cancellation_reason: str | None
    trace_id: str
    measurement: Measurement
    errors_by_code: Mapping[str, int] = field(default_factory=dict)
    """Empty for a batch that was read to be locked."""
    revoked: int = 0
    """How many of its items are revoked. They stay counted as completed."""
    dismissed_at: datetime | None = None
    """When a person marked the failed items as dealt with. None again as soon as another item fails."""

    @property
    def needs_attention(self) -> bool:
        """Whether a person has to look at failed items. Those of a cancelled batch can't be retried."""
        return self.counts.failed > 0 and self.status is not BatchStatus.CANCELLED and self.dismissed_at is None

    @property
    def progress(self) -> Progress | None:
        """Progress, measured from the batch's results since its last attempts began. None before the first result and after the end.

        Time counts even while no results come, so a stuck batch gets slower instead of seeming to finish.
        """
        seen = self.measurement
        handled = seen.pending - self.counts.pending
        elapsed = seen.read_at - seen.began_at
        if self.status is not BatchStatus.PROCESSING or handled <= 0 or elapsed <= timedelta():
            return None
        try:
            finished_at = seen.read_at + elapsed / handled * self.counts.pending
        except OverflowError:  # after the year 9999: no estimate
            return None
        # Rounded down, so that it is below 100 % while an item is pending.
        percent = (self.counts.total - self.counts.pending) * 1000 // self.counts.total / 10
        return Progress(percent, handled / elapsed.total_seconds(), finished_at)


@dataclass(frozen=True, slots=True)
class Revocation:
    """When an activity was revoked, by whom, and why."""

    at: datetime
    by: str
    reason: str


UNRESOLVED = "unresolved"
"""The state of a request to an external service to revoke an activity, until the service has answered."""


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item as its projection stands."""

    item_id: UUID
    position: int
    values: ItemValues
    client_reference: str | None
    status: ItemStatus
    attempt: int
    activity_id: UUID | None
    error: ItemError | None
    planned: str | None = None
    revocation: Revocation | None = None
    """The revocation of its activity. The item stays a success."""
    revocation_request: str | None = None
    """What became of the request to an external service to revoke its activity: `UNRESOLVED`, or the code with which the service refused."""

    @property
    def plan_changed(self) -> bool:
        """Whether the item failed although its preview predicted another result (docs/http.md, Preview and plan)."""
        return self.planned is not None and self.error is not None and self.error.code != self.planned

    def without_notes(self) -> "ItemView":
        """The item without its notes, for callers who may not read them."""
        return replace(self, values=self.values._replace(notes=None))


@dataclass(frozen=True, slots=True)
class AttemptView:
    """A finished attempt: its values, its error, and the correction with which the next attempt began."""

    attempt: int
    values: Mapping[str, Any]
    error: ItemError
    attempted_at: datetime
    correction: Correction | None
    retried_by: str
    retried_at: datetime

    def without_notes(self) -> "AttemptView":
        """The attempt without notes, for callers who may not read them. A correction of only the notes becomes empty."""
        correction = None if self.correction is None else self.correction.copy()
        if correction is not None:
            correction.pop("notes", None)
        return replace(self, values={**self.values, "notes": None}, correction=correction)


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Which items of a batch to show, by position. `after_position` is the cursor; `limit` None: no items."""

    status: ItemStatus | None = None
    after_position: int = -1
    limit: int | None = 200


@dataclass(frozen=True, slots=True)
class BatchFilter:
    """Which batches to list, newest first. `statuses`: in one of them; empty: in any. `after` is the keyset cursor (submitted_at, batch_id);
    else `page` counts from 1."""

    statuses: Sequence[BatchStatus] = ()
    needs_attention: bool = False
    coordinator_id: str | None = None
    submitted_from: datetime | None = None
    submitted_to: datetime | None = None
    label_contains: str | None = None
    limit: int = 20
    page: int = 1
    after: tuple[datetime, UUID] | None = None


@dataclass(frozen=True, slots=True)
class BatchPage:
    """One page of a listing. `total` counts all that match; `next_after` is None on the last page."""

    batches: Sequence[BatchView]
    total: int
    next_after: tuple[datetime, UUID] | None


@dataclass(frozen=True, slots=True)
class StatusView:
    """A batch with some of its items, from one snapshot. `next_after_position` is None when there are no more."""

    batch: BatchView
    items: Sequence[ItemView]
    next_after_position: int | None


@dataclass(frozen=True, slots=True)
class TemplateValues:
    """The values of a template. `weekday` is 1 for Monday to 7 for Sunday; None for no particular day."""

    name: str
    mentor_ids: tuple[str, ...]
    activity_type: str
    duration_minutes: int
    weekday: int | None


@dataclass(frozen=True, slots=True)
class TemplateView:
    """A template of a coordinator. `template_id` is chosen before the transaction, so that a repeated transaction creates one template."""

    template_id: UUID
    organization_id: str
    coordinator_id: str
    values: TemplateValues
    version: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Period:
    """The closed period of an organization. `version` counts its changes, and `today` is the date there.

    `unresolved` is how many items in it an external registration service was asked to register or revoke, without a response so far.
    """

    closed_through: date | None
    version: int
    today: date
    unresolved: int


@dataclass(frozen=True, slots=True)
class PeriodChange:
    """One change of an organization's closed period. None as a date: no period is closed."""

    number: int
    closed_through: date | None
    previously: date | None
    reason: str
    by: str
    channel: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TemplatePage:
    """One page of templates. `next_after` is the id to continue from; None on the last page."""

    templates: Sequence[TemplateView]
    next_after: UUID | None


@dataclass(frozen=True, slots=True)
class CorrectedItem:
    """A failed item, and the new values of its next attempt."""

    item_id: UUID
    correction: Correction


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """Which failed items to retry: those in `item_ids`, those whose error is retryable, or by default all.

    A corrected item is named by its correction. Raises ValueError for `item_ids` with `only_retryable`, which would be ambiguous.
    """

    item_ids: Sequence[UUID] | None = None
    only_retryable: bool = False
    corrections: Sequence[CorrectedItem] = ()

    def __post_init__(self) -> None:
        if self.only_retryable and self.item_ids is not None:
            raise ValueError("item_ids and only_retryable can't be combined; use one of them")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's Idempotency-Key, and the hash of the request as normalized.

    `call_id` is drawn for each call. A transaction that is run again, because the acknowledgement of its commit was lost, finds it.
    """

    key: str
    request_hash: bytes
    call_id: UUID = field(default_factory=uuid4, compare=False)


@dataclass(frozen=True, slots=True)
class Submitted:
    """The result of a submission; `replayed` if the key was used for the same request before."""

    batch: BatchView
    replayed: bool


@dataclass(frozen=True, slots=True)
class Retried:
    """The result of a retry: how many items begin a new attempt, and the batch as it stands."""

    batch: BatchView
    retried: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The result of a cancel: the batch with its final counts."""

    batch: BatchView
    replayed: bool = False

    @property
    def unresolved(self) -> int:
        """How many items still wait for an external service's decision."""
        return self.batch.counts.pending


@dataclass(frozen=True, slots=True)
class KeptItem:
    """An item whose activity was not revoked."""

    item_id: UUID
    code: KeptBecause


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """Which activities of a batch to revoke: those of the named items, or all. `reason` is for auditors."""

    reason: str
    item_ids: Sequence[UUID] | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The result of a revocation: how many activities it revoked, how many were already revoked, which it kept, and the present batch."""

    batch: BatchView
    revoked: int
    already_revoked: int
    kept: Sequence[KeptItem] = ()
    unresolved: int = 0
    """How many activities an external service was asked to revoke, by this call or before, and has not answered."""
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class RevokedActivity:
    """A revoked activity. If it `was_revoked_before`, this call changed nothing."""

    activity_id: UUID
    batch_id: UUID
    item_id: UUID
    revocation: Revocation
    was_revoked_before: bool
    replayed: bool = False
