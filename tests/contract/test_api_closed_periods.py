"""Closed periods as an HTTP client sees them: what is told, who may close, what a repetition is told, and what is refused."""

from typing import Any

import httpx
import pytest

from orchestrator.batches.model import Role
from schemas.api.periods import PeriodHistoryResponse, PeriodResponse
from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_PATH, API_ROOT, CLOSED_PERIOD_PATH
from tests.support.api_server import ApiServer
from tests.support.pipeline import DAY, ORGANIZATION, Pipeline, mentors

CLOSE: dict[str, Any] = {"closed_through": str(DAY), "reason": "the report is sent"}
REOPEN: dict[str, Any] = {"closed_through": None, "reason": "a visit was forgotten"}


def test_a_period_is_closed_and_reopened_and_everybody_reads_it(api: ApiServer, coordinator: httpx.Client) -> None:
    with api.client(Role.ADMIN, sub="boss") as admin:
        assert coordinator.get(CLOSED_PERIOD_PATH).json() == {
            "closed_through": None,
            "version": 0,
            "unresolved": 0,
            "history": [],
            "next_cursor": None,
        }
        closed = admin.put(CLOSED_PERIOD_PATH, json=CLOSE)
        assert (closed.status_code, closed.json()) == (200, {"closed_through": str(DAY), "version": 1, "unresolved": 0})
        PeriodResponse.model_validate_json(closed.content, extra="forbid")
        assert coordinator.get(f"{API_ROOT}/me").json()["organization"]["closed_through"] == str(DAY)
        reopened = admin.put(CLOSED_PERIOD_PATH, json=REOPEN)
        assert reopened.json()["closed_through"] is None
    read = coordinator.get(CLOSED_PERIOD_PATH, params={"limit": 1})
    PeriodHistoryResponse.model_validate_json(read.content, extra="forbid")
    [newest] = read.json()["history"]
    assert {name: newest[name] for name in newest.keys() - {"changed_at"}} == {
        "version": 2,
        "closed_through": None,
        "previously": str(DAY),
        "reason": "a visit was forgotten",
        "changed_by": "boss",
        "channel": "api",
    }
    rest = coordinator.get(CLOSED_PERIOD_PATH, params={"limit": 1, "cursor": read.json()["next_cursor"]}).json()
    assert [each["version"] for each in rest["history"]] == [1]
    assert rest["next_cursor"] is None
    assert coordinator.get(CLOSED_PERIOD_PATH, params={"cursor": "x"}).json()["code"] == "invalid_request"


def test_previews_and_revocations_say_that_the_period_is_closed(
    api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline
) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    with api.client(Role.ADMIN, sub="boss") as admin:
        admin.put(CLOSED_PERIOD_PATH, json=CLOSE)
        ids = DerivedIds(batch_id)
        kept = admin.post(f"{API_PATH}/{batch_id}/revoke", json={"reason": "x"}).json()["kept"]
        assert kept == [{"item_id": str(ids.item_id(0)), "code": "period_closed"}]
        refused = admin.post(f"{ACTIVITIES_PATH}/{ids.activity_id(0)}/revoke", json={"reason": "x"})
        assert (refused.status_code, refused.json()["code"]) == (409, "period_closed")
    values = {"mentor_id": "mentor-2", "activity_type": "visit", "activity_date": str(DAY), "duration_minutes": 60}
    [foretold] = coordinator.post(f"{API_PATH}/preview", json={"items": [values]}).json()["items"]
    assert foretold["error"]["code"] == "period_closed"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"closed_through": str(DAY)}, "/reason"),
        ({"closed_through": str(DAY), "reason": ""}, "/reason"),
        ({"reason": "x"}, "/closed_through"),
        ({"closed_through": "25.03.2026", "reason": "x"}, "/closed_through"),
        ({"closed_through": "9999-12-31", "reason": "x"}, "/closed_through"),
    ],
)
def test_a_request_with_a_mistake_is_refused(api: ApiServer, body: dict[str, Any], pointer: str) -> None:
    with api.client(Role.ADMIN, sub="boss") as admin:
        refused = admin.put(CLOSED_PERIOD_PATH, json=body)
    assert (refused.status_code, [each["pointer"] for each in refused.json()["errors"]]) == (422, [pointer])


def test_tags_and_keys(api: ApiServer) -> None:
    with api.client(Role.ADMIN, sub="boss") as admin:
        seen = admin.get(CLOSED_PERIOD_PATH).headers["ETag"]
        assert admin.get(CLOSED_PERIOD_PATH, headers={"If-None-Match": seen}).status_code == 304
        key = {"Idempotency-Key": "close"}
        first = admin.put(CLOSED_PERIOD_PATH, json=CLOSE, headers={"If-Match": seen, **key})
        assert first.status_code == 200
        late = admin.put(CLOSED_PERIOD_PATH, json=REOPEN, headers={"If-Match": seen})
        assert (late.status_code, late.json()["code"]) == (412, "period_changed")
        assert admin.get(CLOSED_PERIOD_PATH, headers={"If-None-Match": seen}).status_code == 200
        assert admin.put(CLOSED_PERIOD_PATH, json=REOPEN, headers={"If-Match": first.headers["ETag"]}).status_code == 200
        again = admin.put(CLOSED_PERIOD_PATH, json=CLOSE, headers={"If-Match": seen, **key})
        assert (again.headers["Idempotent-Replayed"], again.json()["closed_through"]) == ("true", None)
        reused = admin.put(CLOSED_PERIOD_PATH, json=REOPEN, headers=key)
        assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")


def test_a_period_of_another_organization_is_out_of_reach(api: ApiServer, coordinator: httpx.Client) -> None:
    with api.client(Role.ADMIN, sub="boss", orgs=("org-neighbour",)) as stranger:
        assert stranger.put(CLOSED_PERIOD_PATH, json=CLOSE).json()["closed_through"] == str(DAY)
        assert stranger.put(CLOSED_PERIOD_PATH, json=CLOSE, headers={"X-Organization-Id": ORGANIZATION}).status_code == 403
    assert coordinator.get(CLOSED_PERIOD_PATH).json()["history"] == []
