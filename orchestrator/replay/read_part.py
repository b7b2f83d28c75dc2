"""Reads a `BatchSubmitted` as a replay compares it: the values and the hashes of one part of a batch.

It accepts the same events as the splitter. Otherwise a replay would miss batches that the tables have, or find batches that were refused.

Most events that this product has written take less than half the time of others. Their model would check for each text whether it has another
spelling, and make three objects for each item.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any, NamedTuple, NotRequired
from uuid import UUID

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic accepts the standard library's only from Python 3.12

from orchestrator.batches.model import upstream_channel
from orchestrator.batches.parts import content_hash, hash_of_rows
from orchestrator.upstream.part import Origin, submitted_part
from schemas import events
from schemas.envelope import SOURCE, Envelope, Topic
from schemas.event_reader import read_event
from schemas.fields import Flag, Id, Int32, Label, StoredDate, StoredId
from schemas.ids import MAX_POSITIONS


class ReadPart(NamedTuple):
    """One part of a batch. `items` have the fields of `SubmittedItem`; an absent field means the same as null."""

    batch_id: UUID
    part: int
    parts: int
    total_items: int
    organization_id: str
    coordinator_id: str
    label: str | None
    override_duplicates: bool
    submitted_by: str
    channel: str
    is_ours: bool
    event_id: str
    trace_id: str
    header_hash: bytes
    content_hash: bytes
    public_hash: bytes
    items: Sequence[Mapping[str, Any]]


# Nothing else may be in them, so that a document of these types has no more values and levels than the strict parser allows.
_NOTHING_ELSE = ConfigDict(extra="forbid")


class _OwnItem(TypedDict):
    __pydantic_config__ = _NOTHING_ELSE  # type: ignore[misc]  # pydantic takes it out of the fields

    position: events.Position
    mentor_id: StoredId
    activity_type: StoredId
    activity_date: StoredDate
    duration_minutes: Int32
    client_reference: NotRequired[StoredId | None]
    override_duplicates: NotRequired[Flag | None]


class _OwnPart(TypedDict):
    """The fields that our own events always have, with the checks of `BatchSubmitted`. Notes are not among them."""

    __pydantic_config__ = _NOTHING_ELSE  # type: ignore[misc]

    batch_id: UUID
    organization_id: Id
    coordinator_id: Id
    label: Label | None
    override_duplicates: Flag
    part: events.PartNumber
    parts: events.PartNumber
    total_items: Annotated[int, Field(ge=1, le=MAX_POSITIONS, strict=True)]
    submitted_by: str | None
    channel: str | None
    items: Annotated[list[_OwnItem], Field(min_length=1, max_length=events.MAX_PART_ITEMS)]


_OWN_PART = TypeAdapter[_OwnPart](_OwnPart)
_SURROGATE = re.compile("[\ud800-\udfff]")
_ITEMS = b'"items":'
_NOTES = b'"notes"'


def read_part(envelope: Envelope, written_at: datetime) -> ReadPart:
    """Reads the data of a `BatchSubmitted`. Raises UnreadableError."""
    own = _own_part(envelope, written_at)
    if own is not None:
        return own
    data = read_event(Topic.BATCHES, envelope)
    assert isinstance(data, events.BatchSubmitted)
    return _by_model(envelope, data, written_at)


def _own_part(envelope: Envelope, written_at: datetime) -> ReadPart | None:
    """The same as `_by_model`, for data as we write it. None: the strict parser and the model have to decide.

    If re-serializing yields the same bytes, there are no duplicate keys, NaNs or unpaired surrogates, so the fast parser is safe.
    """
    data = envelope.data
    # Texts beyond ASCII may have more than one spelling. In the few fields before the items, the types themselves see to that.
    if envelope.source != SOURCE or _NOTES in data or not data[data.find(_ITEMS) :].isascii():
        return None
    try:
        document = orjson.loads(data)
        own = _OWN_PART.validate_python(document)
    except (orjson.JSONDecodeError, ValidationError):
        return None
    # After the types are known: orjson reads four times as many levels as it writes.
    if orjson.dumps(document) != data:
        return None
    override, items = own["override_duplicates"], own["items"]
    header = content_hash(
        organization_id=own["organization_id"],
        coordinator_id=own["coordinator_id"],
        label=own["label"],
        override=override,
        parts=own["parts"],
        total=own["total_items"],
    )
    rows = [_hashed(item, override) for item in items]
    rows.sort(key=itemgetter(0))
    public_hash = hash_of_rows(header, own["part"], rows)
    origin = Origin.of(envelope, own["batch_id"], written_at)
    return ReadPart(
        batch_id=own["batch_id"],
        part=own["part"],
        parts=own["parts"],
        total_items=own["total_items"],
        organization_id=own["organization_id"],
        coordinator_id=own["coordinator_id"],
        label=own["label"],
        override_duplicates=override,
        submitted_by=_said(own["submitted_by"], SOURCE),
        channel=_said(own["channel"], upstream_channel(SOURCE)),
        is_ours=True,
        event_id=origin.event_id,
        trace_id=origin.trace_id,
        header_hash=header,
        content_hash=public_hash,
        public_hash=public_hash,
        items=items,
    )


def _hashed(item: _OwnItem, override: bool) -> tuple[object, ...]:
    """A row of `part_hash`, without notes."""
    flag = item.get("override_duplicates")
    row = (
        item["position"],
        item["mentor_id"],
        item["activity_type"],
        item["activity_date"],
        item["duration_minutes"],
        None,
        item.get("client_reference"),
    )
    return row if flag is None or flag == override else (*row, flag)


def _said(text: str | None, stored: str) -> str:
    """Returns what an event says of its sender, or `stored` if PostgreSQL can't store that text: it has NUL or an unpaired surrogate. The
    splitter accepts such an event, because it does not read this text, and stores `stored`."""
    return text if text and "\0" not in text and not _SURROGATE.search(text) else stored


def _by_model(envelope: Envelope, data: events.BatchSubmitted, written_at: datetime) -> ReadPart:
    part = submitted_part(data, envelope, written_at)
    is_ours = envelope.source == SOURCE
    return ReadPart(
        batch_id=part.batch_id,
        part=part.part,
        parts=part.parts,
        total_items=part.total_items,
        organization_id=part.organization_id,
        coordinator_id=part.coordinator_id,
        label=part.label,
        override_duplicates=part.override_duplicates,
        submitted_by=_said(data.submitted_by if is_ours else None, envelope.source),
        channel=_said(data.channel if is_ours else None, upstream_channel(envelope.source)),
        is_ours=is_ours,
        event_id=part.origin.event_id,
        trace_id=part.origin.trace_id,
        header_hash=part.header_hash,
        content_hash=part.hashes.content_hash,
        public_hash=part.hashes.public_hash,
        items=[vars(item) for item in data.items],
    )
