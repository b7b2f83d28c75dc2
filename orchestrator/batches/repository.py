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
    StatusView,
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
    """What folding outcomes changed: items by batch and new state; and the keys (by index) that name no outcome."""

    changed: Mapping[UUID, Mapping[ItemStatus, int]]
    unknown: Sequence[int]


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
    """A part that the database has, by its two hashes; None where it has the batch but not this part."""

    organization_id: str
    parts: int
    header_hash: bytes
    content_hash: bytes | None
    public_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Whose a purged batch was, and the hash of what all its parts said alike."""

    organization_id: str
    header_hash: bytes


@dataclass(frozen=True, slots=True)
class PartHashes:
    """What identifies the content of one part: as its sender wrote it, and as published, without notes."""

    part: int
    content_hash: bytes
    public_hash: bytes


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An Idempotency-Key that was used before."""

    request_hash: bytes
    batch_id: UUID
    answer: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A request that claims an Idempotency-Key for a batch."""

    actor: Actor
    idempotency: Idempotency
    batch_id: UUID


@dataclass(frozen=True, slots=True)
class BatchToCreate:
    """A batch with all that is stored with it: what identifies its content, and the events that set it in motion."""

    actor: Actor
    batch: NewBatch
    submitted_at: datetime
    content_hash: bytes
    parts: Sequence[PartHashes]
    events: Sequence[OutgoingEvent] = ()


class ActivityRepository(Protocol):
    """Batches, their items, outcomes and events in one transaction."""

    def clock(self) -> datetime:
        """The database's time now, not at the transaction's start."""

    def clock_after_decisions(self, batch_id: UUID) -> datetime:
        """The database's time now, but never before anything that was decided or asked about the batch: its clock may have been set back."""

    def known_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> Set[str]:
        """Those of these whom the directory has."""

    def clock_and_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> tuple[datetime, Set[str]]:
        """`clock` and `known_coordinators` in one round trip."""

    def use_keys(self, uses: Sequence[KeyUse]) -> Mapping[UUID, UsedKey]:
        """Claims Idempotency-Keys; by batch of the request, the earlier uses. Waits for rivals that use one right now."""

    def used_key(self, actor: Actor, idempotency: Idempotency) -> UsedKey | None:
        """The committed use of the Idempotency-Key, if there is one; claims nothing, and waits for nobody."""

    def answer_key(self, actor: Actor, idempotency: Idempotency, answer: Mapping[str, Any]) -> None:
        """Keeps what a repetition of the request is answered."""

    def create_batches(self, batches: Sequence[BatchToCreate]) -> Set[UUID]:
        """Stores batches with all their items, `processing`, and their events; those whose id exists already are left as they are.
        Answers which were new."""

    def lock_batch(self, batch_id: UUID) -> BatchView | None:
        """Takes the batch for itself: no registration, fold, retry, cancel or delete of it goes on elsewhere until the commit."""

    def lock_batches(self, batch_ids: Collection[UUID]) -> None:
        """Takes several for itself, in the order that everybody takes them in; `lock_batch` of one of them waits for nobody then."""

    def lock_for_fold(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchView]:
        """Takes the projections of these batches (in sorted order); registration goes on."""

    def fold(self, keys: Sequence[OutcomeKey], batches: Mapping[UUID, BatchView]) -> Folded:
        """Puts the outcomes that the keys name into pending items of that attempt. These are their batches, locked."""

    def fold_batch(self, batch_id: UUID) -> Mapping[ItemStatus, int]:
        """The same for every outcome of a locked batch; answers how many items changed, by new state."""

    def change_batches(self, changes: Sequence[BatchChange]) -> None:
        """Writes the new counts and raises the versions. The batches are locked."""

    def cancel_pending(self, batch_id: UUID, at: datetime) -> Sequence[tuple[int, int]]:
        """Writes a `cancelled` outcome for every pending item of a locked batch that no external service may have registered;
        (position, attempt) in order of position."""

    def positions_in_doubt(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[int]:
        """Which of these items an external registration service may have registered, without a definite answer in its outcome."""

    def mark_cancelled(self, batch_id: UUID, *, at: datetime, by: str, reason: str | None) -> None:
        """Notes who cancelled, when and why."""

    def items_by_status(self, batch_id: UUID, status: ItemStatus) -> Sequence[ItemView]:
        """All items of a batch in this state, by position."""

    def items_at(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[ItemView]:
        """The items at these positions, by position."""

    def positions_changed_since(self, batch_id: UUID, version: int) -> Sequence[int]:
        """The positions of the items that changed after that version of their batch, in order."""

    def positions_of_identities(self, batch_id: UUID, values: Sequence[ItemValues]) -> Sequence[tuple[int, ItemValues]]:
        """Which items of a batch have the mentor, type and date of one of these."""

    def begin_attempts(self, batch: BatchView, attempts: Sequence[NewAttempt], *, by: str, at: datetime) -> int:
        """Moves failed items to their next attempt, keeps the old one in their history; answers the batch's new retry number."""

    def relabel(self, batch_id: UUID, label: str | None, at: datetime) -> None:
        """Edits the label."""

    def mark_deleted(self, batch_id: UUID, at: datetime) -> None:
        """Removes the batch from view."""

    def publish(self, organization_id: str, batch_id: UUID, events: Sequence[OutgoingEvent]) -> None:
        """Adds events of a batch to the outbox, in this order."""

    def publish_all(self, events: Sequence[EventOf]) -> None:
        """Adds events of several batches at once, each batch's in order."""

    def wake_relays(self) -> None:
        """Tells the relays at the commit that there is something to publish. Not for submissions: it would serialise their commits."""

    def find_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        """A batch, without a lock; one that is deleted and not purged yet only when asked for."""

    def status(self, batch_id: UUID, items: ItemFilter) -> StatusView | None:
        """A batch and its items as they stood at one moment."""

    def list_batches(self, organization_id: str, wanted: BatchFilter) -> BatchPage:
        """A page of an organization's batches, newest first."""

    def history(self, batch_id: UUID, position: int) -> Sequence[AttemptView]:
        """The attempts of an item that are over, oldest first."""


class PartStore(Protocol):
    """Batches whose parts have not all come, and what is known of the others."""

    def known(self, parts: Sequence[PartKey]) -> Mapping[PartKey, KnownPart]:
        """What the database has, by part; batches that it does not know are absent."""

    def tombstone(self, batch_id: UUID) -> Tombstone | None:
        """What is left of a batch that was purged."""

    def begin(self, actor: Actor, batch: NewBatch, *, content_hash: bytes, parts: int, total: int) -> None:
        """Stores a batch whose parts have not all come: counted as pending, without items."""

    def add(self, organization_id: str, batch_id: UUID, hashes: PartHashes, items: Numbered, *, data_bytes: int) -> None:
        """Keeps a part, with its notes, until the others have come."""

    def present(self, batch_id: UUID) -> tuple[int, int]:
        """How many parts have come, and how many bytes their events had."""

    def collected(self, batch_id: UUID, *, override: bool) -> Sequence[tuple[int, Numbered, datetime]]:
        """The parts that have come, in order: number, items, and when each came.

        Without the notes, which are most of a batch: checking it as a whole does not need them.
        """

    def finish(self, batch_id: UUID, *, override: bool, at: datetime) -> None:
        """Moves a complete batch to `processing`, makes its items of what was collected, and tells its followers."""

    def forget(self, batch_id: UUID) -> bool:
        """Removes a batch that has no items yet, with its parts, and tells its followers; False when there is none."""
