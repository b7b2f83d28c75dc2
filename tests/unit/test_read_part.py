"""A replay reads our own events on a shorter path. It finds there what the model finds, or nothing."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.loop.decoding import read
from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Role
from orchestrator.batches.parts import submitted_events
from orchestrator.replay.read_part import ReadPart, _by_model, _own_part, read_part
from schemas.envelope import SOURCE, Envelope, Topic, UnreadableError, open_envelope
from schemas.events import BATCH_SUBMITTED, MAX_PART_ITEMS, BatchSubmitted
from schemas.ids import new_batch_id
from schemas.strict_json import MAX_JSON_DEPTH

AT = datetime(2026, 3, 26, 10, tzinfo=UTC)
BATCH_ID = str(new_batch_id())

Document = dict[str, Any]

ITEM: Document = {
    "position": 0,
    "mentor_id": "mentor-1",
    "activity_type": "visit",
    "activity_date": "2026-03-25",
    "duration_minutes": 60,
}
PART: Document = {
    "batch_id": BATCH_ID,
    "organization_id": "org",
    "coordinator_id": "coord-1",
    "label": "Mandagsgruppe på skolen",
    "override_duplicates": False,
    "part": 1,
    "parts": 1,
    "total_items": 1,
    "submitted_by": "coord-1",
    "channel": "api",
    "items": [ITEM],
}

# Good and bad values of any field.
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.sampled_from(
        ["", "x", "e\u0301", "\u00e9", "a\x00b", "2026-03-25", "2026-13-01", "x" * 101, BATCH_ID.upper(), 1.5, [], {}]
    )
)


def some(fields: Document) -> st.SearchStrategy[Document]:
    """The fields with up to two of them changed, left out or added."""
    names = st.sampled_from([*fields, "client_reference", "override_duplicates", "notes", "unknown"])
    changes = st.dictionaries(names, VALUES, max_size=2)
    without = st.sets(st.sampled_from(sorted(fields)), max_size=1)
    return st.builds(lambda new, gone: {n: v for n, v in (fields | new).items() if n not in gone or n in new}, changes, without)


PARTS = st.builds(
    lambda part, items: part if "items" not in part or part["items"] != [ITEM] else {**part, "items": items},
    some(PART),
    st.lists(some(ITEM), max_size=3),
)


def envelope_of(document: object, source: str = SOURCE) -> Envelope:
    return Envelope("event-1", source, BATCH_SUBMITTED, orjson.dumps(document), None)


def comparable(part: ReadPart) -> tuple[object, ...]:
    items = [{name: value for name, value in item.items() if value is not None} for item in part.items]
    return (*part._replace(items=()), items)


@given(PARTS)
@example(PART | {"items": [ITEM | {"position": 1, "override_duplicates": True}, ITEM | {"client_reference": "row 7"}]})
@example(PART | {"label": "e\u0301", "override_duplicates": True, "items": [ITEM | {"override_duplicates": True}]})
@example(PART | {"unknown": {"items": ["\u00e9"]}})
@example(PART | {"submitted_by": "a\x00b", "channel": "\x00"})
def test_the_shorter_path_finds_what_the_model_finds(document: Document) -> None:
    envelope = envelope_of(document)
    own = _own_part(envelope, AT)
    if own is not None:
        data = read(Topic.BATCHES, envelope)
        assert isinstance(data, BatchSubmitted)
        assert comparable(own) == comparable(_by_model(envelope, data, AT))


@pytest.mark.parametrize("label", [None, "Monday group", "Mandagsgruppe på skolen"])
def test_an_event_of_ours_takes_the_shorter_path(label: str | None) -> None:
    actor = Actor("org", "coord-1", Role.COORDINATOR)
    items = [NewItem(ItemValues(f"mentor-{n}", "visit", date(2026, 3, 25), 60, "a note", n == 1), f"row {n}") for n in range(3)]
    batch = NewBatch(new_batch_id(), "coord-1", label, False, items, "0" * 31 + "1")
    header_hash, [hashes], [event] = submitted_events(actor, batch, submitted_at=AT)
    envelope = open_envelope(event.headers, event.value)
    own = _own_part(envelope, AT)
    assert own is not None
    assert own == read_part(envelope, AT)
    assert (own.header_hash, own.public_hash, own.label) == (header_hash, hashes.public_hash, label)
    assert [item["activity_date"] for item in own.items] == [date(2026, 3, 25)] * 3


BY_MODEL: Mapping[str, tuple[Document, str]] = {
    "of another service": (PART, "/services/attendance"),
    "with notes": (PART | {"items": [ITEM | {"notes": "a note"}]}, SOURCE),
    "an id in two spellings": (PART | {"items": [ITEM | {"mentor_id": "e\u0301"}]}, SOURCE),
    "without a field that ours have": ({name: value for name, value in PART.items() if name != "channel"}, SOURCE),
}


@pytest.mark.parametrize(("document", "source"), BY_MODEL.values(), ids=BY_MODEL)
def test_the_model_reads_all_others(document: Document, source: str) -> None:
    envelope = envelope_of(document, source)
    assert _own_part(envelope, AT) is None
    assert comparable(read_part(envelope, AT)) == comparable(_by_model(envelope, BatchSubmitted.model_validate(document), AT))


def test_only_our_own_events_say_who_submitted_and_how() -> None:
    document = PART | {"submitted_by": "boss", "channel": "api"}
    for source, expected in (
        (SOURCE, ("boss", "api")),
        ("/services/attendance", ("/services/attendance", "/services/attendance")),
    ):
        part = read_part(envelope_of(document, source), AT)
        assert (part.submitted_by, part.channel) == expected


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


GOOD = orjson.dumps(PART)
STRANGE = {
    "as it is": GOOD,
    "with blanks": b" " + GOOD + b"\r\n",
    "cut off": b"{",
    "a key twice": GOOD.replace(b'"part":1', b'"part":1,"part":1'),
    "a part that is none": GOOD.replace(b'"part":1', b'"part":0'),
    "a list": b"[]",
    "a text": b'"x"',
    "no items": GOOD.replace(orjson.dumps([ITEM]), b"[]"),
    "more items than a part has": orjson.dumps(PART | {"items": [ITEM | {"position": n} for n in range(MAX_PART_ITEMS + 1)]}),
    "as many items as a part has": orjson.dumps(PART | {"items": [ITEM | {"position": n} for n in range(MAX_PART_ITEMS)]}),
    "an unpaired surrogate in the label": GOOD.replace(b"Mandagsgruppe", b"\\ud800"),
    "an unpaired surrogate in a field that nobody reads": GOOD.replace(b'"channel":"api"', b'"channel":"\\ud800"'),
    "an unpaired surrogate in the submitter": GOOD.replace(b'"submitted_by":"coord-1"', b'"submitted_by":"\\ud800"'),
    "NUL in a field that nobody reads": GOOD.replace(b'"channel":"api"', b'"channel":"a\\u0000"'),
    "NUL in the submitter": GOOD.replace(b'"submitted_by":"coord-1"', b'"submitted_by":"\\u0000"'),
    "an unpaired surrogate in an unknown field": GOOD.replace(b'"items"', b'"unknown":"\\udc00","items"'),
    "an unpaired surrogate in an unknown name": GOOD.replace(b'"items"', b'"\\udc00":1,"items"'),
    "more values than are read": GOOD.replace(b'"items"', b'"unknown":[' + b"0," * 1_000_000 + b'0],"items"'),
    "a huge integer in an unknown field": GOOD.replace(b'"items"', b'"unknown":1' + b"0" * 60 + b',"items"'),
    "a huge float in an unknown field": GOOD.replace(b'"items"', b'"unknown":1e400,"items"'),
    **{
        f"an unknown field of {levels} levels": GOOD.replace(b'"items"', b'"unknown":' + nested(levels) + b',"items"')
        for levels in (MAX_JSON_DEPTH - 1, MAX_JSON_DEPTH, 254, 255, 1_000, 2_000)
    },
}


@pytest.mark.parametrize("source", [SOURCE, "/services/attendance"])
@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
def test_a_replay_accepts_what_the_splitter_accepts(value: bytes, source: str) -> None:
    envelope = Envelope("event-1", source, BATCH_SUBMITTED, value, None)
    try:
        taken = read(Topic.BATCHES, envelope)
    except UnreadableError:
        taken = None
    if isinstance(taken, BatchSubmitted):
        part = read_part(envelope, AT)
        assert comparable(part) == comparable(_by_model(envelope, taken, AT))
        assert b"\0" not in f"{part.submitted_by}{part.channel}".encode(), "PostgreSQL can't store it"
    else:
        with pytest.raises(UnreadableError):
            read_part(envelope, AT)
