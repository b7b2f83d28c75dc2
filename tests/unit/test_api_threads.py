"""The API's worker threads: large requests leave threads for the others."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from api.http.problems import ProblemError
from api.load.database import Database
from api.load.threads import Threads
from orchestrator.process.settings import Settings
from tests.support.waiting import HELD_S, PATIENCE_S


@pytest.fixture
def database() -> Iterator[Database]:
    """No statement runs in this database. Connections are made only when they are needed."""
    database = Database(Settings(api_database_connections=4))
    yield database
    database.close()


def test_two_large_requests_run_at_a_time_and_the_others_have_threads(database: Database) -> None:
    begun: list[int] = []
    two_have_begun, go_on = threading.Event(), threading.Event()

    def large(number: int) -> int:
        begun.append(number)
        if len(begun) == 2:
            two_have_begun.set()
        assert go_on.wait(HELD_S)
        return number

    async def scenario() -> list[int]:
        waiting = [asyncio.create_task(database.run(partial(large, number), is_large=True)) for number in range(9)]
        assert await asyncio.to_thread(two_have_begun.wait, PATIENCE_S)
        others = await asyncio.wait_for(asyncio.gather(*(database.run(lambda: "small") for _ in range(20))), PATIENCE_S)
        assert others == ["small"] * 20
        assert len(begun) == 2
        go_on.set()
        return list(await asyncio.gather(*waiting))

    assert asyncio.run(scenario()) == list(range(9))


def test_a_request_that_gets_no_turn_before_its_deadline_changes_nothing() -> None:
    threads = Threads("one", threads=1, most_waiting=9, deadline_s=PATIENCE_S)
    begun, go_on = threading.Event(), threading.Event()
    changed: list[str] = []

    def hang() -> str:
        begun.set()
        assert go_on.wait(HELD_S)
        return "done"

    async def scenario() -> None:
        running = asyncio.create_task(threads.run(hang))
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        threads._deadline_s = 0.05
        try:
            with pytest.raises(ProblemError, match="Nothing was changed") as refused:
                await threads.run(lambda: changed.append("too late"))
        finally:
            go_on.set()
        assert (refused.value.code, "Retry-After" in refused.value.headers) == ("overloaded", True)
        assert await running == "done"
        threads.close()
        assert changed == []

    asyncio.run(scenario())
