"""Ids are derived, ordered, and lead back to what they name (docs/decisions/0004-ids.md)."""

import subprocess
import sys
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import MAX_POSITIONS, DerivedIds, EventIds, batch_lock_key, event_id, item_position, new_batch_id
from tests.support.waiting import PATIENCE_S

positions = st.integers(0, MAX_POSITIONS - 1)


@given(st.uuids(), positions)
def test_an_item_id_gives_its_position_only_for_its_batch(batch_id: UUID, position: int) -> None:
    item_id = DerivedIds(batch_id).item_id(position)
    assert item_position(batch_id, item_id) == position
    assert DerivedIds(batch_id).item_id_text(position) == str(item_id)
    assert item_position(new_batch_id(), item_id) is None
    assert (item_id.version, item_id.variant) == (7, RFC_4122)


@given(st.uuids(), positions, positions)
def test_items_and_activities_are_ordered_by_position_and_never_the_same(batch_id: UUID, one: int, other: int) -> None:
    ids = DerivedIds(batch_id)
    assert (ids.item_id(one) < ids.item_id(other)) == (one < other)
    assert (ids.activity_id(one) < ids.activity_id(other)) == (one < other)
    assert str(ids.item_id(one)) != ids.activity_id(other)


@given(st.integers(0, 2**47), st.integers(1, 2**20), st.data())
def test_items_of_later_batches_have_later_ids(time: int, later: int, data: st.DataObject) -> None:
    def batch(milliseconds: int) -> UUID:
        return UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62) | data.draw(st.integers(0, 2**62 - 1)))

    first, second = batch(time), batch(time + later)
    assert DerivedIds(first).item_id(data.draw(positions)) < DerivedIds(second).item_id(data.draw(positions))


def test_batches_of_one_millisecond_share_no_item_id() -> None:
    prefixes = {DerivedIds(new_batch_id()).item_id(0) for _ in range(10_000)}
    assert len(prefixes) == 10_000


def test_another_process_derives_the_same_ids() -> None:
    batch_id = new_batch_id()
    code = f"""
from uuid import UUID
from schemas.ids import DerivedIds, event_id
ids = DerivedIds(UUID('{batch_id}'))
print(ids.item_id(3), ids.activity_id(3), event_id('type', ids.item_id(3), 1))
"""
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout.split()
    ids = DerivedIds(batch_id)
    assert there == [str(ids.item_id(3)), ids.activity_id(3), str(event_id("type", ids.item_id(3), 1))]


def test_batch_ids_are_version_7_and_ordered_in_time() -> None:
    drawn = [new_batch_id() for _ in range(100)]
    assert {each.version for each in drawn} == {7}
    assert [each.int >> 80 for each in drawn] == sorted(each.int >> 80 for each in drawn)


@given(st.uuids())
def test_lock_keys_fit_a_signed_bigint(batch_id: UUID) -> None:
    assert -(2**63) <= batch_lock_key(batch_id) < 2**63


@given(st.text(min_size=1), st.uuids(), st.integers(1, 2**31))
def test_event_ids_of_a_type_can_be_computed_by_others(event_type: str, item_id: UUID, attempt: int) -> None:
    assert EventIds(event_type).text(item_id, attempt) == str(event_id(event_type, item_id, attempt))
