"""Takes in batches that arrive as events: skips known parts, stores new ones, and refuses invalid ones (docs/events.md).

A batch of one part is created at once. The parts of a larger batch are stored until all have arrived. Then the batch is validated as a whole
and created in one transaction, and its parts are published again, without notes, for the splitter to expand one after the other.

A refusal changes nothing, with one exception: a batch whose parts are still being collected is removed when one of its parts is invalid, or
when the parts together are. Nothing of it remains, so its sender may send it again.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from orchestrator.batches.model import Numbered
from orchestrator.batches.parts import part_event
from orchestrator.batches.repository import ActivityRepository, BatchToCreate, KnownPart, PartKey, PartStore, Tombstone
from orchestrator.batches.states import BatchStatus
from orchestrator.upstream.part import MalformedPart, Part, SubmittedPart, position_of
from schemas import event_builders, events
from schemas.event_reader import place_of_mentor
from schemas.mistakes import COORDINATOR_UNKNOWN, Mistake, duplicate_mentors, first_of, listed, size_mistakes

_DIFFERS = Mistake("/batch_id", "batch_differs", "A batch with this id exists with different content; use a new id.")
# The message does not reveal to another organization whose batch it is, or that it exists.
_TAKEN = Mistake("/batch_id", "batch_id_taken", "This batch id can't be used; use a new one.")


class Intake:
    """Takes in parts in the transaction of the repository and the store."""

    def __init__(self, repository: ActivityRepository, store: PartStore, *, max_items: int, max_batch_bytes: int) -> None:
        self._repository = repository
        self._store = store
        self._max_items = max_items
        self._max_batch_bytes = max_batch_bytes

    def take(self, parts: Sequence[tuple[int, Part]]) -> Mapping[int, Sequence[Mistake]]:
        """Stores new parts. Refuses a part that contradicts a stored one, breaks the request rules, or names another organization's batch.

        A part that is already stored, or belongs to a purged batch, changes nothing. Returns the mistakes of the refused parts, by the
        caller's index; all other parts are in the database.
        """
        if not parts:
            return {}
        known = self._store.known([part.key for _, part in parts])
        # A part that the database already has needs no lock. That includes all parts that we publish ourselves.
        fresh = [(index, part) for index, part in parts if not _is_repeated(part, known.get(part.key))]
        if not fresh:
            return {}
        refused: dict[int, Sequence[Mistake]] = {}
        # The parts that the caller expands now. A refused part is not among them: it may have the key of a stored part that it contradicts.
        taken = {part.key for _, part in parts if _is_repeated(part, known.get(part.key))}
        # Locks all batches at once. Locked one by one, in another order than a registration's, they could deadlock.
        self._repository.lock_batches({part.batch_id for _, part in fresh})
        for index, part in sorted(fresh, key=lambda numbered: (numbered[1].batch_id.bytes, numbered[1].key[1])):
            mistakes = self._take_fresh(part, taken)
            if mistakes:
                refused[index] = mistakes
            else:
                taken.add(part.key)
        if refused:
            self._repository.wake_relays()
        return refused

    def _take_fresh(self, part: Part, taken: Collection[PartKey]) -> Sequence[Mistake]:
        """Decides under the batch's lock. Returns the mistakes if the part, or the batch that it completes, is refused."""
        batch = self._repository.lock_batch(part.batch_id)
        known = self._store.known([part.key]).get(part.key)
        if _is_repeated(part, known):
            return ()
        # Read after the batch row: if a purge removed the batch, its tombstone is visible.
        tombstone = self._store.tombstone(part.batch_id)
        contradiction = _contradiction(part, known, tombstone)
        if contradiction is not None:
            return self._reject(part, [contradiction], batch_continues=True)
        if isinstance(part, MalformedPart):
            return self._reject_batch(part, part.mistakes, known)
        if tombstone is not None:
            return ()
        mistakes = self._mistakes_of_part(part)
        if mistakes:
            return self._reject_batch(part, mistakes, known)
        if known is not None and (batch is None or batch.status is not BatchStatus.PENDING):
            return ()  # the batch was cancelled before all its parts had arrived, and perhaps deleted since
        if part.parts == 1:
            self._create(part)
            return ()
        if known is None:
            self._store.begin(
                part.actor,
                part.batch(()),
                content_hash=part.header_hash,
                parts=part.parts,
                total=part.total_items,
            )
        self._store.add(part.organization_id, part.batch_id, part.hashes, part.items, data_bytes=part.data_bytes)
        present, data_bytes = self._store.present(part.batch_id)
        if data_bytes > self._max_batch_bytes:
            return self._reject_batch(part, [self._too_large(f"the parts received so far have {data_bytes:,} bytes")], known)
        if present < part.parts:
            return ()
        return self._complete(part, taken)

    def _create(self, part: SubmittedPart) -> None:
        batch = part.batch([item for _, item in sorted(part.items, key=position_of)])
        now = self._repository.clock()
        self._repository.create_batches([BatchToCreate(part.actor, batch, now, part.header_hash, [part.hashes])])

    def _complete(self, part: SubmittedPart, taken: Collection[PartKey]) -> Sequence[Mistake]:
        """Validates a batch whose parts have all arrived, and creates or rejects it. Returns the mistakes."""
        collected = self._store.collected(part.batch_id, override=part.override_duplicates)
        ordered = sorted((item for _, items, _ in collected for item in items), key=position_of)
        mistakes = _mistakes_of_whole(ordered, part.total_items)
        if mistakes:
            self._store.forget(part.batch_id)
            return self._reject(part, mistakes, batch_continues=False)
        batch = part.batch([item for _, item in ordered])
        now = self._repository.clock()
        self._store.finish(part.batch_id, override=part.override_duplicates, at=now)
        # The caller expands the parts that it is taking in now. The others arrived before the batch was complete, so they are published again.
        again = [
            part_event(part.actor, batch, number, part.parts, items, total=part.total_items, time=came_at)
            for number, items, came_at in collected
            if number != part.part and (str(part.batch_id), number) not in taken
        ]
        self._repository.publish(part.organization_id, part.batch_id, again)
        if again:
            self._repository.wake_relays()
        return ()

    def _mistakes_of_part(self, part: SubmittedPart) -> list[Mistake]:
        """The mistakes of a part by itself, without regard to the others."""
        positions = [position for position, _ in part.items]
        mistakes = size_mistakes("/items", part.items, events.MAX_PART_ITEMS)
        if part.data_bytes > events.MAX_PART_BYTES:
            detail = f"has {part.data_bytes:,} bytes; the limit of a part is {events.MAX_PART_BYTES:,}"
            mistakes.append(Mistake("", "too_large", detail))
        if part.data_bytes > self._max_batch_bytes:
            mistakes.append(self._too_large(f"the part has {part.data_bytes:,} bytes"))
        if part.part > part.parts:
            mistakes.append(Mistake("/part", "out_of_range", f"must be at most {part.parts:,}, the number of parts"))
        mistakes += size_mistakes("/total_items", range(part.total_items or 1), self._max_items)
        if not self._repository.known_coordinators(part.organization_id, {part.coordinator_id}):
            mistakes.append(COORDINATOR_UNKNOWN)
        wrong = first_of(_position_mistakes(positions, range(len(positions)), part.total_items))
        if part.parts == 1 and not mistakes and not wrong:
            wrong = _missing_positions(positions, part.total_items)
        twice = duplicate_mentors((item.values.identity for _, item in part.items), place_of_mentor, positions.__getitem__)
        return first_of(chain(mistakes, wrong, twice))

    def _too_large(self, found: str) -> Mistake:
        return Mistake("", "too_large", f"{found}; the limit of a batch is {self._max_batch_bytes:,}")

    def _reject_batch(self, part: Part, mistakes: Sequence[Mistake], known: KnownPart | None) -> Sequence[Mistake]:
        """Rejects a part that is invalid by itself, and its batch if that is still being collected. A batch in any other state continues
        without the part."""
        forgotten = self._store.forget(part.batch_id)
        # A batch that lacks one of its parts, and is no longer being collected, was cancelled before the part arrived. It does not continue
        # either. So a rejection that is repeated after a cancel has the same content as before.
        is_one_of_its = isinstance(part, SubmittedPart) and part.part <= part.parts
        return self._reject(part, mistakes, batch_continues=known is not None and not forgotten and not is_one_of_its)

    def _reject(self, part: Part, mistakes: Sequence[Mistake], *, batch_continues: bool) -> Sequence[Mistake]:
        rejected = event_builders.batch_rejected(
            batch_id=part.batch_id,
            organization_id=part.organization_id,
            rejected_source=part.origin.source,
            rejected_event_id=part.origin.event_id,
            batch_continues=batch_continues,
            mistakes=mistakes,
            time=part.origin.written_at,
            trace_id=part.origin.trace_id,
        )
        self._repository.publish(part.organization_id, part.batch_id, [rejected])
        return mistakes


def _mistakes_of_whole(ordered: Numbered, total: int) -> list[Mistake]:
    """The mistakes of all parts together. Pointers count the items of all parts, by position."""
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
    """Whether the database already has this part. The part as we publish it, without notes, counts as the same part."""
    return (
        isinstance(part, SubmittedPart)
        and known is not None
        and known.organization_id == part.organization_id
        and part.hashes.content_hash in (known.content_hash, known.public_hash)
    )


def _contradiction(part: Part, known: KnownPart | None, tombstone: Tombstone | None) -> Mistake | None:
    """Why a part can't belong to the stored batch with its id; None if it can, or if there is no such batch."""
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
