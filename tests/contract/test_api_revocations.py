"""Revocations over HTTP: the response, the response to a repetition, and what is refused."""

from datetime import timedelta
from uuid import uuid4

import httpx
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.api.items import OneItemResponse
from schemas.api.revocations import RevokedActivityResponse, RevokedResponse
from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_PATH
from tests.support.api_server import ApiServer
from tests.support.pipeline import ORGANIZATION, Pipeline, item, mentors

REASON = {"reason": "wrong date"}


def finished(pipeline: Pipeline, count: int = 2) -> tuple[str, DerivedIds]:
    batch_id = pipeline.submit([*mentors(count), item("mentor-none")])
    pipeline.drain()
    return f"{API_PATH}/{batch_id}", DerivedIds(batch_id)


def test_a_revoked_batch_shows_its_revocation(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url, ids = finished(pipeline)
    foreseen = coordinator.post(f"{url}/revoke", json={**REASON, "dry_run": True})
    assert (foreseen.status_code, foreseen.json()["revoked"], foreseen.json()["total_revoked"]) == (200, 2, 0)
    told = coordinator.post(f"{url}/revoke", json=REASON)
    assert told.status_code == 200
    RevokedResponse.model_validate(told.json())
    assert {name: told.json()[name] for name in ("revoked", "total_revoked", "already_revoked", "kept", "completed")} == {
        "revoked": 2,
        "total_revoked": 2,
        "already_revoked": 0,
        "kept": [],
        "completed": 2,
    }
    batch = coordinator.get(url).json()
    assert (batch["status"], batch["revoked"]) == ("partial", 2)
    assert [shown.get("revocation_reason") for shown in batch["items"]] == ["wrong date", "wrong date", None]
    OneItemResponse.model_validate(coordinator.get(f"{url}/items/{ids.item_id(0)}").json())
    again = coordinator.post(f"{url}/revoke", json={**REASON, "item_ids": [str(ids.item_id(position)) for position in (0, 2)]})
    assert (again.json()["revoked"], again.json()["already_revoked"]) == (0, 1)
    assert again.json()["kept"] == [{"item_id": str(ids.item_id(2)), "code": "not_registered"}]


def test_a_repeated_revocation_under_a_key_gets_the_same_response(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url, ids = finished(pipeline)
    key = {"Idempotency-Key": "undo"}
    first = coordinator.post(f"{url}/revoke", json=REASON, headers=key)
    second = coordinator.post(f"{url}/revoke", json=REASON, headers=key)
    assert "Idempotent-Replayed" not in first.headers
    assert (second.headers["Idempotent-Replayed"], second.json()["revoked"]) == ("true", 2)
    other = coordinator.post(f"{url}/revoke", json={"reason": "another"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    one = f"{ACTIVITIES_PATH}/{ids.activity_id(0)}/revoke"
    assert coordinator.post(one, json=REASON, headers=key).json()["code"] == "idempotency_key_reused"


def test_a_revocation_with_an_outdated_tag_is_refused(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url, _ = finished(pipeline)
    tag = coordinator.get(url).headers["ETag"]
    coordinator.put(url, json={"label": "new"})
    refused = coordinator.post(f"{url}/revoke", json=REASON, headers={"If-Match": tag})
    assert (refused.status_code, refused.json()["code"]) == (412, "changed_since")
    seen = coordinator.get(url).headers["ETag"]
    assert coordinator.post(f"{url}/revoke", json=REASON, headers={"If-Match": seen}).status_code == 200
    assert coordinator.put(url, json={"label": "newer"}, headers={"If-Match": seen}).status_code == 412, (
        "a revocation must raise the edit version"
    )


def test_one_activity_is_revoked(api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url, ids = finished(pipeline)
    assert coordinator.delete(url).status_code == 204
    told = coordinator.post(f"{ACTIVITIES_PATH}/{ids.activity_id(0)}/revoke", json=REASON)
    assert told.status_code == 200, told.text
    RevokedActivityResponse.model_validate(told.json())
    assert (told.json()["revoked"], told.json()["already_revoked"]) == (1, 0)
    with api.client(Role.ADMIN, sub="boss", orgs=(ORGANIZATION,)) as boss:
        again = boss.post(f"{ACTIVITIES_PATH}/{ids.activity_id(0)}/revoke", json={"reason": "another"}).json()
    assert (again["already_revoked"], again["revocation_reason"], again["revoked_by"]) == (
        1,
        "wrong date",
        told.json()["revoked_by"],
    )
    key, path = {"Idempotency-Key": "once"}, f"{ACTIVITIES_PATH}/{ids.activity_id(1)}/revoke"
    first, repeated = (coordinator.post(path, json=REASON, headers=key) for _ in range(2))
    assert (repeated.json(), repeated.headers["Idempotent-Replayed"]) == (first.json(), "true")
    assert "Idempotent-Replayed" not in first.headers
    unknown = coordinator.post(f"{ACTIVITIES_PATH}/{uuid4()}/revoke", json=REASON)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "activity_not_found")


def test_a_coordinator_can_revoke_for_the_days_of_the_setting(
    coordinator: httpx.Client, pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    url, ids = finished(pipeline)
    days = settings.revocation_window_days
    registered = {0: timedelta(days=days, minutes=-5), 1: timedelta(days=days, minutes=5)}
    with engine.begin() as connection:
        for position, age in registered.items():
            connection.execute(
                text("UPDATE registration.activity SET created_at = created_at - :age WHERE activity_id = :id"),
                {"age": age, "id": ids.activity_id(position)},
            )
    late = coordinator.post(f"{ACTIVITIES_PATH}/{ids.activity_id(1)}/revoke", json=REASON)
    assert (late.status_code, late.json()["code"]) == (409, "revocation_window_over")
    told = coordinator.post(f"{url}/revoke", json=REASON).json()
    assert (told["revoked"], [kept["item_id"] for kept in told["kept"]]) == (1, [str(ids.item_id(1))])


def test_an_invalid_revocation_is_refused(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url, _ = finished(pipeline)
    for body, pointer in (
        ({}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({**REASON, "item_ids": []}, "/item_ids"),
        ({**REASON, "dry_run": 1}, "/dry_run"),
        ({**REASON, "item_ids": [str(uuid4())]}, "/item_ids/0"),
        ({**REASON, "more": 1}, "/more"),
    ):
        refused = coordinator.post(f"{url}/revoke", json=body)
        assert (refused.status_code, [error["pointer"] for error in refused.json()["errors"]]) == (422, [pointer]), body
    assert coordinator.get(url).json()["revoked"] == 0
