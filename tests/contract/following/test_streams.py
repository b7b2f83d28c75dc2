"""Following a batch by server-sent events, and tickets (docs/http.md)."""

import asyncio
import contextlib
import json
import time
from uuid import uuid4

import httpx
import jwt
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.access.tickets import ticket_key
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from schemas.api.batches import TicketResponse
from schemas.paths import API_PATH
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.following import LITTLE_ROOM, NEVER_POLLS, Events, announce, listening
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors
from tests.support.upstream import in_parts, submitted, upstream_item
from tests.support.waiting import PATIENCE_S, eventually


def test_a_stream_has_the_changes_and_ends_with_the_terminal_state(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine
) -> None:
    batch_id = pipeline.submit([*mentors(3), *mentors(1, first=900)])
    url = f"{API_PATH}/{batch_id}/events"
    stream = Events(coordinator, url)
    eventually(lambda: stream.events)
    first = stream.events[0]
    assert (first["full"], first["status"], [item["position"] for item in first["items"]]) == (True, "processing", [0, 1, 2, 3])
    coordinator.put(f"{API_PATH}/{batch_id}", json={"label": "new label"})
    announce(engine, batch_id)
    eventually(lambda: len(stream.events) == 2)
    assert (stream.events[1]["full"], stream.events[1]["label"], stream.events[1]["items"]) == (False, "new label", [])
    pipeline.drain()
    announce(engine, batch_id)
    stream.finish()
    last = stream.events[-1]
    assert (last["status"], last["completed"], last["failed"], last["full"]) == ("partial", 3, 1, False)
    assert [(item["position"], item["status"]) for item in last["items"]] == [
        (0, "success"),
        (1, "success"),
        (2, "success"),
        (3, "failed"),
    ]
    assert stream.ids == sorted(set(stream.ids))

    # A reconnect gets what it missed. A client that has seen the end is told not to reconnect. An impossible Last-Event-ID gets everything.
    missed = Events(coordinator, url, **{"Last-Event-ID": str(stream.ids[1])})
    missed.finish()
    assert missed.events == [last]
    done = Events(coordinator, url, **{"Last-Event-ID": str(stream.ids[-1])})
    done.finish()
    assert (done.status, done.events) == (204, [])
    for beyond in ("999999", "x"):
        full = Events(coordinator, url, **{"Last-Event-ID": beyond})
        full.finish()
        assert [(event["full"], len(event["items"])) for event in full.events] == [(True, 4)]


def test_a_stream_of_failed_items_has_no_others(coordinator: httpx.Client, pipeline: Pipeline, engine: Engine) -> None:
    batch_id = pipeline.submit([*mentors(3), *mentors(2, first=900)])
    url = f"{API_PATH}/{batch_id}/events"
    stream = Events(coordinator, f"{url}?items=failed")
    eventually(lambda: stream.events)
    assert (stream.events[0]["full"], stream.events[0]["pending"], stream.events[0]["items"]) == (True, 5, [])
    pipeline.drain()
    announce(engine, batch_id)
    stream.finish()
    last = stream.events[-1]
    assert (last["full"], last["completed"], last["failed"]) == (False, 3, 2)
    assert [(item["position"], item["status"]) for item in last["items"]] == [(3, "failed"), (4, "failed")]
    again = Events(coordinator, f"{url}?items=failed")
    again.finish()
    assert [[item["position"] for item in event["items"]] for event in again.events] == [[3, 4]]
    others = Events(coordinator, f"{url}?items=success")
    others.finish()
    assert [[item["position"] for item in event["items"]] for event in others.events] == [[0, 1, 2]]
    refused = coordinator.get(url, params={"items": "done"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/items")


def test_the_stream_of_a_batch_in_parts_has_its_items_after_the_last_part(
    coordinator: httpx.Client, pipeline: Pipeline, owner: Engine
) -> None:
    batch_id = uuid4()
    first, last = in_parts(batch_id, [2, 1])
    pipeline.handle(pipeline.splitter, [first])
    eventually(lambda: listening(owner))
    stream = Events(coordinator, f"{API_PATH}/{batch_id}/events")
    eventually(lambda: stream.events)
    assert (stream.events[0]["status"], stream.events[0]["pending"], stream.events[0]["items"]) == ("pending", 3, [])
    pipeline.handle(pipeline.splitter, [last])
    eventually(lambda: len(stream.events) == 2)
    assert (stream.events[1]["status"], stream.events[1]["full"]) == ("processing", False)
    assert [(item["position"], item["status"]) for item in stream.events[1]["items"]] == [(n, "pending") for n in range(3)]
    pipeline.drain()
    stream.finish()
    assert stream.events[-1]["status"] == "completed"


def test_the_stream_of_a_rejected_batch_is_cut_and_a_reconnect_finds_nothing(
    coordinator: httpx.Client, pipeline: Pipeline, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id = uuid4()
    pipeline.handle(pipeline.splitter, [in_parts(batch_id, [2, 1])[0]])
    url = f"{API_PATH}/{batch_id}/events"
    eventually(lambda: listening(owner))
    stream = Events(coordinator, url)
    eventually(lambda: stream.events)
    # The mentor is also in the first part, so the whole batch is refused.
    wrong = submitted(batch_id, [upstream_item(2, "mentor-1")], part=2, parts=2, total_items=3)
    pipeline.handle(pipeline.splitter, [wrong])
    assert stream.ended.wait(PATIENCE_S)
    assert stream.is_cut
    assert [line["error"] for line in logged(caplog, Action.STREAM_CUT)] == ["NotFoundError"]
    assert coordinator.get(url).status_code == 404


def test_a_ticket_opens_the_stream_of_one_batch(api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline) -> None:
    batch_id, other = pipeline.submit(mentors(1)), pipeline.submit(mentors(1, first=7))
    pipeline.drain()
    answer = coordinator.post(f"{API_PATH}/{batch_id}/events")
    assert answer.status_code == 201
    TicketResponse.model_validate_json(answer.content, extra="forbid")
    ticket = answer.json()["ticket"]
    with httpx.Client(base_url=api.url, timeout=PATIENCE_S) as browser:
        stream = Events(browser, f"{API_PATH}/{batch_id}/events?ticket={ticket}")
        stream.finish()
        assert (stream.status, stream.events[-1]["status"]) == (200, "completed")
        assert browser.get(f"{API_PATH}/{other}/events", params={"ticket": ticket}).status_code == 401
        assert browser.get(f"{API_PATH}/{batch_id}", params={"ticket": ticket}).status_code == 401
        assert browser.get(API_PATH, headers={"Authorization": f"Bearer {ticket}"}).status_code == 401
        assert browser.get(f"{API_PATH}/{batch_id}/events", params={"ticket": api.token()}).status_code == 401
        claims, key = jwt.decode(ticket, options={"verify_signature": False}), ticket_key(api.settings)
        assert claims["exp"] - int(time.time()) <= 60
        made = {
            "anew": jwt.encode(claims, key),
            "expired": jwt.encode(claims | {"exp": int(time.time()) - 1}, key),
            "with the key of tokens": jwt.encode(claims, KEY),
        }
        opened = {
            how: browser.get(f"{API_PATH}/{batch_id}/events", params={"ticket": mine}).status_code for how, mine in made.items()
        }
        assert opened == {"anew": 200, "expired": 401, "with the key of tokens": 401}
    with api.client(sub="coord-colleague") as colleague:
        assert colleague.post(f"{API_PATH}/{batch_id}/events").content == colleague.post(f"{API_PATH}/{uuid4()}/events").content
        assert colleague.get(f"{API_PATH}/{batch_id}/events").status_code == 404


def test_a_stream_ends_with_its_token_and_with_the_server(settings: Settings, pipeline: Pipeline) -> None:
    running = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "jwt_leeway_s": 0, **NEVER_POLLS})
    batch_id = pipeline.submit(mentors(1))
    with contextlib.ExitStack() as stack:
        with running_api(running) as server:
            claims = jwt.decode(server.token(), options={"verify_signature": False})
            for life_s in (2, 40):  # A slow machine may take longer to ask than the token lives.
                expires_at = int(time.time()) + life_s
                token = jwt.encode(claims | {"exp": expires_at}, KEY)
                short = stack.enter_context(
                    httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S)
                )
                ending = Events(short, f"{API_PATH}/{batch_id}/events")
                ending.finish()
                if ending.status == 200:
                    break
            assert (ending.status, time.time() >= expires_at - 0.1) == (200, True)
            lasting = Events(stack.enter_context(server.client()), f"{API_PATH}/{batch_id}/events")
            eventually(lambda: lasting.events)
        # A complete end, not a cut connection: the server ended the stream itself.
        lasting.finish()


def test_many_idle_followers_run_no_statements(api: ApiServer, pipeline: Pipeline, engine: Engine, owner: Engine) -> None:
    followers, batch_id = 200, pipeline.submit(mentors(1))
    eventually(lambda: listening(owner))

    def asked_at() -> dict[int, object]:
        """When each session of the API began its last statement."""
        with owner.connect() as connection:
            sessions = connection.execute(
                text(
                    "SELECT pid, query_start FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'bulkreg api%'"
                )
            )
            return {session.pid: session.query_start for session in sessions}

    async def read_events(client: httpx.AsyncClient, begun: list[None], door: asyncio.Semaphore) -> str:
        status = ""
        await door.acquire()
        async with client.stream("GET", f"{API_PATH}/{batch_id}/events") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    if not status:
                        begun.append(None)
                        door.release()
                    status = json.loads(line[6:])["status"]
        return status

    async def follow() -> list[str]:
        # They connect a few at a time. When the batch changes, all of them ask at once.
        begun: list[None] = []
        door = asyncio.Semaphore(LITTLE_ROOM // 2)
        headers = {"Authorization": f"Bearer {api.token()}"}
        limits = httpx.Limits(max_connections=followers)
        async with httpx.AsyncClient(base_url=api.url, headers=headers, limits=limits, timeout=PATIENCE_S) as client:
            streams = [asyncio.create_task(read_events(client, begun, door)) for _ in range(followers)]
            await asyncio.to_thread(eventually, lambda: len(begun) == followers)
            before = await asyncio.to_thread(asked_at)
            await asyncio.sleep(1.5)  # The idle time in which statements are counted.
            assert before
            assert await asyncio.to_thread(asked_at) == before
            await asyncio.to_thread(pipeline.drain)
            await asyncio.to_thread(announce, engine, batch_id)
            return await asyncio.gather(*streams)

    assert asyncio.run(follow()) == ["completed"] * followers
