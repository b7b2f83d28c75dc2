"""What the intake does with upstream batches, part by part (docs/events.md)."""

from itertools import permutations
from uuid import UUID, uuid4

import orjson
import pytest

from orchestrator.batches.model import Actor, Role
from orchestrator.batches.operations import cancel_batch, delete_batch
from orchestrator.batches.states import Counts
from schemas.api.reading import RefusedRequestError
from schemas.api.submissions import read_submission
from schemas.envelope import Topic
from schemas.events import BATCH_REJECTED, MAX_PART_ITEMS
from schemas.mistakes import MOST_MISTAKES
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, ORGANIZATION
from tests.support.upstream import (
    TRACE,
    Data,
    answer_events,
    answers,
    in_parts,
    is_unknown,
    places,
    submitted,
    upstream_item,
    upstream_items,
)

OTHER = Actor("org-other", "boss", Role.ADMIN)


def assert_completed(flow: MemoryFlow, batch_id: UUID, total: int) -> None:
    """Checks that the batch has all its items, and that all are registered."""
    flow.drain()
    view = flow.status(batch_id)
    assert (view.batch.status, view.batch.counts) == ("completed", Counts(completed=total))
    assert [one.position for one in view.items] == list(range(total))


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "Tuesday group"},
        {"override_duplicates": True},
        {"coordinator_id": "coord-2"},
        {"total_items": 4},
        {"items": [*upstream_items(2), upstream_item(2, notes="another")]},
        {"items": [*upstream_items(2), upstream_item(2, client_reference="row 9")]},
        {"items": [*upstream_items(2), upstream_item(2, duration_minutes=61)]},
        {"items": upstream_items(2)},
    ],
    ids=str,
)
def test_other_content_under_the_same_id_is_refused_and_the_batch_continues(flow: MemoryFlow, fields: Data) -> None:
    batch_id = uuid4()
    flow.take_in(submitted(batch_id, upstream_items(3)))
    changed = submitted(batch_id, fields.pop("items", upstream_items(3)), event_id="event-2", **fields)
    [refusal] = flow.take_in(changed).values()
    assert refusal[0].code == "batch_differs"
    [rejection] = answers(flow)
    assert (rejection["batch_continues"], rejection["rejected_event_id"]) == (True, "event-2")
    assert places(rejection) == {("/batch_id", "batch_differs")}
    assert_completed(flow, batch_id, 3)


@pytest.mark.parametrize("is_malformed", [False, True], ids=["well formed", "malformed"])
@pytest.mark.parametrize("sizes", [[3], [2, 1]], ids=["running", "collecting"])
def test_an_id_that_another_organization_uses_is_refused_without_details(
    flow: MemoryFlow, sizes: list[int], is_malformed: bool
) -> None:
    batch_id = uuid4()
    first, *others = in_parts(batch_id, sizes)
    flow.take_in(first)
    items = [{}] if is_malformed else upstream_items(3)
    [refusal] = flow.take_in(submitted(batch_id, items, organization_id=OTHER.organization_id)).values()
    [rejection] = answers(flow)
    assert (refusal[0].code, rejection["batch_continues"]) == ("batch_id_taken", True)
    assert [problem["code"] for problem in rejection["problems"]] == ["batch_id_taken"]
    assert rejection["organization_id"] == OTHER.organization_id
    assert ORGANIZATION not in orjson.dumps(rejection).decode()
    flow.take_in(*others)
    assert_completed(flow, batch_id, 3)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_parts_may_come_in_any_order_and_twice(flow: MemoryFlow, order: tuple[int, ...]) -> None:
    batch_id = uuid4()
    parts = in_parts(batch_id, [2, 2, 1])
    first, second, last = (parts[index] for index in order)
    for event in (first, first, second, first):
        assert flow.take_in(event) == {}
        view = flow.status(batch_id)
        assert (view.batch.status, view.batch.counts, list(view.items)) == ("pending", Counts(pending=5), [])
    flow.take_in(last)
    assert flow.status(batch_id).batch.status == "processing"
    flow.take_in(last, second)
    assert_completed(flow, batch_id, 5)
    assert answers(flow) == []


@pytest.mark.parametrize(
    "fields", [{"total_items": 4}, {"parts": 3}, {"label": "another"}, {"coordinator_id": "coord-9"}], ids=str
)
def test_contradicting_parts_are_refused_and_the_first_ones_stay(flow: MemoryFlow, fields: Data) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    flow.take_in(first)
    disagreeing = submitted(batch_id, upstream_items(1, 2), **{"part": 2, "parts": 2, "total_items": 3, **fields})
    [refusal] = flow.take_in(disagreeing).values()
    [rejection] = answers(flow)
    assert (refusal[0].code, rejection["batch_continues"]) == ("batch_differs", True)
    flow.take_in(second)
    assert_completed(flow, batch_id, 3)


WRONG_PARTS: dict[str, tuple[Data, set[tuple[str, str]]]] = {
    "part beyond parts": ({"part": 3}, {("/part", "out_of_range")}),
    "too many items in all": ({"total_items": 10_001}, {("/total_items", "too_many_items")}),
    "positions beyond the total": (
        {"items": [upstream_item(2), upstream_item(3), upstream_item(9)]},
        {("/items/1/position", "out_of_range"), ("/items/2/position", "out_of_range")},
    ),
    "a position twice": (
        {"items": [upstream_item(2, "mentor-7"), upstream_item(2)]},
        {("/items/0/position", "duplicate_position"), ("/items/1/position", "duplicate_position")},
    ),
    "an item twice, with notes and without": (
        {"items": [upstream_item(2, "mentor-7", notes="a note"), upstream_item(2, "mentor-7")]},
        {
            *((f"/items/{place}/position", "duplicate_position") for place in (0, 1)),
            *((f"/items/{place}/mentor_id", "duplicate_mentor") for place in (0, 1)),
        },
    ),
    "a mentor twice": (
        {"items": [upstream_item(2, "mentor-7"), upstream_item(1, "mentor-7")]},
        {("/items/0/mentor_id", "duplicate_mentor"), ("/items/1/mentor_id", "duplicate_mentor")},
    ),
    "unknown coordinator": ({"coordinator_id": "nobody"}, {("/coordinator_id", "coordinator_unknown")}),
    "no items": ({"items": []}, {("/items", "no_items")}),
    "more than 500 items": ({"items": upstream_items(501), "total_items": 1_000}, {("/items", "too_many_items")}),
    "more than 512 KB": (
        {"items": [upstream_item(position, notes="n" * 9_000) for position in range(60)], "total_items": 1_000},
        {("", "too_large")},
    ),
    "malformed": (
        {"items": [upstream_item(2, duration_minutes="60"), "nothing"], "part": "2", "label": 7},
        {
            ("/items/0/duration_minutes", "wrong_type"),
            ("/items/1", "wrong_type"),
            ("/part", "wrong_type"),
            ("/label", "wrong_type"),
        },
    ),
    "position beyond all": ({"items": [upstream_item(1 << 20)]}, {("/items/0/position", "out_of_range")}),
    "everything at once": (
        {"items": [upstream_item(2, "mentor-7"), upstream_item(9, "mentor-7")], "part": 3, "coordinator_id": "nobody"},
        {
            ("/part", "out_of_range"),
            ("/items/1/position", "out_of_range"),
            ("/items/0/mentor_id", "duplicate_mentor"),
            ("/items/1/mentor_id", "duplicate_mentor"),
            ("/coordinator_id", "coordinator_unknown"),
        },
    ),
}


@pytest.mark.parametrize(("fields", "expected"), WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_an_invalid_part_is_refused_and_the_batch_rejected(
    flow: MemoryFlow, fields: Data, expected: set[tuple[str, str]]
) -> None:
    batch_id = uuid4()
    fields = {"items": upstream_items(1, 2), "part": 2, "parts": 2, "total_items": 3, **fields}
    wrong = submitted(batch_id, event_id="event-2", **fields)
    [first, _] = in_parts(batch_id, [2, 1], **{name: value for name, value in fields.items() if name == "coordinator_id"})
    # The total agrees, so that the total is not the mistake.
    first = first._replace(value=orjson.dumps(orjson.loads(first.value) | {"total_items": fields["total_items"]}))
    flow.take_in(first)
    answers(flow)
    [refusal] = flow.take_in(wrong).values()
    [rejection] = answers(flow)
    assert refusal[0].code in {code for _, code in expected}
    assert places(rejection) == expected
    assert (rejection["batch_continues"], rejection["rejected_event_id"]) == (False, "event-2")
    assert (rejection["batch_id"], rejection["organization_id"]) == (str(batch_id), ORGANIZATION)
    assert is_unknown(flow, batch_id)


def test_an_invalid_part_does_not_change_a_complete_batch(flow: MemoryFlow) -> None:
    batch_id = uuid4()
    flow.take_in(*in_parts(batch_id, [2, 1]))
    beyond = submitted(batch_id, upstream_items(1), part=3, parts=2, total_items=3)
    malformed = submitted(batch_id, [{}])
    assert len(flow.take_in(beyond, malformed)) == 2
    assert [rejection["batch_continues"] for rejection in answers(flow)] == [True, True]
    assert_completed(flow, batch_id, 3)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([upstream_item(1, "mentor-9")], {("/items/1/position", "duplicate_position")}),
        (
            [upstream_item(2, "mentor-1")],
            {("/items/0/mentor_id", "duplicate_mentor"), ("/items/2/mentor_id", "duplicate_mentor")},
        ),
    ],
    ids=["positions overlap", "a mentor in two parts"],
)
def test_a_batch_is_validated_and_rejected_as_a_whole(
    flow: MemoryFlow, second: list[Data], expected: set[tuple[str, str]]
) -> None:
    batch_id = uuid4()
    flow.take_in(submitted(batch_id, upstream_items(2), part=1, parts=2, total_items=3))
    refused = flow.take_in(submitted(batch_id, second, part=2, parts=2, total_items=3, event_id="event-2"))
    assert list(refused) == [0]
    [rejection] = answers(flow)
    assert places(rejection) == expected
    assert (rejection["batch_continues"], rejection["rejected_event_id"]) == (False, "event-2")
    assert is_unknown(flow, batch_id)
    flow.take_in(*in_parts(batch_id, [2, 1]))
    assert_completed(flow, batch_id, 3)


def test_missing_positions_are_named(flow: MemoryFlow) -> None:
    batch_id = uuid4()
    flow.take_in(submitted(batch_id, [upstream_item(0), upstream_item(3)], total_items=5))
    [rejection] = answers(flow)
    [problem] = rejection["problems"]
    assert (problem["pointer"], problem["code"]) == ("/items", "missing_positions")
    assert problem["detail"].endswith("missing: 1, 2 and 4")


def test_positions_are_missing_only_if_none_is_wrong(flow: MemoryFlow) -> None:
    flow.take_in(submitted(uuid4(), [upstream_item(0, "mentor-7"), upstream_item(0)]))
    [rejection] = answers(flow)
    assert places(rejection) == {(f"/items/{place}/position", "duplicate_position") for place in (0, 1)}


def test_a_repeated_rejection_has_the_same_bytes(flow: MemoryFlow) -> None:
    event = submitted(uuid4(), upstream_items(1), coordinator_id="nobody", event_id="event-1")
    malformed = submitted(uuid4(), [{}], event_id="event-2")
    flow.take_in(event, malformed)
    first = answer_events(flow)
    flow.take_in(event, malformed)
    assert answer_events(flow) == first
    assert {dict(each.headers)["traceparent"].decode().split("-")[1] for each in first} == {TRACE}


def test_a_long_list_of_problems_is_cut_after_a_hundred(flow: MemoryFlow) -> None:
    flow.take_in(submitted(uuid4(), [0] * 200_000))
    [rejection] = answers(flow)
    assert [problem["code"] for problem in rejection["problems"]] == [
        "too_many_items",
        *["wrong_type"] * (MOST_MISTAKES - 1),
        "too_many_mistakes",
    ]
    batch_id = uuid4()
    same = [upstream_item(position, "mentor-1") for position in range(6_000)]
    for part in range(12):
        items = same[part * MAX_PART_ITEMS : (part + 1) * MAX_PART_ITEMS]
        # Each mentor is valid in its part, and is in the batch twice.
        day = [one | {"activity_date": f"20{index // 28 + 10:02}-01-{index % 28 + 1:02}"} for index, one in enumerate(items)]
        flow.take_in(submitted(batch_id, day, part=part + 1, parts=12, total_items=6_000))
    [event] = answer_events(flow)
    problems = orjson.loads(event.value)["problems"]
    assert [problem["code"] for problem in problems] == ["duplicate_mentor"] * MOST_MISTAKES + ["too_many_mistakes"]
    assert len(event.value) < 64 * 1024


BAD_ITEMS: dict[str, list[object]] = {
    "wrong types": [upstream_item(0, duration_minutes="60", notes=3), upstream_item(1, activity_date=20260325)],
    "missing fields": [{"position": 0}],
    "not an object": [7, None, "text", []],
    "empty and long": [upstream_item(0, activity_type=""), upstream_item(1, "m" * 101), upstream_item(2, notes="n" * 10_001)],
    "no date": [upstream_item(0, activity_date="2026-02-30"), upstream_item(1, activity_date="25.03.2026")],
    "beyond 32 bits": [upstream_item(0, duration_minutes=1 << 31)],
    "NUL": [upstream_item(0, notes="a\x00b")],
    "a mentor twice": [upstream_item(0, "mentor-1"), upstream_item(1, "mentor-2"), upstream_item(2, "mentor-1")],
    "a mentor twice, and a mistake": [upstream_item(0, "m"), upstream_item(1, "m"), upstream_item(2, duration_minutes=None)],
    "no items": [],
}


@pytest.mark.parametrize("items", BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_the_mistakes_are_those_that_http_returns(flow: MemoryFlow, items: list[object]) -> None:
    without_positions = [
        {name: value for name, value in one.items() if name != "position"} if isinstance(one, dict) else one for one in items
    ]
    with pytest.raises(RefusedRequestError) as refused:
        read_submission({"items": without_positions}, max_items=MAX_PART_ITEMS)
    flow.take_in(submitted(uuid4(), items))
    [rejection] = answers(flow)
    assert rejection["problems"] == [mistake._asdict() for mistake in refused.value.mistakes]


def test_a_cancel_ends_a_batch_that_is_being_collected(flow: MemoryFlow) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    flow.take_in(first)
    cancelled = flow.call(cancel_batch, ADMIN, batch_id, "a mistake")
    assert (cancelled.batch.status, cancelled.batch.counts) == ("cancelled", Counts(cancelled=3))
    flow.relay()
    assert [dict(event.headers)["ce_type"].decode() for event in flow.queues[Topic.LIFECYCLE]] == [BATCH_REJECTED]
    [rejection] = answers(flow)
    assert (places(rejection), rejection["batch_continues"]) == ({("/parts", "incomplete")}, False)
    for event in (second, first):
        assert flow.take_in(event) == {}
    assert flow.status(batch_id).batch.counts == Counts(cancelled=3)
    flow.call(delete_batch, ADMIN, batch_id)
    for event in (second, first):
        assert flow.take_in(event) == {}
    flow.drain()
    assert is_unknown(flow, batch_id)


@pytest.mark.parametrize("missing", [0, 1])
def test_an_invalid_part_that_comes_after_the_cancel_says_that_the_batch_does_not_continue(
    flow: MemoryFlow, missing: int
) -> None:
    batch_id = uuid4()
    flow.take_in(in_parts(batch_id, [2, 1])[1 - missing])
    flow.call(cancel_batch, ADMIN, batch_id, "a mistake")
    answers(flow)
    wrong = submitted(batch_id, [upstream_item(9)], part=missing + 1, parts=2, total_items=3)
    for _ in range(2):
        assert list(flow.take_in(wrong)) == [0]
        [rejection] = answers(flow)
        assert (places(rejection), rejection["batch_continues"]) == ({("/items/0/position", "out_of_range")}, False)
    assert flow.status(batch_id).batch.status == "cancelled"
