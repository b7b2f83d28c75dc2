"""`override_duplicates` of an item registers it beside activities that the caller has seen, and beside no others."""

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from schemas.paths import API_PATH
from tests.support.pipeline import Pipeline

Json = dict[str, Any]


def visit(mentor_id: str, **fields: Any) -> Json:
    values = {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
    return {"mentor_id": mentor_id, **values, **fields}


def submitted(client: httpx.Client, pipeline: Pipeline, **body: Any) -> list[str]:
    """The result of each item: its state, or its error."""
    answer = client.post(API_PATH, json=body)
    assert answer.status_code == 202, answer.text
    pipeline.drain()
    items = client.get(answer.headers["Location"]).json()["items"]
    return [item["error"]["code"] if "error" in item else item["status"] for item in items]


def activities(engine: Engine, mentor_id: str) -> int:
    with engine.connect() as connection:
        counted = text("SELECT count(*) FROM registration.activity WHERE attributed_to = :mentor AND revoked_at IS NULL")
        return int(connection.execute(counted, {"mentor": mentor_id}).scalar_one())


@pytest.mark.parametrize(
    ("of_all", "of_items", "expected"),
    [
        (False, [True, None, False], ["success", "duplicate_activity", "duplicate_activity"]),
        (True, [True, None, False], ["success", "success", "duplicate_activity"]),
    ],
)
def test_an_items_flag_takes_precedence_over_the_submissions(
    coordinator: httpx.Client,
    pipeline: Pipeline,
    engine: Engine,
    of_all: bool,
    of_items: list[bool | None],
    expected: list[str],
) -> None:
    mentor_ids = ["mentor-1", "mentor-2", "mentor-3"]
    assert submitted(coordinator, pipeline, items=[visit(each) for each in mentor_ids]) == ["success"] * 3
    items = [visit(each, override_duplicates=flag) for each, flag in zip(mentor_ids, of_items, strict=True)]
    foretold = coordinator.post(f"{API_PATH}/preview", json={"items": items, "override_duplicates": of_all}).json()["items"]
    assert [item.get("error", {}).get("code", "success") for item in foretold] == expected
    assert submitted(coordinator, pipeline, items=items, override_duplicates=of_all) == expected
    assert [activities(engine, each) for each in mentor_ids] == [2 if each == "success" else 1 for each in expected]


def test_an_item_shows_its_own_flag_and_a_retry_keeps_it(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    body = {"items": [visit("mentor-none", override_duplicates=True), visit("mentor-nobody")]}
    url = coordinator.post(API_PATH, json=body).headers["Location"]
    pipeline.drain()
    first, second = (item["item_id"] for item in coordinator.get(url).json()["items"])
    correction = {"corrections": [{"item_id": first, "duration_minutes": 61}, {"item_id": second, "duration_minutes": 61}]}
    assert coordinator.post(f"{url}/retry", json=correction).status_code == 202
    pipeline.drain()
    shown = [coordinator.get(f"{url}/items/{each}").json() for each in (first, second)]
    assert [(item["override_duplicates"], item["attempt"]) for item in shown] == [(True, 2), (False, 2)]


def test_an_override_under_a_plan_does_not_ignore_an_activity_registered_since(
    coordinator: httpx.Client, admin: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    submitted(coordinator, pipeline, items=[visit("mentor-1")])
    anyway: Json = {"items": [visit("mentor-1", override_duplicates=True), visit("mentor-2")]}
    plan = coordinator.post(f"{API_PATH}/preview", json=anyway).json()["plan"]
    # Somebody else registers the same activity meanwhile.
    theirs = {"coordinator_id": "coord-1", "items": [visit("mentor-1", override_duplicates=True)]}
    assert submitted(admin, pipeline, **theirs) == ["success"]
    refused = coordinator.post(API_PATH, json=anyway | {"plan": plan})
    assert (refused.status_code, refused.json()["code"]) == (412, "plan_changed")
    assert refused.json()["differences"] == [
        {"position": 0, "mentor_id": "mentor-1", "planned": "success", "now": "duplicate_activity"}
    ]
    # A new preview shows it, and then the override is accepted.
    seen = coordinator.post(f"{API_PATH}/preview", json=anyway).json()["plan"]
    assert submitted(coordinator, pipeline, **anyway, plan=seen) == ["success", "success"]
    assert activities(engine, "mentor-1") == 3


def test_an_activity_revoked_since_the_preview_is_no_difference(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    submitted(coordinator, pipeline, items=[visit("mentor-1")])
    anyway: Json = {"items": [visit("mentor-1", override_duplicates=True)]}
    plan = coordinator.post(f"{API_PATH}/preview", json=anyway).json()["plan"]
    batch_id = coordinator.get(API_PATH).json()["data"][0]["batch_id"]
    assert coordinator.post(f"{API_PATH}/{batch_id}/revoke", json={"reason": "wrong"}).status_code == 200
    assert submitted(coordinator, pipeline, **anyway, plan=plan) == ["success"]
    assert activities(engine, "mentor-1") == 1


def test_the_flag_is_true_or_false(coordinator: httpx.Client) -> None:
    answer = coordinator.post(API_PATH, json={"items": [visit("mentor-1", override_duplicates="yes")]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/items/0/override_duplicates")
