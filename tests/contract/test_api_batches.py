"""The endpoints on batches over real HTTP and PostgreSQL: what a client sends and receives (docs/http.md)."""

from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from schemas.api.batches import BatchesResponse, BatchResponse, BatchWithItemsResponse, CancelledResponse
from schemas.api.items import OneItemResponse
from schemas.api.problems import ProblemResponse
from schemas.api.retries import RetriedResponse
from schemas.paths import API_PATH
from tests.support.pipeline import COORDINATOR, Pipeline

Json = dict[str, Any]


def an_item(mentor: str = "mentor-1", /, **changes: Any) -> Json:
    return {"mentor_id": mentor, "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60} | changes


def items(*mentors: str) -> list[Json]:
    return [an_item(mentor) for mentor in mentors]


def submit(client: httpx.Client, *mentors: str, **changes: Any) -> str:
    answer = client.post(API_PATH, json={"items": items(*mentors)} | changes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["batch_id"])


def has_shape(answer: httpx.Response, model: type[BaseModel]) -> Json:
    """The body, after checking that it has exactly the fields of the model."""
    model.model_validate_json(answer.content, extra="forbid")
    body: Json = answer.json()
    return body


def counts(body: Json) -> dict[str, int]:
    return {name: body[name] for name in ("total_items", "pending", "completed", "failed", "cancelled")}


def test_submission_is_accepted_and_registered(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    answer = coordinator.post(
        API_PATH,
        json={
            "coordinator_id": COORDINATOR,
            "label": "Monday group",
            "items": [an_item(notes="private", client_reference="row 7"), an_item("mentor-none")],
        },
    )
    assert answer.status_code == 202
    body = has_shape(answer, BatchResponse)
    assert answer.headers["Location"] == f"{API_PATH}/{body['batch_id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert (body["status"], body["label"], body["coordinator_id"]) == ("processing", "Monday group", COORDINATOR)
    assert counts(body) == {"total_items": 2, "pending": 2, "completed": 0, "failed": 0, "cancelled": 0}

    pipeline.drain()
    answer = coordinator.get(answer.headers["Location"])
    body = has_shape(answer, BatchWithItemsResponse)
    assert (body["status"], body["errors_by_code"]) == ("partial", {"mentor_not_found": 1})
    assert counts(body) == {"total_items": 2, "pending": 0, "completed": 1, "failed": 1, "cancelled": 0}
    first, second = body["items"]
    assert (first["position"], first["status"], first["attempt"], first["client_reference"]) == (0, "success", 1, "row 7")
    assert first["activity_id"]
    assert second["error"] == {"code": "mentor_not_found", "field": "mentor_id", "retryable": False} | second["error"]
    assert "private" not in answer.text


def test_a_shared_activity_becomes_one_item_for_each_mentor(coordinator: httpx.Client) -> None:
    activity = {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60, "notes": None}
    answer = coordinator.post(API_PATH, json={"mentor_ids": ["mentor-3", "mentor-1"], "activity": activity})
    body = coordinator.get(answer.headers["Location"]).json()
    assert [(item["mentor_id"], item["duration_minutes"]) for item in body["items"]] == [("mentor-3", 60), ("mentor-1", 60)]


def test_both_forms_of_a_submission_are_equal_under_an_idempotency_key(coordinator: httpx.Client) -> None:
    key = {"Idempotency-Key": "week 13"}
    shared = {"mentor_ids": ["mentor-1", "mentor-2"], "activity": {k: v for k, v in an_item().items() if k != "mentor_id"}}
    first = coordinator.post(API_PATH, json={"items": items("mentor-1", "mentor-2")}, headers=key)
    again = coordinator.post(API_PATH, json=shared | {"coordinator_id": COORDINATOR}, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["batch_id"] == again.json()["batch_id"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"

    other = coordinator.post(API_PATH, json={"items": items("mentor-1")}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert submit(coordinator, "mentor-1", "mentor-2") != first.json()["batch_id"]


def test_items_are_filtered_and_paged_by_position(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    mentors = ["mentor-1", "mentor-no", "mentor-2", "mentor-nope", "mentor-3", "mentor-not"]
    batch_id = submit(coordinator, *mentors)
    pipeline.drain()
    answer = coordinator.get(f"{API_PATH}/{batch_id}", params={"items": "failed", "item_limit": 2})
    page = has_shape(answer, BatchWithItemsResponse)
    assert [item["position"] for item in page["items"]] == [1, 3]
    rest = coordinator.get(
        f"{API_PATH}/{batch_id}", params={"items": "failed", "item_limit": 2, "item_cursor": page["next_item_cursor"]}
    ).json()
    assert [item["position"] for item in rest["items"]] == [5]
    assert rest["next_item_cursor"] is None
    assert counts(rest) == counts(page)


def test_the_etag_depends_on_the_version_and_the_query(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'mentor-1')}"
    tag = coordinator.get(url).headers["ETag"]
    assert tag.startswith('W/"')
    unchanged = coordinator.get(url, headers={"If-None-Match": f'"other", {tag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", tag)
    assert coordinator.get(url, params={"wait": "0s"}, headers={"If-None-Match": tag}).status_code == 304
    assert coordinator.get(url, params={"items": "failed"}, headers={"If-None-Match": tag}).status_code == 200
    pipeline.drain()
    changed = coordinator.get(url, headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["status"]) == (200, "completed")


def test_listing_is_newest_first_by_page_and_by_cursor(coordinator: httpx.Client) -> None:
    submitted = [submit(coordinator, f"mentor-{n}", label=f"Group {n}") for n in range(1, 6)]
    body = has_shape(coordinator.get(API_PATH, params={"limit": 2}), BatchesResponse)
    assert [batch["batch_id"] for batch in body["data"]] == submitted[:2:-1]
    assert body["pagination"] == {"page": 1, "limit": 2, "total": 5, "next_cursor": body["pagination"]["next_cursor"]}

    second = coordinator.get(API_PATH, params={"limit": 2, "page": 2}).json()
    followed = coordinator.get(API_PATH, params={"limit": 2, "cursor": body["pagination"]["next_cursor"]}).json()
    assert [b["batch_id"] for b in second["data"]] == [b["batch_id"] for b in followed["data"]] == submitted[2:0:-1]
    last = coordinator.get(API_PATH, params={"limit": 2, "cursor": followed["pagination"]["next_cursor"]}).json()
    assert [b["batch_id"] for b in last["data"]] == submitted[:1]
    assert last["pagination"]["next_cursor"] is None


def test_listing_is_filtered(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    done = submit(
        coordinator, "mentor-1", label="Monday\N{NO-BREAK SPACE}gr\N{ZERO WIDTH SPACE}oup pa\N{COMBINING RING ABOVE}ske"
    )
    pipeline.drain()
    submit(coordinator, "mentor-2", label="Tuesday group")

    def found(**query: str) -> list[str]:
        answer = coordinator.get(API_PATH, params=query)
        assert answer.status_code == 200, answer.text
        return [batch["batch_id"] for batch in answer.json()["data"]]

    assert found(status="completed") == [done]
    failed = submit(coordinator, "mentor-none")
    pipeline.drain()
    tuesday = submit(coordinator, "mentor-3", label="Tuesday group again")
    several = coordinator.get(API_PATH, params=[("status", "failed"), ("status", "processing")]).json()["data"]
    assert [batch["batch_id"] for batch in several] == [tuesday, failed]
    assert found(needs_attention="true") == [failed]
    assert found(needs_attention="true", status="completed") == []
    assert len(found(needs_attention="false")) == 4
    coordinator.request("POST", f"{API_PATH}/{tuesday}/cancel")
    for removed in (tuesday, failed):
        assert coordinator.delete(f"{API_PATH}/{removed}").status_code == 204
    assert found(q="monday") == [done]
    # Decomposed letters, invisible characters and wide blanks make no difference.
    assert found(q="mon\N{SOFT HYPHEN}day group PÅSKE") == [done]
    assert found(q="Pa\N{COMBINING RING ABOVE}ske") == [done]
    assert len(found(coordinator_id=COORDINATOR)) == 2
    assert found(coordinator_id="coord-other") == []
    # An offset that PostgreSQL would refuse.
    assert found(submitted_to="0217-01-07T11:49:35+19:43") == []
    assert found(submitted_to="2020-01-01T00:00:00Z") == []
    assert len(found(submitted_from="2020-01-01T00:00:00+01:00")) == 2


def test_a_period_includes_its_start_and_excludes_its_end(coordinator: httpx.Client) -> None:
    """Consecutive periods, such as January and February, list each batch once."""
    batch_id = submit(coordinator, "mentor-1")
    moment = coordinator.get(f"{API_PATH}/{batch_id}").json()["submitted_at"]

    def found(**query: str) -> list[str]:
        return [batch["batch_id"] for batch in coordinator.get(API_PATH, params=query).json()["data"]]

    assert found(submitted_from=moment) == [batch_id]
    assert found(submitted_to=moment) == []


def test_a_label_is_changed_only_if_nobody_edited_the_batch_since(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'mentor-1')}"
    tag = coordinator.get(url).headers["ETag"]
    pipeline.drain()  # Results raise the version, but not the edit version, which If-Match compares.
    edited = coordinator.put(url, json={"label": "Tuesday"}, headers={"If-Match": tag})
    assert (edited.status_code, has_shape(edited, BatchResponse)["label"]) == (200, "Tuesday")
    stale = coordinator.put(url, json={"label": "Wednesday"}, headers={"If-Match": tag})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed_since")
    assert coordinator.get(url).json()["label"] == "Tuesday"
    fresh = coordinator.get(url, params={"items": "failed"}).headers["ETag"]
    assert coordinator.put(url, json={"label": None}, headers={"If-Match": f"{tag}, {fresh}"}).json()["label"] is None
    assert coordinator.put(url, json={"label": "x"}, headers={"If-Match": '"nonsense"'}).status_code == 412
    assert coordinator.put(url, json={"label": "y"}, headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize("form", ["put", "post"])
def test_cancel_returns_the_final_counts(coordinator: httpx.Client, pipeline: Pipeline, form: str) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'mentor-1', 'mentor-2')}"

    def cancel() -> httpx.Response:
        if form == "put":
            return coordinator.put(url, json={"status": "cancelled", "cancellation_reason": "wrong week"})
        return coordinator.post(f"{url}/cancel", json={"reason": "wrong week"})

    answer = cancel()
    body = has_shape(answer, CancelledResponse)
    assert answer.status_code == 200
    assert (body["status"], body["cancellation_reason"], body["unresolved"]) == ("cancelled", "wrong week", 0)
    assert counts(body) == {"total_items": 2, "pending": 0, "completed": 0, "failed": 0, "cancelled": 2}
    assert counts(cancel().json()) == counts(body)
    pipeline.drain()
    assert counts(coordinator.get(url).json()) == counts(body)


def test_cancel_needs_no_body_and_repeats_under_its_key(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'mentor-1')}/cancel"
    assert coordinator.post(url, headers={"Idempotency-Key": "c1"}).status_code == 200
    again = coordinator.post(url, headers={"Idempotency-Key": "c1"})
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    finished = submit(coordinator, "mentor-2")
    pipeline.drain()
    answer = coordinator.post(f"{API_PATH}/{finished}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "batch_finished")


def test_a_deleted_batch_is_no_longer_shown(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'mentor-1')}"
    running = coordinator.delete(url)
    assert (running.status_code, running.json()["code"]) == (409, "batch_running")
    pipeline.drain()
    answer = coordinator.delete(url)
    assert (answer.status_code, answer.content) == (204, b"")
    assert coordinator.get(url).status_code == 404
    assert coordinator.get(API_PATH).json()["pagination"]["total"] == 0


def test_retry_with_a_correction_and_its_history(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = submit(coordinator, "mentor-1", "mentor-none")
    pipeline.drain()
    failed = coordinator.get(f"{API_PATH}/{batch_id}", params={"items": "failed"}).json()["items"][0]
    request = {"corrections": [{"item_id": failed["item_id"], "mentor_id": "mentor-7", "activity_date": "2026-03-24"}]}
    answer = coordinator.post(f"{API_PATH}/{batch_id}/retry", json=request, headers={"Idempotency-Key": "r"})
    body = has_shape(answer, RetriedResponse)
    assert (answer.status_code, body["retried"], body["status"], body["pending"]) == (202, 1, "processing", 1)
    again = coordinator.post(f"{API_PATH}/{batch_id}/retry", json=request, headers={"Idempotency-Key": "r"})
    assert (again.json()["retried"], again.headers["Idempotent-Replayed"]) == (1, "true")
    # The attempt has begun already, so a repetition changes nothing.
    assert coordinator.post(f"{API_PATH}/{batch_id}/retry", json=request).status_code == 200
    pipeline.drain()

    item = has_shape(coordinator.get(f"{API_PATH}/{batch_id}/items/{failed['item_id']}"), OneItemResponse)
    assert (item["status"], item["attempt"], item["mentor_id"], item["activity_date"]) == ("success", 2, "mentor-7", "2026-03-24")
    assert [(h["attempt"], h["submitted"]["mentor_id"], h["error"]["code"]) for h in item["history"]] == [
        (1, "mentor-none", "mentor_not_found")
    ]
    nothing = coordinator.post(f"{API_PATH}/{batch_id}/retry")
    assert (nothing.status_code, nothing.json()["retried"]) == (200, 0)


STRANGER = "01a20651-14d3-8a55-8b41-6a1a3bd00002"

BAD_RETRIES: list[tuple[str, Any, set[tuple[str, str]]]] = [
    ("no object", [], {("", "wrong_type")}),
    ("nothing named", {"item_ids": [], "corrections": []}, {("/item_ids", "no_items"), ("/corrections", "no_items")}),
    (
        "no items, and bad corrections",
        {"item_ids": [], "corrections": [{"item_id": "1"}, {"item_id": STRANGER, "mentor_id": "", "status": "success"}, {}, 1]},
        {
            ("/item_ids", "no_items"),
            ("/corrections/0/item_id", "not_a_uuid"),
            ("/corrections/1/mentor_id", "empty"),
            ("/corrections/1/status", "unknown_field"),
            ("/corrections/2/item_id", "missing_field"),
            ("/corrections/3", "wrong_type"),
        },
    ),
    (
        "items, and whatever may pass",
        {"item_ids": [STRANGER], "only_retryable": True},
        {("/only_retryable", "not_with_item_ids")},
    ),
    (
        "items of no batch, one of them twice",
        {"item_ids": [STRANGER], "corrections": [{"item_id": STRANGER, "notes": None}, {"item_id": STRANGER.upper()}]},
        {
            ("/item_ids/0", "item_unknown"),
            ("/corrections/0/item_id", "item_unknown"),
            ("/corrections/1/item_id", "item_unknown"),
            ("/corrections/1/item_id", "duplicate_item"),
        },
    ),
]


def test_a_refused_retry_names_all_mistakes(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = submit(coordinator, "mentor-none")
    pipeline.drain()
    for what, body, expected in BAD_RETRIES:
        answer = coordinator.post(f"{API_PATH}/{batch_id}/retry", json=body)
        problem = has_shape(answer, ProblemResponse)
        assert (answer.status_code, problem["code"]) == (422, "invalid_request"), what
        assert {(error["pointer"], error["code"]) for error in problem["errors"]} == expected, what
    assert coordinator.get(f"{API_PATH}/{batch_id}").json()["items"][0]["attempt"] == 1


MISTAKES: list[tuple[str, Any, set[tuple[str, str]]]] = [
    ("nothing", {}, {("/items", "missing_field")}),
    ("no object", [], {("", "wrong_type")}),
    ("no items", {"items": []}, {("/items", "no_items")}),
    (
        "no mentors",
        {"mentor_ids": [], "activity": an_item()},
        {("/mentor_ids", "no_items"), ("/activity/mentor_id", "unknown_field")},
    ),
    ("both forms", {"items": items("a"), "mentor_ids": ["b"]}, {("/mentor_ids", "unknown_field")}),
    (
        "unknown field",
        {"items": [an_item() | {"a/b~c": 1}], "colour": "red"},
        {("/items/0/a~1b~0c", "unknown_field"), ("/colour", "unknown_field")},
    ),
    (
        "everything at once",
        {"label": 5, "items": [an_item(""), {}, an_item("m", duration_minutes="60", activity_date="2026-02-30")]},
        {
            ("/label", "wrong_type"),
            ("/items/0/mentor_id", "empty"),
            ("/items/1/mentor_id", "missing_field"),
            ("/items/1/activity_type", "missing_field"),
            ("/items/1/activity_date", "missing_field"),
            ("/items/1/duration_minutes", "missing_field"),
            ("/items/2/duration_minutes", "wrong_type"),
            ("/items/2/activity_date", "not_a_date"),
        },
    ),
    ("integer beyond 32 bits", {"items": [an_item(duration_minutes=2**31)]}, {("/items/0/duration_minutes", "out_of_range")}),
    ("no whole number", {"items": [an_item(duration_minutes=1.0)]}, {("/items/0/duration_minutes", "wrong_type")}),
    ("a number for a date", {"items": [an_item(activity_date=20260325)]}, {("/items/0/activity_date", "wrong_type")}),
    ("NUL", {"items": [an_item(notes="a\0b")]}, {("/items/0/notes", "bad_characters")}),
    ("long id", {"items": [an_item("m" * 101)]}, {("/items/0/mentor_id", "too_long")}),
    ("long label", {"label": "l" * 201, "items": items("m")}, {("/label", "too_long")}),
    ("long notes", {"items": [an_item(notes="n" * 10_001)]}, {("/items/0/notes", "too_long")}),
    (
        "a mentor twice",
        {"items": [*items("a", "b", "a"), an_item("b", activity_date="2026-03-26")]},
        {("/items/0/mentor_id", "duplicate_mentor"), ("/items/2/mentor_id", "duplicate_mentor")},
    ),
    (
        "a mentor twice in the short form",
        {"mentor_ids": ["a", "b", "b"], "activity": {k: v for k, v in an_item().items() if k != "mentor_id"}},
        {("/mentor_ids/1", "duplicate_mentor"), ("/mentor_ids/2", "duplicate_mentor")},
    ),
]


@pytest.mark.parametrize(("request_body", "expected"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_refused_submission_names_all_mistakes(sender: httpx.Client, request_body: Any, expected: set[tuple[str, str]]) -> None:
    answer = sender.post(API_PATH, json=request_body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    body = has_shape(answer, ProblemResponse)
    assert body["type"] == "urn:bulk-registration:problem:invalid_request"
    assert {(error["pointer"], error["code"]) for error in body["errors"]} == expected
    assert sender.get(API_PATH).json()["pagination"]["total"] == 0
