"""What a client receives beside the body: headers, tags, columns of downloads, lines of event streams; and which requests wake the relays."""

import asyncio
import csv
import io
import json
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine

from api import handling
from api.endpoints import events
from api.load.database import Database
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage import relay_wakeup, watching
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_PATH, API_ROOT, CLOSED_PERIOD_PATH
from tests.contract.test_api_batches import an_item, submit
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.pipeline import DAY, Pipeline, item, mentors
from tests.support.waiting import PATIENCE_S, eventually

Json = dict[str, Any]


# --- Tags -----------------------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[str, str, Any]] = {
    "relabel": ("PUT", "", {"label": "new"}),
    "cancel by an update": ("PUT", "", {"status": "cancelled"}),
    "cancel": ("POST", "/cancel", None),
    "delete": ("DELETE", "", None),
}


@pytest.mark.parametrize(("method", "tail", "body"), CHANGES.values(), ids=CHANGES)
def test_an_edit_is_refused_if_the_batch_was_edited_since(
    coordinator: httpx.Client, pipeline: Pipeline, method: str, tail: str, body: Any
) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'mentor-1')}"
    if method == "DELETE":
        pipeline.drain()
    stale = coordinator.get(url).headers["ETag"]
    assert coordinator.put(url, json={"label": "somebody else's"}).status_code == 200
    refused = coordinator.request(method, url + tail, json=body, headers={"If-Match": stale})
    assert (refused.status_code, refused.json()["code"]) == (412, "changed_since")
    fresh = coordinator.get(url).headers["ETag"]
    assert coordinator.request(method, url + tail, json=body, headers={"If-Match": fresh}).status_code in (200, 204)


def test_a_tag_that_belongs_to_no_version_is_refused_even_if_nothing_would_change(
    api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline
) -> None:
    batch = f"{API_PATH}/{pipeline.submit(mentors(1))}"
    pipeline.drain()
    values = {"name": "Mondays", "mentor_ids": ["mentor-1"], "activity_type": "visit", "duration_minutes": 60}
    template = coordinator.post(f"{API_ROOT}/templates", json=values).headers["Location"]
    with api.client(Role.ADMIN, sub="boss") as admin:
        changes: Sequence[tuple[str, str, Json]] = (
            ("PUT", batch, {"label": "new"}),
            ("PUT", template, values),
            ("PUT", CLOSED_PERIOD_PATH, {"closed_through": "2020-12-31", "reason": "x"}),
            ("POST", f"{batch}/revoke", {"reason": "x"}),
        )
        for method, url, body in changes:
            for _ in range(2):
                assert admin.request(method, url, json=body).status_code == 200
            refused = admin.request(method, url, json=body, headers={"If-Match": '"nonsense"'})
            assert refused.status_code == 412, url


# --- Headers and the like -------------------------------------------------------------------------------------------------------------


def test_a_retry_returns_its_location_and_when_to_look_again(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{submit(coordinator, 'nobody')}"
    pipeline.drain()
    began = coordinator.post(f"{url}/retry")
    assert (began.status_code, began.headers["Location"], began.headers["Retry-After"]) == (202, url, "1")
    pipeline.drain()
    nothing = coordinator.post(f"{url}/retry", json={"only_retryable": True})
    assert (nothing.status_code, nothing.headers["Location"], "Retry-After" in nothing.headers) == (200, url, False)
    assert "Idempotent-Replayed" not in began.headers.keys() | nothing.headers.keys()


def test_a_page_read_by_cursor_has_no_number(coordinator: httpx.Client) -> None:
    for number in (1, 2):
        submit(coordinator, f"mentor-{number}")
    first = coordinator.get(API_PATH, params={"limit": 1, "page": 1}).json()["pagination"]
    second = coordinator.get(API_PATH, params={"limit": 1, "cursor": first["next_cursor"]}).json()["pagination"]
    assert (first["page"], second["page"]) == (1, None)


def test_an_id_is_accepted_in_either_case(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id = submit(coordinator, "mentor-1")
    found = coordinator.get(f"{API_PATH}/{batch_id.upper()}").json()
    item_id = found["items"][0]["item_id"]
    assert found["batch_id"] == batch_id
    assert coordinator.get(f"{API_PATH}/{batch_id}/items/{item_id.upper()}").json()["item_id"] == item_id
    pipeline.drain()
    ticket = coordinator.post(f"{API_PATH}/{batch_id}/events").json()["ticket"]
    assert coordinator.get(f"{API_PATH}/{batch_id.upper()}/events", params={"ticket": ticket}).status_code == 200


def test_a_trace_is_continued_and_an_invalid_one_is_replaced(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    traces = []
    for number, sent in enumerate((f"00-{trace}-00f067aa0ba902b7-01", "nonsense", None), start=1):
        body = {"items": [an_item(f"mentor-{number}")]}
        assert coordinator.post(API_PATH, json=body, headers={} if sent is None else {"traceparent": sent}).status_code == 202
        pipeline.relay()
        [event] = pipeline.take(Topic.BATCHES)
        traces.append(dict(event.headers)["traceparent"].decode().split("-"))
    assert traces[0][1] == trace
    assert len({trace_id for _, trace_id, _, _ in traces}) == 3
    # This API sends no traces, so it keeps the client's decision, and takes none of its own.
    assert [flags for *_, flags in traces] == ["01", "00", "00"]


def test_a_body_with_the_encoding_identity_is_read(sender: httpx.Client) -> None:
    for encoding, status in (("identity", 422), ("Identity", 422), ("", 422), ("br", 415)):
        headers = {"Content-Type": "application/vnd.mine+json", "Content-Encoding": encoding}
        assert sender.post(API_PATH, content=b'{"items": []}', headers=headers).status_code == status, encoding


def test_a_batch_has_a_content_length(settings: Settings, pipeline: Pipeline) -> None:
    body = json.dumps({"items": [an_item()]}).encode()
    headers = {"Content-Type": "application/json"}
    limited = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "max_batch_bytes": len(body)})
    with running_api(limited) as server, server.client() as client:
        for path, accepted in ((f"{API_PATH}/preview", 200), (API_PATH, 202)):
            refused = client.post(path, content=body + b" ", headers=headers)
            assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too_large")
            assert client.post(path, content=body, headers=headers).status_code == accepted


def test_a_preview_names_mentors_and_types_of_its_items(coordinator: httpx.Client) -> None:
    items = [an_item("mentor-1", client_reference="row 1"), an_item("nobody"), an_item("mentor-2"), an_item("no one")]
    answer = coordinator.post(f"{API_PATH}/preview", json={"items": items})
    told = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert told["counts"] == {"success": 2, "failed": 2}
    assert [(each["mentor_id"], each.get("client_reference")) for each in told["items"]] == [
        ("mentor-1", "row 1"),
        ("nobody", None),
        ("mentor-2", None),
        ("no one", None),
    ]
    assert told["items"][1]["error"]["field"] == "mentor_id"


@pytest.mark.parametrize(("size", "is_large"), [(65_535, False), (65_536, False), (65_537, True)])
def test_large_bodies_are_handled_in_threads_of_their_own(
    sender: httpx.Client, monkeypatch: pytest.MonkeyPatch, size: int, is_large: bool
) -> None:
    run, seen = Database.run, []

    async def noting(database: Database, work: Callable[[], Any], *, changes: bool = False, is_large: bool = False) -> Any:
        seen.append(is_large)
        return await run(database, work, changes=changes, is_large=is_large)

    given_back = threading.Semaphore(0)
    monkeypatch.setattr(Database, "run", noting)
    monkeypatch.setattr(handling, "give_free_memory_back", given_back.release)
    body = b'{"label": "' + b"x" * (size - 13) + b'"}'
    assert sender.post(API_PATH, content=body, headers={"Content-Type": "application/json"}).status_code == 422
    assert (len(body), seen) == (size, [is_large])
    assert given_back.acquire(timeout=PATIENCE_S if is_large else 0) is is_large


# --- Downloads ------------------------------------------------------------------------------------------------------------------------


def test_a_download_has_the_values_of_each_item(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    listed = [
        an_item("mentor-1", client_reference="row 1", notes="a note", duration_minutes=61),
        an_item("mentor-2", activity_date="2026-03-24"),
        an_item("nobody"),
    ]
    earlier = submit(coordinator, "mentor-2")
    pipeline.drain()
    listed[1]["activity_date"] = "2026-03-25"
    url = coordinator.post(API_PATH, json={"items": listed}).headers["Location"]
    pipeline.drain()
    coordinator.post(f"{url}/retry", json={"item_ids": [coordinator.get(url).json()["items"][2]["item_id"]]})
    pipeline.drain()
    shown = coordinator.get(url).json()["items"]
    assert [(each["status"], each["attempt"]) for each in shown] == [("success", 1), ("failed", 1), ("failed", 2)]
    assert (
        shown[1]["error"]["conflicting_activity_id"] == coordinator.get(f"{API_PATH}/{earlier}").json()["items"][0]["activity_id"]
    )

    answer = coordinator.get(f"{url}/results.csv", params={"notes": "true"})
    columns = [name for name in shown[0] if name not in ("error", "notes")]
    for row, each, given in zip(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))), shown, listed, strict=True):
        error = each.get("error", {})
        expected = {name: each.get(name) for name in columns} | {
            "error_code": error.get("code"),
            "error_message": error.get("message"),
            "error_field": error.get("field"),
            "conflicting_activity_id": error.get("conflicting_activity_id"),
            "revoked_at": None,
            "revoked_by": None,
            "revocation_reason": None,
            "notes": given.get("notes"),
        }
        assert row == {name: "" if value is None else str(value) for name, value in expected.items()}
    lines = coordinator.get(f"{url}/results.ndjson", params={"notes": "true"}).text.splitlines()
    assert [json.loads(line) for line in lines] == [
        each | {"notes": given.get("notes")} for each, given in zip(shown, listed, strict=True)
    ]
    assert [json.loads(line) for line in coordinator.get(f"{url}/results.ndjson").text.splitlines()] == shown
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="batch-{UUID(url.rsplit("/", 1)[1])}.csv"'


# --- Event streams ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def lines_of(client: httpx.Client, url: str, **headers: str) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    with client.stream("GET", f"{url}/events", headers=headers) as answer:
        yield answer, answer.iter_lines()


def next_event(lines: Iterator[str]) -> Json:
    data: Json = json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))
    return data


def announce(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        watching.announce(connection, [UUID(url.rsplit("/", 1)[1])])


def test_a_stream_begins_at_once_and_sends_heartbeats(
    coordinator: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_HEARTBEAT_S", 0.05)
    url = f"{API_PATH}/{pipeline.submit(mentors(1))}"
    with lines_of(coordinator, url) as (answer, lines):
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
        assert [next(lines), next(lines)] == ["retry: 2000", ""]
        assert [next(lines).partition(":")[0] for _ in range(4)] == ["id", "event", "data", ""]
        assert [next(lines) for _ in range(4)] == [":", "", ":", ""]
        pipeline.drain()
        assert next_event(lines)["status"] == "completed"


def test_a_reconnecting_client_receives_what_is_new(coordinator: httpx.Client, pipeline: Pipeline, engine: Engine) -> None:
    url = f"{API_PATH}/{pipeline.submit(mentors(2))}"
    with lines_of(coordinator, url) as (_, lines):
        version = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
        assert next_event(lines)["full"]
    with lines_of(coordinator, url, **{"Last-Event-ID": version}) as (_, lines):
        assert [next(lines), next(lines)] == ["retry: 2000", ""]
        # An announcement of a version that the client has seen sends nothing.
        announce(engine, url)
        coordinator.put(url, json={"label": "new"})
        first = next_event(lines)
        assert (first["label"], first["full"], first["items"]) == ("new", False, [])
        pipeline.drain()
        assert [each["position"] for each in next_event(lines)["items"]] == [0, 1]


def test_changes_of_a_short_time_come_in_one_event(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    go_on = threading.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.to_thread(go_on.wait, PATIENCE_S)

    class Paused:
        sleep = staticmethod(pause)

    monkeypatch.setattr("api.endpoints.events.asyncio", Paused)
    url = f"{API_PATH}/{pipeline.submit(mentors(2))}"
    with lines_of(coordinator, url) as (_, lines):
        next_event(lines)
        for label in ("one", "two", "three"):
            coordinator.put(url, json={"label": label})
            announce(engine, url)
        eventually(lambda: pauses)
        go_on.set()
        assert next_event(lines)["label"] == "three"
    assert pauses[0] == 0.2


# --- Who is woken ------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def woken(settings: Settings, api: ApiServer) -> Iterator[Callable[[], bool]]:
    """Returns whether the relays have been notified since the last call. Waits for the notification."""
    engine = create_engine(settings.owner_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"LISTEN {relay_wakeup.CHANNEL}")
        driver = connection.connection.driver_connection
        assert driver is not None

        def is_told() -> bool:
            found = bool(select.select([driver], [], [], PATIENCE_S)[0])
            driver.poll()
            driver.notifies.clear()
            return found

        yield is_told
    engine.dispose()


def test_relays_are_woken_by_each_change(coordinator: httpx.Client, pipeline: Pipeline, woken: Callable[[], bool]) -> None:
    batch_id = submit(coordinator, "nobody", "mentor-1")
    assert woken(), "the submission woke no relay"
    url = f"{API_PATH}/{batch_id}"
    pipeline.drain()
    assert woken(), "the completion woke no relay"
    changes: dict[str, Callable[[], httpx.Response]] = {
        "relabelled": lambda: coordinator.put(url, json={"label": "new"}),
        "retried": lambda: coordinator.post(f"{url}/retry"),
        "cancelled": lambda: coordinator.post(f"{url}/cancel"),
        "deleted": lambda: coordinator.delete(url),
    }
    for what, change in changes.items():
        assert change().status_code < 300
        assert woken(), what
    stopped = f"{API_PATH}/{pipeline.submit([item('mentor-9')])}"
    assert coordinator.put(stopped, json={"status": "cancelled"}).status_code == 200
    assert woken(), "the cancellation by an update woke no relay"


def test_relays_are_woken_by_revocations_and_by_closed_periods(
    api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline, woken: Callable[[], bool]
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    assert woken(), "the completion woke no relay"
    with api.client(Role.ADMIN, sub="boss") as admin:
        changes: dict[str, Callable[[], httpx.Response]] = {
            "an activity": lambda: coordinator.post(
                f"{ACTIVITIES_PATH}/{DerivedIds(batch_id).activity_id(0)}/revoke", json={"reason": "x"}
            ),
            "a batch": lambda: coordinator.post(f"{API_PATH}/{batch_id}/revoke", json={"reason": "x"}),
            "a period": lambda: admin.put(CLOSED_PERIOD_PATH, json={"closed_through": str(DAY), "reason": "x"}),
        }
        for what, change in changes.items():
            assert change().status_code == 200
            assert woken(), what
