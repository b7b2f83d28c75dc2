"""DELETE …/items/{item_id}/notes: who may erase notes, and what the answer is."""

import httpx

from schemas.ids import DerivedIds
from schemas.paths import API_PATH
from tests.support.pipeline import Pipeline, item


def test_erasing_is_idempotent_and_changes_the_etag(coordinator: httpx.Client, admin: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes="seen at the hospital")])
    pipeline.drain()
    batch, one = f"{API_PATH}/{batch_id}", f"{API_PATH}/{batch_id}/items/{DerivedIds(batch_id).item_id(0)}"
    tag = coordinator.get(batch).headers["ETag"]
    assert coordinator.get(one).json()["notes"] == "seen at the hospital"
    for client in (coordinator, admin):
        erased = client.delete(f"{one}/notes")
        assert (erased.status_code, erased.content) == (204, b"")
        assert client.get(one).json()["notes"] is None
    assert coordinator.get(batch, headers={"If-None-Match": tag}).status_code == 200
    # An edit that began before the erasure still succeeds.
    assert coordinator.put(batch, json={"label": "x"}, headers={"If-Match": tag}).status_code == 200


def test_an_item_that_does_not_exist_is_not_found(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes="seen at the hospital")])
    pipeline.drain()
    for item_id in (DerivedIds(batch_id).item_id(7), "7"):
        missing = coordinator.delete(f"{API_PATH}/{batch_id}/items/{item_id}/notes")
        assert (missing.status_code, missing.json()["type"].rpartition(":")[2]) == (404, "item_not_found")
