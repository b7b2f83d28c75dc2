"""Turns a well-formed submission into what is stored and published: content hashes and the parts of its event."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from orchestrator.batches.model import Actor, BatchView, NewBatch, NewItem
from orchestrator.batches.repository import PartHashes
from schemas import event_builders, events
from schemas.corrections import Correction
from schemas.envelope import OutgoingEvent
from schemas.mistakes import Mistake

# Room for everything in a part but its items: names and a label, with up to six bytes of JSON per character.
_ITEMS_BYTES = events.MAX_PART_BYTES - 16 * 1024


def content_hash(
    *, organization_id: str, coordinator_id: str, label: str | None, override: bool, parts: int, total: int
) -> bytes:
    """The hash of what all parts of a batch have in common."""
    return hashlib.sha256(orjson.dumps([organization_id, coordinator_id, label, override, parts, total])).digest()


def part_hash(
    header: bytes, part: int, items: Sequence[tuple[int, NewItem]], *, with_notes: bool, override: bool = False
) -> bytes:
    """The hash of one part's content: (position, item) in the order of the part. `override` is the batch's flag. An item's own flag is
    hashed only where it differs, so that parts from before items had flags keep their hashes."""
    rows = [
        (
            position,
            item.values.mentor_id,
            item.values.activity_type,
            item.values.activity_date,
            item.values.duration_minutes,
            item.values.notes if with_notes else None,
            item.client_reference,
            *_own_flag(item, override),
        )
        for position, item in items
    ]
    return hash_of_rows(header, part, rows)


def hash_of_rows(header: bytes, part: int, rows: Sequence[tuple[object, ...]]) -> bytes:
    """The hash of one part's content, from rows like those of `part_hash`."""
    return hashlib.sha256(header + orjson.dumps([part, rows])).digest()


def _own_flag(item: NewItem, override: bool) -> Sequence[bool]:
    """The item's flag, if it differs from the batch's."""
    flag = item.values.override_duplicates
    return () if flag == override else (flag,)


@dataclass(slots=True)
class _Part:
    """A part of a batch: its items, and the same items as the event carries them."""

    items: list[tuple[int, NewItem]] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    room: int = _ITEMS_BYTES


def _parts_of(batch: NewBatch) -> list[_Part]:
    """Splits a batch into parts of at most `MAX_PART_ITEMS` items and `MAX_PART_BYTES` of JSON each."""
    parts = [_Part()]
    for position, item in enumerate(batch.items):
        written = _public_item(position, item, batch.override_duplicates)
        size = len(written) + len(",")
        if len(parts[-1].items) == events.MAX_PART_ITEMS or size > parts[-1].room:
            parts.append(_Part())
        part = parts[-1]
        part.items.append((position, item))
        part.written.append(written)
        part.room -= size
    return parts


def _public_item(position: int, item: NewItem, override: bool) -> bytes:
    """An item as our own events carry it: without notes, which stay in the database (invariant 10)."""
    values = item.values
    data: dict[str, Any] = {
        "position": position,
        "mentor_id": values.mentor_id,
        "activity_type": values.activity_type,
        "activity_date": values.activity_date,
        "duration_minutes": values.duration_minutes,
    }
    if item.client_reference is not None:
        data["client_reference"] = item.client_reference
    for flag in _own_flag(item, override):
        data["override_duplicates"] = flag
    return orjson.dumps(data)


def submitted_events(
    actor: Actor, batch: NewBatch, *, submitted_at: datetime
) -> tuple[bytes, list[PartHashes], list[OutgoingEvent]]:
    """The content hash of a batch, those of its parts, and its `BatchSubmitted` events."""
    total = len(batch.items)
    divided = _parts_of(batch)
    header = content_hash(
        organization_id=actor.organization_id,
        coordinator_id=batch.coordinator_id,
        label=batch.label,
        override=batch.override_duplicates,
        parts=len(divided),
        total=total,
    )
    hashes: list[PartHashes] = []
    published: list[OutgoingEvent] = []
    for number, part in enumerate(divided, start=1):
        public = part_hash(header, number, part.items, with_notes=False, override=batch.override_duplicates)
        hashes.append(PartHashes(number, public, public))
        published.append(_event(actor, batch, number, len(divided), part.written, total=total, time=submitted_at))
    return header, hashes, published


def part_event(
    actor: Actor,
    batch: NewBatch,
    part: int,
    parts: int,
    items: Sequence[tuple[int, NewItem]],
    *,
    total: int,
    time: datetime,
) -> OutgoingEvent:
    """One part of a batch as an event that this product publishes."""
    written = [_public_item(position, item, batch.override_duplicates) for position, item in items]
    return _event(actor, batch, part, parts, written, total=total, time=time)


def _event(
    actor: Actor, batch: NewBatch, part: int, parts: int, written: Sequence[bytes], *, total: int, time: datetime
) -> OutgoingEvent:
    return event_builders.batch_submitted(
        batch_id=batch.batch_id,
        organization_id=actor.organization_id,
        coordinator_id=batch.coordinator_id,
        label=batch.label,
        override_duplicates=batch.override_duplicates,
        part=part,
        parts=parts,
        total_items=total,
        submitted_by=actor.subject,
        channel=actor.channel,
        items=written,
        time=time,
        trace_id=batch.trace_id,
    )


def retry_events(
    *,
    batch_id: UUID,
    organization_id: str,
    retry_number: int,
    retried_by: str,
    attempts: Sequence[tuple[int, int, Correction | None]],
    time: datetime,
    trace_id: str,
) -> list[OutgoingEvent]:
    """The `BatchRetryRequested` events of one retry; `attempts` are (position, new attempt, correction without notes)."""
    rows = [
        {"position": position, "attempt": attempt} | ({"correction": correction} if correction else {})
        for position, attempt, correction in attempts
    ]
    chunks = [rows[first : first + events.MAX_PART_ITEMS] for first in range(0, len(rows), events.MAX_PART_ITEMS)]
    return [
        event_builders.batch_retry_requested(
            batch_id=batch_id,
            organization_id=organization_id,
            retry_number=retry_number,
            part=part,
            retried_by=retried_by,
            items=chunk,
            time=time,
            trace_id=trace_id,
        )
        for part, chunk in enumerate(chunks, start=1)
    ]


def incomplete_batch(batch: BatchView, *, at: datetime) -> OutgoingEvent:
    """The rejection of an upstream batch whose parts did not all arrive. No single event was refused, so it refers to the batch."""
    return event_builders.batch_rejected(
        batch_id=batch.batch_id,
        organization_id=batch.organization_id,
        rejected_source=batch.channel,
        rejected_event_id=str(batch.batch_id),
        batch_continues=False,
        mistakes=[Mistake("/parts", "incomplete", "Not all parts of the batch arrived.")],
        time=at,
        trace_id=batch.trace_id,
    )
