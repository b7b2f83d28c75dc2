"""A retry runs only failed items, each once for each retry, with the values of its own attempt (docs/states.md)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Unpack
from uuid import UUID

from sqlalchemy import text

from orchestrator.batches.errors import ConflictError
from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.operations import get_item, retry_failed_items
from schemas.corrections import Correction
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from tests.support.pipeline import ADMIN, Pipeline, item

ALL = RetryRequest()


def one_failed(pipeline: Pipeline) -> UUID:
    """A finished batch. The first item succeeded, and the second names a mentor that does not exist."""
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


def test_a_retry_is_not_compared_with_the_plan_of_the_submission(pipeline: Pipeline) -> None:
    """The preview predicted the first attempt only."""
    foreseen = [item(mentor)._replace(planned=planned) for mentor, planned in (("nobody", "success"), ("no one", "success"))]
    batch_id = pipeline.submit(foreseen)
    pipeline.drain()
    assert [view.plan_changed for view in pipeline.status(batch_id).items] == [True, True]
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(1)]))
    pipeline.drain()
    first, second = pipeline.status(batch_id).items
    assert (first.plan_changed, second.plan_changed, second.planned) == (True, False, None)


def test_correction_is_registered_and_kept_with_the_old_values(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    request = correct(batch_id, 1, mentor_id="mentor-2", notes="now right")
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, request).retried == 1
    pipeline.drain()
    shown, history = pipeline.call(get_item, ADMIN, batch_id, DerivedIds(batch_id).item_id(1))
    assert (shown.status, shown.values.mentor_id, shown.values.notes) == ("success", "mentor-2", "now right")
    assert [(h.attempt, h.values["mentor_id"], h.error.code) for h in history] == [(1, "nobody", "mentor_not_found")]
    assert history[0].correction == {"mentor_id": "mentor-2", "notes": "now right"}


def test_redelivered_command_of_the_old_attempt_never_uses_the_new_values(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    old = pipeline.take(Topic.COMMANDS)
    first = pipeline.handle(pipeline.registration, old)
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 0, mentor_id="mentor-3"))
    again = pipeline.handle(pipeline.registration, old)
    assert again.events == first.events, "it must be the first attempt's result, byte for byte"
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


def test_item_that_failed_again_starts_a_further_attempt(pipeline: Pipeline) -> None:
    batch_id = one_failed(pipeline)
    for attempt in (2, 3):
        assert pipeline.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
        pipeline.drain()
        assert pipeline.status(batch_id).items[1].attempt == attempt
