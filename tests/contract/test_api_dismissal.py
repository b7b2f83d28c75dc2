"""[Done with it]: a dismissed batch needs no attention until another of its items fails."""

from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import Engine, text

from schemas.api.batches import BatchResponse
from schemas.paths import API_PATH
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline, item, mentors

FAILING = [*mentors(1), item("mentor-none"), item("mentor-nobody")]


def failed_batch(pipeline: Pipeline) -> UUID:
    batch_id = pipeline.submit(FAILING)
    pipeline.drain()
    return batch_id


def dismissed(client: httpx.Client, batch_id: UUID, **headers: str) -> dict[str, Any]:
    answer = client.post(f"{API_PATH}/{batch_id}/dismiss", headers=headers)
    assert answer.status_code == 200, answer.text
    BatchResponse.model_validate_json(answer.content, extra="forbid")
    body: dict[str, Any] = answer.json()
    return body


def needing(client: httpx.Client) -> list[str]:
    return [batch["batch_id"] for batch in client.get(API_PATH, params={"needs_attention": "true"}).json()["data"]]


def trail(engine: Engine) -> list[tuple[str, str, int]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT organization_id, dismissed_by, version FROM orchestrator.batch_dismissal ORDER BY 3")
        )
        return [tuple(row) for row in rows]


def test_a_dismissed_batch_leaves_the_list_and_the_audit_names_who_dismissed_it(
    coordinator: httpx.Client, admin: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    batch_id = failed_batch(pipeline)
    changed_before = pipeline.status(batch_id).batch.changed_at
    assert needing(coordinator) == needing(admin) == [str(batch_id)]
    before = coordinator.get(f"{API_PATH}/{batch_id}")
    shown = dismissed(coordinator, batch_id)
    assert (shown["needs_attention"], shown["failed"], shown["errors_by_code"]) == (False, 2, {"mentor_not_found": 2})
    assert pipeline.status(batch_id).batch.changed_at > changed_before
    assert needing(coordinator) == needing(admin) == []
    # Followers are told. An edit that began before the dismissal still succeeds.
    after = coordinator.get(f"{API_PATH}/{batch_id}", headers={"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.json()["needs_attention"]) == (200, False)
    relabelled = coordinator.put(f"{API_PATH}/{batch_id}", json={"label": "x"}, headers={"If-Match": before.headers["ETag"]})
    assert relabelled.status_code == 200
    # A second dismissal changes nothing.
    dismissed(admin, batch_id)
    assert [(org, by) for org, by, _ in trail(engine)] == [(ORGANIZATION, COORDINATOR)]


def test_it_needs_attention_again_when_another_item_fails(coordinator: httpx.Client, pipeline: Pipeline, engine: Engine) -> None:
    batch_id = failed_batch(pipeline)
    dismissed(coordinator, batch_id)
    items = coordinator.get(f"{API_PATH}/{batch_id}").json()["items"]
    retry = {"item_ids": [items[1]["item_id"]]}
    coordinator.post(f"{API_PATH}/{batch_id}/retry", json=retry)
    assert needing(coordinator) == []
    pipeline.drain()
    assert needing(coordinator) == [str(batch_id)]
    dismissed(coordinator, batch_id)
    assert needing(coordinator) == []
    assert len(trail(engine)) == 2
    # A failure that was corrected needs no attention.
    correction = {"corrections": [{"item_id": items[2]["item_id"], "mentor_id": "mentor-3"}]}
    coordinator.post(f"{API_PATH}/{batch_id}/retry", json=correction)
    pipeline.drain()
    assert needing(coordinator) == []


def test_a_repeated_request_does_not_hide_a_later_failure(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = failed_batch(pipeline)
    key = {"Idempotency-Key": "done"}
    assert not dismissed(coordinator, batch_id, **key)["needs_attention"]
    coordinator.post(f"{API_PATH}/{batch_id}/retry")
    pipeline.drain()
    assert dismissed(coordinator, batch_id, **key)["needs_attention"]
    other = failed_batch(pipeline)
    reused = coordinator.post(f"{API_PATH}/{other}/dismiss", headers=key)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


def test_dismissing_a_batch_that_needs_no_attention_changes_nothing(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    before = pipeline.status(batch_id).batch
    assert not dismissed(coordinator, batch_id)["needs_attention"]
    assert (trail(engine), pipeline.status(batch_id).batch.version) == ([], before.version)


def test_a_deleted_batch_can_not_be_dismissed(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = failed_batch(pipeline)
    coordinator.delete(f"{API_PATH}/{batch_id}")
    gone = coordinator.post(f"{API_PATH}/{batch_id}/dismiss")
    assert (gone.status_code, gone.json()["code"]) == (404, "batch_not_found")
    assert needing(coordinator) == []
