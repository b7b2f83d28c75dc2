"""The state machines of docs/states.md."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.batches.states import (
    BATCH_TRANSITIONS,
    TERMINAL_BATCH_STATUSES,
    BatchStatus,
    Counts,
    ItemStatus,
    derive_batch_status,
)

numbers = st.integers(0, 5)
counts = st.builds(Counts, numbers, numbers, numbers, numbers).filter(lambda each: each.total > 0)


@given(counts)
def test_a_status_follows_from_the_items(each: Counts) -> None:
    status = derive_batch_status(each, was_cancelled=False)
    if each.pending > 0:
        assert status == "processing", "accepted completely, and at least one item is not terminal"
    elif each.completed == each.total:
        assert status == "completed", "every item succeeded"
    elif each.completed > 0:
        assert status == "partial", "all are terminal, and some succeeded"
    else:
        assert status == "failed", "all are terminal, and none succeeded"


@given(counts)
def test_cancelled_and_collecting_are_not_derived_from_items(each: Counts) -> None:
    assert derive_batch_status(each, was_cancelled=True) == "cancelled"
    assert derive_batch_status(each, was_cancelled=False, has_all_parts=False) == "pending"


@given(counts, st.sampled_from(ItemStatus), st.sampled_from(ItemStatus), st.integers(1, 3))
def test_only_the_transitions_of_the_page_are_possible(each: Counts, source: ItemStatus, target: ItemStatus, items: int) -> None:
    allowed = (source, target) in {
        ("pending", "success"),
        ("pending", "failed"),
        ("pending", "cancelled"),
        ("failed", "pending"),
    }
    if allowed and each.of(source) >= items:
        moved = each.moved(source, target, items)
        assert moved.total == each.total
        assert moved.of(target) == each.of(target) + items
        assert moved.of(source) == each.of(source) - items
    else:
        with pytest.raises(ValueError, match=r"never goes|negative"):
            each.moved(source, target, items)


@given(counts, st.sampled_from([ItemStatus.SUCCESS, ItemStatus.FAILED]))
def test_batches_move_as_their_machine_says(each: Counts, target: ItemStatus) -> None:
    if each.pending:
        after = derive_batch_status(each.moved(ItemStatus.PENDING, target), was_cancelled=False)
        assert after in BATCH_TRANSITIONS[BatchStatus.PROCESSING]
    if each.failed:
        before = derive_batch_status(each, was_cancelled=False)
        after = derive_batch_status(each.moved(ItemStatus.FAILED, ItemStatus.PENDING), was_cancelled=False)
        assert after in BATCH_TRANSITIONS[before]


def test_a_state_without_a_way_on_but_retry_is_terminal() -> None:
    for status in BatchStatus:
        leads_on = BATCH_TRANSITIONS[status] - {BatchStatus.PROCESSING}
        assert (status in TERMINAL_BATCH_STATUSES) == (not leads_on)
