"""Templates: saving, listing, replacing and deleting them; who may; repeated requests; and two changes at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from schemas.api.templates import TemplateResponse, TemplatesResponse
from schemas.paths import API_PATH, API_ROOT
from tests.support.api_server import ApiServer
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.waiting import eventually

TEMPLATES = f"{API_ROOT}/templates"
MONDAYS: dict[str, Any] = {
    "name": "Mondays",
    "mentor_ids": ["mentor-1", "mentor-2"],
    "activity_type": "visit",
    "duration_minutes": 60,
    "weekday": 1,
}
TUESDAYS = MONDAYS | {"name": "Tuesdays", "weekday": 2}


@pytest.fixture
def other(api: ApiServer, engine: Engine) -> Iterator[httpx.Client]:
    """Another coordinator of the organization."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.coordinator VALUES (:org, 'coord-2', 'Other', 'coordinator')"), {"org": ORGANIZATION}
        )
    with api.client(sub="coord-2") as client:
        yield client


def saved(client: httpx.Client, body: dict[str, Any] = MONDAYS, key: str | None = None) -> httpx.Response:
    answer = client.post(TEMPLATES, json=body, headers={} if key is None else {"Idempotency-Key": key})
    assert answer.status_code == 201, answer.text
    TemplateResponse.model_validate_json(answer.content, extra="forbid")
    return answer


def url_of(answer: httpx.Response) -> str:
    return str(answer.headers["Location"])


def listed(client: httpx.Client, **query: str) -> list[str]:
    answer = client.get(TEMPLATES, params=query)
    TemplatesResponse.model_validate_json(answer.content, extra="forbid")
    return [template["name"] for template in answer.json()["data"]]


def test_a_template_is_returned_as_saved(coordinator: httpx.Client) -> None:
    answer = saved(coordinator)
    assert {name: answer.json()[name] for name in MONDAYS} == MONDAYS
    assert (answer.json()["coordinator_id"], answer.json()["version"]) == (COORDINATOR, 1)
    read = coordinator.get(url_of(answer))
    assert (read.status_code, read.json(), read.headers["ETag"]) == (200, answer.json(), answer.headers["ETag"])
    assert coordinator.get(TEMPLATES).json()["data"] == [answer.json()]
    without = saved(coordinator, {name: value for name, value in MONDAYS.items() if name != "weekday"})
    assert without.json()["weekday"] is None


def test_a_mentor_named_twice_is_stored_once(coordinator: httpx.Client) -> None:
    twice = saved(coordinator, MONDAYS | {"mentor_ids": ["b", "a", "b", "a\u200b"]})
    assert twice.json()["mentor_ids"] == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"name": ""}, "/name", "empty"),
        ({"name": "x" * 201}, "/name", "too_long"),
        ({"name": None}, "/name", "wrong_type"),
        ({"mentor_ids": []}, "/mentor_ids", "no_items"),
        ({"mentor_ids": ["m"] * 10_001}, "/mentor_ids", "too_many_items"),
        ({"mentor_ids": ["m", ""]}, "/mentor_ids/1", "empty"),
        ({"mentor_ids": "m"}, "/mentor_ids", "wrong_type"),
        ({"activity_type": ""}, "/activity_type", "empty"),
        ({"duration_minutes": 0}, "/duration_minutes", "out_of_range"),
        ({"duration_minutes": 1_441}, "/duration_minutes", "out_of_range"),
        ({"duration_minutes": "60"}, "/duration_minutes", "wrong_type"),
        ({"weekday": 0}, "/weekday", "out_of_range"),
        ({"weekday": 8}, "/weekday", "out_of_range"),
        ({"notes": "x"}, "/notes", "unknown_field"),
    ],
)
def test_invalid_values_are_refused_when_saved_and_when_replaced(
    coordinator: httpx.Client, change: dict[str, Any], pointer: str, code: str
) -> None:
    url = url_of(saved(coordinator))
    for answer in (coordinator.post(TEMPLATES, json=MONDAYS | change), coordinator.put(url, json=MONDAYS | change)):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert (pointer, code) in [(each["pointer"], each["code"]) for each in answer.json()["errors"]]
    assert coordinator.get(url).json()["version"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x"},
        {"name": "x" * 200},
        {"mentor_ids": [f"m-{n}" for n in range(10_000)]},
        {"duration_minutes": 1},
        {"duration_minutes": 1_440},
        {"weekday": 7},
        {"weekday": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_values_at_the_limits_are_saved_and_replaced(coordinator: httpx.Client, change: dict[str, Any]) -> None:
    answer = saved(coordinator, MONDAYS | change)
    assert {name: answer.json()[name] for name in MONDAYS} == MONDAYS | change
    assert coordinator.put(url_of(answer), json=TUESDAYS).json()["version"] == 2


# --- Who may ---------------------------------------------------------------------------------------------------------------------


def test_a_coordinator_sees_only_their_own_templates(coordinator: httpx.Client, other: httpx.Client, admin: httpx.Client) -> None:
    url = url_of(saved(coordinator))
    saved(other, TUESDAYS)
    assert (listed(coordinator), listed(other), listed(admin)) == (["Mondays"], ["Tuesdays"], ["Mondays", "Tuesdays"])
    assert listed(coordinator, coordinator_id="coord-2") == []
    assert listed(coordinator, coordinator_id=COORDINATOR) == listed(admin, coordinator_id=COORDINATOR) == ["Mondays"]
    for answer in (other.get(url), other.put(url, json=TUESDAYS), other.delete(url)):
        nobodys = other.get(f"{TEMPLATES}/{uuid4()}")
        assert (answer.status_code, answer.content) == (404, nobodys.content)
    assert coordinator.get(url).json()["name"] == "Mondays"


def test_an_admin_saves_and_changes_templates_of_others(admin: httpx.Client, coordinator: httpx.Client) -> None:
    answer = saved(admin, MONDAYS | {"coordinator_id": COORDINATOR})
    assert listed(coordinator) == ["Mondays"]
    assert admin.put(url_of(answer), json=TUESDAYS).json()["coordinator_id"] == COORDINATOR
    assert listed(coordinator) == ["Tuesdays"]
    shown, before = coordinator.get(url_of(answer)).json(), answer.json()
    assert {name: shown[name] for name in TUESDAYS} == TUESDAYS
    assert shown["changed_at"] > before["changed_at"]
    assert admin.delete(url_of(answer)).status_code == 204
    assert listed(coordinator) == []


def test_a_template_for_somebody_else_needs_the_right_to_act_for_them(admin: httpx.Client, coordinator: httpx.Client) -> None:
    for client, whose, expected in (
        (coordinator, "coord-2", (403, "not_your_coordinator_id")),
        (admin, "nobody", (422, "coordinator_unknown")),
        (admin, "boss", (422, "coordinator_unknown")),
    ):
        answer = client.post(TEMPLATES, json=MONDAYS | {"coordinator_id": whose})
        assert (answer.status_code, answer.json()["code"]) == expected
    assert listed(admin) == []


def test_an_auditor_reads_templates_and_changes_none(api: ApiServer, coordinator: httpx.Client) -> None:
    url = url_of(saved(coordinator))
    with api.client(Role.AUDITOR, sub="auditor") as auditor:
        assert listed(auditor) == ["Mondays"]
        for answer in (auditor.post(TEMPLATES, json=MONDAYS), auditor.put(url, json=TUESDAYS), auditor.delete(url)):
            assert (answer.status_code, answer.json()["code"]) == (403, "role_may_not")


def test_another_organization_sees_none(api: ApiServer, coordinator: httpx.Client) -> None:
    url = url_of(saved(coordinator))
    with api.client(Role.ADMIN, sub="boss", orgs=("org-2",)) as stranger:
        assert listed(stranger) == []
        for answer in (stranger.get(url), stranger.put(url, json=TUESDAYS), stranger.delete(url)):
            assert (answer.status_code, answer.json()["code"]) == (404, "template_not_found")


# --- Pages, tags, repeats --------------------------------------------------------------------------------------------------------


def test_the_pages_are_the_whole_listing(coordinator: httpx.Client) -> None:
    for n in range(5):
        saved(coordinator, MONDAYS | {"name": f"Group {n}"})
    everything = listed(coordinator)
    assert sorted(everything) == [f"Group {n}" for n in range(5)]
    for limit in ("1", "2", "4", "5", "6"):
        paged, query = [], {"limit": limit}
        while True:
            page = coordinator.get(TEMPLATES, params=query).json()
            paged += [template["name"] for template in page["data"]]
            assert len(paged) <= len(everything), "the pages would never end"
            if page["next_cursor"] is None:
                break
            assert len(page["data"]) == int(limit)
            query["cursor"] = page["next_cursor"]
        assert paged == everything
    for query in ({"limit": "0"}, {"limit": "201"}, {"cursor": "x"}, {"cursor": "AAAA"}):
        assert coordinator.get(TEMPLATES, params=query).status_code == 422


def test_an_outdated_change_is_refused(coordinator: httpx.Client, admin: httpx.Client) -> None:
    url = url_of(saved(coordinator))
    seen = coordinator.get(url).headers["ETag"]
    assert coordinator.get(url, headers={"If-None-Match": seen}).status_code == 304
    changed = admin.put(url, json=TUESDAYS, headers={"If-Match": seen})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert coordinator.get(url, headers={"If-None-Match": seen}).status_code == 200
    late = {"If-Match": seen}
    for answer in (coordinator.put(url, json=MONDAYS, headers=late), coordinator.delete(url, headers=late)):
        assert (answer.status_code, answer.json()["code"]) == (412, "template_changed")
    # A change to the present values is accepted, because nothing is lost.
    assert coordinator.put(url, json=TUESDAYS, headers=late).json()["version"] == 2
    assert coordinator.delete(url, headers={"If-Match": changed.headers["ETag"]}).status_code == 204
    assert coordinator.delete(url).status_code == 404


def test_of_two_changes_at_once_one_is_refused(coordinator: httpx.Client, owner: Engine) -> None:
    """Both have come before either of them can be written."""
    answer = saved(coordinator)
    seen = {"If-Match": answer.headers["ETag"]}

    def change(n: int) -> int:
        return coordinator.put(url_of(answer), json=MONDAYS | {"name": f"Group {n}"}, headers=seen).status_code

    waiting = text("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
    with ThreadPoolExecutor(2) as threads:
        with owner.connect() as holder, owner.connect() as watcher:
            holder.execute(text("SELECT FROM orchestrator.template FOR UPDATE"))
            changes = [threads.submit(change, n) for n in range(2)]
            eventually(lambda: watcher.execute(waiting).scalar_one() == 2)
        assert sorted(each.result() for each in changes) == [200, 412]
    assert coordinator.get(url_of(answer)).json()["version"] == 2


def test_a_repeated_request_under_a_key_saves_once(coordinator: httpx.Client) -> None:
    key = {"Idempotency-Key": "mondays"}
    first = saved(coordinator, key="mondays")
    again = saved(coordinator, key="mondays")
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    assert "Idempotent-Replayed" not in first.headers
    # Without a key, each request saves another template. Other values under the same key are a mistake.
    assert saved(coordinator).json()["template_id"] != first.json()["template_id"]
    other_values = coordinator.post(TEMPLATES, json=TUESDAYS, headers=key)
    assert (other_values.status_code, other_values.json()["code"]) == (422, "idempotency_key_reused")
    submission = {
        "mentor_ids": ["mentor-1"],
        "activity": {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60},
    }
    assert coordinator.post(API_PATH, json=submission, headers=key).json()["code"] == "idempotency_key_reused"
    coordinator.delete(url_of(first))
    gone = coordinator.post(TEMPLATES, json=MONDAYS, headers=key)
    assert (gone.status_code, gone.json()["code"]) == (409, "template_deleted")
    assert listed(coordinator) == ["Mondays"]
