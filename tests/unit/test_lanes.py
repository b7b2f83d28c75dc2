from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from consumers.loop.decoding import Entry
from consumers.loop.handler import Lane
from consumers.loop.lanes import LanePolicy, Lanes
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Role
from orchestrator.batches.parts import submitted_events
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from schemas.ids import new_batch_id

POLICY = LanePolicy(max_batch_records=100, max_batch_bytes=1_000, bulk_share=0.25, max_lane_records=50, max_lane_bytes=10_000)
PARTITION = PartitionOffsets(Topic.COMMANDS, "prefix.commands.v1", 0)


def entry(lane: Lane, *, size: int = 1, around: int = 0, partition: PartitionOffsets = PARTITION) -> Entry:
    """`size` is the value's size, `around` that of key and headers."""
    return Entry(RawRecord("", 0, 0, 0, None, bytes(size), ()), partition, 0, size + around, lane, None, None)


def filled(*, small: int = 0, bulk: int = 0, size: int = 1) -> Lanes:
    lanes = Lanes(POLICY)
    for _ in range(small):
        lanes.put(entry(Lane.SMALL, size=size))
    for _ in range(bulk):
        lanes.put(entry(Lane.BULK, size=size))
    return lanes


def taken(lanes: Lanes) -> list[tuple[Lane, int]]:
    """Lane and size of each micro-batch until there is no work left."""
    batches = []
    while batch := lanes.take():
        [lane] = {entry.lane for entry in batch}
        batches.append((lane, len(batch)))
    return batches


def test_lanes_take_turns_by_their_share_and_one_alone_gets_everything() -> None:
    assert taken(filled(small=160, bulk=160)) == [
        (Lane.SMALL, 75),
        (Lane.BULK, 25),
        (Lane.SMALL, 75),
        (Lane.BULK, 25),
        (Lane.SMALL, 10),
        (Lane.BULK, 100),
        (Lane.BULK, 10),
    ]


def test_a_few_small_records_are_taken_at_once_and_alone() -> None:
    lanes = filled(bulk=300)
    assert len(lanes.take()) == 100
    lanes.put(entry(Lane.SMALL))
    assert [entry.lane for entry in lanes.take()] == [Lane.SMALL]


def test_a_micro_batch_is_bounded_by_bytes_but_never_empty() -> None:
    assert taken(filled(small=5, size=400)) == [(Lane.SMALL, 2), (Lane.SMALL, 2), (Lane.SMALL, 1)]
    assert taken(filled(small=2, size=5_000)) == [(Lane.SMALL, 1), (Lane.SMALL, 1)]


def test_share_of_less_than_a_record_is_one_record() -> None:
    lanes = Lanes(replace(POLICY, max_batch_records=1))
    for lane in (Lane.SMALL, Lane.BULK):
        lanes.put(entry(lane))
    assert taken(lanes) == [(Lane.SMALL, 1), (Lane.BULK, 1)]


def test_headers_count_for_a_lane_and_not_for_a_micro_batch() -> None:
    lanes = Lanes(POLICY)
    for _ in range(3):
        lanes.put(entry(Lane.SMALL, size=100, around=3_300))
    assert lanes.is_full(Lane.SMALL)
    assert taken(lanes) == [(Lane.SMALL, 3)]
    assert not lanes.is_full(Lane.SMALL)


def test_a_micro_batch_of_commands_is_bounded_by_their_number() -> None:
    """The product's policy, with commands as large as the benchmark's, which have almost as many bytes of headers."""
    settings = Settings()
    lanes = Lanes(LanePolicy.of(settings))
    for _ in range(2 * settings.max_batch_records):
        lanes.put(entry(Lane.SMALL, size=315, around=275))
    assert [size for _, size in taken(lanes)] == [settings.max_batch_records] * 2


@pytest.mark.parametrize(("size", "count"), [(499, 2), (500, 2), (501, 1)])
def test_a_micro_batch_may_be_as_large_as_its_bound(size: int, count: int) -> None:
    assert taken(filled(small=2, size=size))[0] == (Lane.SMALL, count)


def test_bytes_are_shared_as_records_are() -> None:
    """A quarter of 1,000 bytes belongs to the bulk lane, and three quarters to the other."""
    assert taken(filled(small=8, bulk=8, size=100))[:2] == [(Lane.SMALL, 7), (Lane.BULK, 2)]


def test_a_large_batch_gives_way_after_two_of_its_parts() -> None:
    """The product's policy, with parts as large as those of a submission of 10,000 mentor ids without notes."""
    items = [
        NewItem(ItemValues(f"mentor-{number:05}", "peer_session", date(2026, 3, 25), 60), f"row {number}")
        for number in range(10_000)
    ]
    batch = NewBatch(new_batch_id(), "coord-101", "Month end", False, items, "0" * 32)
    _, _, parts = submitted_events(
        Actor("org-01", "coord-101", Role.COORDINATOR), batch, submitted_at=datetime(2026, 3, 26, tzinfo=UTC)
    )
    lanes = Lanes(LanePolicy.of(Settings()))
    for part in parts:
        lanes.put(entry(Lane.BULK, size=len(part.value)))
    assert [size for _, size in taken(lanes)] == [2] * 10


def test_a_full_lane_has_room_again_only_when_half_of_it_is_done() -> None:
    lanes = filled(small=49)
    assert not lanes.is_full(Lane.SMALL)
    lanes.put(entry(Lane.SMALL))
    assert lanes.is_full(Lane.SMALL)
    assert not lanes.is_full(Lane.BULK)
    assert not lanes.has_room(Lane.SMALL)
    lanes.take()
    assert lanes.has_room(Lane.SMALL)


@pytest.mark.parametrize(("count", "has_room"), [(24, True), (25, False), (26, False)])
def test_half_a_lane_counts_as_room(count: int, has_room: bool) -> None:
    assert filled(bulk=count).has_room(Lane.BULK) is has_room
    assert filled(bulk=1, size=200 * count).has_room(Lane.BULK) is has_room


@pytest.mark.parametrize(("size", "is_full"), [(9_999, False), (10_000, True), (10_001, True)])
def test_a_lane_can_be_full_of_bytes(size: int, is_full: bool) -> None:
    assert filled(bulk=1, size=size).is_full(Lane.BULK) is is_full


def test_records_that_were_taken_do_not_fill_a_lane() -> None:
    lanes = filled(bulk=3, size=4_000)
    assert lanes.is_full(Lane.BULK)
    lanes.take()
    assert not lanes.is_full(Lane.BULK)
    lanes.put(entry(Lane.BULK, size=2_000))
    assert lanes.is_full(Lane.BULK)


def test_a_few_large_records_fill_a_lane_too() -> None:
    assert filled(bulk=2, size=5_000).is_full(Lane.BULK)


def test_a_dropped_partition_leaves_no_record_and_no_bytes() -> None:
    other = PartitionOffsets(Topic.COMMANDS, "prefix.commands.v1", 1)
    lanes = filled(small=3, size=5_000)
    lanes.put(entry(Lane.SMALL, partition=other))
    lanes.drop({PARTITION})
    assert not lanes.is_full(Lane.SMALL)
    assert [entry.partition for entry in lanes.take()] == [other]
    assert not lanes
