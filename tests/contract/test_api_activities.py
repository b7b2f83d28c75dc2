"""Activities as auditors read them: pages, downloads, one activity with its history, sums; and what each caller may not see."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.endpoints import activities
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.api.activities import ActivitiesResponse, ActivitySummaryResponse, OneActivityResponse
from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_PATH
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline, item

DAY = date(2026, 3, 10)
NEIGHBOUR = "org-neighbour"


@pytest.fixture
def auditor(api: ApiServer) -> Iterator[httpx.Client]:
    with api.client(Role.AUDITOR, sub="auditor", orgs=(ORGANIZATION,)) as client:
        yield client


def insert(owner: Engine, activity_id: UUID, **values: Any) -> None:
    """An activity like those that registration writes, in enough variants for the filters."""
    row = {
        "organization_id": ORGANIZATION,
        "attributed_to": "mentor-1",
        "registered_by": COORDINATOR,
        "activity_type": "visit",
        "activity_date": DAY,
        "duration_minutes": 60,
        "chapter_id": "chapter-1",
        "revoked_at": None,
    } | values
    columns = ", ".join(row)
    with owner.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO registration.activity (activity_id, batch_id, item_id, created_at, notes, overrides_duplicate, {columns})"
                f" VALUES (:activity_id, :batch_id, :item_id, now(), 'private', true, {', '.join(f':{name}' for name in row)})"
            ),
            row | {"activity_id": activity_id, "batch_id": uuid4(), "item_id": uuid4()},
        )


def ids(client: httpx.Client, **query: Any) -> list[str]:
    """The ids of all pages, in the order of the listing."""
    found: list[str] = []
    while True:
        response = client.get(ACTIVITIES_PATH, params=query)
        assert response.status_code == 200, response.text
        page = ActivitiesResponse.model_validate(response.json())
        of_page = [str(activity.activity_id) for activity in page.data]
        assert set(of_page).isdisjoint(found), "the pages would never end"
        found += of_page
        if page.next_cursor is None:
            return found
        query["cursor"] = page.next_cursor


VARIANTS: Sequence[tuple[str, dict[str, Any], dict[str, Any]]] = (
    ("date from", {"from": "2026-03-11"}, {"activity_date": DAY + timedelta(days=1)}),
    ("date to", {"to": "2026-03-09"}, {"activity_date": DAY - timedelta(days=1)}),
    ("type", {"activity_type": "call"}, {"activity_type": "call"}),
    ("chapter", {"chapter_id": "chapter-2"}, {"chapter_id": "chapter-2"}),
    ("coordinator", {"coordinator_id": "coord-2"}, {"registered_by": "coord-2"}),
    ("mentor", {"mentor_id": "mentor-2"}, {"attributed_to": "mentor-2"}),
    ("revoked", {"revoked": "true"}, {"revoked_at": "2026-04-01T00:00:00Z"}),
)


@pytest.mark.parametrize(("query", "values"), [variant[1:] for variant in VARIANTS], ids=[variant[0] for variant in VARIANTS])
def test_each_filter_alone(auditor: httpx.Client, owner: Engine, query: dict[str, Any], values: dict[str, Any]) -> None:
    usual, other = uuid4(), uuid4()
    insert(owner, usual)
    insert(owner, other, **values)
    insert(owner, uuid4(), **values | {"organization_id": NEIGHBOUR})
    assert ids(auditor, **query) == [str(other)]
    assert set(ids(auditor)) == {str(usual), str(other)}


def test_a_period_includes_both_ends_and_activities_that_are_not_revoked_can_be_selected(
    auditor: httpx.Client, owner: Engine
) -> None:
    live, revoked = uuid4(), uuid4()
    insert(owner, live)
    insert(owner, revoked, revoked_at="2026-04-01T00:00:00Z")
    insert(owner, uuid4(), activity_date=DAY + timedelta(days=1))
    insert(owner, uuid4(), activity_date=DAY - timedelta(days=1))
    day = DAY.isoformat()
    assert set(ids(auditor, **{"from": day, "to": day})) == {str(live), str(revoked)}
    assert ids(auditor, **{"from": day, "to": day, "revoked": "false"}) == [str(live)]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(days=st.lists(st.integers(0, 2), max_size=6), limit=st.integers(1, 7))
def test_a_page_neither_repeats_nor_skips(auditor: httpx.Client, owner: Engine, days: list[int], limit: int) -> None:
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM registration.activity"))
    made = [(DAY + timedelta(days=day), str(uuid4())) for day in days]
    for day, activity_id in made:
        insert(owner, UUID(activity_id), activity_date=day)
    assert ids(auditor, limit=limit) == [activity_id for _, activity_id in sorted(made, reverse=True)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_download_has_the_activities_of_the_pages(
    auditor: httpx.Client, owner: Engine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(activities, "CHUNK_ACTIVITIES", 2)
    for _ in range(count):
        insert(owner, uuid4(), chapter_id=None)
    insert(owner, uuid4(), activity_type="call")
    query = {"activity_type": "visit"}
    listed = auditor.get(ACTIVITIES_PATH, params=query).json()["data"]
    downloaded = auditor.get(f"{ACTIVITIES_PATH}.ndjson", params=query)
    assert [json.loads(line) for line in downloaded.text.splitlines()] == listed
    table = auditor.get(f"{ACTIVITIES_PATH}.csv", params=query)
    assert table.headers["Content-Disposition"] == 'attachment; filename="activities.csv"'
    assert table.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(table.content.decode("utf-8-sig"))))
    assert [row["activity_id"] for row in rows] == [activity["activity_id"] for activity in listed]
    assert {(row["duration_minutes"], row["overrides_duplicate"], row["chapter_id"], row["revoked_at"]) for row in rows} == {
        ("60", "true", "", "")
    }
    assert rows[0].keys() == listed[0].keys()


def test_a_formula_in_a_reason_is_escaped_in_a_download(auditor: httpx.Client, owner: Engine) -> None:
    insert(owner, uuid4(), revoked_at="2026-04-01T00:00:00Z", revoked_by="boss", revocation_reason="=1+1")
    [row] = csv.DictReader(io.StringIO(auditor.get(f"{ACTIVITIES_PATH}.csv").content.decode("utf-8-sig")))
    assert not row["revocation_reason"].startswith("=")


def test_an_activity_has_its_history(coordinator: httpx.Client, auditor: httpx.Client, pipeline: Pipeline) -> None:
    """And not that of other items, which fail, are corrected and lose their notes as well. One is at the same place of another batch."""
    two = [item("mentor-none", notes="private"), item("mentor-nobody", notes="private")]
    batch_id, other_batch_id = pipeline.submit(two), pipeline.submit(two[:1])
    pipeline.drain()
    item_id, other_id = (str(DerivedIds(batch_id).item_id(position)) for position in (0, 1))
    elsewhere_id = str(DerivedIds(other_batch_id).item_id(0))
    for of, corrected in (
        (other_batch_id, ((elsewhere_id, "mentor-3"),)),
        (batch_id, ((item_id, "mentor-1"), (other_id, "mentor-2"))),
    ):
        corrections = [{"item_id": one, "mentor_id": mentor_id, "notes": "private, too"} for one, mentor_id in corrected]
        retried = coordinator.post(f"{API_PATH}/{of}/retry", json={"corrections": corrections})
        assert retried.status_code == 202, retried.text
        pipeline.drain()
    assert coordinator.delete(f"{API_PATH}/{other_batch_id}/items/{elsewhere_id}/notes").status_code == 204
    activity_id = coordinator.get(f"{API_PATH}/{batch_id}/items/{item_id}").json()["activity_id"]
    coordinator.post(f"{ACTIVITIES_PATH}/{activity_id}/revoke", json={"reason": "wrong date"})
    assert "private" not in auditor.get(f"{ACTIVITIES_PATH}/{activity_id}").text, "whether or not they are erased"
    for one in (item_id, other_id):
        assert coordinator.delete(f"{API_PATH}/{batch_id}/items/{one}/notes").status_code == 204
    response = auditor.get(f"{ACTIVITIES_PATH}/{activity_id}")
    told = OneActivityResponse.model_validate(response.json())
    assert [(entry.kind, entry.by, entry.channel) for entry in told.history] == [
        ("submitted", COORDINATOR, "api"),
        ("failed", None, None),
        ("retried", COORDINATOR, None),
        ("registered", COORDINATOR, "api"),
        ("revoked", COORDINATOR, "api"),
        ("notes_erased", COORDINATOR, "api"),
    ]
    failed, retry, revoked = told.history[1], told.history[2], told.history[4]
    assert (failed.attempt, failed.error and failed.error.code) == (1, "mentor_not_found")
    assert (retry.attempt, retry.correction) == (2, {"mentor_id": "mentor-1"})
    assert revoked.reason == "wrong date"
    assert (told.mentor_id, told.chapter_id, told.revoked_by) == ("mentor-1", "chapter-1", COORDINATOR)
    assert "private" not in response.text


def test_the_chapter_is_the_mentors_at_registration(coordinator: httpx.Client, pipeline: Pipeline, owner: Engine) -> None:
    pipeline.submit([item("mentor-1")])
    pipeline.drain()
    with owner.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET chapter_id = 'elsewhere'"))
    [activity] = coordinator.get(ACTIVITIES_PATH).json()["data"]
    assert activity["chapter_id"] == "chapter-1"


def test_sums_by_every_grouping_and_of_a_period(auditor: httpx.Client, owner: Engine) -> None:
    insert(owner, uuid4(), duration_minutes=30)
    insert(owner, uuid4(), duration_minutes=15, revoked_at="2026-04-01T00:00:00Z")
    insert(owner, uuid4(), activity_type="call", activity_date=date(2026, 4, 30), registered_by="coord-2", chapter_id="chapter-2")
    insert(owner, uuid4(), activity_date=date(2026, 5, 1))
    insert(owner, uuid4(), attributed_to="mentor-8", activity_date=date(2026, 5, 1), duration_minutes=45)
    insert(owner, uuid4(), organization_id=NEIGHBOUR)
    query = {"from": "2026-03-10", "to": "2026-04-30", "group_by": "month,activity_type,coordinator,chapter"}
    summary = auditor.get(f"{ACTIVITIES_PATH}/summary", params=query).json()
    ActivitySummaryResponse.model_validate(summary)
    none = {"activities": 0, "minutes": 0}
    assert summary == {
        "groups": [
            {
                "activity_type": "visit",
                "month": "2026-03",
                "chapter_id": "chapter-1",
                "coordinator_id": COORDINATOR,
                "live": {"activities": 1, "minutes": 30},
                "revoked": {"activities": 1, "minutes": 15},
            },
            {
                "activity_type": "call",
                "month": "2026-04",
                "chapter_id": "chapter-2",
                "coordinator_id": "coord-2",
                "live": {"activities": 1, "minutes": 60},
                "revoked": none,
            },
        ],
        "live": {"activities": 2, "minutes": 90},
        "revoked": {"activities": 1, "minutes": 15},
    }
    of_one = auditor.get(f"{ACTIVITIES_PATH}/summary", params={"mentor_id": "mentor-8"}).json()
    assert (of_one["live"], of_one["revoked"]) == ({"activities": 1, "minutes": 45}, none)
    by_type = auditor.get(f"{ACTIVITIES_PATH}/summary", params={"from": "2026-05-02"}).json()
    assert by_type == {"groups": [], "live": none, "revoked": none}


def test_sums_are_in_the_order_of_month_type_chapter_and_coordinator(auditor: httpx.Client, owner: Engine) -> None:
    places = [
        (month, kind, chapter, coordinator)
        for month in (3, 4)
        for kind in ("call", "visit")
        for chapter in ("chapter-1", "chapter-2")
        for coordinator in ("coord-1", "coord-2")
    ]
    # The last one comes first in the table's file.
    for month, kind, chapter, coordinator in reversed(places):
        day = date(2026, month, 1)
        insert(owner, uuid4(), activity_date=day, activity_type=kind, chapter_id=chapter, registered_by=coordinator)
    query = {"group_by": "coordinator,chapter,activity_type,month"}
    groups = auditor.get(f"{ACTIVITIES_PATH}/summary", params=query).json()["groups"]
    assert [(each["month"], each["activity_type"], each["chapter_id"], each["coordinator_id"]) for each in groups] == [
        (f"2026-0{month}", kind, chapter, coordinator) for month, kind, chapter, coordinator in places
    ]


def test_what_happened_at_the_same_time_is_told_in_the_order_of_the_steps(
    coordinator: httpx.Client, auditor: httpx.Client, pipeline: Pipeline, owner: Engine
) -> None:
    batch_id = pipeline.submit([item("mentor-none", notes="private")])
    pipeline.drain()
    ids = DerivedIds(batch_id)
    for mentor_id in ("mentor-nobody", "mentor-1"):
        correction = {"corrections": [{"item_id": str(ids.item_id(0)), "mentor_id": mentor_id}]}
        assert coordinator.post(f"{API_PATH}/{batch_id}/retry", json=correction).status_code == 202
        pipeline.drain()
    activity_id = coordinator.get(f"{API_PATH}/{batch_id}/items/{ids.item_id(0)}").json()["activity_id"]
    coordinator.delete(f"{API_PATH}/{batch_id}/items/{ids.item_id(0)}/notes")
    with owner.begin() as connection:
        at = "(SELECT at FROM registration.audit)"
        connection.execute(text(f"UPDATE orchestrator.batch SET submitted_at = {at}"))
        connection.execute(text(f"UPDATE orchestrator.item_history SET attempt_at = {at}, retried_at = {at}"))
    history = auditor.get(f"{ACTIVITIES_PATH}/{activity_id}").json()["history"]
    assert [(entry["kind"], entry.get("attempt")) for entry in history] == [
        ("submitted", None),
        ("failed", 1),
        ("failed", 2),
        ("retried", 2),
        ("retried", 3),
        ("registered", None),
        ("notes_erased", None),
    ]


@pytest.mark.parametrize("group_by", ["", "day", "month,", "month;chapter"])
def test_an_unknown_grouping_is_refused(auditor: httpx.Client, group_by: str) -> None:
    response = auditor.get(f"{ACTIVITIES_PATH}/summary", params={"group_by": group_by})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/query/group_by")


def test_a_coordinator_sees_what_they_registered(api: ApiServer, coordinator: httpx.Client, owner: Engine) -> None:
    mine, others = uuid4(), uuid4()
    insert(owner, mine)
    insert(owner, others, registered_by="coord-2", duration_minutes=7)
    assert ids(coordinator) == [str(mine)]
    assert ids(coordinator, coordinator_id="coord-2") == []
    assert coordinator.get(f"{ACTIVITIES_PATH}.csv", params={"coordinator_id": "coord-2"}).text.count("\n") == 1
    assert coordinator.get(f"{ACTIVITIES_PATH}/summary").json()["live"] == {"activities": 1, "minutes": 60}
    hidden = coordinator.get(f"{ACTIVITIES_PATH}/{others}")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "activity_not_found")
    assert coordinator.get(f"{ACTIVITIES_PATH}/{mine}").status_code == 200
    with api.client(Role.ADMIN, sub="boss", orgs=(ORGANIZATION,)) as admin:
        assert set(ids(admin)) == {str(mine), str(others)}


@pytest.mark.parametrize("path", ["", ".csv", ".ndjson", "/summary", f"/{UUID(int=1)}"])
def test_activities_of_an_external_service_are_not_available(settings: Settings, path: str) -> None:
    external = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "registration_url": "http://127.0.0.1:9"})
    with running_api(external) as api, api.client(Role.AUDITOR, sub="auditor", orgs=(ORGANIZATION,)) as client:
        response = client.get(ACTIVITIES_PATH + path)
    assert (response.status_code, response.json()["code"]) == (501, "activities_unavailable")
