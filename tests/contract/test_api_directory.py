"""The directory in the API: scopes, pages, searches, and the warnings of a preview about short durations."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from schemas.api.base import Response
from schemas.api.directory import ActivityTypesResponse, ChaptersResponse, CoordinatorsResponse, MentorsResponse
from schemas.api.previews import PreviewResponse
from schemas.paths import API_PATH, API_ROOT
from tests.support.api_server import ApiServer
from tests.support.pipeline import COORDINATOR, ORGANIZATION

MENTORS = f"{API_ROOT}/directory/mentors"
CHAPTERS = f"{API_ROOT}/directory/chapters"
TYPES = f"{API_ROOT}/directory/activity-types"
COORDINATORS = f"{API_ROOT}/directory/coordinators"

MODELS: dict[str, type[Response]] = {
    MENTORS: MentorsResponse,
    CHAPTERS: ChaptersResponse,
    TYPES: ActivityTypesResponse,
    COORDINATORS: CoordinatorsResponse,
}

NORTH, SOUTH, EAST = "chapter-north", "chapter-south", "chapter-east"
DAY = date(2026, 3, 25)


@pytest.fixture(autouse=True)
def directory(api: ApiServer, engine: Engine) -> None:
    """Three chapters, coordinators of each kind, and another organization with the same ids, instead of the standard directory."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM registration.mentor; DELETE FROM registration.coordinator_scope"))
        for organization in (ORGANIZATION, "org-2"):
            for statement in (
                "INSERT INTO registration.mentor VALUES (:org, 'm-1', 'Bjørn Ås', :north, '2026-03-24', '2026-03-26'),"
                " (:org, 'm-2', 'Æsa Strøm', :south, NULL, NULL), (:org, 'm-3', 'André O''Neil', :north, NULL, '2026-03-24')",
                "INSERT INTO registration.coordinator VALUES (:org, 'coord-all', 'Anne Lunde', 'admin'),"
                " (:org, 'coord-none', 'Tor Bakke', 'coordinator'), (:org, 'coord-gone', 'Ola', 'closed')",
                "INSERT INTO registration.coordinator_scope VALUES (:org, :coordinator, :north)",
                "INSERT INTO registration.chapter VALUES (:org, :north, 'Nord'), (:org, :east, 'Øst')",
            ):
                values = {"org": organization, "north": NORTH, "south": SOUTH, "east": EAST, "coordinator": COORDINATOR}
                used = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(text(statement), used)
        connection.execute(text("UPDATE registration.activity_type SET default_minutes = 60, minimum_minutes = 30"))
        connection.execute(
            text(
                "INSERT INTO registration.activity_type VALUES (:org, 'walk', 'Walk', NULL, NULL), ('org-2', 'theirs', 'T', 1, 1)"
            ),
            {"org": ORGANIZATION},
        )


@pytest.fixture
def auditor(api: ApiServer) -> Iterator[httpx.Client]:
    with api.client(Role.AUDITOR, sub="auditor") as client:
        yield client


def data(client: httpx.Client, path: str, **query: object) -> list[Any]:
    answer = client.get(path, params={name: str(value) for name, value in query.items()})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    MODELS[path].model_validate_json(answer.content, extra="forbid")
    return list(answer.json()["data"])


def ids(client: httpx.Client, path: str = MENTORS, **query: object) -> list[str]:
    return [next(iter(row.values())) for row in data(client, path, **query)]


# --- Whose scope -----------------------------------------------------------------------------------------------------------------


def test_a_coordinator_sees_their_own_scope(coordinator: httpx.Client) -> None:
    for query in ({}, {"coordinator_id": COORDINATOR}):
        assert ids(coordinator, **query) == ["m-1", "m-3"]
        assert ids(coordinator, CHAPTERS, **query) == [NORTH]


@pytest.mark.parametrize("path", [MENTORS, CHAPTERS])
@pytest.mark.parametrize("other", ["coord-all", "nobody"])
def test_a_coordinator_may_name_only_themselves(coordinator: httpx.Client, path: str, other: str) -> None:
    answer = coordinator.get(path, params={"coordinator_id": other})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_your_scope")


def test_a_coordinator_who_is_not_in_the_directory_sees_nobody(api: ApiServer) -> None:
    with api.client(sub="stranger") as client:
        assert ids(client) == ids(client, CHAPTERS) == []
        assert ids(client, TYPES) == ["visit", "walk"]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR, Role.SERVICE])
def test_other_roles_see_the_organization_or_one_scope(api: ApiServer, role: Role) -> None:
    with api.client(role, sub="boss") as client:
        assert ids(client) == ["m-1", "m-2", "m-3"]
        assert ids(client, CHAPTERS) == [EAST, NORTH, SOUTH]
        assert ids(client, coordinator_id=COORDINATOR) == ["m-1", "m-3"]
        assert ids(client, CHAPTERS, coordinator_id=COORDINATOR) == [NORTH]
        assert ids(client, coordinator_id="coord-all") == ["m-1", "m-2", "m-3"]
        assert ids(client, CHAPTERS, coordinator_id="coord-all") == [EAST, NORTH, SOUTH]
        assert ids(client, coordinator_id="coord-none") == ids(client, coordinator_id="coord-gone") == []
        assert ids(client, COORDINATORS) == [COORDINATOR, "coord-all", "coord-gone", "coord-none"]


@pytest.mark.parametrize("path", [MENTORS, CHAPTERS])
def test_an_unknown_coordinator_is_a_mistake(admin: httpx.Client, path: str) -> None:
    answer = admin.get(path, params={"coordinator_id": "nobody"})
    assert (answer.status_code, answer.json()["code"]) == (422, "coordinator_unknown")
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/query/coordinator_id"]


def test_a_coordinator_may_not_list_coordinators(coordinator: httpx.Client) -> None:
    answer = coordinator.get(COORDINATORS)
    assert (answer.status_code, answer.json()["code"]) == (403, "role_may_not")


def test_the_listed_scope_is_the_scope_of_the_rules(admin: httpx.Client, engine: Engine) -> None:
    """A preview finds exactly those mentors in scope that the listing has."""
    everyone = ids(admin)
    for coordinator_id in (COORDINATOR, "coord-all", "coord-none", "coord-gone"):
        submission = {
            "coordinator_id": coordinator_id,
            "mentor_ids": everyone,
            "activity": {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60},
        }
        foretold = admin.post(f"{API_PATH}/preview", json=submission).json()["items"]
        inside = [item["mentor_id"] for item in foretold if item.get("error", {}).get("code") != "out_of_scope"]
        assert ids(admin, coordinator_id=coordinator_id) == inside


def test_another_organization_is_not_shown(api: ApiServer) -> None:
    with api.client(Role.ADMIN, sub="boss", orgs=("org-3",)) as client:
        assert [ids(client, path) for path in MODELS] == [[], [], [], []]
    with api.client(Role.ADMIN, sub="boss", orgs=("org-2",)) as client:
        assert ids(client, TYPES) == ["theirs"]


# --- What is shown ---------------------------------------------------------------------------------------------------------------


def test_every_part_of_the_directory_is_shown(admin: httpx.Client) -> None:
    assert data(admin, MENTORS, active_on="2026-03-25")[0] == {
        "mentor_id": "m-1",
        "name": "Bjørn Ås",
        "chapter_id": NORTH,
        "active_from": "2026-03-24",
        "active_until": "2026-03-26",
        "active": True,
    }
    assert data(admin, CHAPTERS)[1:] == [{"chapter_id": NORTH, "name": "Nord"}, {"chapter_id": SOUTH, "name": SOUTH}]
    assert data(admin, TYPES) == [
        {"activity_type": "visit", "name": "Visit", "default_minutes": 60, "minimum_minutes": 30},
        {"activity_type": "walk", "name": "Walk", "default_minutes": None, "minimum_minutes": None},
    ]
    assert data(admin, COORDINATORS)[1] == {"coordinator_id": "coord-all", "name": "Anne Lunde", "role": "admin"}


@pytest.mark.parametrize(("day", "active"), [(23, False), (24, True), (26, True), (27, False)])
def test_active_depends_on_the_date_and_filters_nobody(admin: httpx.Client, day: int, active: bool) -> None:
    shown = {row["mentor_id"]: row["active"] for row in data(admin, MENTORS, active_on=f"2026-03-{day}")}
    assert shown == {"m-1": active, "m-2": True, "m-3": day <= 24}


def test_active_defaults_to_today_in_the_organizations_time_zone(admin: httpx.Client, engine: Engine) -> None:
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE registration.organization SET time_zone = :zone"), {"zone": zone})
            today = datetime.now(ZoneInfo(zone)).date()
            connection.execute(
                text("UPDATE registration.mentor SET active_from = :day, active_until = :day WHERE mentor_id = 'm-1'"),
                {"day": today},
            )
        found = data(admin, MENTORS)[0]["active"]
        assert found or datetime.now(ZoneInfo(zone)).date() != today


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("bjorn", ["m-1"]),
        ("BJØRN", ["m-1"]),
        ("as", ["m-1"]),
        ("aesa", ["m-2"]),
        ("Æsa str", ["m-2"]),
        ("strom", ["m-2"]),
        ("andre", ["m-3"]),
        ("Andre\u0301 O'", ["m-3"]),
        ("M-3", ["m-3"]),
        ("", ["m-1", "m-2", "m-3"]),
        ("%", []),
        ("_", []),
        ("bjornas", []),
    ],
)
def test_names_are_found_as_people_type_them(admin: httpx.Client, q: str, found: list[str]) -> None:
    assert ids(admin, q=q) == found


def test_filters_are_combined(admin: httpx.Client) -> None:
    assert ids(admin, chapter_id=SOUTH) == ["m-2"]
    assert ids(admin, chapter_id=NORTH, q="andre") == ["m-3"]
    assert ids(admin, chapter_id=SOUTH, coordinator_id=COORDINATOR) == []
    assert ids(admin, COORDINATORS, q="lunde") == ids(admin, COORDINATORS, q="Coord-ALL") == ["coord-all"]


def test_chapters_that_only_a_scope_names_and_mentors_of_an_organization_without_a_row_are_shown(
    admin: httpx.Client, engine: Engine
) -> None:
    with engine.begin() as connection:
        granted = "INSERT INTO registration.coordinator_scope VALUES (:org, 'coord-none', 'chapter-a')"
        connection.execute(text(granted), {"org": ORGANIZATION})
        connection.execute(text("DELETE FROM registration.organization"))
    assert ids(admin, CHAPTERS) == ["chapter-a", EAST, NORTH, SOUTH]
    assert ids(admin) == ["m-1", "m-2", "m-3"]


# --- Pages and tags --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODELS)
def test_the_pages_are_the_whole_listing(admin: httpx.Client, path: str) -> None:
    everything = ids(admin, path)
    for limit in range(1, len(everything) + 2):
        paged: list[str] = []
        cursor: dict[str, object] = {}
        while True:
            answer = admin.get(path, params={"limit": str(limit)} | {name: str(value) for name, value in cursor.items()}).json()
            assert len(answer["data"]) <= limit
            paged += [next(iter(row.values())) for row in answer["data"]]
            if answer["next_cursor"] is None:
                break
            # A page that has a successor is full.
            assert len(answer["data"]) == limit
            cursor = {"cursor": answer["next_cursor"]}
        assert paged == everything


def test_a_cursor_works_after_its_entry_was_deleted_and_with_equal_names(admin: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET name = 'Kari'"))
    first = admin.get(MENTORS, params={"limit": "1"}).json()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM registration.mentor WHERE mentor_id = 'm-1'"))
    assert ids(admin, cursor=first["next_cursor"]) == ["m-2", "m-3"]


@pytest.mark.parametrize(("limit", "status"), [(0, 422), (1, 200), (1_000, 200), (1_001, 422)])
def test_limits_of_a_page(admin: httpx.Client, limit: int, status: int) -> None:
    assert admin.get(MENTORS, params={"limit": limit}).status_code == status


@pytest.mark.parametrize("cursor", ["x", "!!!!", "AA==", "////", "w6Y", "", "eA=\u00e6"])
def test_an_invalid_cursor_is_refused(admin: httpx.Client, cursor: str) -> None:
    answer = admin.get(MENTORS, params={"cursor": cursor})
    assert (answer.status_code, [each["code"] for each in answer.json()["errors"]]) == (422, ["not_a_cursor"])


def test_a_cursor_can_hold_ids_in_any_script(admin: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET mentor_id = repeat('\U0001f9ea', 97) || mentor_id"))
    first = admin.get(MENTORS, params={"limit": "2"}).json()
    assert len(ids(admin, cursor=first["next_cursor"])) == 1


@pytest.mark.parametrize("path", MODELS)
def test_the_etag_changes_with_the_content(admin: httpx.Client, engine: Engine, path: str) -> None:
    tag = admin.get(path).headers["ETag"]
    same = admin.get(path, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert same.headers["Cache-Control"] == "no-store"
    assert admin.get(path, headers={"If-None-Match": tag.replace('"', '-gzip"', 2).replace('-gzip"', '"', 1)}).status_code == 304
    assert admin.get(path, params={"limit": "1"}, headers={"If-None-Match": tag}).status_code == 200
    with engine.begin() as connection:
        for table in ("mentor", "chapter", "activity_type", "coordinator"):
            connection.execute(text(f"UPDATE registration.{table} SET name = 'Another'"))
    changed = admin.get(path, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)


# --- Minutes in a preview --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "warns"), [(29, True), (30, False), (31, False), (0, True)])
def test_a_preview_warns_about_a_short_duration_without_refusing_it(coordinator: httpx.Client, minutes: int, warns: bool) -> None:
    item = {"mentor_id": "m-1", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": minutes}
    body = {"items": [item, item | {"activity_type": "walk"}, item | {"activity_type": "none"}]}
    answer = coordinator.post(f"{API_PATH}/preview", json=body)
    PreviewResponse.model_validate_json(answer.content, extra="forbid")
    first, *others = answer.json()["items"]
    assert first["outcome"] == ("success" if minutes else "failed")
    assert ("warnings" in first) is warns
    assert [each for each in others if "warnings" in each] == []
    if warns:
        [warning] = first["warnings"]
        assert (warning["code"], warning["field"]) == ("shorter_than_usual", "duration_minutes")
        assert "30 minutes" in warning["message"]
