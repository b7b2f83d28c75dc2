"""Streams to clients, followers that are woken, and requests that wait for their turn."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from api.http import streaming
from api.http.problems import ProblemError
from api.http.streaming import Stream
from api.load.admission import Admission
from api.load.database import Database
from api.load.watching import Watch, Watchers
from orchestrator.process.settings import Settings
from orchestrator.storage.backlog import Backlog
from tests.support.waiting import HELD_S, PATIENCE_S


def test_a_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_WRITE_TIMEOUT_S", 0.01)

    class Stopped(web.StreamResponse):
        async def write(self, data: Any) -> None:
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(Stream(Stopped()).write(b"x"))


def test_a_follower_is_woken_once_for_a_change() -> None:
    async def scenario() -> list[bool]:
        watch = Watch("o")
        watch.changed.set()
        return [await watch.wait(PATIENCE_S), await watch.wait(0.01)]

    assert asyncio.run(scenario()) == [True, False]


def test_an_urgent_change_ends_the_gathering_of_progress_once() -> None:
    async def scenario() -> list[bool]:
        watch = Watch("o")
        watch.changed.set()
        watch.urgent.set()
        await watch.gather(PATIENCE_S)
        gathering = asyncio.create_task(watch.gather(HELD_S))
        await asyncio.sleep(0.01)
        seen = [gathering.done(), await watch.wait(0.01)]
        watch.urgent.set()
        await gathering
        return seen

    assert asyncio.run(scenario()) == [False, False]


class Tables(Database):
    """The versions of batches, without a database."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.present: dict[str, int] = {}
        self.asked: list[tuple[Sequence[str], Sequence[str]]] = []
        self.failure: Exception | None = None
        self.looks = threading.Semaphore(0)

    def versions(self, organization_ids: Sequence[str], batch_ids: Sequence[str]) -> Mapping[str, int]:
        self.asked.append((list(organization_ids), sorted(batch_ids)))
        self.looks.release()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return self.present


@pytest.mark.parametrize("failure", [ProblemError("overloaded", "too much is waiting"), KeyError("a bug")], ids=["busy", "bug"])
def test_followers_are_woken_after_a_look_at_the_database(failure: Exception) -> None:
    """There are no announcements here, because there is no database."""
    settings = Settings(database_url="postgresql://x:y@127.0.0.1:1/x").model_copy(update={"api_watch_poll_ms": 1})
    tables = Tables(settings)
    watchers = Watchers(settings, tables)
    first, second = UUID(int=1), UUID(int=2)
    tables.present = {str(first): 4, str(second): 7}
    tables.failure = failure

    async def scenario() -> None:
        running = asyncio.create_task(watchers.run())
        with watchers.watch(first, "q") as one:
            one.version = 4
            with watchers.watch(second, "p") as other, watchers.watch(second, "p") as late:
                other.version, late.version = 7, 6
                assert await late.wait(PATIENCE_S), "the follower must be woken after a failing look, too"
                assert tables.asked[-1] == (["p", "q"], [str(first), str(second)])
                assert not one.changed.is_set()
                assert not other.changed.is_set()
                late.version = 7
                del tables.present[str(second)]
                assert await other.wait(PATIENCE_S), "a follower must be woken when its batch is deleted"
            tables.looks = threading.Semaphore(0)
            for _ in range(2):
                assert await asyncio.to_thread(tables.looks.acquire, timeout=PATIENCE_S)
            assert tables.asked[-1] == (["q"], [str(first)]), "only followed batches must be looked at"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    tables.close()


# --- Waiting for a turn ---------------------------------------------------------------------------------------------------------------


def test_a_request_that_waited_too_long_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("api.load.threads.time.monotonic", lambda: now[0])
    database = Database(Settings(api_database_connections=1).model_copy(update={"api_max_waiting_requests": 2}))
    begun, go_on = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert go_on.wait(HELD_S)
        return "done"

    async def scenario(waited_s: float) -> str:
        begun.clear()
        go_on.clear()
        running = asyncio.create_task(database.run(first, changes=True))
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        waiting = asyncio.create_task(database.run(lambda: "in time", changes=True))
        await asyncio.sleep(0)
        with pytest.raises(ProblemError, match="Too many requests") as refused:
            await database.run(lambda: "no room", changes=True)
        assert refused.value.code == "overloaded"
        now[0] += waited_s
        go_on.set()
        assert await running == "done"
        try:
            return await waiting
        except ProblemError as problem:
            return problem.code

    # Each run frees its place, however it ends.
    assert [asyncio.run(scenario(seconds)) for seconds in (4.5, 5, 5.5, 0)] == ["in time", "in time", "overloaded", "in time"]
    database.close()


def test_while_one_call_looks_the_others_use_what_was_seen_last() -> None:
    looking, go_on, now = threading.Event(), threading.Event(), [100.0]
    seen = Backlog(pending=0, folded=0)

    def look() -> Backlog:
        looking.set()
        assert go_on.wait(HELD_S)
        return seen

    admission = Admission(look, most_items=10, clock=lambda: now[0])
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(admission.admit, 4)
        assert looking.wait(PATIENCE_S)
        admission.admit(1_000)  # Nothing has been seen yet.
        go_on.set()
        first.result(PATIENCE_S)
        looking.clear()
        go_on.clear()
        now[0] += 60
        second = threads.submit(admission.admit, 1)
        assert looking.wait(PATIENCE_S)
        admission.admit(6)  # With the four, this is the limit.
        with pytest.raises(ProblemError):
            admission.admit(1)
        go_on.set()
        second.result(PATIENCE_S)
