"""Forgetting a mentor over HTTP, and a search of everything that the product shows, publishes and logs afterwards."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import relabel_batch, retry_failed_items
from orchestrator.directory import known_people
from orchestrator.directory.forgetting import Forgetter
from orchestrator.process.failpoints import failpoints
from orchestrator.storage.people import ForgettingKey
from schemas.api.forgetting import ForgettingResponse
from schemas.envelope import Topic
from schemas.paths import API_PATH, API_ROOT, FORGETTINGS_PATH
from tests.support.pipeline import ADMIN, DAY, ORGANIZATION, Pipeline, item
from tests.support.revoking import revoke

PERSON, NAME, NOTE = "mentor-per-17", "Kåre Ødegård", "he broke his hip"


def forget(pipeline: Pipeline) -> None:
    Forgetter(ForgettingKey("k" * 32), failpoints("")).work(pipeline.engine)


def asked(client: httpx.Client, mentor_id: str = PERSON) -> dict[str, Any]:
    answer = client.post(FORGETTINGS_PATH, json={"mentor_id": mentor_id})
    assert answer.status_code == 202, answer.text
    ForgettingResponse.model_validate_json(answer.content, extra="forbid")
    body: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{FORGETTINGS_PATH}/{body['forgetting_id']}"
    assert int(answer.headers["Retry-After"]) > 0
    return body


def test_a_request_is_open_until_the_sweeper_is_done(admin: httpx.Client, pipeline: Pipeline) -> None:
    first = asked(admin, "mentor-2")
    assert (first["state"], first["pseudonym"], first["requested_by"]) == ("waiting", None, "boss")
    assert asked(admin, "mentor-2") == first
    pipeline.submit([item("mentor-1")])
    forget(pipeline)
    done = admin.get(f"{FORGETTINGS_PATH}/{first['forgetting_id']}").json()
    assert (done["state"], "mentor-2" in str(done)) == ("done", False)
    # An item that came later has the id again.
    assert admin.post(FORGETTINGS_PATH, json={"mentor_id": "mentor-2"}).json()["code"] == "mentor_unknown"
    pipeline.submit([item("mentor-2")])
    pipeline.drain()
    assert asked(admin, "mentor-2")["forgetting_id"] != first["forgetting_id"]


def test_what_is_refused(admin: httpx.Client, coordinator: httpx.Client, pipeline: Pipeline) -> None:
    pipeline.submit([item("mentor-1")])
    for client, body, status, code in (
        (admin, {"mentor_id": "mentor-1"}, 409, "mentor_in_running_batch"),
        (admin, {"mentor_id": "coord-1"}, 409, "mentor_coordinates"),
        (admin, {"mentor_id": "visit"}, 409, "mentor_unknown"),
        (admin, {"mentor_id": ""}, 422, "invalid_request"),
        (coordinator, {"mentor_id": "mentor-2"}, 403, "role_may_not"),
        # Nobody removes themselves from the audit.
        (admin, {"mentor_id": "boss"}, 403, "role_may_not"),
    ):
        answer = client.post(FORGETTINGS_PATH, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert admin.get(f"{FORGETTINGS_PATH}/{uuid4()}").json()["code"] == "forgetting_not_found"


def test_in_large_tables_an_id_that_nobody_has_is_found_out_by_the_sweeper(
    admin: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request has a deadline, and no index finds a failed item by its mentor."""
    monkeypatch.setattr(known_people, "AT_ONCE_BYTES", -1)
    pipeline.submit([item("left-1")])
    pipeline.drain()
    [mistyped, left] = [asked(admin, mentor_id) for mentor_id in ("visit", "left-1")]
    assert [each["state"] for each in (mistyped, left)] == ["waiting", "waiting"]
    forget(pipeline)
    found = [admin.get(f"{FORGETTINGS_PATH}/{each['forgetting_id']}") for each in (mistyped, left)]
    for answer in found:
        ForgettingResponse.model_validate_json(answer.content, extra="forbid")
    assert [(answer.json()["state"], answer.json()["changed_rows"] > 0) for answer in found] == [
        ("unknown", False),
        ("done", True),
    ]


def test_after_it_nothing_that_is_shown_published_or_logged_names_the_person(
    admin: httpx.Client, pipeline: Pipeline, engine: Engine, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The topics are read from the moment at which their retention has removed everything from before."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.mentor VALUES (:org, :id, :name, 'chapter-1')"),
            {"org": ORGANIZATION, "id": PERSON, "name": NAME},
        )
    items = [item(PERSON, notes=NOTE), item(PERSON, day=DAY - timedelta(days=1), kind="unknown", notes=NOTE)]
    batch_id = pipeline.submit(items, label=f"with {NAME} ({PERSON})")
    pipeline.drain()
    caplog.set_level("INFO")
    before = total(admin)
    assert before == (1, 60)
    capfd.readouterr()
    request = asked(admin)
    forget(pipeline)
    pipeline.queues.clear()

    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.relay()
    published = [event for queue in pipeline.queues.values() for event in queue]
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    published += [event for queue in pipeline.queues.values() for event in queue]
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "another")
    revoke(pipeline, batch_id, actor=ADMIN)
    pipeline.relay()
    published += [event for queue in pipeline.queues.values() for event in queue]
    assert {event.topic for event in published} >= {Topic.BATCHES, Topic.COMMANDS, Topic.LIFECYCLE}

    batch = admin.get(f"{API_PATH}/{batch_id}").json()
    [activity] = admin.get(f"{API_ROOT}/activities").json()["data"]
    addresses = [
        f"{API_PATH}/{batch_id}?names=true", API_PATH, *(f"{API_PATH}/{batch_id}/items/{each['item_id']}?names=true" for each in batch["items"]),
        f"{API_PATH}/{batch_id}/results.csv?notes=true", f"{API_PATH}/{batch_id}/results.ndjson?notes=true", f"{API_PATH}/{batch_id}/events",
        f"{API_ROOT}/activities", f"{API_ROOT}/activities.csv", f"{API_ROOT}/activities.ndjson",
        f"{API_ROOT}/activities/{activity['activity_id']}",
        f"{API_ROOT}/directory/mentors?limit=1000", f"{API_ROOT}/templates", f"{FORGETTINGS_PATH}/{request['forgetting_id']}", "/metrics",
    ]  # fmt: skip
    shown = {address: admin.get(address) for address in addresses}
    assert {answer.status_code for answer in shown.values()} == {200}
    logged = "".join(capfd.readouterr()) + caplog.text
    for word in (PERSON, NAME, NOTE):
        assert [address for address, answer in shown.items() if word in answer.text] == []
        assert [
            event for event in published if word.encode() in event.value or word.encode() in str(event.headers).encode()
        ] == []
        assert word not in logged
    assert request["forgetting_id"] in logged or "person_forgotten" in logged
    assert total(admin) == before


def total(client: httpx.Client) -> tuple[int, int]:
    """How many activities and minutes there are, revoked ones included."""
    sums = client.get(f"{API_ROOT}/activities/summary").json()
    both = (sums["live"], sums["revoked"])
    return sum(each["activities"] for each in both), sum(each["minutes"] for each in both)
