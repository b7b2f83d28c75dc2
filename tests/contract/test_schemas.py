"""The committed schemas match the code, and no change may break a reader or a writer."""

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from orchestrator.batches.parts import retry_events
from schemas import event_builders, events, publish
from schemas.corrections import Correction
from schemas.envelope import MAX_MESSAGE_BYTES, SOURCE, Envelope, OutgoingEvent, Topic, UnreadableError, open_envelope
from schemas.event_reader import InvalidEventError, read_event
from schemas.events import EVENTS, EventData, type_name
from schemas.fields import MAX_ID_LENGTH
from schemas.ids import MAX_POSITIONS
from schemas.mistakes import pointer
from schemas.publish import event_models, incompatibilities, path_of, rendered

BATCH = UUID("01997f00-0000-7000-8000-000000000001")
ITEM = UUID("01997f00-0000-7000-8000-000000000002")
TIME = datetime(2026, 3, 26, 10, 0, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("model", event_models(), ids=lambda model: model.__name__)
def test_the_committed_schema_is_generated_from_the_code(model: type[EventData]) -> None:
    """`make schemas` writes them."""
    assert path_of(model).read_bytes() == rendered(model)


def committed() -> dict[str, Any]:
    schema: dict[str, Any] = orjson.loads(path_of(events.BatchSubmitted).read_bytes())
    return schema


def _remove_field(schema: dict[str, Any]) -> None:
    del schema["properties"]["label"]


def _require_field(schema: dict[str, Any]) -> None:
    schema["required"].append("label")


def _require_new_field(schema: dict[str, Any]) -> None:
    schema["properties"]["priority"] = {"type": "integer"}
    schema["required"].append("priority")


def _release_field(schema: dict[str, Any]) -> None:
    schema["required"].remove("batch_id")


def _change_type(schema: dict[str, Any]) -> None:
    schema["properties"]["part"]["type"] = "string"


def _narrow(schema: dict[str, Any]) -> None:
    schema["properties"]["organization_id"]["maxLength"] = 50


def _narrow_inside(schema: dict[str, Any]) -> None:
    schema["$defs"]["SubmittedItem"]["properties"]["mentor_id"]["minLength"] = 3


def _bound_what_was_unbounded(schema: dict[str, Any]) -> None:
    schema["properties"]["override_duplicates"]["const"] = False


@pytest.mark.parametrize(
    "change",
    [
        _remove_field,
        _require_field,
        _require_new_field,
        _release_field,
        _change_type,
        _narrow,
        _narrow_inside,
        _bound_what_was_unbounded,
    ],
)
def test_incompatible_change_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(committed())
    change(changed)
    assert len(incompatibilities(committed(), changed)) == 1


def test_nothing_is_published_if_one_schema_would_break(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = committed()
    _bound_what_was_unbounded(published)
    monkeypatch.setattr(publish, "DIRECTORY", tmp_path)
    file = path_of(events.BatchSubmitted)
    file.write_bytes(orjson.dumps(published))
    with pytest.raises(ValueError, match=r"BatchSubmitted\.v1\.json: /override_duplicates: const False became None"):
        publish.publish()
    assert [(each, orjson.loads(each.read_bytes())) for each in tmp_path.iterdir()] == [(file, published)]
    file.unlink()
    publish.publish()
    assert {each.read_bytes() for each in tmp_path.iterdir()} == {rendered(model) for model in event_models()}


def test_new_optional_field_is_compatible() -> None:
    changed = committed()
    changed["properties"]["priority"] = {"type": "integer", "default": 0}
    assert incompatibilities(committed(), changed) == []


def envelope(event_type: str, data: bytes) -> Envelope:
    return Envelope("id", "/services/attendance", event_type, data, None)


def test_readers_ignore_unknown_fields() -> None:
    data = orjson.dumps({"batch_id": BATCH, "organization_id": "org", "version": 3, "invented": [1]})
    read = read_event(Topic.BATCHES, envelope(events.BATCH_DELETED, data))
    assert read == events.BatchDeleted(batch_id=BATCH, organization_id="org", version=3)


@pytest.mark.parametrize("topic", list(Topic))
def test_a_type_selects_only_among_the_schemas_of_its_topic(topic: Topic) -> None:
    for model in event_models():
        if model not in EVENTS[topic]:
            with pytest.raises(UnreadableError) as refused:
                read_event(topic, envelope(type_name(model), b"{}"))
            assert refused.value.reason == "unknown_type"
    with pytest.raises(UnreadableError):
        read_event(topic, envelope("no.bulk-registration.BatchSubmitted.v2", b"{}"))


@pytest.mark.parametrize("topic", list(Topic))
def test_an_unknown_type_of_ours_on_the_batches_topic_is_skipped(topic: Topic) -> None:
    """It comes from a later version, and the splitter skips it. An unknown type of another sender, or on another topic, is refused."""
    later = Envelope("id", SOURCE, "no.bulk-registration.BatchForwarded.v1", b"{}", None)
    if topic is Topic.BATCHES:
        assert read_event(topic, later) == events.LaterEvent()
        refused = [later._replace(source="/services/attendance"), later._replace(type="BatchForwarded")]
        refused.append(later._replace(type=events.REGISTER_ACTIVITY))
    else:
        refused = [later]
    for each in refused:
        with pytest.raises(UnreadableError) as error:
            read_event(topic, each)
        assert error.value.reason == "unknown_type"


ITEM_VALUES = {
    "position": 0,
    "mentor_id": "mentor-1",
    "activity_type": "visit",
    "activity_date": "2026-03-25",
    "duration_minutes": 60,
}
POISON = {
    "duplicate key": b'{"batch_id":"x","batch_id":"y"}',
    "not a number": b'{"total_items":NaN}',
    "overflow": b'{"total_items":1e400}',
    "deep": b"[" * 100_000,
    "not JSON": b"\x00\xff",
    "not an object": b"[]",
    "empty": b"",
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_is_unreadable(poison: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_event(Topic.BATCHES, envelope(events.BATCH_SUBMITTED, poison))


@pytest.mark.parametrize(
    "values",
    [
        {"mentor_id": "a\x00b"},
        {"mentor_id": ""},
        {"mentor_id": "x" * 101},
        {"mentor_id": 7},
        {"mentor_id": "\ud800"},
        {"activity_date": "2026-02-30"},
        {"activity_date": 20260325},
        {"activity_date": "2026-03-25T00:00:00"},
        {"duration_minutes": "60"},
        {"duration_minutes": 60.5},
        {"duration_minutes": 2**31},
        {"duration_minutes": True},
        {"notes": "x" * 10_001},
        {"position": -1},
    ],
    ids=str,
)
def test_values_that_no_request_may_have_are_refused_and_not_quoted(values: dict[str, Any]) -> None:
    data = {
        "batch_id": str(BATCH),
        "organization_id": "org",
        "coordinator_id": "c",
        "items": [ITEM_VALUES | {"notes": "canary"} | values],
    }
    with pytest.raises(UnreadableError) as refused:
        read_event(Topic.BATCHES, envelope(events.BATCH_SUBMITTED, json.dumps(data).encode()))
    assert f"items/0/{next(iter(values))}" in str(refused.value)
    assert "canary" not in str(refused.value)


SUBMITTED = {
    "batch_id": str(BATCH),
    "organization_id": "org",
    "coordinator_id": "c",
    "label": None,
    "part": 1,
    "parts": 2,
    "total_items": 3,
    "items": [ITEM_VALUES, ITEM_VALUES | {"position": 1, "notes": "n", "client_reference": "row 7"}],
}
ODD: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 1 << 20, 1 << 31, 1 << 63, 10**300, -(10**300), 0.5, 1e300),
    *("", "x", "60", "\x00", "\ud800", "x" * 10_001, str(BATCH), "2026-03-25", "2026-02-30", "\N{ARABIC-INDIC DIGIT ONE}"),
    *([], [[]], [0] * 501, [ITEM_VALUES] * 501, {}, {"a": [1]}),
)


def _places(value: object, *at: int | str) -> Iterator[tuple[int | str, ...]]:
    yield at
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in entries:
        yield from _places(inner, *at, name)


def _with(document: Any, at: tuple[int | str, ...], odd: object) -> Any:
    if not at:
        return odd
    changed = copy.copy(document)
    changed[at[0]] = _with(document[at[0]], at[1:], odd)
    return changed


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:20])
def test_an_odd_value_anywhere_is_read_or_refused_with_its_place(odd: object) -> None:
    for at in _places(SUBMITTED):
        document = _with(SUBMITTED, at, odd)
        refusal = refusal_of(json.dumps(document).encode())
        is_known = isinstance(document, dict) and (document.get("batch_id"), document.get("organization_id")) == (
            str(BATCH),
            "org",
        )
        if isinstance(refusal, InvalidEventError) and is_known:
            assert refusal.submission is not None
            assert any(mistake.pointer.startswith(pointer(*at)) for mistake in refusal.submission.mistakes)
            # The mistakes can be published as they are.
            orjson.dumps([mistake._asdict() for mistake in refusal.submission.mistakes])
        else:
            assert refusal is None or refusal.reason in ("not_json", "invalid_data")


def refusal_of(value: bytes) -> UnreadableError | None:
    try:
        read_event(Topic.BATCHES, envelope(events.BATCH_SUBMITTED, value))
    except UnreadableError as refusal:
        return refusal
    return None


def test_a_repeated_event_has_the_same_bytes() -> None:
    def build() -> OutgoingEvent:
        return event_builders.batch_completed(
            batch_id=BATCH,
            organization_id="org",
            status="completed",
            counts={"total_items": 1, "pending": 0, "completed": 1, "failed": 0, "cancelled": 0},
            retry_number=2,
            completed_at=TIME,
            trace_id=TRACE,
        )

    assert build() == build()


def test_golden_binary_and_structured_events_are_read_alike() -> None:
    """The events that docs/events.md shows."""
    data = {
        "batch_id": str(BATCH),
        "organization_id": "org-01",
        "coordinator_id": "coord-119",
        "label": "Monday group",
        "override_duplicates": False,
        "part": 1,
        "parts": 1,
        "total_items": 1,
        "items": [ITEM_VALUES | {"notes": "…"}],
    }
    binary = open_envelope(
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"4711"),
            ("ce_source", b"/services/attendance"),
            ("ce_time", b"2026-03-26T10:00:00Z"),
            ("ce_type", b"no.bulk-registration.BatchSubmitted.v1"),
            ("content-type", b"application/json"),
            ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode()),
        ],
        orjson.dumps(data),
    )
    structured = open_envelope(
        [("content-type", b"application/cloudevents+json; charset=utf-8")],
        orjson.dumps(
            {
                "specversion": "1.0",
                "id": "4711",
                "source": "/services/attendance",
                "type": "no.bulk-registration.BatchSubmitted.v1",
                "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
                "data": data,
            }
        ),
    )
    assert binary == structured
    read = read_event(Topic.BATCHES, binary)
    assert isinstance(read, events.BatchSubmitted)
    assert (read.total_items, read.items[0].mentor_id, read.items[0].notes) == (1, "mentor-1", "…")


@pytest.mark.parametrize(
    ("raw_headers", "value"),
    [
        ([], b"{}"),
        ([("ce_specversion", b"0.3"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t")], b"{}"),
        ([("ce_specversion", b"1.0"), ("ce_id", b""), ("ce_source", b"s"), ("ce_type", b"t")], b"{}"),
        ([("ce_specversion", b"1.0"), ("ce_id", b"\xff"), ("ce_source", b"s"), ("ce_type", b"t")], b"{}"),
        ([("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t")], None),
        ([("content-type", b"application/cloudevents+json")], b"[]"),
        ([("content-type", b"application/cloudevents+json")], b'{"specversion": 1, "data": {}}'),
        ([("content-type", b"application/cloudevents+json")], b"{"),
        (
            [("content-type", b"application/cloudevents+json")],
            b'{"specversion": "1.0", "id": "\\ud800", "source": "s", "type": "t", "data": {}}',
        ),
        (
            [("content-type", b"application/cloudevents+json")],
            b'{"specversion": "1.0", "id": "1", "id": "2", "source": "s", "type": "t", "data": {}}',
        ),
        (
            [("content-type", b"application/cloudevents+json")],
            b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": [[]]}',
        ),
        ([("content-type", b"application/cloudevents+json")], b'{"data":' * 50_000),
        ([("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s\x00"), ("ce_type", b"t")], b"{}"),
        ([("ce_specversion", b"1.0"), ("ce_id", b"1" * 1_001), ("ce_source", b"s"), ("ce_type", b"t")], b"{}"),
    ],
)
def test_a_record_that_is_no_cloud_event_is_unreadable(raw_headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    with pytest.raises(UnreadableError):
        open_envelope(raw_headers, value)


BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t")]
STRUCTURED = b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {}}'


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents+json",
        b"Application/CloudEvents+JSON",
        b"application/cloudevents+json; charset=UTF-8",
        b'application/cloudevents+json ;charset="utf-8"; x=y',
        b" APPLICATION/CLOUDEVENTS+JSON;",
    ],
)
@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
def test_structured_mode_is_read_in_every_spelling(name: str, content_type: bytes) -> None:
    assert open_envelope([(name, content_type)], STRUCTURED).data == b"{}"


@pytest.mark.parametrize(
    "content_type", [None, b"", b"Application/JSON", b"application/json; charset=utf-8", b"text/plain;charset=us-ascii"]
)
def test_binary_mode_is_read_in_every_spelling(content_type: bytes | None) -> None:
    headers = [(name.upper(), value) for name, value in BINARY]
    assert open_envelope([*headers, ("Content-Type", content_type)], b"{}").id == "1"


@pytest.mark.parametrize(
    ("content_type", "value", "said"),
    [
        (b"application/cloudevents-batch+json", b"[]", "batch"),
        (b"Application/CloudEvents-Batch+JSON; charset=utf-8", b"[]", "batch"),
        (b"application/cloudevents+avro", STRUCTURED, "structured mode is application/cloudevents"),
        (b"application/cloudevents", STRUCTURED, "structured mode is application/cloudevents"),
        (b"application/cloudevents+json; charset=iso-8859-1", STRUCTURED, "character set"),
        (b"application/json; Charset=Latin1", b"{}", "character set"),
        (b"application/cloudevents+json", b"\xef\xbb\xbf" + STRUCTURED, "byte order mark"),
        (b"application/json", b"\xef\xbb\xbf{}", "byte order mark"),
        (b"application/json", "{}".encode("utf-16"), "byte order mark"),
        (b"application/json", b"\xfe\xff\x00{", "byte order mark"),
        (b"application/cloudevents+json", STRUCTURED.replace(b'"data": {}', b'"data_base64": "e30="'), "data_base64"),
    ],
)
def test_a_refusal_names_its_reason(content_type: bytes, value: bytes, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        open_envelope([*BINARY, ("content-type", content_type)], value)


@pytest.mark.parametrize("name", [name for name, field in events.BatchSubmitted.model_fields.items() if not field.is_required()])
def test_null_in_an_optional_field_means_that_it_is_absent(name: str) -> None:
    data = {"batch_id": str(BATCH), "organization_id": "org-01", "coordinator_id": "coord-119", "items": [ITEM_VALUES]}
    envelope = open_envelope([*BINARY[:3], ("ce_type", events.BATCH_SUBMITTED.encode())], orjson.dumps(data))
    with_null = envelope._replace(data=orjson.dumps(data | {name: None}))
    assert read_event(Topic.BATCHES, with_null) == read_event(Topic.BATCHES, envelope)


@pytest.mark.parametrize("name", [name for name, field in events.SubmittedItem.model_fields.items() if not field.is_required()])
def test_null_in_an_optional_field_of_an_item_means_that_it_is_absent(name: str) -> None:
    data = {"batch_id": str(BATCH), "organization_id": "org-01", "coordinator_id": "coord-119", "items": [ITEM_VALUES]}
    envelope = open_envelope([*BINARY[:3], ("ce_type", events.BATCH_SUBMITTED.encode())], orjson.dumps(data))
    with_null = envelope._replace(data=orjson.dumps(data | {"items": [ITEM_VALUES | {name: None}]}))
    assert read_event(Topic.BATCHES, with_null) == read_event(Topic.BATCHES, envelope)


def test_a_cancellation_of_any_batch_fits_the_topic() -> None:
    """Every second item of the largest batch that the settings allow, at the highest attempt."""
    runs = [(position, position, 2**31 - 1) for position in range(0, MAX_POSITIONS, 2)]
    parts = event_builders.batch_cancelled(
        batch_id=BATCH,
        organization_id="org",
        reason=None,
        cancelled_by="me",
        counts={"total_items": 0, "pending": 0, "completed": 0, "failed": 0, "cancelled": 0},
        cancelled_positions=runs,
        time=TIME,
        trace_id=TRACE,
    )
    assert max(len(part.value) for part in parts) < MAX_MESSAGE_BYTES / 2
    assert len({dict(part.headers)["ce_id"] for part in parts}) == len(parts)
    assert [tuple(run) for part in parts for run in orjson.loads(part.value)["cancelled_positions"]] == runs


# JSON writes each of these characters as six bytes, which is the most.
COSTLY = "\x1f"
ID = COSTLY * MAX_ID_LENGTH


def test_a_retry_of_any_batch_with_the_longest_corrections_fits_the_topic() -> None:
    """For submissions see row 13 of docs/faults.md, and for dead letters tests/unit/test_records.py. A result and a completion contain no
    list, and a rejection has at most a hundred mistakes."""
    correction: Correction = {
        "mentor_id": ID,
        "activity_type": ID,
        "activity_date": TIME.date(),
        "duration_minutes": 2**31 - 1,
        "override_duplicates": True,
    }
    parts = retry_events(
        batch_id=BATCH,
        organization_id=ID,
        retry_number=2**31 - 1,
        retried_by=ID,
        attempts=[(MAX_POSITIONS - 1, 2**31 - 1, correction)] * 5_000,
        time=TIME,
        trace_id=TRACE,
    )
    assert max(len(part.value) for part in parts) < MAX_MESSAGE_BYTES
