"""Events as they are written and read: which values belong to an id and to a key, and where each limit is."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest

from schemas import event_builders, events
from schemas.envelope import (
    Envelope,
    OutgoingEvent,
    Topic,
    UnreadableError,
    open_envelope,
    rfc3339,
    span_id_of,
    trace_of,
    traceparent,
)
from schemas.event_builders import ItemEventHeaders
from schemas.event_reader import InvalidEventError, read_event
from schemas.ids import EventIds, batch_lock_key, content_id, event_id
from schemas.mistakes import Mistake

BATCH, OTHER = (UUID(f"01997f00-0000-7000-8000-00000000000{digit}") for digit in "12")
TIME = datetime(2026, 3, 26, 10, 0, 0, 5, tzinfo=UTC)
LATER = TIME + timedelta(microseconds=1)
TRACE, OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
COUNTS = {"total_items": 5, "pending": 0, "completed": 3, "failed": 1, "cancelled": 1}
ITEM = {"position": 0, "mentor_id": "m", "activity_type": "x", "activity_date": "2026-03-25", "duration_minutes": 60}


def header(event: OutgoingEvent, name: str) -> str:
    return dict(event.headers)[name].decode()


def batch_cancelled(**arguments: Any) -> OutgoingEvent:
    [event] = event_builders.batch_cancelled(**arguments)
    return event


def activities_revoked(**arguments: Any) -> OutgoingEvent:
    for_replay, for_services = event_builders.activities_revoked(**arguments)
    assert (for_replay.topic, for_services.topic) == (Topic.BATCHES, Topic.LIFECYCLE)
    assert for_services._replace(topic=Topic.BATCHES) == for_replay
    return for_replay


# For each builder: its arguments, another value for each, and which of them belong to the event's id.
CASES: Sequence[tuple[Callable[..., OutgoingEvent], dict[str, tuple[Any, Any]], set[str]]] = [
    (
        event_builders.batch_submitted,
        {
            "batch_id": (BATCH, OTHER),
            "organization_id": ("o", "p"),
            "coordinator_id": ("c", "d"),
            "label": (None, "l"),
            "override_duplicates": (False, True),
            "part": (1, 2),
            "parts": (2, 3),
            "total_items": (1, 2),
            "submitted_by": ("s", "t"),
            "channel": ("api", "kafka"),
            "items": ([orjson.dumps(ITEM)], [orjson.dumps(ITEM | {"position": 1})]),
        },
        {"batch_id", "part"},
    ),
    (
        event_builders.batch_retry_requested,
        {
            "batch_id": (BATCH, OTHER),
            "organization_id": ("o", "p"),
            "retry_number": (1, 2),
            "part": (1, 2),
            "retried_by": ("s", "t"),
            "items": ([{"position": 0, "attempt": 2}], [{"position": 0, "attempt": 3}]),
        },
        {"batch_id", "retry_number", "part"},
    ),
    (
        batch_cancelled,
        {
            "batch_id": (BATCH, OTHER),
            "organization_id": ("o", "p"),
            "reason": (None, "r"),
            "cancelled_by": ("s", "t"),
            "counts": (COUNTS, COUNTS | {"failed": 2}),
            "cancelled_positions": ([(0, 3, 1)], [(0, 4, 1)]),
        },
        {"batch_id"},
    ),
    (
        event_builders.batch_relabelled,
        {"batch_id": (BATCH, OTHER), "organization_id": ("o", "p"), "label": (None, "l"), "version": (1, 2)},
        {"batch_id", "version", "time"},
    ),
    (
        event_builders.batch_deleted,
        {"batch_id": (BATCH, OTHER), "organization_id": ("o", "p"), "version": (1, 2)},
        {"batch_id"},
    ),
    (
        activities_revoked,
        {
            "batch_id": (BATCH, OTHER),
            "organization_id": ("o", "p"),
            "revocation": (3, 4),
            "reason": ("r", "q"),
            "revoked_by": ("s", "t"),
            "revoked_positions": ([(0, 3)], [(0, 4)]),
        },
        {"batch_id", "revocation", "time"},
    ),
    (
        event_builders.batch_completed,
        {
            "batch_id": (BATCH, OTHER),
            "organization_id": ("o", "p"),
            "status": ("partial", "failed"),
            "counts": (COUNTS, COUNTS | {"failed": 2}),
            "retry_number": (0, 1),
            "completed_at": (TIME, LATER),
        },
        {"batch_id", "retry_number"},
    ),
    (
        event_builders.batch_rejected,
        {
            "batch_id": (BATCH, OTHER),
            "organization_id": ("o", "p"),
            "rejected_source": ("/a", "/b"),
            "rejected_event_id": ("1", "2"),
            "batch_continues": (False, True),
            "mistakes": ([Mistake("/a", "empty", "is empty")], [Mistake("/b", "empty", "is empty")]),
        },
        {"batch_id", "organization_id", "rejected_source", "rejected_event_id", "batch_continues", "mistakes", "time"},
    ),
    (
        event_builders.period_changed,
        {
            "organization_id": ("o", "p"),
            "number": (1, 2),
            "closed_through": (date(2026, 3, 31), date(2026, 4, 30)),
            "previously": (None, date(2026, 2, 28)),
            "reason": ("r", "q"),
            "changed_by": ("s", "t"),
        },
        {"organization_id", "number", "time"},
    ),
    (
        event_builders.period_changed,
        {
            "organization_id": ("o", "p"),
            "number": (1, 2),
            "closed_through": (None, date(2026, 1, 31)),
            "previously": (date(2026, 3, 31), date(2026, 4, 30)),
            "reason": ("r", "q"),
            "changed_by": ("s", "t"),
        },
        {"organization_id", "number", "time"},
    ),
    (event_builders.dead_letter_redriven, {"dead_letter_id": (BATCH, OTHER)}, {"dead_letter_id", "time"}),
]


@pytest.mark.parametrize(("build", "arguments", "identity"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_an_event_has_all_its_values_and_its_id_names_what_happened(
    build: Callable[..., OutgoingEvent], arguments: dict[str, tuple[Any, Any]], identity: set[str]
) -> None:
    if "completed_at" not in arguments:
        arguments = arguments | {"time": (TIME, LATER)}
    first = {name: value for name, (value, _) in arguments.items()}
    event = build(**first, trace_id=TRACE)
    assert build(**first, trace_id=TRACE) == event
    for name, (_, other) in arguments.items():
        changed = build(**first | {name: other}, trace_id=TRACE)
        assert (header(changed, "ce_id") != header(event, "ce_id")) == (name in identity), name
        if name == "time":
            assert (header(event, "ce_time"), header(changed, "ce_time")) == (rfc3339(TIME), rfc3339(LATER))
        elif name != "rejected_source":
            assert changed.value != event.value, name
    assert OTHER_TRACE in header(build(**first, trace_id=OTHER_TRACE), "traceparent")
    subject = str(first.get("batch_id", first.get("dead_letter_id", first.get("organization_id"))))
    assert event.key == header(event, "ce_subject") == subject
    envelope = open_envelope(event.headers, event.value)
    read = read_event(event.topic, envelope).model_dump(mode="json")
    told = orjson.loads(event.value)
    assert {name: read[name] for name in told if name != "items"} == {name: told[name] for name in told if name != "items"}
    assert trace_of(envelope.traceparent) == TRACE
    assert header(event, "content-type") == "application/json"


def test_the_first_part_of_a_retry_has_the_id_of_the_retry() -> None:
    def build(part: int) -> str:
        event = event_builders.batch_retry_requested(
            batch_id=BATCH, organization_id="o", retry_number=3, part=part, retried_by="s", items=[], time=TIME, trace_id=TRACE
        )
        return header(event, "ce_id")

    assert build(1) == str(event_id(events.BATCH_RETRY_REQUESTED, BATCH, 3))
    assert len({build(part) for part in (1, 2, 3)}) == 3


@pytest.mark.parametrize(("runs", "sizes"), [(0, [0]), (1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (5, [2, 2, 1])])
def test_a_cancel_is_published_in_parts_with_a_limited_number_of_runs(
    monkeypatch: pytest.MonkeyPatch, runs: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(event_builders, "MAX_CANCELLED_RUNS", 2)
    positions = [(2 * number, 2 * number, 1) for number in range(runs)]
    parts = event_builders.batch_cancelled(
        batch_id=BATCH,
        organization_id="o",
        reason="r",
        cancelled_by="s",
        counts=COUNTS,
        cancelled_positions=positions,
        time=TIME,
        trace_id=TRACE,
    )
    told = [orjson.loads(part.value) for part in parts]
    assert [len(each["cancelled_positions"]) for each in told] == sizes
    assert [tuple(run) for each in told for run in each["cancelled_positions"]] == positions
    assert [each["part"] for each in told] == [*range(1, len(sizes) + 1)]
    assert header(parts[0], "ce_id") == str(event_id(events.BATCH_CANCELLED, BATCH))
    assert len({header(part, "ce_id") for part in parts}) == len(parts)
    assert {name: told[-1][name] for name in told[0] if name not in ("part", "cancelled_positions")} == {
        name: value for name, value in told[0].items() if name not in ("part", "cancelled_positions")
    }


@pytest.mark.parametrize(("runs", "sizes"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2])])
def test_a_revocation_is_published_in_parts_on_both_topics(monkeypatch: pytest.MonkeyPatch, runs: int, sizes: list[int]) -> None:
    monkeypatch.setattr(event_builders, "MAX_REVOKED_RUNS", 2)
    positions = [(2 * number, 2 * number) for number in range(runs)]
    told = event_builders.activities_revoked(
        batch_id=BATCH,
        organization_id="o",
        revocation=3,
        reason="r",
        revoked_by="s",
        revoked_positions=positions,
        time=TIME,
        trace_id=TRACE,
    )
    for topic in (Topic.BATCHES, Topic.LIFECYCLE):
        parts = [event for event in told if event.topic is topic]
        read = [orjson.loads(part.value) for part in parts]
        assert [len(each["revoked_positions"]) for each in read] == sizes
        assert [tuple(run) for each in read for run in each["revoked_positions"]] == positions
        assert [each["part"] for each in read] == [*range(1, len(sizes) + 1)]
        assert len({header(part, "ce_id") for part in parts}) == len(parts)


def test_without_a_version_a_revocation_is_identified_by_position_and_time() -> None:
    def build(position: int, time: datetime) -> str:
        event = activities_revoked(
            batch_id=BATCH,
            organization_id="o",
            revocation=0,
            reason="r",
            revoked_by="s",
            revoked_positions=[(position, position)],
            time=time,
            trace_id=TRACE,
        )
        return header(event, "ce_id")

    assert len({build(position, time) for position in (1, 2) for time in (TIME, LATER)}) == 4


@pytest.mark.parametrize("event_type", [events.REGISTER_ACTIVITY, events.SUCCEEDED, events.FAILED, events.CANCELLED])
def test_the_ids_of_an_items_events_have_type_item_and_attempt(event_type: str) -> None:
    made = ItemEventHeaders(TRACE)
    several = [
        made.of(event_type, item, attempt, time) for item in (BATCH, OTHER) for attempt in (1, 2) for time in (TIME, LATER)
    ]
    ids = [dict(each)["ce_id"].decode() for each in several]
    assert ids == [str(event_id(event_type, item, attempt)) for item in (BATCH, OTHER) for attempt in (1, 2) for _ in range(2)]
    assert [dict(each)["ce_time"].decode() for each in several] == [rfc3339(TIME), rfc3339(LATER)] * 4
    assert made.of(event_type, str(BATCH), 1, TIME) == several[0]
    envelope = open_envelope(several[0], b"{}")
    assert (envelope.type, envelope.source) == (event_type, "/bulk-registration")
    assert trace_of(envelope.traceparent) == TRACE
    spans = {dict(each)["traceparent"] for each in several}
    assert len(spans) == 4
    assert all(len(span) == 55 for span in spans)


def test_commands_are_keyed_by_mentor_and_results_by_a_hundred_positions() -> None:
    headers = ItemEventHeaders(TRACE).of(events.REGISTER_ACTIVITY, BATCH, 1, TIME)
    data = {"organization_id": "o", "mentor_id": "m", "x": 1}
    bulk, single = (event_builders.register_activity(data, headers, bulk=bulk) for bulk in (True, False))
    assert (bulk.topic, single.topic) == (Topic.COMMANDS_BULK, Topic.COMMANDS)
    assert bulk.key == single.key == "o:m"
    assert (orjson.loads(bulk.value), bulk.headers) == (data, headers)
    results = [event_builders.result(data, headers, batch_id="b", position=position) for position in (0, 99, 100, 199, 200)]
    assert [result.key for result in results] == ["b:0", "b:0", "b:1", "b:1", "b:2"]
    assert {result.topic for result in results} == {Topic.RESULTS}
    assert orjson.loads(results[0].value) == data


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


# --- Ids ----------------------------------------------------------------------------------------------------------------------


def test_an_id_of_content_depends_on_the_type_the_parts_and_the_content() -> None:
    ids = [
        content_id("t", "a", "b", value=b"1"),
        content_id("u", "a", "b", value=b"1"),
        content_id("t", "a", value=b"1"),
        content_id("t", "a", "c", value=b"1"),
        content_id("t", "a", "b", value=b"2"),
        event_id("t", "a", "b"),
    ]
    assert len(set(ids)) == len(ids)
    assert content_id("t", "a", "b", value=b"1") == ids[0]


def test_ids_stay_the_same_from_release_to_release() -> None:
    """They are stored in topics and tables, and identify repeated events."""

    def named(name: str) -> UUID:
        digest = bytearray(hashlib.sha1(UUID("6f0d6c0e-5c1f-5b0e-9d6c-3d7c1a1f7a10").bytes + name.encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x50
        digest[8] = digest[8] & 0x3F | 0x80
        return UUID(bytes=bytes(digest))

    assert event_id(events.BATCH_CANCELLED, BATCH) == named(f"no.bulk-registration.BatchCancelled.v1/{BATCH}")
    assert EventIds(events.SUCCEEDED).text(BATCH, 3) == str(named(f"no.bulk-registration.RegistrationSucceeded.v1/{BATCH}/3"))


@pytest.mark.parametrize(
    ("high", "low", "key"),
    [
        (0, 1, 1),
        (1, 0, 1),
        (1, 3, 2),
        (0, 2**63 - 1, 2**63 - 1),
        (0, 2**63, -(2**63)),
        (2**63, 2**63, 0),
        (0, 2**64 - 1, -1),
    ],
)
def test_a_lock_key_depends_on_the_whole_id(high: int, low: int, key: int) -> None:
    assert batch_lock_key(UUID(int=(high << 64) | low)) == key
