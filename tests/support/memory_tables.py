"""The rows of the storage in memory (`memory.py`), and what a new batch is in them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchView,
    ItemView,
    Measurement,
    NewBatch,
    NewItem,
    Numbered,
    TemplateView,
)
from orchestrator.batches.repository import EventOf, PartHashes, Tombstone, UsedKey
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from orchestrator.storage.dispatch import DispatchState
from schemas.ids import DerivedIds
from tests.support.storage import Decided


@dataclass(frozen=True, slots=True)
class Batch:
    view: BatchView
    content_hash: bytes
    parts: int = 1
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    view: ItemView
    attempt_at: datetime
    changed_version: int


@dataclass(frozen=True, slots=True)
class Part:
    hashes: PartHashes
    received_at: datetime
    items: Numbered | None = None
    data_bytes: int = 0


Key = tuple[str, str, str]


@dataclass(slots=True)
class Tables:
    """Rows are replaced, never changed in place, so a copy of the dictionaries is a snapshot."""

    batches: dict[UUID, Batch] = field(default_factory=dict)
    items: dict[UUID, dict[int, Item]] = field(default_factory=dict)
    outcomes: dict[UUID, dict[tuple[int, int], Decided]] = field(default_factory=dict)
    dispatches: dict[UUID, dict[int, tuple[DispatchState, datetime]]] = field(default_factory=dict)
    history: dict[tuple[UUID, int], tuple[AttemptView, ...]] = field(default_factory=dict)
    parts: dict[UUID, dict[int, Part]] = field(default_factory=dict)
    tombstones: dict[UUID, Tombstone] = field(default_factory=dict)
    keys: dict[Key, UsedKey] = field(default_factory=dict)
    outbox: list[EventOf] = field(default_factory=list)
    coordinators: set[tuple[str, str]] = field(default_factory=set)
    templates: dict[UUID, TemplateView] = field(default_factory=dict)
    dismissals: dict[tuple[UUID, int], str] = field(default_factory=dict)

    def snapshot(self) -> "Tables":
        return Tables(
            dict(self.batches),
            {batch_id: dict(rows) for batch_id, rows in self.items.items()},
            {batch_id: dict(rows) for batch_id, rows in self.outcomes.items()},
            {batch_id: dict(rows) for batch_id, rows in self.dispatches.items()},
            dict(self.history),
            {batch_id: dict(rows) for batch_id, rows in self.parts.items()},
            dict(self.tombstones),
            dict(self.keys),
            list(self.outbox),
            set(self.coordinators),
            dict(self.templates),
            dict(self.dismissals),
        )


class Memory:
    """The tables, and the database's clock. Each reading advances it by a microsecond."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 25, 12, tzinfo=UTC)
        self.tables = Tables()

    def clock(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now

    def decide(self, batch_id: UUID, position: int, attempt: int, decided: Decided) -> None:
        self.tables.outcomes.setdefault(batch_id, {}).setdefault((position, attempt), decided)


def new_view(actor: Actor, batch: NewBatch, status: BatchStatus, total: int, at: datetime) -> BatchView:
    return BatchView(
        batch_id=batch.batch_id,
        organization_id=actor.organization_id,
        coordinator_id=batch.coordinator_id,
        submitted_by=actor.subject,
        channel=actor.channel,
        label=batch.label,
        status=status,
        counts=Counts(pending=total),
        retry_number=0,
        version=1,
        edit_version=1,
        submitted_at=at,
        changed_at=at,
        completed_at=None,
        cancelled_at=None,
        cancelled_by=None,
        cancellation_reason=None,
        trace_id=batch.trace_id,
        measurement=Measurement(at, total, at),
    )


def new_items(batch_id: UUID, items: Numbered, at: datetime, *, version: int) -> dict[int, Item]:
    ids = DerivedIds(batch_id)
    return {
        position: Item(
            ItemView(
                item_id=ids.item_id(position),
                position=position,
                values=item.values,
                client_reference=item.client_reference,
                status=ItemStatus.PENDING,
                attempt=1,
                activity_id=None,
                error=None,
                planned=item.planned,
            ),
            at,
            version,
        )
        for position, item in items
    }


def as_collected(items: Numbered, *, with_notes: bool) -> list[tuple[int, NewItem]]:
    """Returns the items as a part keeps them: what their event says."""
    return [
        (position, NewItem(item.values._replace(notes=item.values.notes if with_notes else None), item.client_reference))
        for position, item in items
    ]
