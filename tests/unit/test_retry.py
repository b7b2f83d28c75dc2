"""Which items a retry selects, and what it refuses (docs/states.md)."""

from datetime import date
from typing import Unpack
from uuid import UUID

import pytest

from orchestrator.batches.errors import ConflictError, InvalidRequestError, KeyReusedError
from orchestrator.batches.model import CorrectedItem, Idempotency, RetryRequest
from orchestrator.batches.operations import cancel_batch, retry_failed_items
from schemas.corrections import Correction
from schemas.envelope import Topic, open_envelope
from schemas.event_reader import read_event
from schemas.events import BatchCompleted
from schemas.ids import DerivedIds
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, item, mentors

ALL = RetryRequest()


def one_failed(flow: MemoryFlow) -> UUID:
    """A finished batch. The first item succeeded, and the second names a mentor that does not exist."""
    batch_id = flow.submit([item("mentor-1"), item("nobody")])
    flow.drain()
    assert flow.status(batch_id).batch.status == "partial"
    return batch_id


def correct(batch_id: UUID, position: int, **changes: Unpack[Correction]) -> RetryRequest:
    return RetryRequest(corrections=[CorrectedItem(DerivedIds(batch_id).item_id(position), changes)])


def test_retry_of_a_batch_that_has_ended_but_is_not_folded_announces_its_completion(flow: MemoryFlow) -> None:
    """The outcomes exist, but are not folded. The retry folds them, and nothing else will announce the completion of the first attempts."""
    batch_id = flow.submit([item("mentor-1"), item("nobody")])
    flow.register(batch_id)
    assert flow.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
    flow.drain()
    ends = [read_event(Topic.LIFECYCLE, open_envelope(one.headers, one.value)) for one in flow.queues[Topic.LIFECYCLE]]
    assert [(end.retry_number, end.status, end.completed, end.failed) for end in ends if isinstance(end, BatchCompleted)] == [
        (0, "partial", 1, 1),
        (1, "partial", 1, 1),
    ]


def test_naming_a_succeeded_item_conflicts_and_nothing_of_the_request_is_done(flow: MemoryFlow) -> None:
    batch_id = one_failed(flow)
    ids = DerivedIds(batch_id)
    with pytest.raises(ConflictError):
        flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[ids.item_id(1), ids.item_id(0)]))
    assert flow.status(batch_id).items[1].attempt == 1


def test_item_of_another_batch_is_unknown(flow: MemoryFlow) -> None:
    batch_id = one_failed(flow)
    stranger = DerivedIds(flow.submit(mentors(1, first=9))).item_id(0)
    with pytest.raises(InvalidRequestError) as refused:
        flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[stranger]))
    assert refused.value.mistakes[0].code == "item_unknown"


def test_all_mistakes_of_a_retry_are_named_at_once(flow: MemoryFlow) -> None:
    batch_id = one_failed(flow)
    own, stranger = DerivedIds(batch_id).item_id, DerivedIds(flow.submit(mentors(1, first=9))).item_id(0)
    request = RetryRequest(
        item_ids=[own(2), own(1), stranger],
        corrections=[CorrectedItem(each, {"notes": "x"}) for each in (own(1), stranger, own(1))],
    )
    with pytest.raises(InvalidRequestError) as refused:
        flow.call(retry_failed_items, ADMIN, batch_id, request)
    assert [(mistake.pointer, mistake.code) for mistake in refused.value.mistakes] == [
        ("/corrections/1/item_id", "item_unknown"),
        ("/item_ids/0", "item_unknown"),
        ("/item_ids/2", "item_unknown"),
        ("/corrections/2/item_id", "duplicate_item"),
    ]


def test_retryable_items_are_selected_alone_or_beside_corrected_ones(flow: MemoryFlow) -> None:
    batch_id = flow.submit([item("nobody"), item("no one"), item("mentor-1")])

    def attempts(request: RetryRequest) -> list[int]:
        """The attempt of each item, after all that ran have failed (the last through a fault on our side) and were retried."""
        flow.give_up(batch_id, 2)
        flow.register(batch_id)
        flow.call(retry_failed_items, ADMIN, batch_id, request)
        return [each.attempt for each in flow.status(batch_id).items]

    assert attempts(RetryRequest(only_retryable=True)) == [1, 1, 2]
    correction = correct(batch_id, 0, mentor_id="mentor-2").corrections
    assert attempts(RetryRequest(only_retryable=True, corrections=correction)) == [2, 1, 3]
    flow.drain()
    assert [each.status for each in flow.status(batch_id).items] == ["success", "failed", "success"]


def test_a_correction_may_not_make_an_item_equal_to_another(flow: MemoryFlow) -> None:
    batch_id = one_failed(flow)
    with pytest.raises(InvalidRequestError) as refused:
        flow.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 1, mentor_id="mentor-1"))
    assert "positions 1 and 0" in refused.value.mistakes[0].detail
    # On another day it is another activity.
    assert (
        flow.call(
            retry_failed_items, ADMIN, batch_id, correct(batch_id, 1, mentor_id="mentor-1", activity_date=date(2026, 3, 24))
        ).retried
        == 1
    )


def test_two_failed_items_can_swap_their_values(flow: MemoryFlow) -> None:
    batch_id = flow.submit([item("nobody"), item("no one")])
    flow.drain()
    ids = DerivedIds(batch_id)
    swap = RetryRequest(
        corrections=[
            CorrectedItem(ids.item_id(0), {"mentor_id": "no one"}),
            CorrectedItem(ids.item_id(1), {"mentor_id": "nobody"}),
        ]
    )
    assert flow.call(retry_failed_items, ADMIN, batch_id, swap).retried == 2


def test_cancelled_batch_conflicts(flow: MemoryFlow) -> None:
    batch_id = flow.submit(mentors(2))
    flow.call(cancel_batch, ADMIN, batch_id, None)
    with pytest.raises(ConflictError):
        flow.call(retry_failed_items, ADMIN, batch_id, ALL)


def test_the_same_key_returns_the_first_result_and_another_request_is_refused(flow: MemoryFlow) -> None:
    batch_id = one_failed(flow)
    key = Idempotency("key-1", b"hash-1")
    assert flow.call(retry_failed_items, ADMIN, batch_id, ALL, key).retried == 1
    flow.drain()
    repeated = flow.call(retry_failed_items, ADMIN, batch_id, ALL, Idempotency("key-1", b"hash-1"))
    assert (repeated.retried, repeated.replayed) == (1, True)
    assert flow.status(batch_id).items[1].attempt == 2
    with pytest.raises(KeyReusedError):
        flow.call(retry_failed_items, ADMIN, batch_id, ALL, Idempotency("key-1", b"hash-2"))


def test_an_outcome_that_is_not_folded_yet_can_be_retried(flow: MemoryFlow) -> None:
    batch_id = flow.submit([item("mentor-1"), item("nobody")])
    flow.register(batch_id)
    assert flow.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
    flow.drain()
    view = flow.status(batch_id)
    assert (view.batch.status, view.items[1].attempt) == ("partial", 2)
