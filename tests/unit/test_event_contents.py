"""Events as they are written: which values belong to an id and to a key."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from schemas import event_builders, events
from schemas.envelope import OutgoingEvent, Topic, open_envelope, rfc3339, trace_of
from schemas.event_builders import ItemEventHeaders
from schemas.event_reader import read_event
from schemas.ids import EventIds, batch_lock_key, content_id, event_id
from schemas.mistakes import Mistake
from tests.support.event_values import BATCH, ITEM, LATER, OTHER, OTHER_TRACE, TIME, TRACE

COUNTS = {"total_items": 5, "pending": 0, "completed": 3, "failed": 1, "cancelled": 1}


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
