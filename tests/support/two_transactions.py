"""Two transactions at the same time: what the first one has done and not committed, the second one waits for."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine, text

from orchestrator.storage.database import transact
from tests.support.waiting import PATIENCE_S, eventually

Result = TypeVar("Result")

_WAITS = text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')")


def begun_meanwhile(
    engine: Engine,
    first: Callable[[Connection], object],
    second: Callable[[Connection], Result],
    *,
    look: Callable[[], object] = lambda: None,
) -> Result:
    """Begins the second transaction when the first one has done its work, and commits the first one when the second one waits for it, or has
    ended. Calls `look` before that commit. Returns the result of the second one."""
    looking = engine.execution_options(isolation_level="AUTOCOMMIT")
    with ThreadPoolExecutor(1) as threads, engine.connect() as connection, looking.connect() as watcher:
        first(connection)
        waiting = threads.submit(transact, engine, second)
        eventually(lambda: waiting.done() or watcher.scalar(_WAITS), what="a transaction that waits for another one")
        look()
        connection.commit()
        return waiting.result(PATIENCE_S)
