"""Envelopes of events: attributes, limits, both modes, traces; and what is told to the sender of a malformed one."""

from collections.abc import Sequence
from datetime import timedelta, timezone
from typing import Any

import orjson
import pytest

from schemas import events
from schemas.envelope import Envelope, Topic, UnreadableError, open_envelope, rfc3339, span_id_of, trace_of, traceparent
from schemas.event_builders import ItemEventHeaders
from schemas.event_reader import InvalidEventError, read_event
from tests.support.event_values import BATCH, ITEM, OTHER, OTHER_TRACE, TIME, TRACE

# --- The envelope -------------------------------------------------------------------------------------------------------------

ATTRIBUTES = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"s", "ce_type": b"t"}
STRUCTURED = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"a": 1}}
IS_STRUCTURED = ("content-type", b"application/cloudevents+json")


def reason_of(headers: Sequence[tuple[str, bytes | None]], value: bytes | None) -> str:
    with pytest.raises(UnreadableError) as refusal:
        open_envelope(headers, value)
    return refusal.value.reason


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
def test_each_attribute_is_required(name: str) -> None:
    for missing in (b"", None):
        assert reason_of([*(ATTRIBUTES | {f"ce_{name}": missing}).items()], b"{}") == "bad_envelope"
    assert reason_of([*(ATTRIBUTES | {f"ce_{name}": b"\xff"}).items()], b"{}") == "bad_envelope"
    for odd in (None, "", 1):
        assert reason_of([IS_STRUCTURED], orjson.dumps(STRUCTURED | {name: odd})) == "bad_envelope"
    with pytest.raises(UnreadableError, match=f"missing: {name}$"):
        open_envelope([*(ATTRIBUTES | {f"ce_{name}": b""}).items()], b"{}")


@pytest.mark.parametrize("name", ["id", "source"])
@pytest.mark.parametrize(("length", "is_read"), [(999, True), (1_000, True), (1_001, False)])
def test_the_length_of_an_id_and_a_source_is_limited(name: str, length: int, is_read: bool) -> None:
    headers = [*(ATTRIBUTES | {f"ce_{name}": b"x" * length}).items()]
    if is_read:
        assert getattr(open_envelope(headers, b"{}"), name) == "x" * length
    else:
        assert reason_of(headers, b"{}") == "bad_envelope"
    assert reason_of([*(ATTRIBUTES | {f"ce_{name}": b"a\nb"}).items()], b"{}") == "bad_envelope"


def test_an_envelope_is_read_from_headers_or_from_the_value() -> None:
    trace = f"00-{TRACE}-00f067aa0ba902b7-01"
    other = f"00-{OTHER_TRACE}-00f067aa0ba902b7-01"
    binary = [*ATTRIBUTES.items(), ("traceparent", trace.encode())]
    for content_type in (
        [],
        [("content-type", b"application/json")],
        [("content-type", b"text/plain")],
        [("content-type", None)],
    ):
        assert open_envelope([*binary, *content_type], b'{"a":1}') == Envelope("1", "s", "t", b'{"a":1}', trace)
    value = orjson.dumps(STRUCTURED)
    assert open_envelope([IS_STRUCTURED], value) == Envelope("1", "s", "t", b'{"a":1}', None)
    # The value's attributes take precedence over the headers'.
    both = [IS_STRUCTURED, ("traceparent", other.encode()), ("ce_id", b"2"), ("ce_type", b"u")]
    assert open_envelope(both, orjson.dumps(STRUCTURED | {"traceparent": trace})) == Envelope("1", "s", "t", b'{"a":1}', trace)
    assert open_envelope(both, value).traceparent == other
    assert reason_of(both, orjson.dumps(STRUCTURED | {"traceparent": 1})) == "bad_envelope"
    assert reason_of([("content-type", b"\xff"), *binary], b"{}") == "bad_envelope"
    assert reason_of(binary, None) == "no_value"
    assert reason_of([IS_STRUCTURED], b"{") == "not_json"
    assert (
        reason_of([IS_STRUCTURED], b"[]") == reason_of([IS_STRUCTURED], orjson.dumps(STRUCTURED | {"data": 1})) == "bad_envelope"
    )
    assert reason_of([IS_STRUCTURED], orjson.dumps(STRUCTURED | {"specversion": "0.3"})) == "bad_envelope"


@pytest.mark.parametrize(("depth", "is_read"), [(19, True), (20, True), (21, False)])
def test_the_nesting_of_an_events_data_is_limited_in_either_form(depth: int, is_read: bool) -> None:
    data = b'{"version":1,"batch_id":"%s","organization_id":"o","x":%s}' % (
        str(BATCH).encode(),
        b"[" * (depth - 1) + b"]" * (depth - 1),
    )
    binary = open_envelope([*(ATTRIBUTES | {"ce_type": events.BATCH_DELETED.encode()}).items()], data)
    value = b'{"specversion":"1.0","id":"1","source":"s","type":"%s","data":%s}' % (events.BATCH_DELETED.encode(), data)
    if is_read:
        assert read_event(Topic.BATCHES, binary) == read_event(Topic.BATCHES, open_envelope([IS_STRUCTURED], value))
        return
    with pytest.raises(UnreadableError) as refusal:
        read_event(Topic.BATCHES, binary)
    assert refusal.value.reason == reason_of([IS_STRUCTURED], value) == "not_json"


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (None, None),
        ("", None),
        (f"00-{TRACE}-00f067aa0ba902b7-01", f"{TRACE}-01"),
        (f"00-{TRACE}-00f067aa0ba902b7-03", f"{TRACE}-01"),
        (f"00-{TRACE}-00f067aa0ba902b7-00", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-02", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-1", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-+1", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-what-comes", f"{TRACE}-01"),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        (f"00-{TRACE[1:]}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}0-00f067aa0ba902b7-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 31}1-00f067aa0ba902b7-00", "0" * 31 + "1"),
    ],
)
def test_what_counts_as_a_trace(value: str | None, trace: str | None) -> None:
    assert trace_of(value) == trace


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    assert rfc3339(TIME) == "2026-03-26T10:00:00.000005Z"
    assert rfc3339(TIME.astimezone(timezone(timedelta(hours=-11)))) == rfc3339(TIME)
    assert rfc3339(TIME.replace(microsecond=0)) == "2026-03-26T10:00:00.000000Z"


@pytest.mark.parametrize(
    ("value", "span"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", "00f067aa0ba902b7"),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-00F067aa0ba902b7-01", None),
        (f"00-{TRACE}-0f067aa0ba902b7-01", None),
        ("", None),
    ],
)
def test_what_counts_as_a_span(value: str, span: str | None) -> None:
    assert span_id_of(value) == span


@pytest.mark.parametrize(("trace", "flags"), [(TRACE, "00"), (f"{TRACE}-01", "01")])
def test_the_flags_of_events_follow_the_trace(trace: str, flags: str) -> None:
    item = dict(ItemEventHeaders(trace).of(events.SUCCEEDED, BATCH, 1, TIME))["traceparent"].decode()
    for traceparent_ in (traceparent(trace, BATCH), item):
        assert (trace_of(traceparent_), traceparent_[-2:]) == (trace, flags)


def test_a_span_belongs_to_its_event_and_a_trace_to_its_batch() -> None:
    spans = [traceparent(TRACE, BATCH), traceparent(TRACE, OTHER)]
    assert {trace_of(span) for span in spans} == {TRACE}
    assert [len(span) for span in spans] == [55, 55]
    assert len(set(spans)) == 2


# --- Reading ------------------------------------------------------------------------------------------------------------------

SUBMITTED: dict[str, Any] = {"batch_id": str(BATCH), "organization_id": "o", "coordinator_id": "c", "items": [ITEM]}


def mistakes(document: Any) -> list[tuple[str, str]]:
    """What is published for the sender."""
    with pytest.raises(InvalidEventError) as refusal:
        read_event(Topic.BATCHES, Envelope("1", "s", events.BATCH_SUBMITTED, orjson.dumps(document), None))
    assert refusal.value.submission is not None
    assert (refusal.value.submission.batch_id, refusal.value.submission.organization_id) == (BATCH, "o")
    return [(mistake.pointer, mistake.code) for mistake in refusal.value.submission.mistakes]


def test_a_malformed_submission_is_rejected_with_all_its_mistakes() -> None:
    bad = SUBMITTED | {"total_items": 0}
    assert mistakes(bad) == [("/total_items", "out_of_range")]
    assert mistakes(SUBMITTED | {"items": []}) == [("/items", "no_items")]
    assert mistakes(bad | {"items": []}) == [("/items", "no_items"), ("/total_items", "out_of_range")]
    items = [ITEM | {"position": number, "mentor_id": f"m-{number}"} for number in range(501)]
    assert mistakes(bad | {"items": items[:500]}) == [("/total_items", "out_of_range")]
    assert mistakes(SUBMITTED | {"items": items}) == [("/items", "too_many_items")]
    assert mistakes(bad | {"items": items}) == [("/items", "too_many_items"), ("/total_items", "out_of_range")]
    twice = [ITEM | {"position": 3}, ITEM | {"position": 4, "mentor_id": "other"}, ITEM | {"position": 5}]
    assert mistakes(bad | {"items": twice}) == [
        ("/total_items", "out_of_range"),
        ("/items/0/mentor_id", "duplicate_mentor"),
        ("/items/2/mentor_id", "duplicate_mentor"),
    ]


@pytest.mark.parametrize(
    ("position", "named"),
    [(7, "7"), (0, "0"), ((1 << 20) - 1, str((1 << 20) - 1)), (1 << 20, "1"), (-1, "1"), ("x" * 99, "1"), (True, "1")],
)
def test_only_a_possible_position_is_quoted_to_the_sender(position: Any, named: str) -> None:
    document = SUBMITTED | {"total_items": 0, "items": [ITEM | {"position": 2}, ITEM | {"position": position}]}
    with pytest.raises(InvalidEventError) as refusal:
        read_event(Topic.BATCHES, Envelope("1", "s", events.BATCH_SUBMITTED, orjson.dumps(document), None))
    assert refusal.value.submission is not None
    said = [mistake.detail for mistake in refusal.value.submission.mistakes if mistake.code == "duplicate_mentor"]
    assert said == [f"The items at positions 2 and {named} have the same mentor, type and date."] * 2


@pytest.mark.parametrize("change", [{"batch_id": "x"}, {"organization_id": ""}, {"organization_id": None}])
def test_an_unknown_sender_gets_no_rejection(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidEventError) as refusal:
        read_event(Topic.BATCHES, Envelope("1", "s", events.BATCH_SUBMITTED, orjson.dumps(SUBMITTED | change), None))
    assert refusal.value.submission is None


def test_a_refusal_names_twenty_places() -> None:
    items = [{name: value for name, value in ITEM.items() if name != "mentor_id"} | {"position": number} for number in range(30)]
    with pytest.raises(InvalidEventError) as refusal:
        read_event(Topic.BATCHES, Envelope("1", "s", events.BATCH_SUBMITTED, orjson.dumps(SUBMITTED | {"items": items}), None))
    assert str(refusal.value).startswith("not a BatchSubmitted: /items/0/mentor_id: ")
    assert str(refusal.value).count("/items/") == 20
