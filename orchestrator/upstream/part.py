"""A part of an upstream batch: its event as the domain sees it, with the hashes of its content."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Numbered, Role, upstream_channel
from orchestrator.batches.parts import content_hash, part_hash
from orchestrator.batches.repository import PartHashes, PartKey
from schemas.envelope import Envelope, trace_of
from schemas.events import BatchSubmitted, MalformedSubmission, SubmittedItem
from schemas.mistakes import Mistake


@dataclass(frozen=True, slots=True)
class Origin:
    """The event that brought a part; a rejection refers to it. If the event has no trace, the batch's id is the id of
    the trace, which is not sampled."""

    source: str
    event_id: str
    trace_id: str
    written_at: datetime

    @classmethod
    def of(cls, envelope: Envelope, batch_id: UUID, written_at: datetime) -> "Origin":
        """The origin of a part. `written_at` is when the broker stored the event."""
        return cls(envelope.source, envelope.id, trace_of(envelope.traceparent) or batch_id.hex, written_at)


@dataclass(frozen=True, slots=True)
class MalformedPart:
    """A `BatchSubmitted` of which only the batch and the organization can be read."""

    batch_id: UUID
    organization_id: str
    mistakes: Sequence[Mistake]
    origin: Origin

    @property
    def key(self) -> PartKey:
        """A key that no part has. Looking it up finds the batch."""
        return (str(self.batch_id), 0)


@dataclass(frozen=True, slots=True)
class SubmittedPart:
    """One `BatchSubmitted` as the domain sees it, with the hashes of its content. `items` are in the event's order."""

    batch_id: UUID
    organization_id: str
    coordinator_id: str
    label: str | None
    override_duplicates: bool
    part: int
    parts: int
    total_items: int
    items: Numbered
    data_bytes: int
    origin: Origin
    header_hash: bytes
    hashes: PartHashes

    @property
    def key(self) -> PartKey:
        """The key that identifies the part."""
        return (str(self.batch_id), self.part)

    @property
    def actor(self) -> Actor:
        """The upstream service in whose name the batch is stored."""
        return Actor(self.organization_id, self.origin.source, Role.SERVICE, upstream_channel(self.origin.source))

    def batch(self, items: Sequence[NewItem]) -> NewBatch:
        """The batch that this part belongs to, with these items."""
        return NewBatch(self.batch_id, self.coordinator_id, self.label, self.override_duplicates, items, self.origin.trace_id)


Part = SubmittedPart | MalformedPart


def malformed_part(data: MalformedSubmission, envelope: Envelope, written_at: datetime) -> MalformedPart:
    """The readable rest of a malformed event."""
    origin = Origin.of(envelope, data.batch_id, written_at)
    return MalformedPart(data.batch_id, data.organization_id, data.mistakes, origin)


def submitted_part(data: BatchSubmitted, envelope: Envelope, written_at: datetime) -> SubmittedPart:
    """Reads an event's data. The order of the items in the event does not matter: in any order, the content has the same hashes."""
    total = data.total_items if data.total_items is not None else len(data.items)
    items = [(item.position, _new_item(item, override=data.override_duplicates)) for item in data.items]
    header = content_hash(
        organization_id=data.organization_id,
        coordinator_id=data.coordinator_id,
        label=data.label,
        override=data.override_duplicates,
        parts=data.parts,
        total=total,
    )
    ordered = sorted(items, key=position_of)
    public_hash = part_hash(header, data.part, ordered, with_notes=False, override=data.override_duplicates)
    whole_hash = public_hash
    if any(item.notes is not None for item in data.items):
        whole_hash = part_hash(header, data.part, ordered, with_notes=True, override=data.override_duplicates)
    return SubmittedPart(
        batch_id=data.batch_id,
        organization_id=data.organization_id,
        coordinator_id=data.coordinator_id,
        label=data.label,
        override_duplicates=data.override_duplicates,
        part=data.part,
        parts=data.parts,
        total_items=total,
        items=items,
        data_bytes=len(envelope.data),
        origin=Origin.of(envelope, data.batch_id, written_at),
        header_hash=header,
        hashes=PartHashes(data.part, whole_hash, public_hash),
    )


def _new_item(item: SubmittedItem, *, override: bool) -> NewItem:
    """An item of a part. `override` is the part's own, for items that do not say."""
    values = ItemValues(
        item.mentor_id,
        item.activity_type,
        item.activity_date,
        item.duration_minutes,
        item.notes,
        override if item.override_duplicates is None else item.override_duplicates,
    )
    return NewItem(values, item.client_reference)


def position_of(numbered: tuple[int, NewItem]) -> int:
    """The key for sorting items with positions."""
    return numbered[0]
