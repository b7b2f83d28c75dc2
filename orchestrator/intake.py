"""Batches that come as events: which are known, which are new, which are refused (specification, 3 splitter and 7).

A batch of one part is created at once. The parts of a larger one are kept until all have come; then it is validated as a whole and
created in one transaction, and its parts are published again, without notes, for the splitter to expand one after the other.

A refusal changes nothing but this: a batch whose parts are still being collected is forgotten when one of them is wrong in itself, or
all of them together are. Nothing remembers it: its sender may send it again.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from uuid import UUID

from orchestrator.model import Actor, ItemValues, NewBatch, NewItem, Role, upstream_channel
from orchestrator.repository import BatchToCreate, PartHashes
from orchestrator.states import BatchStatus
from orchestrator.storage.expansion import KnownPart, known_parts
from orchestrator.storage.parts import (
    add_part,
    collected_parts,
    create_collecting,
    finish_collecting,
    forget_batch,
    parts_present,
)
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.tombstones import Tombstone, tombstones_among
from orchestrator.submission import content_hash, part_event, part_hash
from schemas import events
from schemas.envelope import Envelope, trace_id_of
from schemas.events import BatchSubmitted, MalformedSubmission, place_of_mentor
from schemas.problems import COORDINATOR_UNKNOWN, Mistake, duplicate_mentors, first_of, listed, size_mistakes

Numbered = Sequence[tuple[int, NewItem]]
PartKey = tuple[str, int]

_DIFFERS = Mistake("/batch_id", "batch_differs", "A batch of this id exists with other content.")
# Whose it is, or that it is anybody's, is nothing that another organization learns.
_TAKEN = Mistake("/batch_id", "batch_id_taken", "This batch id can't be used; take a new one.")


@dataclass(frozen=True, slots=True)
class Origin:
    """The event that brought a part: what a rejection answers. Without a trace of its own a batch gets one that follows from its id."""

    source: str
    event_id: str
    trace_id: str
    written_at: datetime

    @classmethod
    def of(cls, envelope: Envelope, batch_id: UUID, written_at: datetime) -> "Origin":
        """`written_at` is when the broker took the event."""
        return cls(envelope.source, envelope.id, trace_id_of(envelope.traceparent) or batch_id.hex, written_at)


@dataclass(frozen=True, slots=True)
class MalformedPart:
    """A `BatchSubmitted` of which no more can be read than whose it is."""

    batch_id: UUID
    organization_id: str
    problems: Sequence[Mistake]
    origin: Origin

    @property
    def key(self) -> PartKey:
        """No part has this one: it asks for the batch."""
        return (str(self.batch_id), 0)


@dataclass(frozen=True, slots=True)
class SubmittedPart:
    """One `BatchSubmitted` as the domain sees it, with what identifies its content. `items` are in the event's order."""

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
        """What identifies the part."""
        return (str(self.batch_id), self.part)

    @property
    def actor(self) -> Actor:
        """The upstream service in whose name the batch is stored."""
        return Actor(self.organization_id, self.origin.source, Role.SERVICE, upstream_channel(self.origin.source))

    def batch(self, items: Sequence[NewItem]) -> NewBatch:
        """The batch that this part belongs to."""
        return NewBatch(self.batch_id, self.coordinator_id, self.label, self.override_duplicates, items, self.origin.trace_id)


Part = SubmittedPart | MalformedPart


def malformed_part(data: MalformedSubmission, envelope: Envelope, written_at: datetime) -> MalformedPart:
    """Reads what can be read."""
    origin = Origin.of(envelope, data.batch_id, written_at)
    return MalformedPart(data.batch_id, data.organization_id, data.mistakes, origin)


def submitted_part(data: BatchSubmitted, envelope: Envelope, written_at: datetime) -> SubmittedPart:
    """Reads an event's data. Its items' order in the event means nothing: it identifies no other content."""
    total = data.total_items if data.total_items is not None else len(data.items)
    items = [
        (
            item.position,
            NewItem(
                ItemValues(
                    item.mentor_id,
                    item.activity_type,
                    item.activity_date,
                    item.duration_minutes,
                    item.notes,
                    data.override_duplicates,
                ),
                item.client_reference,
            ),
        )
        for item in data.items
    ]
    header = content_hash(
        organization_id=data.organization_id,
        coordinator_id=data.coordinator_id,
        label=data.label,
        override=data.override_duplicates,
        parts=data.parts,
        total=total,
    )
    ordered = sorted(items, key=_position)
    public_hash = part_hash(header, data.part, ordered, with_notes=False)
    has_notes = any(item.notes is not None for item in data.items)
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
        hashes=PartHashes(
            data.part, part_hash(header, data.part, ordered, with_notes=True) if has_notes else public_hash, public_hash
        ),
    )


class Intake:
    """Takes in parts, in the repository's transaction."""

    def __init__(self, repository: PostgresActivityRepository, *, max_items: int, max_batch_bytes: int) -> None:
        self._repository = repository
        self._connection = repository.connection
        self._max_items = max_items
        self._max_batch_bytes = max_batch_bytes

    def take(self, parts: Sequence[tuple[int, Part]]) -> Mapping[int, Sequence[Mistake]]:
        """Stores what is new; refuses what contradicts, breaks the request rules or belongs to somebody else.

        A part that was seen before, and one of a purged batch, changes nothing. Answers what is wrong with those that were refused (by
        the caller's index); the others are in the database.
        """
        if not parts:
            return {}
        known = known_parts(self._connection, [part.key for _, part in parts])
        # What the database has already, as it has all that we publish ourselves, needs no lock.
        fresh = [(index, part) for index, part in parts if not _is_repeated(part, known.get(part.key))]
        if not fresh:
            return {}
        refused: dict[int, Sequence[Mistake]] = {}
        # Whose items are expanded right now. Not every part that came: one that contradicts has the key of another that came before.
        taken = {part.key for _, part in parts if _is_repeated(part, known.get(part.key))}
        # All at once: one after the other, in another order than a registration's, two could wait for each other.
        self._repository.lock_batches({part.batch_id for _, part in fresh})
        for index, part in sorted(fresh, key=lambda numbered: (numbered[1].batch_id.bytes, numbered[1].key[1])):
            problems = self._take_fresh(part, taken)
            if problems:
                refused[index] = problems
            else:
                taken.add(part.key)
        if refused:
            self._repository.wake_relays()
        return refused

    def _take_fresh(self, part: Part, taken: Collection[PartKey]) -> Sequence[Mistake]:
        """Decides under the batch's lock. Answers what is wrong when the part, or the batch that it completes, is refused."""
        batch = self._repository.lock_batch(part.batch_id)
        known = known_parts(self._connection, [part.key]).get(part.key)
        if _is_repeated(part, known):
            return ()
        # Asked after the batch was: whoever no longer sees that sees what its purge has left.
        tombstone = tombstones_among(self._connection, [str(part.batch_id)]).get(str(part.batch_id))
        contradiction = _contradiction(part, known, tombstone)
        if contradiction is not None:
            return self._reject(part, [contradiction], batch_continues=True)
        if isinstance(part, MalformedPart):
            return self._reject_batch(part, part.problems, known)
        if tombstone is not None:
            return ()
        problems = self._problems_of_part(part)
        if problems:
            return self._reject_batch(part, problems, known)
        if known is not None and (batch is None or batch.status is not BatchStatus.PENDING):
            return ()  # cancelled, and perhaps deleted since, before all its parts had come
        if part.parts == 1:
            self._create(part)
            return ()
        if known is None:
            create_collecting(
                self._connection,
                part.actor,
                part.batch(()),
                content_hash=part.header_hash,
                parts=part.parts,
                total=part.total_items,
            )
        add_part(self._connection, part.organization_id, part.batch_id, part.hashes, part.items, data_bytes=part.data_bytes)
        present, data_bytes = parts_present(self._connection, part.batch_id)
        if data_bytes > self._max_batch_bytes:
            return self._reject_batch(part, [self._too_large(f"the parts that have come have {data_bytes:,} bytes")], known)
        if present < part.parts:
            return ()
        return self._complete(part, taken)

    def _create(self, part: SubmittedPart) -> None:
        batch = part.batch([item for _, item in sorted(part.items, key=_position)])
        now = self._repository.clock()
        self._repository.create_batches([BatchToCreate(part.actor, batch, now, part.header_hash, [part.hashes])])

    def _complete(self, part: SubmittedPart, taken: Collection[PartKey]) -> Sequence[Mistake]:
        """All parts are there: the batch as a whole."""
        collected = collected_parts(self._connection, part.batch_id, override=part.override_duplicates)
        ordered = sorted((item for _, items, _ in collected for item in items), key=_position)
        problems = _problems_of_whole(ordered, part.total_items)
        if problems:
            forget_batch(self._connection, part.batch_id)
            return self._reject(part, problems, batch_continues=False)
        batch = part.batch([item for _, item in ordered])
        now = self._repository.clock()
        finish_collecting(self._connection, part.batch_id, override=part.override_duplicates, at=now)
        # Those that are being taken in right now are expanded right now; the others came when there was nothing to expand yet.
        again = [
            part_event(part.actor, batch, number, part.parts, items, total=part.total_items, time=came_at)
            for number, items, came_at in collected
            if number != part.part and (str(part.batch_id), number) not in taken
        ]
        self._repository.publish(part.organization_id, part.batch_id, again)
        if again:
            self._repository.wake_relays()
        return ()

    def _problems_of_part(self, part: SubmittedPart) -> list[Mistake]:
        """What is wrong with a part whatever the others say."""
        positions = [position for position, _ in part.items]
        problems = size_mistakes("/items", part.items, events.MAX_PART_ITEMS)
        if part.data_bytes > events.MAX_PART_BYTES:
            detail = f"has {part.data_bytes:,} bytes; the limit of a part is {events.MAX_PART_BYTES:,}"
            problems.append(Mistake("", "too_large", detail))
        if part.data_bytes > self._max_batch_bytes:
            problems.append(self._too_large(f"the part has {part.data_bytes:,} bytes"))
        if part.part > part.parts:
            problems.append(Mistake("/part", "out_of_range", f"must be at most {part.parts:,}, the number of parts"))
        problems += size_mistakes("/total_items", range(part.total_items or 1), self._max_items)
        if not self._repository.known_coordinators(part.organization_id, {part.coordinator_id}):
            problems.append(COORDINATOR_UNKNOWN)
        wrong = first_of(_position_mistakes(positions, range(len(positions)), part.total_items))
        if part.parts == 1 and not problems and not wrong:
            wrong = _missing_positions(positions, part.total_items)
        twice = duplicate_mentors((item.values.identity for _, item in part.items), place_of_mentor, positions.__getitem__)
        return first_of(chain(problems, wrong, twice))

    def _too_large(self, found: str) -> Mistake:
        return Mistake("", "too_large", f"{found}; the limit of a batch is {self._max_batch_bytes:,}")

    def _reject_batch(self, part: Part, problems: Sequence[Mistake], known: KnownPart | None) -> Sequence[Mistake]:
        """A part is wrong in itself, and with it the batch while it is still being collected; later it goes on without this part."""
        forgotten = forget_batch(self._connection, part.batch_id)
        # A batch that lacks one of its parts, and is not being collected, was cancelled before it came: it does not go on either. So a
        # rejection that is repeated after a cancel says what it said before.
        is_one_of_its = isinstance(part, SubmittedPart) and part.part <= part.parts
        return self._reject(part, problems, batch_continues=known is not None and not forgotten and not is_one_of_its)

    def _reject(self, part: Part, problems: Sequence[Mistake], *, batch_continues: bool) -> Sequence[Mistake]:
        rejected = events.batch_rejected(
            batch_id=part.batch_id,
            organization_id=part.organization_id,
            rejected_source=part.origin.source,
            rejected_event_id=part.origin.event_id,
            batch_continues=batch_continues,
            problems=problems,
            time=part.origin.written_at,
            trace_id=part.origin.trace_id,
        )
        self._repository.publish(part.organization_id, part.batch_id, [rejected])
        return problems


def _position(numbered: tuple[int, NewItem]) -> int:
    return numbered[0]


def _problems_of_whole(ordered: Numbered, total: int) -> list[Mistake]:
    """Pointers count the items of all parts, by position."""
    positions = [position for position, _ in ordered]
    wrong = first_of(_position_mistakes(positions, positions, total)) or _missing_positions(positions, total)
    identities = (item.values.identity for _, item in ordered)
    twice = duplicate_mentors(identities, lambda entry: place_of_mentor(positions[entry]), positions.__getitem__)
    return first_of(chain(wrong, twice))


def _position_mistakes(positions: Sequence[int], places: Sequence[int], total: int) -> Iterator[Mistake]:
    times = Counter(positions)
    for place, position in zip(places, positions, strict=True):
        if position >= total:
            yield Mistake(f"/items/{place}/position", "out_of_range", f"must be less than {total:,}, the total")
        elif times[position] > 1:
            detail = f"{times[position]:,} items have position {position}"
            yield Mistake(f"/items/{place}/position", "duplicate_position", detail)


def _missing_positions(positions: Sequence[int], total: int) -> list[Mistake]:
    missing = sorted(set(range(total)) - set(positions))
    if not missing:
        return []
    return [
        Mistake("/items", "missing_positions", f"positions must be 0 to {total - 1}, all of them; missing: {listed(missing)}")
    ]


def _is_repeated(part: Part, known: KnownPart | None) -> bool:
    """Whether the database has this very part. What we publish of it, without its notes, is the same part."""
    return (
        isinstance(part, SubmittedPart)
        and known is not None
        and known.organization_id == part.organization_id
        and part.hashes.content_hash in (known.content_hash, known.public_hash)
    )


def _contradiction(part: Part, known: KnownPart | None, tombstone: Tombstone | None) -> Mistake | None:
    """Why a part can't belong to the batch that has its id; None when it can, or when there is no such batch."""
    owner = known or tombstone
    if owner is None:
        return None
    if owner.organization_id != part.organization_id:
        return _TAKEN
    if isinstance(part, MalformedPart):
        return None
    if owner.header_hash != part.header_hash:
        return _DIFFERS
    return _DIFFERS if known is not None and known.content_hash is not None else None
