"""Decides from the topics which of some batches were refused. Each of the others was accepted, or is still being collected, or is undecided.

The rules are those of a replay (docs/decisions/0015-replay.md): a rejection names one event, and stands for the record of that time.
Other events under the id of a batch may have been accepted, whatever was refused before or after them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from orchestrator.replay.read_part import read_part
from schemas.envelope import Envelope, Topic, UnreadableError, rfc3339
from schemas.event_reader import InvalidEventError, read_event
from schemas.events import BatchRejected

MAX_RECORDS = 100_000
"""How many submissions are remembered, with about 400 bytes each. If there are more, no batch counts as refused."""


@dataclass(frozen=True, slots=True)
class NotRefused:
    """A batch that was not refused as a whole: how many items it has, and when its first event was written."""

    batch_id: UUID
    items: int
    since: datetime
    is_certain: bool
    """False: its parts are all there, but the rejections do not tell whether it was accepted."""


class _Part(NamedTuple):
    """A part of a batch, and the way in which the batch was cut into parts. Parts of one cut have the same `header_hash` and `parts`: the header
    includes how many parts and items the batch has."""

    header_hash: bytes
    part: int
    parts: int
    total_items: int


@dataclass(frozen=True, slots=True)
class _Record:
    """A submission. Without a part, it was malformed, and refused for that."""

    event: bytes
    timestamp_ms: int
    part: _Part | None


_Rejection = tuple[UUID, bytes, bytes]
"""The batch, the event, and the time of the refused record as the header has it."""


@dataclass(slots=True)
class _Batch:
    items: int
    since_ms: int
    was_ended: bool = False
    """Whether a rejection says that the batch does not continue."""
    was_given_up: bool = False
    """Whether a rejection says that it is incomplete. No event tells which of its parts were collected then."""


class Submissions:
    """The submissions of some batches and their rejections. Add all submissions first."""

    def __init__(self, batch_ids: Container[UUID]) -> None:
        self._batch_ids = batch_ids
        self._batches: dict[UUID, _Batch] = {}
        self._records: dict[UUID, list[_Record]] = defaultdict(list)
        self._remembered = 0
        self._are_all_remembered = True
        self._rejections: set[_Rejection] = set()

    @property
    def since(self) -> datetime | None:
        """When the first submission that can be read was written; None if there is none."""
        return _utc(min(batch.since_ms for batch in self._batches.values())) if self._batches else None

    def add(self, envelope: Envelope, timestamp_ms: int) -> None:
        """Adds a `BatchSubmitted`. One that was put aside without a rejection says nothing, and is skipped."""
        try:
            part = read_part(envelope, _utc(timestamp_ms))
        except InvalidEventError as error:
            if error.submission is not None and error.submission.batch_id in self._batch_ids:
                self._remember(error.submission.batch_id, envelope, timestamp_ms, None)
            return
        except UnreadableError:
            return
        if part.batch_id not in self._batch_ids:
            return
        batch = self._batches.setdefault(part.batch_id, _Batch(part.total_items, timestamp_ms))
        batch.since_ms = min(batch.since_ms, timestamp_ms)
        this = _Part(part.header_hash, part.part, part.parts, part.total_items)
        self._remember(part.batch_id, envelope, timestamp_ms, this)

    def _remember(self, batch_id: UUID, envelope: Envelope, timestamp_ms: int, part: _Part | None) -> None:
        if self._remembered < MAX_RECORDS:
            self._remembered += 1
            self._records[batch_id].append(_Record(_hash(envelope.id), timestamp_ms, part))
        else:
            self._are_all_remembered = False

    def add_rejection(self, headers: Sequence[tuple[str, bytes | None]], envelope: Envelope) -> None:
        """Adds a `BatchRejected`. Its time is that of the refused record."""
        try:
            data = read_event(Topic.LIFECYCLE, envelope)
        except UnreadableError:
            return
        if isinstance(data, BatchRejected) and (batch := self._batches.get(data.batch_id)) is not None:
            batch.was_ended |= not data.batch_continues
            # Such a rejection refers to the batch instead of an event.
            batch.was_given_up |= data.rejected_event_id == str(data.batch_id)
            self._rejections.add((data.batch_id, _hash(data.rejected_event_id), dict(headers).get("ce_time") or b""))

    def not_refused(self) -> list[NotRefused]:
        """Returns the batches that were not refused as a whole, or of which this is not known."""
        found = []
        for batch_id, batch in self._batches.items():
            accepted, perhaps = self._parts_left(batch_id)
            was_refused = batch.was_ended and self._are_all_remembered
            if was_refused and not _is_whole([*accepted, *perhaps]):
                continue
            is_certain = not was_refused or (not batch.was_given_up and _is_whole(accepted))
            items = next((part.total_items for part in (*accepted, *perhaps)), batch.items)
            found.append(NotRefused(batch_id, items, _utc(batch.since_ms), is_certain))
        return found

    def _parts_left(self, batch_id: UUID) -> tuple[list[_Part], list[_Part]]:
        """Returns the parts of which not every record was refused, and those of which this is undecided."""
        events: dict[bytes, list[_Record]] = defaultdict(list)
        for record in self._records.get(batch_id, []):
            events[record.event].append(record)
        accepted: list[_Part] = []
        perhaps: list[_Part] = []
        for records in events.values():
            parts = [record.part for record in records if record.part is not None]
            if not self._have_rejections(batch_id, records):
                accepted += parts
            # If several records have one time, a rejection does not tell which of them it was.
            elif len({record.timestamp_ms for record in records}) < len(records):
                perhaps += parts
        return accepted, perhaps

    def _have_rejections(self, batch_id: UUID, records: Sequence[_Record]) -> bool:
        """Whether each record of an event has a rejection with its time."""
        return all(
            record.part is None or (batch_id, record.event, rfc3339(_utc(record.timestamp_ms)).encode()) in self._rejections
            for record in records
        )


def _is_whole(parts: Iterable[_Part]) -> bool:
    """Whether a cut of the batch has all its parts."""
    numbers: dict[tuple[bytes, int], set[int]] = defaultdict(set)
    for part in parts:
        numbers[part.header_hash, part.parts].add(part.part)
    return any(len(found) >= parts for (_, parts), found in numbers.items())


def _hash(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def _utc(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
