"""Each of the API's threads has a connection, whatever the other threads do."""

import asyncio
import threading

from sqlalchemy import Engine

from api.load.database import Database
from orchestrator.process.settings import Settings
from tests.support.waiting import PATIENCE_S


def test_small_and_large_requests_have_connections_at_the_same_time(settings: Settings, engine: Engine) -> None:
    database = Database(settings.model_copy(update={"api_database_connections": 1}))
    all_in_a_transaction = threading.Barrier(3, timeout=PATIENCE_S)

    def work() -> int:
        return database.read("org-a", lambda _: all_in_a_transaction.wait())

    async def scenario() -> list[int]:
        return await asyncio.gather(*(database.run(work, is_large=is_large) for is_large in (False, True, True)))

    assert sorted(asyncio.run(scenario())) == [0, 1, 2]
    database.close()
