"""What a batch's hashes depend on, in which parts it is published, and what is known of events that were sent."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Role
from orchestrator.batches.parts import content_hash, part_hash, submitted_events
from orchestrator.batches.publishing import Delivery, DeliveryError, Trouble, failures
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import MAX_PART_BYTES, MAX_PART_ITEMS
from schemas.ids import new_batch_id

# --- Hashes ---------------------------------------------------------------------------------------------------------------------------

HEADER: dict[str, Any] = {"organization_id": "o", "coordinator_id": "c", "label": "l", "override": False, "parts": 2, "total": 3}
OTHER_HEADERS: dict[str, Any] = {
    "organization_id": "p",
    "coordinator_id": "d",
    "label": None,
    "override": True,
    "parts": 3,
    "total": 4,
}


def test_the_hash_of_a_batch_depends_on_everything_that_its_parts_have_in_common() -> None:
    hashes = {content_hash(**HEADER), *(content_hash(**HEADER | {name: value}) for name, value in OTHER_HEADERS.items())}
    assert OTHER_HEADERS.keys() == HEADER.keys()
    assert len(hashes) == 1 + len(HEADER)
    assert content_hash(**HEADER) == content_hash(**HEADER)


VALUES = ItemValues("m", "visit", date(2026, 3, 25), 60, "a note")
OTHER_VALUES = (
    VALUES._replace(mentor_id="n"),
    VALUES._replace(activity_type="call"),
    VALUES._replace(activity_date=date(2026, 3, 24)),
    VALUES._replace(duration_minutes=61),
)


def test_the_hash_of_a_part_depends_on_all_its_values() -> None:
    part = [(0, NewItem(VALUES, "row 1")), (1, NewItem(VALUES, "row 2"))]
    others: list[tuple[bytes, int, list[tuple[int, NewItem]]]] = [
        (b"header", 1, part),
        (b"another", 1, part),
        (b"header", 2, part),
        (b"header", 1, part[:1]),
        (b"header", 1, part[::-1]),
        (b"header", 1, [(2, part[0][1]), part[1]]),
        (b"header", 1, [(0, NewItem(VALUES, None)), part[1]]),
        *((b"header", 1, [(0, NewItem(values, "row 1")), part[1]]) for values in OTHER_VALUES),
    ]
    overriding = [(0, NewItem(VALUES._replace(override_duplicates=True), "row 1")), part[1]]
    assert part_hash(b"header", 1, overriding, with_notes=False) != part_hash(b"header", 1, part, with_notes=False)
    # The batch's own flag is in the header. Items with the same flag have the same bytes as before the flag existed.
    both = [(position, each._replace(values=each.values._replace(override_duplicates=True))) for position, each in part]
    assert part_hash(b"header", 1, both, with_notes=False, override=True) == part_hash(b"header", 1, part, with_notes=False)
    for with_notes in (False, True):
        assert len({part_hash(*each, with_notes=with_notes) for each in others}) == len(others)
    noted = [(0, NewItem(VALUES._replace(notes="another"), "row 1")), part[1]]
    assert part_hash(b"header", 1, noted, with_notes=False) == part_hash(b"header", 1, part, with_notes=False)
    assert part_hash(b"header", 1, noted, with_notes=True) != part_hash(b"header", 1, part, with_notes=True)


# --- Parts ----------------------------------------------------------------------------------------------------------------------------

ACTOR = Actor("o", "s", Role.SERVICE)


def parts_of(items: list[NewItem]) -> list[dict[str, Any]]:
    batch = NewBatch(new_batch_id(), "c", "l", False, items, "1" * 32)
    _, hashes, published = submitted_events(ACTOR, batch, submitted_at=datetime(2026, 3, 25, tzinfo=UTC))
    assert all(len(event.value) <= MAX_PART_BYTES for event in published)
    assert [each.part for each in hashes] == list(range(1, len(published) + 1))
    return [json.loads(event.value) for event in published]


def numbered(count: int, reference: str | None = None) -> list[NewItem]:
    return [NewItem(VALUES._replace(mentor_id=f"m-{number}"), reference) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (499, [499]), (500, [500]), (501, [500, 1]), (1_000, [500, 500]), (1_001, [500, 500, 1])]
)
def test_a_part_has_at_most_500_items(count: int, sizes: list[int]) -> None:
    parts = parts_of(numbered(count))
    assert [len(part["items"]) for part in parts] == sizes
    assert [(part["part"], part["parts"], part["total_items"]) for part in parts] == [
        (n, len(sizes), count) for n in range(1, len(sizes) + 1)
    ]
    assert [each["position"] for part in parts for each in part["items"]] == list(range(count))


def test_a_part_is_as_large_as_kafka_accepts_and_has_as_many_items_as_fit() -> None:
    # JSON writes each character of the references as six bytes.
    reference = "\x01" * 100
    items = numbered(700, reference * 4)
    parts = parts_of(items)
    assert len(parts) > 2
    sizes = [len(json.dumps(part, separators=(",", ":"))) for part in parts]
    per_item = sizes[0] / len(parts[0]["items"])
    assert all(MAX_PART_BYTES - 16 * 1024 - per_item < size <= MAX_PART_BYTES for size in sizes[:-1])
    assert len(parts[0]["items"]) < MAX_PART_ITEMS
    assert [each["position"] for part in parts for each in part["items"]] == list(range(700))


# --- Deliveries -----------------------------------------------------------------------------------------------------------------------


def event(number: int) -> OutgoingEvent:
    return OutgoingEvent(Topic.BATCHES, "k", (), b"%d" % number)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_only_the_first_result_of_an_event_counts(told: list[tuple[int, bool]]) -> None:
    delivery = Delivery([event(number) for number in range(4)])
    first: dict[int, bool] = {}
    for index, is_trouble in told:
        delivery.settle(index, Trouble(f"trouble {index}") if is_trouble else None)
        first.setdefault(index, is_trouble)
    assert delivery.outstanding == set(range(4)) - first.keys()
    failed = sorted(index for index, is_trouble in first.items() if is_trouble)
    error = failures(delivery)
    assert (error is None) == (not failed)
    assert (sorted(error.troubles) if error else []) == failed


def test_a_delivery_error_says_how_many_and_why() -> None:
    error = DeliveryError({2: Trouble("no leader"), 0: Trouble("too large", is_permanent=True)})
    assert str(error) == "2 events were not acknowledged: no leader"
    assert sorted(error.troubles) == [0, 2]
