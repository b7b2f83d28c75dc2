"""Retry runs only what failed, each item once per call for it, with the values of its own attempt (docs/states.md)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Unpack
from uuid import UUID

import pytest
from sqlalchemy import text

from orchestrator.batches.errors import ConflictError, InvalidRequestError, KeyReusedError
from orchestrator.batches.model import CorrectedItem, Idempotency, RetryRequest
from orchestrator.batches.operations import cancel_batch, get_item, retry_failed_items
from orchestrator.storage.database import transact
from schemas.corrections import Correction
from schemas.envelope import Topic, open_envelope
from schemas.events import BatchCompleted, read_event
from schemas.ids import DerivedIds
from tests.support.pipeline import ADMIN, Pipeline, item, mentors, record

ALL = RetryRequest()


def one_failed(pipeline: Pipeline) -> UUID:
    """A finished batch: the first item succeeded, the second names a mentor that does not exist."""
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "partial"
    return batch_id


def correct(batch_id: UUID, position: int, **changes: Unpack[Correction]) -> RetryRequest:
    return RetryRequest(corrections=[CorrectedItem(DerivedIds(batch_id).item_id(position), changes)])


def test_only_the_failed_item_runs_again(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    before = pipeline.status(batch_id).items[0]
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.mentor VALUES (:org, 'nobody', 'New', 'chapter-1')"), {"org": ADMIN.organization_id}
        )
    answer = pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    assert (answer.retried, answer.batch.status, answer.batch.counts.pending) == (1, "processing", 1)
    assert answer.batch.completed_at is None
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    assert len(pipeline.queues[Topic.COMMANDS]) == 1
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert view.batch.status == "completed"
    assert view.items[0] == before
    assert (view.items[1].attempt, view.items[1].status) == (2, "success")


def test_retry_that_finds_the_batch_at_its_end_announces_that_end(pipeline: Pipeline) -> None:
    """The outcomes are there and not folded yet: the retry folds them, and nobody else will say that the first attempts are over."""
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.drain_until_registered()
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
    pipeline.drain()
    ends = [read_event(Topic.LIFECYCLE, open_envelope(one.headers, one.value)) for one in pipeline.queues[Topic.LIFECYCLE]]
    assert [(end.retry_number, end.status, end.completed, end.failed) for end in ends if isinstance(end, BatchCompleted)] == [
        (0, "partial", 1, 1),
        (1, "partial", 1, 1),
    ]


def test_correction_is_registered_and_kept_with_the_old_values(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    request = correct(batch_id, 1, mentor_id="mentor-2", notes="now right")
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, request).retried == 1
    pipeline.drain()
    shown, history = pipeline.call(get_item, ADMIN, batch_id, DerivedIds(batch_id).item_id(1))
    assert (shown.status, shown.values.mentor_id, shown.values.notes) == ("success", "mentor-2", "now right")
    assert [(h.attempt, h.values["mentor_id"], h.error.code) for h in history] == [(1, "nobody", "mentor_not_found")]
    assert history[0].correction == {"mentor_id": "mentor-2", "notes": "now right"}


def test_redelivered_command_of_the_old_attempt_never_sees_the_new_values(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    old = pipeline.take(Topic.COMMANDS)
    first = pipeline.handle(pipeline.registration, old)
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 0, mentor_id="mentor-3"))
    again = pipeline.handle(pipeline.registration, old)
    assert again.events == first.events, "the first attempt's result, byte for byte"
    pipeline.queues[Topic.RESULTS].clear()
    view = pipeline.status(batch_id)
    assert (view.items[0].status, view.items[0].attempt) == ("pending", 2)


def test_late_result_of_an_older_attempt_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody")])
    pipeline.step()
    results = list(pipeline.queues[Topic.RESULTS]) or pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)).events
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    pipeline.handle(pipeline.aggregator, results)
    assert pipeline.status(batch_id).batch.counts.pending == 1


def test_two_concurrent_retries_start_one_attempt(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    barrier = threading.Barrier(2)

    def retry() -> int:
        barrier.wait()
        return pipeline.call(
            retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(1)])
        ).retried

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(future.result() for future in [threads.submit(retry), threads.submit(retry)])
    assert answers == [0, 1]
    assert pipeline.status(batch_id).items[1].attempt == 2


def test_concurrent_retries_with_different_corrections_conflict(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    barrier = threading.Barrier(2)

    def retry(mentor: str) -> object:
        barrier.wait()
        try:
            return pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 1, mentor_id=mentor)).retried
        except ConflictError as error:
            return error.code

    with ThreadPoolExecutor(2) as threads:
        answers = [future.result() for future in [threads.submit(retry, "mentor-4"), threads.submit(retry, "mentor-5")]]
    assert sorted(map(str, answers)) == ["1", "item_retried_already"]


def test_what_succeeded_at_once_conflicts_and_nothing_of_the_request_is_done(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    ids = DerivedIds(batch_id)
    with pytest.raises(ConflictError):
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[ids.item_id(1), ids.item_id(0)]))
    assert pipeline.status(batch_id).items[1].attempt == 1


def test_item_of_another_batch_is_unknown(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    stranger = DerivedIds(pipeline.submit(mentors(1, first=9))).item_id(0)
    with pytest.raises(InvalidRequestError) as refused:
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[stranger]))
    assert refused.value.mistakes[0].code == "item_unknown"


def test_all_mistakes_in_the_names_come_at_once(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    own, stranger = DerivedIds(batch_id).item_id, DerivedIds(pipeline.submit(mentors(1, first=9))).item_id(0)
    request = RetryRequest(
        item_ids=[own(2), own(1), stranger],
        corrections=[CorrectedItem(each, {"notes": "x"}) for each in (own(1), stranger, own(1))],
    )
    with pytest.raises(InvalidRequestError) as refused:
        pipeline.call(retry_failed_items, ADMIN, batch_id, request)
    assert [(mistake.pointer, mistake.code) for mistake in refused.value.mistakes] == [
        ("/corrections/1/item_id", "item_unknown"),
        ("/item_ids/0", "item_unknown"),
        ("/item_ids/2", "item_unknown"),
        ("/corrections/2/item_id", "duplicate_item"),
    ]


def test_what_may_pass_is_taken_alone_or_beside_what_is_named(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody"), item("no one"), item("mentor-1")])

    def attempts(request: RetryRequest) -> list[int]:
        """Which attempt each item is in, when all that ran have failed, the last through a fault on our side, and were retried."""
        pipeline.relay()
        pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
        [*others, last] = pipeline.take(Topic.COMMANDS)
        pipeline.handle(pipeline.registration, others)
        transact(pipeline.engine, lambda connection: pipeline.registration.give_up(connection, record(last), RuntimeError()))
        pipeline.call(retry_failed_items, ADMIN, batch_id, request)
        return [each.attempt for each in pipeline.status(batch_id).items]

    assert attempts(RetryRequest(only_retryable=True)) == [1, 1, 2]
    correction = correct(batch_id, 0, mentor_id="mentor-2").corrections
    assert attempts(RetryRequest(only_retryable=True, corrections=correction)) == [2, 1, 3]
    pipeline.drain()
    assert [each.status for each in pipeline.status(batch_id).items] == ["success", "failed", "success"]


def test_correction_may_not_become_another_item(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    with pytest.raises(InvalidRequestError) as refused:
        pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 1, mentor_id="mentor-1"))
    assert "positions 1 and 0" in refused.value.mistakes[0].detail
    # On another day it is another activity.
    assert (
        pipeline.call(
            retry_failed_items, ADMIN, batch_id, correct(batch_id, 1, mentor_id="mentor-1", activity_date=date(2026, 3, 24))
        ).retried
        == 1
    )


def test_two_failed_items_can_swap_their_values(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody"), item("no one")])
    pipeline.drain()
    ids = DerivedIds(batch_id)
    swap = RetryRequest(
        corrections=[
            CorrectedItem(ids.item_id(0), {"mentor_id": "no one"}),
            CorrectedItem(ids.item_id(1), {"mentor_id": "nobody"}),
        ]
    )
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, swap).retried == 2


def test_cancelled_batch_conflicts(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    with pytest.raises(ConflictError):
        pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)


def test_item_that_failed_again_starts_a_further_attempt(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    for attempt in (2, 3):
        assert pipeline.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
        pipeline.drain()
        assert pipeline.status(batch_id).items[1].attempt == attempt


def test_same_key_gives_the_first_answer_and_another_request_is_refused(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    key = Idempotency("key-1", b"hash-1")
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, ALL, key).retried == 1
    pipeline.drain()
    repeated = pipeline.call(retry_failed_items, ADMIN, batch_id, ALL, key)
    assert (repeated.retried, repeated.replayed) == (1, True)
    assert pipeline.status(batch_id).items[1].attempt == 2
    with pytest.raises(KeyReusedError):
        pipeline.call(retry_failed_items, ADMIN, batch_id, ALL, Idempotency("key-1", b"hash-2"))


def test_outcome_that_is_not_folded_yet_can_be_retried(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.items[1].attempt) == ("partial", 2)
