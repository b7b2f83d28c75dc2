"""The ports to storage: the activity repository, and the parts of upstream batches. Each method is part of the caller's transaction."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchFilter,
    BatchPage,
    BatchView,
    Idempotency,
    ItemFilter,
    ItemValues,
    ItemView,
    NewBatch,
    Numbered,
    Period,
    PeriodChange,
    Revocation,
    StatusView,
    TemplateView,
)
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from schemas.corrections import Correction
from schemas.envelope import OutgoingEvent


class OutcomeKey(NamedTuple):
    """What a command or a result names: one attempt of one item."""

    batch_id: str
    position: int
    attempt: int


class EventOf(NamedTuple):
    """An event, and the batch that it is about."""

    organization_id: str
    batch_id: UUID
    event: OutgoingEvent


@dataclass(frozen=True, slots=True)
class Folded:
    """What folding outcomes changed: items by batch and new state; and the keys (by index) that name no outcome. `at` is the database's time
    after the change; None if nothing changed."""

    changed: Mapping[UUID, Mapping[ItemStatus, int]]
    unknown: Sequence[int]
    at: datetime | None


@dataclass(frozen=True, slots=True)
class BatchChange:
    """New counts and what follows from them, for one locked batch. `now` is when it changed."""

    batch_id: UUID
    counts: Counts
    status: BatchStatus
    now: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewAttempt:
    """A failed item begins its next attempt, with these values. `correction` is what changed, None when nothing did."""

    position: int
    values: ItemValues
    correction: Correction | None


PartKey = tuple[str, int]
"""A batch's id, and the number of one of its parts."""


@dataclass(frozen=True, slots=True)
class KnownPart:
    """A stored part, by its two hashes. They are None when the batch is stored, but not this part."""

    organization_id: str
    parts: int
    header_hash: bytes
    content_hash: bytes | None
    public_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The organization of a purged batch, and the hash of what all its parts had in common."""

    organization_id: str
    header_hash: bytes


@dataclass(frozen=True, slots=True)
class PartHashes:
    """The hashes that identify the content of one part: as its sender wrote it, and as we publish it, without notes."""

    part: int
    content_hash: bytes
    public_hash: bytes


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An Idempotency-Key that was used before."""

    request_hash: bytes
    batch_id: UUID
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A request that claims an Idempotency-Key for a batch."""

    actor: Actor
    idempotency: Idempotency
    batch_id: UUID


@dataclass(frozen=True, slots=True)
class BatchToCreate:
    """A batch with everything that is stored with it: the hashes of its content, and the events that start it."""

    actor: Actor
    batch: NewBatch
    submitted_at: datetime
    content_hash: bytes
    parts: Sequence[PartHashes]
    events: Sequence[OutgoingEvent] = ()


class ActivityRepository(Protocol):
    """Batches, their items, outcomes and events in one transaction."""

    def clock(self) -> datetime:
        """Returns the database's time now, not at the start of the transaction."""

    def clock_after_decisions(self, batch_id: UUID) -> datetime:
        """Returns the database's time now, or the time of the batch's last outcome or dispatch if that is later.

        The two differ only when the database's clock was set back.
        """

    def known_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> Set[str]:
        """Returns the given coordinators that are in the directory of the organization."""

    def clock_and_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> tuple[datetime, Set[str]]:
        """Returns `clock` and `known_coordinators` in one round trip."""

    def use_keys(self, uses: Sequence[KeyUse]) -> Mapping[UUID, UsedKey]:
        """Claims Idempotency-Keys. Returns the earlier uses of keys that were already taken, by the batch of the request.

        Waits for the end of any other transaction that is claiming one of the keys.
        """

    def used_key(self, actor: Actor, idempotency: Idempotency) -> UsedKey | None:
        """Returns the committed use of an Idempotency-Key, if there is one. Does not claim the key, and does not wait."""

    def store_result(self, actor: Actor, idempotency: Idempotency, result: Mapping[str, Any]) -> None:
        """Stores the result that a repetition of the request returns."""

    def create_batches(self, batches: Sequence[BatchToCreate]) -> Set[UUID]:
        """Stores batches as `processing`, with their items, parts and events. Returns the ids of the new batches.

        A batch whose id already exists is left unchanged.
        """

    def lock_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        """Locks a batch against registration, fold, retry, cancel and delete until the transaction ends, and reads it.

        Returns None for a batch that is unknown or, without `or_deleted`, deleted. Its advisory lock is taken even then.
        """

    def lock_batches(self, batch_ids: Collection[UUID]) -> None:
        """Locks several batches in the order that prevents deadlocks. After it, `lock_batch` of one of them does not wait."""

    def lock_for_fold(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchView]:
        """Locks the rows of these batches and reads them, including deleted ones. Does not block registration.

        The ids must be sorted.
        """

    def fold(self, keys: Sequence[OutcomeKey], batches: Mapping[UUID, BatchView]) -> Folded:
        """Copies the outcomes that the keys name into items that are pending in that attempt. `batches` are locked; others are skipped."""

    def fold_batch(self, batch_id: UUID) -> Mapping[ItemStatus, int]:
        """Folds every outcome of a locked batch. Returns how many items changed, by new state."""

    def change_batches(self, changes: Sequence[BatchChange]) -> None:
        """Writes new counts and statuses of locked batches, and raises their versions by one."""

    def cancel_pending(self, batch_id: UUID, at: datetime) -> Sequence[tuple[int, int]]:
        """Cancels the pending items of a locked batch, each with an outcome. Returns their positions and attempts, by position.

        Items that are in doubt stay pending (`positions_in_doubt`).
        """

    def positions_in_doubt(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[int]:
        """Returns the positions of the given items that an external service was asked to register and may have registered."""

    def mark_cancelled(self, batch_id: UUID, *, at: datetime, by: str, reason: str | None) -> None:
        """Writes who cancelled a batch, when and why. Raises its edit version by one; `change_batches` raises its version.

        Parts that have waited for others lose their items.
        """

    def items_by_status(self, batch_id: UUID, status: ItemStatus) -> Sequence[ItemView]:
        """Returns the items of a batch in this state, by position."""

    def items_at(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[ItemView]:
        """Returns the items at these positions, by position."""

    def positions_changed_since(self, batch_id: UUID, version: int) -> Sequence[int]:
        """Returns the positions of the items that changed after this version of their batch, in order."""

    def positions_of_identities(self, batch_id: UUID, values: Sequence[ItemValues]) -> Sequence[tuple[int, ItemValues]]:
        """Returns the position and values of each item with the mentor, type and date of one of these values, in no order."""

    def begin_attempts(self, batch: BatchView, attempts: Sequence[NewAttempt], *, by: str, at: datetime) -> int:
        """Moves failed items to their next attempt, and their last attempt to the history. Returns the batch's new retry number."""

    def relabel(self, batch_id: UUID, label: str | None, at: datetime) -> None:
        """Changes the label. Raises the version and the edit version by one."""

    def mark_revoked(self, batch_id: UUID, positions: Sequence[int], revocation: Revocation) -> None:
        """Writes the revocation of their activities to these items, and counts them. Raises the version and the edit version by one."""

    def mark_requests(self, batch_id: UUID, requests: Mapping[int, str], revocation: Revocation) -> None:
        """Writes to these items, by position, what became of the request to an external service to revoke their activity.

        Raises the version and the edit version by one.
        """

    def dismiss(self, batch_id: UUID, *, at: datetime, by: str) -> None:
        """Marks the failed items of a locked batch as dealt with, and stores by whom. Raises the version by one.

        `change_batches` takes it back when it raises the number of failed items.
        """

    def mark_deleted(self, batch_id: UUID, at: datetime) -> None:
        """Marks a batch as deleted. Raises the version and the edit version by one."""

    def publish(self, organization_id: str, batch_id: UUID, events: Sequence[OutgoingEvent]) -> None:
        """Adds events of a batch to the outbox, in this order."""

    def publish_all(self, events: Sequence[EventOf]) -> None:
        """Adds events of several batches to the outbox, those of each batch in this order."""

    def wake_relays(self, *, hurried: bool = True) -> None:
        """Notifies the relays, at the commit, that there are events to publish. Those that are not `hurried` may wait for others, for some
        hundredths of a second. Submissions don't call it: it would serialize their commits."""

    def find_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        """Reads a batch without a lock. With `or_deleted`, also a batch that is deleted but not purged yet."""

    def status(self, batch_id: UUID, items: ItemFilter) -> StatusView | None:
        """Reads a batch and a page of its items in one snapshot. Returns None for a batch that is unknown or deleted."""

    def list_batches(self, organization_id: str, wanted: BatchFilter) -> BatchPage:
        """Reads a page of an organization's batches, newest first. Leaves out deleted batches."""

    def history(self, batch_id: UUID, position: int) -> Sequence[AttemptView]:
        """Returns the earlier attempts of an item, oldest first."""


class TemplateStore(Protocol):
    """Templates in one transaction."""

    def add(self, template: TemplateView) -> None:
        """Stores a new template."""

    def find(self, template_id: UUID) -> TemplateView | None:
        """Reads a template. Returns None if it does not exist."""

    def lock(self, template_id: UUID) -> TemplateView | None:
        """Reads a template, and locks it against changes until the transaction ends."""

    def page(self, organization_id: str, coordinator_id: str | None, *, after: UUID | None, limit: int) -> Sequence[TemplateView]:
        """Returns templates of an organization, or of one of its coordinators, by id: those after `after`, at most `limit`."""

    def write(self, template: TemplateView) -> None:
        """Writes values, version and time of a locked template."""

    def remove(self, template_id: UUID) -> None:
        """Removes a locked template."""


class PeriodStore(Protocol):
    """The closed periods of organizations in one transaction."""

    def read(self, organization_id: str) -> Period:
        """Reads the period without a lock. An organization that is not in the directory has none closed."""

    def take(self, organization_id: str) -> Period:
        """Waits for running registrations and revocations of the organization, keeps out others until the transaction ends, and reads the
        period."""

    def write(self, organization_id: str, change: PeriodChange) -> None:
        """Writes the change to the period that the transaction has taken."""

    def changes(self, organization_id: str, *, before: int | None, limit: int) -> Sequence[PeriodChange]:
        """Returns changes, newest first: those with a lower number than `before`, at most `limit`."""


class ItemPlace(NamedTuple):
    """The organization and the coordinator of a registered item."""

    organization_id: str
    coordinator_id: str


class NotesStore(Protocol):
    """Notes, for erasing them, in one transaction."""

    def place_of_registered(self, batch_id: UUID, item_id: UUID) -> ItemPlace | None:
        """Returns the place of an item that has an activity here, even if its batch is purged; None for any other item."""

    def erase(self, organization_id: str, batch_id: UUID, position: int, *, actor: Actor, at: datetime) -> bool:
        """Erases the notes of an item of a locked batch from the item, its earlier attempts and its activity, and stores by whom.

        Raises the batch's version by one. Returns False, and changes nothing, if the item has no notes.
        """


class PartStore(Protocol):
    """The stored parts of all batches, and the batches of which parts are missing."""

    def known(self, parts: Sequence[PartKey]) -> Mapping[PartKey, KnownPart]:
        """Returns what is stored of these parts and their batches. Parts of unknown batches are absent."""

    def tombstone(self, batch_id: UUID) -> Tombstone | None:
        """Returns the tombstone of a purged batch; None for any other batch."""

    def begin(self, actor: Actor, batch: NewBatch, *, content_hash: bytes, parts: int, total: int) -> None:
        """Stores a `pending` batch without items. All `total` items count as pending."""

    def add(self, organization_id: str, batch_id: UUID, hashes: PartHashes, items: Numbered, *, data_bytes: int) -> None:
        """Stores a part with its items and their notes."""

    def present(self, batch_id: UUID) -> tuple[int, int]:
        """Returns how many parts are stored, and the bytes of their events."""

    def collected(self, batch_id: UUID, *, override: bool) -> Sequence[tuple[int, Numbered, datetime]]:
        """Returns the number, the items and the time of storing of each stored part, by number.

        `override` is the batch's flag: items that the version before stored have it.

        The items have no notes: notes are most of a batch's bytes, and the check of the whole batch does not need them.
        """

    def finish(self, batch_id: UUID, *, override: bool, at: datetime) -> None:
        """Moves a complete batch to `processing`, stores the items of its parts as its items, and notifies its followers."""

    def forget(self, batch_id: UUID) -> bool:
        """Removes a `pending` batch with its parts, and notifies its followers. Returns False when there is no such batch."""
