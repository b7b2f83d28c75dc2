"""The pages of a listing are the whole listing. No page repeats or skips anything, even if many batches have the same time."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from schemas.paths import API_PATH
from tests.contract.test_api_batches import submit
from tests.support.api_server import ApiServer
from tests.support.pipeline import Pipeline

Json = dict[str, Any]
BATCHES = 9


@pytest.fixture
def submitted(coordinator: httpx.Client, owner: Engine) -> list[str]:
    """Batches with three different times, newest first. Batches with the same time are ordered by id."""
    ids = [submit(coordinator, f"mentor-{number}", label=f"Group {number % 2}") for number in range(1, BATCHES + 1)]
    with owner.begin() as connection:
        for place, batch_id in enumerate(ids):
            # Not in the order of the ids, which follow the time of submission.
            hours = place % 3
            connection.execute(
                text(
                    "UPDATE orchestrator.batch SET submitted_at = timestamptz '2026-03-01Z' + :h * interval '1 hour' WHERE batch_id = :b"
                ),
                {"h": hours, "b": batch_id},
            )
    return [batch_id for _, batch_id in sorted(((place % 3, batch_id) for place, batch_id in enumerate(ids)), reverse=True)]


def by_cursor(client: httpx.Client, limit: int, **query: str) -> Iterator[list[str]]:
    cursor: dict[str, str] = {}
    while True:
        body = client.get(API_PATH, params={"limit": str(limit)} | query | cursor).json()
        yield [one["batch_id"] for one in body["data"]]
        if body["pagination"]["next_cursor"] is None:
            return
        cursor = {"cursor": body["pagination"]["next_cursor"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 4, BATCHES - 1, BATCHES, BATCHES + 1])
def test_pages_of_batches(coordinator: httpx.Client, submitted: list[str], limit: int) -> None:
    pages = list(by_cursor(coordinator, limit))
    assert [one for page in pages for one in page] == submitted
    assert all(len(page) == limit for page in pages[:-1])
    assert 1 <= len(pages[-1]) <= limit, "an empty page follows a full one"
    for number, page in enumerate(pages, start=1):
        body = coordinator.get(API_PATH, params={"limit": limit, "page": number}).json()
        assert ([one["batch_id"] for one in body["data"]], body["pagination"]["total"]) == (page, BATCHES)
    beyond = coordinator.get(API_PATH, params={"limit": limit, "page": len(pages) + 1}).json()
    assert (beyond["data"], beyond["pagination"]["next_cursor"]) == ([], None)


def test_pages_of_a_filtered_listing(coordinator: httpx.Client, submitted: list[str]) -> None:
    wanted = [one for one in submitted if coordinator.get(f"{API_PATH}/{one}").json()["label"] == "Group 1"]
    assert [one for page in by_cursor(coordinator, 2, q="group 1") for one in page] == wanted
    assert 1 < len(wanted) < BATCHES


def test_a_new_batch_moves_nothing_behind_a_cursor(coordinator: httpx.Client, submitted: list[str]) -> None:
    pages = by_cursor(coordinator, 4)
    seen = next(pages)
    submit(coordinator, "mentor-50")
    assert seen + [one for page in pages for one in page] == submitted


def test_batches_of_others_are_not_counted(api: ApiServer, coordinator: httpx.Client, submitted: list[str]) -> None:
    with (
        api.client(Role.COORDINATOR, sub="coord-2") as colleague,
        api.client(Role.ADMIN, sub="boss", orgs=("org-other",)) as stranger,
    ):
        for client in (colleague, stranger):
            assert client.get(API_PATH).json()["pagination"] == {"page": 1, "limit": 20, "total": 0, "next_cursor": None}
    with api.client(Role.ADMIN, sub="boss") as admin:
        assert admin.get(API_PATH).json()["pagination"]["total"] == BATCHES


@pytest.mark.parametrize("items", [None, "failed", "success"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7])
def test_pages_of_items(coordinator: httpx.Client, pipeline: Pipeline, items: str | None, limit: int) -> None:
    batch_id = submit(coordinator, "mentor-1", "nobody-1", "mentor-2", "nobody-2", "mentor-3", "nobody-3")
    pipeline.drain()
    query: dict[str, Any] = {"item_limit": limit} | ({"items": items} if items else {})
    pages: list[list[int]] = []
    cursor: dict[str, str] = {}
    while True:
        body = coordinator.get(f"{API_PATH}/{UUID(batch_id)}", params=query | cursor).json()
        pages.append([one["position"] for one in body["items"]])
        if body["next_item_cursor"] is None:
            break
        cursor = {"item_cursor": body["next_item_cursor"]}
    wanted = {None: [0, 1, 2, 3, 4, 5], "failed": [1, 3, 5], "success": [0, 2, 4]}[items]
    assert [position for page in pages for position in page] == wanted
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1], "an empty page follows a full one"
