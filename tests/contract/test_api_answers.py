"""What every response about a batch contains: counts, reasons of failures, and progress while it runs; and the response to a repeated
request."""

from datetime import datetime
from uuid import UUID, uuid4

import httpx
from sqlalchemy import Engine, text

from schemas.api.batches import BatchesResponse, BatchWithItemsResponse, CancelledResponse, UpdatedResponse
from schemas.api.problems import ProblemResponse
from schemas.api.retries import RetriedResponse
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.contract.test_api_batches import an_item, has_shape
from tests.support.api_server import ApiServer
from tests.support.pipeline import Pipeline, item, mentors


def run_in_part(pipeline: Pipeline, handled: int) -> None:
    """Handles this many of the waiting commands."""
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    pipeline.handle(pipeline.registration, commands[:handled])
    pipeline.queues[Topic.COMMANDS].extend(commands[handled:])
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))


def test_progress_is_null_before_it_is_measured_and_after_the_end(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    batch_id = pipeline.submit([*mentors(3), item("nobody")])
    url = f"{API_PATH}/{batch_id}"
    body = has_shape(coordinator.get(url), BatchWithItemsResponse)
    assert body["progress"] is None

    run_in_part(pipeline, 3)
    # As if the batch had been submitted ten seconds ago.
    with engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET submitted_at = clock_timestamp() - interval '10 s'"))
    answer = coordinator.get(url)
    progress = has_shape(answer, BatchWithItemsResponse)["progress"]
    assert progress["percent"] == 75.0
    assert 0.1 < progress["items_per_second"] <= 0.3
    assert datetime.fromisoformat(progress["estimated_completion_at"]) > datetime.fromisoformat(body["submitted_at"])
    # Progress changes, but the ETag stays the same.
    assert coordinator.get(url, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    [listed] = has_shape(coordinator.get(API_PATH), BatchesResponse)["data"]
    assert listed["progress"]["percent"] == 75.0

    pipeline.drain()
    assert "progress" not in has_shape(coordinator.get(url), BatchWithItemsResponse)


def test_progress_of_a_retry_is_measured_from_the_retry(coordinator: httpx.Client, pipeline: Pipeline, engine: Engine) -> None:
    batch_id = pipeline.submit([*mentors(6), item("no-1"), item("no-2")])
    pipeline.drain()
    with engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET submitted_at = submitted_at - interval '1 day'"))
    retried = has_shape(coordinator.post(f"{API_PATH}/{batch_id}/retry"), RetriedResponse)
    assert (retried["retried"], retried["progress"]) == (2, None)
    run_in_part(pipeline, 1)
    progress = coordinator.get(f"{API_PATH}/{batch_id}").json()["progress"]
    assert progress["percent"] == 87.5
    # One item since the retry, and not seven since the submission.
    assert progress["items_per_second"] > 1 / 60


def test_every_response_says_why_items_failed(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([*mentors(2), item("nobody"), item("mentor-3", minutes=0), item("no-one")])
    run_in_part(pipeline, 4)
    url = f"{API_PATH}/{batch_id}"
    reasons = {"mentor_not_found": 1, "invalid_item": 1}
    assert coordinator.get(url).json()["errors_by_code"] == reasons
    assert has_shape(coordinator.put(url, json={"label": "x"}), UpdatedResponse)["errors_by_code"] == reasons
    [listed] = has_shape(coordinator.get(API_PATH), BatchesResponse)["data"]
    assert listed["errors_by_code"] == reasons
    nothing = coordinator.post(f"{url}/retry", json={"only_retryable": True}, headers={"Idempotency-Key": "r"})
    assert has_shape(nothing, RetriedResponse)["errors_by_code"] == reasons
    for attempt in ("first", "repeated"):
        cancelled = coordinator.post(f"{url}/cancel", headers={"Idempotency-Key": "c"})
        assert has_shape(cancelled, CancelledResponse)["errors_by_code"] == reasons, attempt
    assert coordinator.post(f"{url}/cancel").json()["errors_by_code"] == reasons


def test_a_repeated_retry_returns_its_count_and_the_present_state(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([*mentors(1), item("nobody")])
    pipeline.drain()
    retry = f"{API_PATH}/{batch_id}/retry"
    assert coordinator.post(retry, headers={"Idempotency-Key": "r"}).json()["errors_by_code"] == {}
    pipeline.drain()
    again = coordinator.post(retry, headers={"Idempotency-Key": "r"})
    body = has_shape(again, RetriedResponse)
    assert (again.status_code, body["retried"], body["status"]) == (202, 1, "partial")
    assert body["errors_by_code"] == {"mentor_not_found": 1}


def test_a_repeated_delete_changes_nothing_and_is_not_found_for_others(
    api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline
) -> None:
    batch_id = pipeline.submit(mentors(1))
    url = f"{API_PATH}/{batch_id}"
    pipeline.drain()
    seen = {"If-Match": coordinator.get(url).headers["ETag"]}
    # The acknowledgement was lost, and the client sends the same request again.
    assert [coordinator.delete(url, headers=seen).status_code for _ in range(3)] == [204] * 3
    assert coordinator.get(url).status_code == 404
    pipeline.relay()
    assert len(pipeline.take(Topic.BATCHES)) == 1, "BatchDeleted must be published once"
    with api.client(sub="coord-2") as colleague:
        random = colleague.delete(f"{API_PATH}/{uuid4()}")
        assert (colleague.delete(url).status_code, random.status_code) == (404, 404)
    # A purged batch is not found by anybody.
    with pipeline.engine.begin() as connection:
        connection.execute(text("DELETE FROM orchestrator.batch WHERE batch_id = :batch_id"), {"batch_id": batch_id})
    assert coordinator.delete(url).status_code == 404


def test_a_deleted_batch_is_not_submitted_again_under_its_key(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    key = {"Idempotency-Key": "week 13"}
    request = {"items": [an_item()]}
    url = coordinator.post(API_PATH, json=request, headers=key).headers["Location"]
    pipeline.drain()
    assert coordinator.delete(url).status_code == 204
    answer = coordinator.post(API_PATH, json=request, headers=key)
    assert (answer.status_code, has_shape(answer, ProblemResponse)["code"]) == (409, "batch_deleted")
    assert coordinator.get(API_PATH).json()["pagination"]["total"] == 0
    assert coordinator.post(API_PATH, json=request, headers={"Idempotency-Key": "another"}).status_code == 202


def test_a_repeated_edit_with_its_outdated_tag_is_no_conflict(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id: UUID = pipeline.submit(mentors(1))
    url = f"{API_PATH}/{batch_id}"
    seen = {"If-Match": coordinator.get(url).headers["ETag"]}
    answers = [coordinator.put(url, json={"label": "Tuesday"}, headers=seen) for _ in range(2)]
    assert [(answer.status_code, answer.json()["label"]) for answer in answers] == [(200, "Tuesday")] * 2
    assert coordinator.put(url, json={"label": "Monday"}, headers=seen).status_code == 412
    cancel = {"status": "cancelled"}
    fresh = {"If-Match": coordinator.get(url).headers["ETag"]}
    assert [coordinator.put(url, json=cancel, headers=fresh).status_code for _ in range(2)] == [200, 200]
