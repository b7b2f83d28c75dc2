"""`names=true`: the names of mentors and types, and who registered a duplicate's other activity; never beyond the caller's scope."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import Actor, ItemError, Role
from orchestrator.directory.reading import DirectoryReader, Names
from schemas.api.batches import BatchWithItemsResponse
from schemas.api.items import OneItemResponse
from schemas.api.previews import PreviewResponse
from schemas.paths import API_PATH
from tests.support.api_server import ApiServer
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline, item

NAMES = {"names": "true"}
TOR = "coord-tor"


@pytest.fixture(autouse=True)
def directory(api: ApiServer, engine: Engine) -> None:
    """`mentor-1` is in the scope of both coordinators, `mentor-2` only in Tor's."""
    with engine.begin() as connection:
        for statement in (
            "UPDATE registration.mentor SET name = 'Kari Foss' WHERE mentor_id = 'mentor-1'",
            "UPDATE registration.mentor SET name = 'Leif Secret', chapter_id = 'chapter-2' WHERE mentor_id = 'mentor-2'",
            f"INSERT INTO registration.coordinator VALUES (:org, '{TOR}', 'Tor Bakke', 'coordinator')",
            f"INSERT INTO registration.coordinator_scope VALUES (:org, '{TOR}', 'chapter-1'), (:org, '{TOR}', 'chapter-2')",
        ):
            used = {"org": ORGANIZATION} if ":org" in statement else {}
            connection.execute(text(statement), used)


@pytest.fixture
def tor(api: ApiServer) -> Iterator[httpx.Client]:
    with api.client(sub=TOR) as client:
        yield client


def visits(*mentor_ids: str) -> dict[str, Any]:
    return {
        "mentor_ids": list(mentor_ids),
        "activity": {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60},
    }


def submitted(client: httpx.Client, pipeline: Pipeline, *mentor_ids: str) -> str:
    answer = client.post(API_PATH, json=visits(*mentor_ids))
    assert answer.status_code == 202, answer.text
    pipeline.drain()
    return str(answer.headers["Location"])


def items(client: httpx.Client, url: str) -> list[Any]:
    answer = client.get(url, params=NAMES)
    BatchWithItemsResponse.model_validate_json(answer.content, extra="forbid")
    assert answer.headers["Cache-Control"] == "no-store"
    return list(answer.json()["items"])


def test_items_have_names_on_request(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = submitted(coordinator, pipeline, "mentor-1", "mentor-none")
    known, unknown = items(coordinator, url)
    assert (known["mentor_name"], known["activity_type_name"]) == ("Kari Foss", "Visit")
    assert (unknown["mentor_name"], unknown["activity_type_name"]) == (None, "Visit")
    one = coordinator.get(f"{url}/items/{known['item_id']}", params=NAMES)
    OneItemResponse.model_validate_json(one.content, extra="forbid")
    assert (one.json()["mentor_name"], one.headers["Cache-Control"]) == ("Kari Foss", "no-store")
    for path in (url, f"{url}/items/{known['item_id']}"):
        assert "_name" not in coordinator.get(path).text


def test_a_name_outside_the_scope_is_not_shown(
    coordinator: httpx.Client, tor: httpx.Client, admin: httpx.Client, api: ApiServer, pipeline: Pipeline
) -> None:
    url = submitted(coordinator, pipeline, "mentor-1", "mentor-2")
    preview = coordinator.post(f"{API_PATH}/preview", params=NAMES, json=visits("mentor-2"))
    own = items(coordinator, url)
    assert [item["mentor_name"] for item in own] == ["Kari Foss", None]
    answers = [preview.text, coordinator.get(f"{url}/items/{own[1]['item_id']}", params=NAMES).text]
    assert "Secret" not in "".join(answers)
    assert [item["mentor_name"] for item in items(admin, url)] == ["Kari Foss", "Leif Secret"]
    with api.client(Role.AUDITOR, sub="auditor") as auditor:
        assert [item["mentor_name"] for item in items(auditor, url)] == ["Kari Foss", "Leif Secret"]
    assert tor.get(url, params=NAMES).status_code == 404


def test_a_duplicate_names_who_registered_the_other_activity_and_when(
    coordinator: httpx.Client, tor: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    before = datetime.now(UTC)
    submitted(tor, pipeline, "mentor-1")
    url = submitted(coordinator, pipeline, "mentor-1")
    [item] = items(coordinator, url)
    assert item["error"]["registered_by_name"] == "Tor Bakke"
    with engine.connect() as connection:
        registered_at = connection.execute(text("SELECT created_at FROM registration.activity")).scalar_one()
    assert before <= datetime.fromisoformat(item["error"]["registered_at"]) == registered_at
    preview = coordinator.post(f"{API_PATH}/preview", params=NAMES, json=visits("mentor-1"))
    PreviewResponse.model_validate_json(preview.content, extra="forbid")
    [foretold] = preview.json()["items"]
    assert foretold["error"] == item["error"]
    assert foretold["mentor_name"] == "Kari Foss"
    # Finished attempts have the names, too.
    coordinator.post(f"{url}/retry", json={})
    pipeline.drain()
    one = coordinator.get(f"{url}/items/{item['item_id']}", params=NAMES).json()
    assert one["history"][0]["error"] == one["error"] == item["error"]
    for plain in (coordinator.get(url), coordinator.post(f"{API_PATH}/preview", json=visits("mentor-1"))):
        assert "Tor Bakke" not in plain.text
        assert "registered_at" not in plain.text


def test_a_duplicate_whose_mentor_left_the_scope_is_not_described(
    coordinator: httpx.Client, tor: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    submitted(tor, pipeline, "mentor-1")
    url = submitted(coordinator, pipeline, "mentor-1")
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET chapter_id = 'chapter-2' WHERE mentor_id = 'mentor-1'"))
    [item] = items(coordinator, url)
    assert (item["mentor_name"], item["error"]["code"]) == (None, "duplicate_activity")
    assert item["error"].keys().isdisjoint({"registered_by_name", "registered_at"})


def test_only_the_names_of_the_callers_organization_are_read(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    """Even in a session in which row level security does not hide the others."""
    submitted(coordinator, pipeline, "mentor-1")
    with engine.connect() as connection:
        activity_id = connection.scalar(text("SELECT activity_id::text FROM registration.activity"))
        error = ItemError("duplicate_activity", "", retryable=False, conflicting_activity_id=activity_id)
        wanted = ([item("mentor-1").values], [error])
        own, of_others = (
            DirectoryReader(connection).names(Actor(organization, "boss", Role.ADMIN), *wanted)
            for organization in (ORGANIZATION, "org-other")
        )
    assert (set(own.mentors), set(own.activity_types), set(own.registrations)) == ({"mentor-1"}, {"visit"}, {activity_id})
    assert of_others == Names({}, {}, {})


def test_a_registrar_who_is_not_in_the_directory_has_no_name(
    coordinator: httpx.Client, tor: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    submitted(tor, pipeline, "mentor-1")
    url = submitted(coordinator, pipeline, "mentor-1")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM registration.coordinator WHERE coordinator_id <> :own"), {"own": COORDINATOR})
    [item] = items(coordinator, url)
    assert item["error"]["registered_by_name"] is None
    assert item["error"]["registered_at"]


def test_a_changed_name_changes_the_etag(coordinator: httpx.Client, pipeline: Pipeline, engine: Engine) -> None:
    url = submitted(coordinator, pipeline, "mentor-1")
    named, plain = coordinator.get(url, params=NAMES).headers["ETag"], coordinator.get(url).headers["ETag"]
    assert named != plain
    assert coordinator.get(url, params=NAMES, headers={"If-None-Match": named}).status_code == 304
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET name = 'Kari Moe' WHERE mentor_id = 'mentor-1'"))
    assert coordinator.get(url, headers={"If-None-Match": plain}).status_code == 304
    answer = coordinator.get(url, params=NAMES, headers={"If-None-Match": named})
    assert (answer.status_code, answer.json()["items"][0]["mentor_name"]) == (200, "Kari Moe")
    # The tag with names is accepted as the batch's tag.
    relabelled = coordinator.put(url, json={"label": "x"}, headers={"If-Match": answer.headers["ETag"]})
    assert relabelled.status_code == 200
