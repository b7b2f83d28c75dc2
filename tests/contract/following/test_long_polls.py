"""Following a batch by long polls (docs/http.md)."""

import gc
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from api.endpoints import batches
from api.http.problems import ProblemError
from api.load import watching as followers
from api.load.database import Database
from api.load.recent import RecentlyShown
from api.load.watching import Watch
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage import watching
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.support.api_server import KEY, running_api
from tests.support.following import LISTENERS, Events, announce, listening
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors
from tests.support.waiting import HELD_S, eventually


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that followers have begun, each by how long it may last, in seconds."""
    begun: list[float] = []
    wait = Watch.wait

    async def note(watch: Watch, timeout_s: float) -> bool:
        begun.append(timeout_s)
        return await wait(watch, timeout_s)

    monkeypatch.setattr(Watch, "wait", note)
    return begun


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The batches of which the API has heard that they changed."""
    heard: set[str] = set()
    changed = RecentlyShown.changed

    def note(recent: RecentlyShown, batch_ids: Collection[str]) -> None:
        changed(recent, batch_ids)
        heard.update(batch_ids)

    monkeypatch.setattr(RecentlyShown, "changed", note)
    return heard


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
    heard: set[str],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_changed: bool,
) -> None:
    waits_before_reads: list[int] = []
    look = Database.look

    def note_read(database: Database, *given: Any) -> Any:
        waits_before_reads.append(len(waits))
        return look(database, *given)

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
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(followers, "_RECONNECT_AFTER_S", HELD_S)
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


def test_a_long_poll_with_names_does_not_rely_on_what_was_shown(
    coordinator: httpx.Client, pipeline: Pipeline, engine: Engine, owner: Engine, heard: set[str], waits: list[float]
) -> None:
    """Nobody announces that a mentor has another name."""
    batch_id = pipeline.submit(mentors(1))
    eventually(lambda: listening(owner))
    announce(engine, batch_id)
    eventually(lambda: str(batch_id) in heard)
    url = f"{API_PATH}/{batch_id}"
    tag = coordinator.get(url, params={"names": "true"}).headers["ETag"]
    with owner.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET name = 'Another Name' WHERE mentor_id = 'mentor-1'"))
    answer = coordinator.get(url, params={"names": "true", "wait": "20s"}, headers={"If-None-Match": tag})
    assert (answer.status_code, "Another Name" in answer.text, waits) == (200, True, [])


def test_head_does_not_wait_for_a_change(coordinator: httpx.Client, pipeline: Pipeline, waits: list[float]) -> None:
    url = f"{API_PATH}/{pipeline.submit(mentors(1))}"
    tag = coordinator.get(url).headers["ETag"]
    answer = coordinator.head(url, params={"wait": "1s"}, headers={"If-None-Match": tag})
    assert (answer.status_code, waits) == (304, [])


def test_a_long_poll_gathers_progress_until_the_end(
    coordinator: httpx.Client,
    pipeline: Pipeline,
    owner: Engine,
    heard: set[str],
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[Database] = []
    look = Database.look

    def note_read(database: Database, *given: Any) -> Any:
        reads.append(database)
        return look(database, *given)

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


def test_the_listener_goes_on_after_a_bug(
    coordinator: httpx.Client,
    pipeline: Pipeline,
    engine: Engine,
    owner: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_payload: str) -> None:
        raise KeyError("a test's")

    eventually(lambda: listening(owner))
    batch_id = pipeline.submit(mentors(1))
    stream = Events(coordinator, f"{API_PATH}/{batch_id}/events")
    eventually(lambda: stream.events)
    with monkeypatch.context() as broken:
        broken.setattr(watching, "announced", fail)
        announce(engine, batch_id)
        eventually(lambda: logged(caplog, Action.LISTENER_LOST))
    pipeline.drain()
    stream.finish()
    assert stream.events[-1]["status"] == "completed"


def test_the_listener_begins_again_after_its_first_statement_was_cancelled(
    settings: Settings, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the limit of a statement does after a server stood still. The session stays usable. In the product the collector runs rarely."""

    def listeners(sql: str) -> int:
        with owner.connect() as connection:
            return int(connection.execute(text(sql)).scalar_one())

    monkeypatch.setattr(watching, "CHANNEL", f"{watching.CHANNEL}; SELECT pg_sleep(3600)")
    gc.disable()
    try:
        with running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})):
            eventually(lambda: listening(owner))
            monkeypatch.undo()
            assert listeners(f"SELECT count(pg_cancel_backend(pid)) {LISTENERS}") == 1
            eventually(lambda: listeners(f"SELECT count(*) {LISTENERS} AND query = 'LISTEN {watching.CHANNEL}'") == 1)
    finally:
        gc.enable()
