"""Following a batch: long polls, server-sent events, tickets (docs/http.md)."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from api.access.tickets import ticket_key
from api.endpoints import batches, events
from api.http.problems import ProblemError
from api.load import watching as followers
from api.load.database import Database
from api.load.recent import RecentlyShown
from api.load.watching import Watch
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage import watching
from schemas.api.batches import BatchEvent, TicketResponse
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors
from tests.support.upstream import in_parts, submitted, upstream_item
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

# Far longer than a test waits, so a client that is woken in time was woken by the announcement.
LITTLE_ROOM = 20
NEVER_POLLS = {"api_watch_poll_ms": 3_600_000}


@pytest.fixture(autouse=True)
def _no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns heartbeats off, because they look at the batch, too."""
    monkeypatch.setattr(events, "_HEARTBEAT_S", 3_600.0)


@pytest.fixture
def api(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    """An API whose followers learn of changes only from announcements."""
    little_room = {"api_max_waiting_requests": LITTLE_ROOM}
    with running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), **NEVER_POLLS, **little_room})) as server:
        yield server


def announce(engine: Engine, batch_id: UUID) -> None:
    with engine.begin() as connection:
        watching.announce(connection, [batch_id])


LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


def listening(owner: Engine) -> bool:
    """Whether the API's listener is connected."""
    with owner.connect() as connection:
        return bool(connection.execute(text(f"SELECT count(*) {LISTENERS}")).scalar_one())


class Events:
    """A stream that a separate thread reads."""

    def __init__(self, client: httpx.Client, url: str, **headers: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.status: int | None = None
        self.is_cut = False
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(client, url, headers))
        self._thread.start()

    def _read(self, client: httpx.Client, url: str, headers: dict[str, str]) -> None:
        try:
            with client.stream("GET", url, headers=headers) as answer:
                self.status = answer.status_code
                for line in answer.iter_lines():
                    if line.startswith("id: "):
                        self.ids.append(int(line[4:]))
                    if line.startswith("data: "):
                        BatchEvent.model_validate_json(line[6:], extra="forbid")
                        self.events.append(json.loads(line[6:]))
        except httpx.TransportError:
            self.is_cut = True
        finally:
            self.ended.set()

    def finish(self) -> None:
        """Waits until the server ends the stream."""
        assert self.ended.wait(PATIENCE_S)
        assert not self.is_cut
        self._thread.join()


def test_a_long_poll_returns_when_something_changes(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine, owner: Engine
) -> None:
    batch_id = pipeline.submit(mentors(3))
    url = f"{API_PATH}/{batch_id}"
    tag = coordinator.get(url).headers["ETag"]
    eventually(lambda: listening(owner))
    answers: list[httpx.Response] = []
    poll = threading.Thread(
        target=lambda: answers.append(coordinator.get(url, params={"wait": "60s"}, headers={"If-None-Match": tag}))
    )
    poll.start()
    pipeline.drain()
    announce(engine, batch_id)
    poll.join()
    # A poll that waits to its end returns 304.
    assert (answers[0].status_code, answers[0].json()["status"]) == (200, "completed")

    began = time.monotonic()
    terminal = coordinator.get(url, params={"wait": "60s"}, headers={"If-None-Match": answers[0].headers["ETag"]})
    assert (terminal.status_code, time.monotonic() - began < 55) == (304, True)


@pytest.mark.parametrize("is_changed", [False, True])
def test_a_long_poll_that_continues_a_get_reads_the_batch_only_if_it_has_changed(
    coordinator: httpx.Client,
    pipeline: Pipeline,
    engine: Engine,
    owner: Engine,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_changed: bool,
) -> None:
    heard: set[str] = set()
    waits: list[float] = []
    waits_before_reads: list[int] = []
    changed, wait, look = RecentlyShown.changed, Watch.wait, Database.look

    def hear(recent: RecentlyShown, batch_ids: Collection[str]) -> None:
        changed(recent, batch_ids)
        heard.update(batch_ids)

    async def note_wait(watch: Watch, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return await wait(watch, timeout_s)

    def note_read(database: Database, *given: Any) -> Any:
        waits_before_reads.append(len(waits))
        return look(database, *given)

    monkeypatch.setattr(RecentlyShown, "changed", hear)
    monkeypatch.setattr(Watch, "wait", note_wait)
    batch_id = pipeline.submit(mentors(1))
    eventually(lambda: listening(owner))
    announce(engine, batch_id)
    eventually(lambda: str(batch_id) in heard)
    heard.clear()
    url = f"{API_PATH}/{batch_id}"
    tag = coordinator.get(url).headers["ETag"]
    if is_changed:
        pipeline.drain()
        eventually(lambda: str(batch_id) in heard)
        # Another batch that the same caller has just been shown, with the same tag.
        assert coordinator.get(f"{API_PATH}/{pipeline.submit(mentors(1, first=50))}").headers["ETag"] == tag
    monkeypatch.setattr(Database, "look", note_read)
    answer = coordinator.get(url, params={"wait": "1s"}, headers={"If-None-Match": tag})
    assert (answer.status_code, waits_before_reads) == ((200, [0]) if is_changed else (304, [1]))


def test_a_long_poll_does_not_rely_on_what_was_shown_while_nothing_is_heard(
    coordinator: httpx.Client,
    pipeline: Pipeline,
    owner: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(followers, "_RECONNECT_AFTER_S", HELD_S)
    waits: list[float] = []
    wait = Watch.wait

    async def note_wait(watch: Watch, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return await wait(watch, timeout_s)

    monkeypatch.setattr(Watch, "wait", note_wait)
    batch_id = pipeline.submit(mentors(1))
    eventually(lambda: listening(owner))
    url = f"{API_PATH}/{batch_id}"
    tag = coordinator.get(url).headers["ETag"]
    with owner.begin() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 60000) {LISTENERS}"))
    eventually(lambda: logged(caplog, Action.LISTENER_LOST))
    coordinator.put(url, json={"label": "nobody hears of it"})
    answer = coordinator.get(url, params={"wait": "20s"}, headers={"If-None-Match": tag})
    assert (answer.status_code, waits) == (200, []), "the batch has changed, and nobody will announce it"


def test_head_does_not_wait_for_a_change(coordinator: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    wait = Watch.wait

    async def note_wait(watch: Watch, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return await wait(watch, timeout_s)

    monkeypatch.setattr(Watch, "wait", note_wait)
    url = f"{API_PATH}/{pipeline.submit(mentors(1))}"
    tag = coordinator.get(url).headers["ETag"]
    answer = coordinator.head(url, params={"wait": "1s"}, headers={"If-None-Match": tag})
    assert (answer.status_code, waits) == (304, [])


def test_a_long_poll_gathers_progress_until_the_end(
    coordinator: httpx.Client, pipeline: Pipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    waits: list[float] = []
    reads: list[Database] = []
    changed, wait, look = RecentlyShown.changed, Watch.wait, Database.look

    def hear(recent: RecentlyShown, batch_ids: Collection[str]) -> None:
        changed(recent, batch_ids)
        heard.extend(batch_ids)

    async def note_wait(watch: Watch, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return await wait(watch, timeout_s)

    def note_read(database: Database, *given: Any) -> Any:
        reads.append(database)
        return look(database, *given)

    monkeypatch.setattr(RecentlyShown, "changed", hear)
    monkeypatch.setattr(Watch, "wait", note_wait)
    monkeypatch.setattr(Database, "look", note_read)
    monkeypatch.setattr(batches, "_GATHERS_S", 3_600.0)
    eventually(lambda: listening(owner))
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    first, *others = pipeline.take(Topic.COMMANDS)
    url = f"{API_PATH}/{batch_id}"
    tag = coordinator.get(url).headers["ETag"]
    reads.clear()
    with ThreadPoolExecutor(1) as beside:
        poll = beside.submit(coordinator.get, url, params={"wait": "60s"}, headers={"If-None-Match": tag})
        eventually(lambda: waits)
        pipeline.handle(pipeline.aggregator, pipeline.handle(pipeline.registration, [first]).events)
        eventually(lambda: str(batch_id) in heard)
        pipeline.handle(pipeline.aggregator, pipeline.handle(pipeline.registration, others).events)
        answer = poll.result()
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert len(reads) <= 2, "at its start, if at all, and at the end"


def test_a_long_poll_tells_of_progress_although_no_end_comes(
    coordinator: httpx.Client, pipeline: Pipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_GATHERS_S", 0.01)
    eventually(lambda: listening(owner))
    batch_id = pipeline.submit(mentors(3))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    first, *_ = pipeline.take(Topic.COMMANDS)
    url = f"{API_PATH}/{batch_id}"
    tag = coordinator.get(url).headers["ETag"]
    with ThreadPoolExecutor(1) as beside:
        poll = beside.submit(coordinator.get, url, params={"wait": "60s"}, headers={"If-None-Match": tag})
        pipeline.handle(pipeline.aggregator, pipeline.handle(pipeline.registration, [first]).events)
        answer = poll.result()
    assert (answer.status_code, answer.json()["status"], answer.json()["completed"]) == (200, "processing", 1)


def test_a_long_poll_returns_304_after_its_time(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{pipeline.submit(mentors(1))}"
    tag = coordinator.get(url).headers["ETag"]
    began = time.monotonic()
    answer = coordinator.get(url, params={"wait": "1s"}, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.headers["ETag"]) == (304, tag)
    assert time.monotonic() - began >= 1


def test_a_change_without_an_announcement_is_found(
    settings: Settings, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if a look at the database fails in between."""
    look = Database.versions
    failures: list[Exception] = [OperationalError("", {}, ConnectionError("a test's")), ProblemError("overloaded", "a test's")]

    def fail_at_first(database: Database, *given: Any) -> Any:
        if failures:
            raise failures.pop()
        return look(database, *given)

    monkeypatch.setattr(Database, "versions", fail_at_first)
    quick = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "api_watch_poll_ms": 50})
    with running_api(quick) as server, server.client() as client:
        url = f"{API_PATH}/{pipeline.submit(mentors(1))}"
        tag = client.get(url).headers["ETag"]
        pipeline.drain()
        tags = [tag]
        answer = client.get(url, params={"wait": "20s"}, headers={"If-None-Match": tags[0]})
        assert answer.status_code == 200
        relabelled = f"{API_PATH}/{pipeline.submit(mentors(1, first=50))}"
        stream = Events(client, f"{relabelled}/events")
        eventually(lambda: stream.events)
        pipeline.drain()
        stream.finish()
        assert stream.events[-1]["status"] == "completed"
    assert [line["error"] for line in logged(caplog, Action.WATCH_POLL_FAILED)] == ["ProblemError", "OperationalError"]


def test_the_listener_reconnects_after_it_was_disconnected(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine, owner: Engine
) -> None:
    eventually(lambda: listening(owner))
    batch_id = pipeline.submit(mentors(1))
    stream = Events(coordinator, f"{API_PATH}/{batch_id}/events")
    eventually(lambda: stream.events)
    with owner.begin() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 60000) {LISTENERS}"))
    # Nobody hears this announcement, so a follower must look at the batch when the listener is back.
    pipeline.drain()
    announce(engine, batch_id)
    stream.finish()
    assert stream.events[-1]["status"] == "completed"


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
