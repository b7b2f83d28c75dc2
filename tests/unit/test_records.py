"""A record between Kafka and a handler: read, decoded or refused; put aside, shown to people, and sent again."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from confluent_kafka import Message

from consumers.loop.dead_letters import (
    KEPT_OF_LARGE_VALUE_BYTES,
    MAX_DETAIL_LENGTH,
    MAX_HEADER_LENGTH,
    MAX_KEPT_KEY_BYTES,
    dead_letter,
)
from consumers.loop.decoding import BAD_HEADERS, Entry, decode
from consumers.loop.handler import Lane, RefusedError
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord, take_apart
from consumers.reading.dead_letter_log import CannotRedriveError, PutAside
from orchestrator.process.actions import Action
from schemas.envelope import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES, OutgoingEvent, Topic, open_envelope
from schemas.event_reader import read_event
from schemas.events import DeadLetter, EventData
from tests.support.log_lines import logged
from tests.support.toy import ToyHandler, command

PLACE = PartitionOffsets(Topic.COMMANDS, "prefix.commands.v1", 3)
COMMAND = command(5, bulk=True)
MOMENT_MS = 1_774_515_600_123


def raw(
    value: bytes | None = COMMAND.value, key: bytes | None = b"key", headers: Any = COMMAND.headers, **more: Any
) -> RawRecord:
    return RawRecord("prefix.commands.v1", 3, 7, MOMENT_MS, key, value, tuple(headers), **more)


def decoded(record: RawRecord) -> Entry:
    return decode(record, PLACE, ToyHandler())


def letter(record: RawRecord, reason: str = "not_json", detail: str = "it is none") -> OutgoingEvent:
    return dead_letter(Entry(record, PLACE, record.offset, record.bytes, Lane.SMALL, None, None), RefusedError(reason, detail))


def written(event: OutgoingEvent) -> DeadLetter:
    data = read_event(Topic.DEAD_LETTER, open_envelope(event.headers, event.value))
    assert isinstance(data, DeadLetter)
    return data


# --- Read ----------------------------------------------------------------------------------------------------------------------


def message(**parts: Any) -> Message:
    return Message(**{"topic": "t", "partition": 1, "offset": 5, "key": b"k", "value": b"v", "timestamp": (1, 9), **parts})


def test_every_part_of_a_message_is_read() -> None:
    headers = [("a", b"1"), ("A", None), ("a", b"2")]
    assert take_apart(message(headers=headers)) == RawRecord("t", 1, 5, 9, b"k", b"v", tuple(headers))
    assert take_apart(message(key=None, value=None)) == RawRecord("t", 1, 5, 9, None, None, ())
    assert take_apart(message(key=b"", value=b"")) == RawRecord("t", 1, 5, 9, b"", b"", ())


@pytest.mark.parametrize(
    ("given", "year"),
    [(-1, 1970), (-(10**15), 1970), (0, 1970), (253_370_764_799_999, 9998), (253_370_764_800_000, 9999), (2**62, 9999)],
)
def test_a_time_outside_the_calendar_is_moved_inside(given: int, year: int) -> None:
    taken = take_apart(message(timestamp=(0, given)))
    moment = datetime.fromtimestamp(taken.timestamp_ms / 1000, UTC)
    assert moment.year == year
    assert taken.timestamp_ms == given or year in (1970, 9999)
    assert moment.replace(year=2024) == datetime(2024, 1, 1, tzinfo=UTC) or taken.timestamp_ms == given


@pytest.mark.parametrize("part", ["key", "value", "name", "header"])
@pytest.mark.parametrize(("more", "is_too_large"), [(-1, False), (0, False), (1, True)])
def test_every_part_of_a_record_counts_towards_its_size(part: str, more: int, is_too_large: bool) -> None:
    filler = MAX_MESSAGE_BYTES - 4 + more  # Each of the other three parts has one byte, and this one has one, too.
    parts = {name: b"x" * (1 + (filler if name == part else 0)) for name in ("key", "value", "name", "header")}
    record = raw(parts["value"], parts["key"], [(parts["name"].decode(), parts["header"])])
    assert record.bytes == MAX_MESSAGE_BYTES + more
    entry = decoded(record)
    assert (entry.bytes, entry.refusal is not None and entry.refusal.reason == "too_large") == (record.bytes, is_too_large)


def test_missing_parts_have_no_bytes() -> None:
    assert raw(None, None, [("abc", None)]).bytes == 3


# --- Decoded -------------------------------------------------------------------------------------------------------------------


def test_a_record_is_decoded_with_its_place_and_its_time() -> None:
    entry = decoded(raw())
    record = entry.record
    assert record is not None
    assert (record.topic, record.partition, record.offset, record.timestamp_ms) == (Topic.COMMANDS, 3, 7, MOMENT_MS)
    assert (entry.partition, entry.offset, entry.lane, entry.refusal) == (PLACE, 7, Lane.BULK, None)
    assert entry.bytes == raw().bytes
    assert record.envelope.data == COMMAND.value


class Confused(ToyHandler):
    """Has a bug that every record triggers."""

    def lane(self, _topic: Topic, data: EventData) -> Lane:
        raise KeyError("somebody's notes")


def test_an_unreadable_record_is_refused_in_the_lane_that_nobody_waits_behind(caplog: pytest.LogCaptureFixture) -> None:
    entries = {
        "invalid_data": decoded(raw(b"{}")),
        "no_value": decoded(raw(None)),
        "bad_envelope": decoded(raw(headers=())),
        BAD_HEADERS: decoded(raw(headers=(), unreadable="the name of a header is not UTF-8")),
        "internal_error": decode(raw(), PLACE, Confused()),
    }
    for reason, entry in entries.items():
        assert entry.refusal is not None
        assert (entry.refusal.reason, entry.record, entry.lane) == (reason, None, Lane.SMALL)
        assert (entry.partition, entry.offset) == (PLACE, 7)
    assert str(entries[BAD_HEADERS].refusal) == "the name of a header is not UTF-8"
    assert str(entries["internal_error"].refusal) == "KeyError"
    [line] = logged(caplog, Action.DECODE_FAILED)
    assert (line["role"], line["topic"], line["partition"], line["offset"]) == ("toy", "commands", 3, 7)
    assert "somebody" not in caplog.text


def test_a_too_large_record_is_called_so_whatever_else_is_wrong() -> None:
    entry = decoded(raw(b"x" * (MAX_MESSAGE_BYTES + 1), headers=(), unreadable="unreadable"))
    assert entry.refusal is not None
    assert entry.refusal.reason == "too_large"
    assert f"{MAX_MESSAGE_BYTES + 4:,} bytes" in str(entry.refusal)


# --- Put aside -----------------------------------------------------------------------------------------------------------------


def test_a_letter_says_where_the_record_was_and_why_it_was_put_aside() -> None:
    event = letter(raw())
    assert (event.topic, event.key) == (Topic.DEAD_LETTER, "prefix.commands.v1/3/7")
    assert dict(event.headers)["ce_time"] == b"2026-03-26T09:00:00.123000Z"
    data = written(event)
    assert (data.topic, data.partition, data.offset) == ("prefix.commands.v1", 3, 7)
    assert (data.reason, data.detail) == ("not_json", "it is none")
    assert (data.key, data.value) == (base64.b64encode(b"key").decode(), base64.b64encode(COMMAND.value).decode())
    assert (data.key_truncated, data.value_truncated, data.value_bytes) == (False, False, len(COMMAND.value))
    assert data.headers == {name: value.decode() for name, value in COMMAND.headers}


def test_a_letter_belongs_to_the_trace_of_its_record() -> None:
    assert dict(letter(raw()).headers)["traceparent"].split(b"-")[1] == dict(COMMAND.headers)["traceparent"].split(b"-")[1]
    own = [dict(letter(raw(value, headers=())).headers)["traceparent"].split(b"-")[1] for value in (b"a", b"b")]
    assert [len(trace) for trace in own] == [32, 32]
    assert own[0] != own[1]


def test_letters_of_different_records_are_different_events_and_those_of_one_record_are_the_same() -> None:
    record = raw()
    ways: Sequence[RawRecord] = [
        record,
        record._replace(cluster_topic="other.commands.v1"),
        record._replace(partition=4),
        record._replace(offset=8),
        record._replace(timestamp_ms=MOMENT_MS + 1),
        record._replace(key=b"other"),
        record._replace(value=b"other"),
        record._replace(headers=record.headers[:-1]),
    ]
    events = [letter(each) for each in ways] + [letter(record, "bad_envelope"), letter(record, detail="another")]
    assert len({dict(event.headers)["ce_id"] for event in events}) == len(events)
    assert letter(record) == letter(record)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_record_that_fits_is_kept_completely_and_of_a_larger_one_the_beginning(more: int) -> None:
    value, key = bytes(MAX_MESSAGE_BYTES + more), b"k" * (MAX_KEPT_KEY_BYTES + more)
    data = written(letter(raw(value, key)))
    is_cut = more > 0
    assert base64.b64decode(data.value or "") == value[: KEPT_OF_LARGE_VALUE_BYTES if is_cut else len(value)]
    assert base64.b64decode(data.key or "") == key[:MAX_KEPT_KEY_BYTES]
    assert (data.value_truncated, data.key_truncated, data.value_bytes) == (is_cut, is_cut, len(value))


def test_a_missing_part_differs_from_an_empty_one() -> None:
    data = written(letter(raw(None, None)))
    assert (data.key, data.value, data.value_bytes, data.key_truncated, data.value_truncated) == (None, None, None, False, False)
    data = written(letter(raw(b"", b"")))
    assert (data.key, data.value, data.value_bytes) == ("", "", 0)


def test_headers_that_are_needed_to_read_again_are_kept_and_no_others() -> None:
    data = written(letter(raw(headers=[("CE_ID", b"a"), ("x-notes", b"private"), ("Content-Type", None), ("ce_time", b"\xff")])))
    assert data.headers == {"ce_id": "a", "content-type": "", "ce_time": "\ufffd"}


@pytest.mark.parametrize("character", ["x", "å", "\U0001f600"])
def test_headers_are_kept_up_to_their_limit(character: str) -> None:
    for length in (MAX_HEADER_LENGTH - 1, MAX_HEADER_LENGTH, MAX_HEADER_LENGTH + 1):
        data = written(letter(raw(headers=[("ce_id", (character * length).encode())])))
        assert data.headers == {"ce_id": character * min(length, MAX_HEADER_LENGTH)}


def test_the_largest_letter_fits_its_topic() -> None:
    """Every text has characters that JSON writes as six bytes."""
    headers = [(name, b"\x01" * 10_000) for name in ("ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "traceparent")]
    event = letter(raw(b"\xff" * MAX_MESSAGE_BYTES, b"\xff" * MAX_MESSAGE_BYTES, headers), detail="\x01" * 1_000_000)
    assert (
        len(event.value) + len(event.key) + sum(len(name) + len(value) for name, value in event.headers) < MAX_DEAD_LETTER_BYTES
    )
    assert len(written(event).detail) == MAX_DETAIL_LENGTH


def test_a_detail_that_can_not_be_encoded_is_replaced() -> None:
    assert written(letter(raw(), detail="field \ud800 is unknown")).detail == "field ? is unknown"


# --- Shown, and sent again -----------------------------------------------------------------------------------------------------


def put_aside(record: RawRecord, reason: str = "not_json", topic: Topic = Topic.COMMANDS) -> PutAside:
    return PutAside(UUID(int=1), topic, "2026-03-26T09:00:00.123000Z", written(letter(record, reason)))


def shown(document: object) -> object:
    return put_aside(raw(orjson.dumps(document))).shown_value()


def test_a_value_is_shown_without_notes_and_without_text_that_may_be_notes() -> None:
    document = {
        "batch_id": "b",
        "notes": "private",
        "unknown": "private",
        "number": 5,
        "nothing": None,
        "items": [{"mentor_id": "m", "notes": {"mentor_id": "private"}, "comment": ["private", 7]}],
    }
    hidden = "(hidden)"
    assert shown(document) == {
        "batch_id": "b",
        "notes": hidden,
        "unknown": hidden,
        "number": 5,
        "nothing": None,
        "items": [{"mentor_id": "m", "notes": hidden, "comment": [hidden, 7]}],
    }
    assert shown("private") == hidden
    assert shown(["private", 1]) == [hidden, 1]
    assert shown({"mentor_id": ["m", "n"], "notes": 5}) == {"mentor_id": ["m", "n"], "notes": hidden}


def test_a_value_that_is_no_json_is_not_shown() -> None:
    assert put_aside(raw(b"private")).shown_value() == "(7 bytes that are not JSON)"
    assert put_aside(raw(None)).shown_value() is None
    beginning = put_aside(raw(b" " * (MAX_MESSAGE_BYTES + 1))).shown_value()
    assert beginning == f"({MAX_MESSAGE_BYTES + 1} bytes, of which the letter holds the first {KEPT_OF_LARGE_VALUE_BYTES})"


def test_a_record_is_sent_again_unchanged() -> None:
    kept = COMMAND.headers
    assert put_aside(raw()).as_event() == OutgoingEvent(Topic.COMMANDS, "key", kept, COMMAND.value)
    assert put_aside(raw(), topic=Topic.COMMANDS_BULK).as_event().topic is Topic.COMMANDS_BULK
    assert put_aside(raw(key=None)).as_event().key == ""
    assert put_aside(raw(key=b"\xff")).as_event().key == "\ufffd"
    assert put_aside(raw(b"")).as_event().value == b""


def test_a_record_that_can_not_be_sent_again_has_a_reason() -> None:
    for record, reason, said in (
        (raw(headers=(), unreadable="x"), BAD_HEADERS, "headers cannot be read"),
        (raw(None), "no_value", "has no value"),
    ):
        with pytest.raises(CannotRedriveError, match=said):
            put_aside(record, reason).as_event(record)


LARGE = raw(b"v" * (MAX_MESSAGE_BYTES + 1), b"k" * (MAX_KEPT_KEY_BYTES + 1))


def test_a_record_of_which_the_letter_holds_the_beginning_is_read_again_from_its_place() -> None:
    aside = put_aside(LARGE)
    assert aside.is_truncated
    event = aside.as_event(LARGE)
    assert (event.key.encode(), event.value) == (LARGE.key, LARGE.value)
    assert put_aside(raw(LARGE.value, None)).as_event(raw(LARGE.value, None)).key == ""
    assert put_aside(raw(b"v", LARGE.key)).as_event(raw(b"v", LARGE.key)).value == b"v"


@pytest.mark.parametrize(
    "original",
    [
        None,
        LARGE._replace(value=b"w" + (LARGE.value or b"")[1:]),
        LARGE._replace(value=(LARGE.value or b"") + b"v"),
        LARGE._replace(value=(LARGE.value or b"")[:-1]),
        LARGE._replace(value=None),
        LARGE._replace(key=b"l" + (LARGE.key or b"")[1:]),
        LARGE._replace(key=None),
    ],
    ids=["gone", "another value", "longer", "shorter", "no value", "another key", "no key"],
)
def test_another_record_in_its_place_is_not_sent_instead(original: RawRecord | None) -> None:
    with pytest.raises(CannotRedriveError, match="only the beginning"):
        put_aside(LARGE).as_event(original)


@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_record_that_no_topic_accepts_is_not_sent_again(more: int, fits: bool) -> None:
    record = raw(b"v" * (MAX_DEAD_LETTER_BYTES - 10 + more), b"k" * 10)
    aside = put_aside(record)
    if fits:
        assert aside.as_event(record).value == record.value
    else:
        with pytest.raises(CannotRedriveError, match="larger than its topic takes"):
            aside.as_event(record)
