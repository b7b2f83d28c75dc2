"""Downloads of all items, previews and plans (docs/http.md)."""

import codecs
import csv
import io
import json
import re
from typing import Any

import httpx
import pytest

from api.endpoints import exports
from schemas.api.items import ItemResponse
from schemas.api.previews import PreviewResponse
from schemas.api.problems import ProblemResponse
from schemas.paths import API_PATH
from tests.support.pipeline import Pipeline, item, mentors


def an_item(mentor: str, **changes: Any) -> dict[str, Any]:
    return {"mentor_id": mentor, "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60} | changes


def submit(client: httpx.Client, *items: dict[str, Any]) -> str:
    answer = client.post(API_PATH, json={"items": list(items)})
    assert answer.status_code == 202, answer.text
    return f"{API_PATH}/{answer.json()['batch_id']}"


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


# Texts that begin formulas, in a cell or behind a character at which a spreadsheet may split, and what is exported for them.
FORMULAS = {
    "=1+1": "'=1+1",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t'=1",
    "\r=1": "'\r'=1",
    "a;=1+1": "a;'=1+1",
    "a\t@b, -c\n=d": "a\t'@b,' -c\n'=d",
}


def test_csv_holds_every_item_and_no_formula(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    listed = [an_item(f"mentor-{n}", client_reference=text, notes=text) for n, text in enumerate(FORMULAS, start=1)]
    url = submit(coordinator, *listed, an_item("=cmd()", duration_minutes=-5))
    running = coordinator.get(f"{url}/results.csv")
    assert [row["status"] for row in rows(running)] == ["pending"] * 9
    # Without this mark, Excel reads the file as Windows-1252.
    assert running.content.startswith(codecs.BOM_UTF8)
    assert running.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert running.headers["Content-Disposition"].startswith("attachment; filename=")
    pipeline.drain()

    found = rows(coordinator.get(f"{url}/results.csv", params={"notes": "true"}))
    assert [row["position"] for row in found] == list("012345678")
    assert [row["client_reference"] for row in found[:8]] == list(FORMULAS.values())
    assert [row["notes"] for row in found[:8]] == list(FORMULAS.values())
    assert [row["status"] for row in found] == ["success"] * 8 + ["failed"]
    assert (found[8]["mentor_id"], found[8]["error_code"], found[8]["duration_minutes"]) == ("'=cmd()", "mentor_not_found", "-5")
    assert all(row["activity_id"] for row in found[:8])
    # All text is quoted, so no cell begins a formula, whichever separator a program uses.
    line = coordinator.get(f"{url}/results.csv").content.decode().splitlines()[1]
    assert all(cell[:1] == cell[-1:] == '"' for cell in line.split(",")[1:6])
    text = coordinator.get(f"{url}/results.csv", params={"notes": "true"}).content.decode("utf-8-sig")
    for separator in ",;\t|":
        for row_of in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            assert not [cell for cell in row_of if re.match('[ "]*[=+@\t\r]|-[^5]', cell)]


def test_notes_are_left_out_unless_asked_for(coordinator: httpx.Client) -> None:
    url = submit(coordinator, an_item("mentor-1", notes="canary", client_reference="row 7"))
    for suffix in ("csv", "ndjson"):
        assert "canary" not in coordinator.get(f"{url}/results.{suffix}").text
        assert "canary" in coordinator.get(f"{url}/results.{suffix}?notes=true").text
        assert "row 7" in coordinator.get(f"{url}/results.{suffix}").text
    assert "canary" not in coordinator.get(url).text


def test_ndjson_is_one_item_a_line(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = submit(coordinator, an_item("mentor-1"), an_item("mentor-none"))
    pipeline.drain()
    answer = coordinator.get(f"{url}/results.ndjson")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    lines = answer.text.splitlines()
    for line in lines:
        ItemResponse.model_validate_json(line, extra="forbid")
    assert [json.loads(line)["status"] for line in lines] == ["success", "failed"]


def test_long_downloads_come_in_chunks_without_gaps(
    coordinator: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "CHUNK_ITEMS", 7)
    batch_id = pipeline.submit(mentors(40))
    answer = coordinator.get(f"{API_PATH}/{batch_id}/results.csv")
    assert [int(row["position"]) for row in rows(answer)] == list(range(40))
    assert len(coordinator.get(f"{API_PATH}/{batch_id}/results.ndjson").text.splitlines()) == 40


def test_an_interrupted_download_is_not_mistaken_for_a_whole_one(
    coordinator: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "CHUNK_ITEMS", 1)
    batch_id = pipeline.submit([item("mentor-1"), item("mentor-2")])
    whole = exports.read_chunk
    monkeypatch.setattr(exports, "read_chunk", lambda call, form, after: whole(call, form, after) if after < 0 else 1 / 0)
    with pytest.raises(httpx.RemoteProtocolError):
        coordinator.get(f"{API_PATH}/{batch_id}/results.csv")


def test_a_preview_predicts_the_outcomes_and_its_plan_is_enforced(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    request = {"items": [an_item("mentor-1", client_reference="a"), an_item("mentor-none")]}
    answer = coordinator.post(f"{API_PATH}/preview", json=request)
    assert answer.status_code == 200
    PreviewResponse.model_validate_json(answer.content, extra="forbid")
    body = answer.json()
    assert body["counts"] == {"success": 1, "failed": 1}
    assert [(i["position"], i["outcome"], i.get("error", {}).get("code")) for i in body["items"]] == [
        (0, "success", None),
        (1, "failed", "mentor_not_found"),
    ]
    assert coordinator.get(API_PATH).json()["pagination"]["total"] == 0

    accepted = coordinator.post(API_PATH, json=request | {"plan": body["plan"]})
    assert accepted.status_code == 202
    pipeline.drain()
    # The item that was predicted to succeed is registered now, so the same plan no longer holds.
    changed = coordinator.post(API_PATH, json=request | {"plan": body["plan"]})
    assert (changed.status_code, changed.json()["code"]) == (412, "plan_changed")
    ProblemResponse.model_validate_json(changed.content, extra="forbid")
    assert changed.json()["differences"] == [
        {"position": 0, "mentor_id": "mentor-1", "planned": "success", "now": "duplicate_activity"}
    ]
    other = coordinator.post(API_PATH, json={"items": [an_item("mentor-2")], "plan": body["plan"]})
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (422, "/plan")
    assert coordinator.post(API_PATH, json=request | {"plan": "x"}).status_code == 422


def test_an_item_whose_plan_changed_after_acceptance_is_marked(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    request = {"items": [an_item("mentor-1"), an_item("mentor-none")]}
    plan = coordinator.post(f"{API_PATH}/preview", json=request).json()["plan"]
    accepted = coordinator.post(API_PATH, json=request | {"plan": plan})
    pipeline.relay()
    held_back = pipeline.queues.copy()
    pipeline.queues.clear()
    submit(coordinator, an_item("mentor-1"))
    pipeline.drain()
    pipeline.queues.update(held_back)
    pipeline.drain()
    items = coordinator.get(accepted.headers["Location"]).json()["items"]
    assert [(i["status"], i.get("plan_changed")) for i in items] == [("failed", True), ("failed", None)]
