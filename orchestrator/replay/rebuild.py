"""Replay: rebuilds every batch from the topics and compares it with the live tables.

A replay registers nothing and publishes nothing. `orchestrator.replay.promote` merges a rebuilt batch as far as the outcomes, the history and
the hashes of the parts confirm it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection

from orchestrator.replay.read_part import ReadPart, read_part
from orchestrator.replay.shadow_tables import Difference, ShadowTables, copy_line, escaped
from orchestrator.storage.people import ForgettingKey, ForgottenPeople, read_replaced
from schemas import events
from schemas.corrections import CORRECTION
from schemas.envelope import SOURCE, Envelope, Topic, UnreadableError, open_envelope
from schemas.event_reader import read_event
from schemas.ids import DerivedIds

TOPICS = (Topic.BATCHES, Topic.RESULTS, Topic.LIFECYCLE)
"""The topics that are read. Commands add nothing: a command follows from its batch, and its result has the outcome."""


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A record of the topic batches or lifecycle, as it was read."""

    topic: Topic
    partition: int
    offset: int
    timestamp_ms: int
    headers: Sequence[tuple[str, bytes | None]]
    value: bytes | None


# A result as a row, up to its error. Our own results get no other validation: the pattern checks the form of every value, the table's types
# and constraints check the values, and a result that either refuses counts as unreadable.
_RESULT_ROW = re.compile(
    r"[0-9a-f-]{36}\t[0-9]{1,7}\t[0-9]{1,10}\t(?:success\t[0-9a-f-]{36}\t\\N|failed\t\\N\t\{[^\t\n]*\}|cancelled\t\\N\t\\N)"
)


class Replay:
    """One replay in one database session. Create it, add all records, call `fold`, then `compare`.

    Create it before determining where the topics end. Everything in the tables at that time is then on the topics or waits in the outbox.
    """

    def __init__(self, connection: Connection, *, batch_id: UUID | None = None, key: ForgettingKey | None = None) -> None:
        """`key` is that of the forgotten people, who stay forgotten. Raises ForgettingKeyError."""
        self.tables = ShadowTables(connection)
        # After the tables have noted who was forgotten, so that a promotion notices what changes in between.
        with connection.begin():
            self._people = read_replaced(connection, key)
        self.unreadable = 0
        """How many records were not valid for their topic. They are on the dead-letter topic too, or were not written by us."""
        self._only = batch_id
        self._only_bytes = b"" if batch_id is None else str(batch_id).encode()

    def note_handled(self, offsets: Mapping[tuple[Topic, int], int]) -> None:
        """Sets the consumers' progress to Kafka's committed offsets: records before them are not in motion. The tables of a database that
        was restored from an older copy have lower offsets."""
        self.tables.note_handled({(topic.value, partition): offset for (topic, partition), offset in offsets.items()})

    def add_results(self, records: Iterable[tuple[int | None, int | None, int, bytes | None]]) -> None:
        """Adds records of the topic results: partition, offset, timestamp and value, as Kafka's client types them. The hot path."""
        rows: list[str] = []
        for partition, offset, timestamp_ms, value in records:
            if self._only_bytes and (value is None or self._only_bytes not in value):
                continue
            row = _result_row(value, timestamp_ms, self._people)
            if row is None:
                self.unreadable += 1
            else:
                rows.append(f"{row}\t{partition}\t{offset}")
        self.unreadable += self.tables.copy("replay_result", rows)

    def add(self, records: Iterable[ReadRecord]) -> None:
        """Adds records of the topics batches and lifecycle."""
        rows: dict[str, list[str]] = {}
        for record in records:
            envelope: Envelope | None = None
            try:
                envelope = open_envelope(record.headers, record.value)
                for table, row in _rows(record, envelope, self._only, self._people):
                    rows.setdefault(table, []).append(copy_line(row))
            except (UnreadableError, ValidationError, UnicodeEncodeError):
                # UnicodeEncodeError: an id or a text has an unpaired surrogate, and can't be compared with those of people who were forgotten.
                self.unreadable += 1
                if envelope is not None and record.topic is Topic.BATCHES:
                    row = (envelope.id, _utc(record.timestamp_ms), record.partition, record.offset)
                    rows.setdefault("replay_malformed", []).append(copy_line(row))
        for table, lines in rows.items():
            self.unreadable += self.tables.copy(table, lines)

    def fold(self) -> None:
        """Builds batches and items from the records. Call it once, after all records were added."""
        self.tables.fold()

    def compare(self, *, examples: int) -> "Comparison":
        """Compares the rebuilt batches with the live ones."""
        self.tables.compare()
        batches, items = self.tables.folded()
        return Comparison(
            batches=batches,
            items=items,
            by_field=self.tables.by_field(),
            differences=self.tables.examples(examples),
            different_batches=self.tables.different_batches(),
            in_motion=self.tables.in_motion(),
            not_covered=self.tables.not_covered(self._only),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between the rebuilt and the live batches. `by_field` counts all of them; `differences` are the first."""

    batches: int
    items: int
    by_field: Mapping[str, int]
    differences: Sequence[Difference]
    different_batches: Sequence[UUID]
    in_motion: Sequence[UUID]
    not_covered: Sequence[UUID]


def _result_row(value: bytes | None, timestamp_ms: int, people: ForgottenPeople) -> str | None:
    """A result as a row of its table, without partition and offset; None if it is not a result.

    The outcome follows from the data: only a success has an activity, and only a failure an error.
    """
    try:
        data = orjson.loads(value or b"")
        activity_id, error = data.get("activity_id"), data.get("error")
        if activity_id is not None:
            outcome = f"success\t{activity_id}\t\\N"
        elif error is not None:
            # First as it is: orjson refuses one that is nested too deep, before Python's own recursion would end the replay.
            written = orjson.dumps(error)
            if people:
                written = orjson.dumps(people.at(_utc(timestamp_ms)).value(data["organization_id"], error))
            outcome = f"failed\t\\N\t{escaped(written.decode())}"
        else:
            outcome = "cancelled\t\\N\t\\N"
        row = f"{data['batch_id']}\t{data['position']}\t{data['attempt']}\t{outcome}"
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        # orjson raises a TypeError for an error that is nested deeper than it writes.
        return None
    return row if _RESULT_ROW.fullmatch(row) else None


Rows = Iterable[tuple[str, Sequence[object]]]


def _rows(record: ReadRecord, envelope: Envelope, only: UUID | None, people: ForgottenPeople) -> Rows:
    """The rows that an event adds: table and values, with pseudonyms of forgotten people. Raises UnreadableError, ValidationError."""
    at = _time_of(record, envelope)
    people = people.at(at)
    place = (record.partition, record.offset)
    if record.topic is Topic.BATCHES and envelope.type == events.BATCH_SUBMITTED:
        part = read_part(envelope, at)
        if only in (None, part.batch_id):
            written_at = _utc(record.timestamp_ms)
            yield "replay_part", _part_row(part, at, (written_at, *place), people)
        return
    data = read_event(record.topic, envelope)
    if only not in (None, getattr(data, "batch_id", None)):
        return
    match data:
        case events.BatchRetryRequested():
            retried_by = people.id(data.organization_id, data.retried_by or envelope.source)
            common = (data.retry_number, retried_by, at, data.organization_id, *place)
            for item in data.items:
                correction = _correction(item, data.organization_id, people)
                yield "replay_retry_read", (data.batch_id, item.position, item.attempt, correction, *common)
        case events.BatchCancelled():
            runs = _runs(data.cancelled_positions, "cancelled")
            by = people.id(data.organization_id, data.cancelled_by or envelope.source)
            reason = people.value(data.organization_id, data.reason)
            yield "replay_cancel", (data.batch_id, data.part, reason, by, at, data.cancelled, runs, *place)
        case events.BatchRelabelled():
            yield "replay_relabel", (data.batch_id, data.version, people.value(data.organization_id, data.label), *place)
        case events.ActivitiesRevoked() if record.topic is Topic.BATCHES:
            runs = _runs(data.revoked_positions, "revoked")
            by = people.id(data.organization_id, data.revoked_by)
            reason = people.text(data.organization_id, data.reason)
            yield "replay_revocation_read", (data.batch_id, data.organization_id, at, by, reason, runs, *place)
        case events.BatchDeleted():
            yield "replay_delete", (data.batch_id,)
        case events.BatchCompleted():
            yield "replay_completion", (data.batch_id, data.retry_number, data.completed_at, data.organization_id)
        case events.BatchRejected():
            yield "replay_rejection", (data.batch_id, data.rejected_event_id, data.batch_continues, at)


def _runs(positions: Sequence[tuple[int, ...]], what: str) -> str:
    """The runs of positions as JSON. Raises UnreadableError unless they are as the product writes them: each position once, so that no event
    names more positions than a batch can have."""
    ends = [-1, *(run[1] for run in positions)]
    if not all(end < first <= last for end, (first, last, *_) in zip(ends, positions, strict=False)):
        raise UnreadableError("invalid_data", f"the {what} positions are not runs in ascending order")
    return orjson.dumps(positions).decode()


def _part_row(part: ReadPart, at: datetime, place: tuple[datetime, int, int], people: ForgottenPeople) -> Sequence[object]:
    organization_id = part.organization_id
    items = [_item(item, organization_id, people) for item in part.items] if people else part.items
    return (
        part.batch_id,
        part.part,
        part.parts,
        part.total_items,
        organization_id,
        people.id(organization_id, part.coordinator_id),
        people.value(organization_id, part.label),
        part.override_duplicates,
        people.id(organization_id, part.submitted_by),
        part.channel,
        part.is_ours,
        part.event_id,
        part.trace_id,
        part.header_hash,
        part.content_hash,
        part.public_hash,
        DerivedIds(part.batch_id).item_id(0),
        at,
        *place,
        len(items),
        orjson.dumps(items).decode(),
    )


def _item(item: Mapping[str, Any], organization_id: str, people: ForgottenPeople) -> Mapping[str, object]:
    mentor_id = people.id(organization_id, item["mentor_id"])
    notes = people.value(organization_id, item.get("notes")) if mentor_id == item["mentor_id"] else None
    client_reference = people.value(organization_id, item.get("client_reference"))
    return {**item, "mentor_id": mentor_id, "notes": notes, "client_reference": client_reference}


def _correction(item: events.RetriedItem, organization_id: str, people: ForgottenPeople) -> str | None:
    """The correction in an event, without notes. A null field means the same as an absent one."""
    given = {name: value for name, value in (item.correction or {}).items() if name != "notes" and value is not None}
    correction = CORRECTION.validate_python(given)
    if "mentor_id" in correction:
        correction["mentor_id"] = people.id(organization_id, correction["mentor_id"])
    return orjson.dumps(correction).decode() if correction else None


def _time_of(record: ReadRecord, envelope: Envelope) -> datetime:
    """The time of an event: in our own events the header has it to the microsecond, as in the rows; for others, the record's timestamp."""
    if envelope.source == SOURCE:
        said = dict(record.headers).get("ce_time")
        try:
            time = datetime.fromisoformat((said or b"").decode())
            if time.tzinfo is not None:
                return time.astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # not one of our events after all
    return _utc(record.timestamp_ms)


def _utc(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
