"""Outcomes are folded into a batch once each, in any order and number, and its completion is announced once (invariants 3 and 4)."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.batches.model import BatchView, RetryRequest
from orchestrator.batches.operations import cancel_batch, retry_failed_items
from orchestrator.batches.projection import fold_outcomes
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import Counts, ItemStatus
from orchestrator.storage.dispatch import DispatchState
from schemas.envelope import Topic, open_envelope
from schemas.event_reader import read_event
from schemas.events import BatchCompleted
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, item, mentors


def fold(flow: MemoryFlow, keys: Sequence[OutcomeKey]) -> Sequence[int]:
    with flow.storage.transaction() as (repository, _):
        return fold_outcomes(repository, keys).unknown


def keys_of(batch_id: UUID, positions: Sequence[int], attempt: int = 1) -> list[OutcomeKey]:
    return [OutcomeKey(str(batch_id), position, attempt) for position in positions]


def ends(flow: MemoryFlow) -> list[BatchCompleted]:
    """The completions that were announced since the last call."""
    flow.relay()
    events = [read_event(each.topic, open_envelope(each.headers, each.value)) for each in flow.take(Topic.LIFECYCLE)]
    return [each for each in events if isinstance(each, BatchCompleted)]


@given(data=st.data())
def test_outcomes_in_any_order_and_number_make_one_projection(data: st.DataObject) -> None:
    flow = MemoryFlow()
    succeeding = data.draw(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=3))
    batches = {
        flow.submit(
            [item(f"mentor-{position}" if succeeds else f"nobody-{position}") for position, succeeds in enumerate(each, 1)]
        ): each
        for each in succeeding
    }
    keys: list[OutcomeKey] = []
    for batch_id, each in batches.items():
        flow.register(batch_id)
        keys += keys_of(batch_id, range(len(each)))
    repeated = data.draw(st.permutations(keys + data.draw(st.lists(st.sampled_from(keys), max_size=6))))
    seen: list[BatchCompleted] = []
    while repeated:
        size = data.draw(st.integers(1, len(repeated)))
        assert fold(flow, repeated[:size]) == []
        seen += ends(flow)
        repeated = repeated[size:]
    for batch_id, each in batches.items():
        counts = flow.status(batch_id).batch.counts
        assert counts == Counts(completed=each.count(True), failed=each.count(False))
        assert Counter(each.status for each in flow.status(batch_id).items) == Counter(
            {ItemStatus.SUCCESS: counts.completed, ItemStatus.FAILED: counts.failed}
        )
    assert Counter(end.batch_id for end in seen) == dict.fromkeys(batches, 1)


def test_a_key_without_an_outcome_is_returned_and_changes_nothing(flow: MemoryFlow) -> None:
    batch_id = flow.submit(mentors(2))
    flow.register(batch_id, 1)
    before = flow.status(batch_id).batch.version
    assert fold(flow, keys_of(batch_id, [0])) == [0]
    assert flow.status(batch_id).batch.version == before
    assert fold(flow, keys_of(batch_id, [0, 1])) == [0]
    assert [each.status for each in flow.status(batch_id).items] == ["pending", "success"]


def test_an_outcome_of_an_earlier_attempt_changes_nothing(flow: MemoryFlow) -> None:
    batch_id = flow.submit([item("nobody")])
    flow.drain()
    flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    before = flow.status(batch_id)
    assert fold(flow, keys_of(batch_id, [0])) == []
    assert flow.status(batch_id) == before


def version(batch: BatchView) -> tuple[int, int]:
    return batch.version, batch.edit_version


def test_a_set_makes_one_new_version_of_each_batch_that_it_changes(flow: MemoryFlow) -> None:
    first, second = flow.submit(mentors(3)), flow.submit(mentors(1, first=9))
    flow.register(first)
    fold(flow, keys_of(first, [0, 1]))
    assert [version(flow.status(each).batch) for each in (first, second)] == [(2, 1), (1, 1)]
    fold(flow, keys_of(first, [0, 1]))
    assert version(flow.status(first).batch) == (2, 1), "a repeated outcome must not make a new version"
    with flow.storage.transaction() as (repository, _):
        assert repository.positions_changed_since(first, 1) == [0, 1]


def test_a_cancelled_batch_completes_when_the_last_item_in_doubt_is_decided(flow: MemoryFlow) -> None:
    batch_id = flow.submit(mentors(3))
    flow.storage.dispatch(batch_id, 1, DispatchState.ASKED, flow.storage.clock())
    cancelled = flow.call(cancel_batch, ADMIN, batch_id, None)
    assert (cancelled.unresolved, cancelled.batch.completed_at, ends(flow)) == (1, None, [])
    flow.register(batch_id, 1)
    fold(flow, keys_of(batch_id, [1]))
    batch = flow.status(batch_id).batch
    assert (batch.status, batch.counts) == ("cancelled", Counts(completed=1, cancelled=2))
    [end] = ends(flow)
    assert (end.status, end.completed, end.cancelled) == ("cancelled", 1, 2)
    assert batch.completed_at == datetime.fromisoformat(end.completed_at)
    assert [each.status for each in flow.status(batch_id).items] == [
        ItemStatus.CANCELLED,
        ItemStatus.SUCCESS,
        ItemStatus.CANCELLED,
    ]
