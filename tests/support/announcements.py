"""What the followers of batches are told."""

import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine

from orchestrator.process.settings import Settings
from orchestrator.storage import watching
from tests.support.waiting import PATIENCE_S

Heard = Callable[[], list[str]]


@contextmanager
def following(settings: Settings, engine: Engine, said: list[watching.Announced]) -> Iterator[Heard]:
    """Yields a function that returns the announcements since its last call, each batch once. All of them are added to `said`, in their order."""
    listening = create_engine(settings.owner_url, isolation_level="AUTOCOMMIT")
    with listening.connect() as connection:
        connection.exec_driver_sql(f"LISTEN {watching.CHANNEL}")
        connection.exec_driver_sql("LISTEN test_is_over")
        driver = connection.connection.driver_connection
        assert driver is not None

        def listen() -> list[str]:
            with engine.begin() as another:
                # Announcements come in commit order, so those of earlier commits arrive before this one.
                another.exec_driver_sql("NOTIFY test_is_over")
            told: list[str] = []
            while select.select([driver], [], [], PATIENCE_S)[0]:
                driver.poll()
                told += [watching.announced(each.payload).batch_id or each.channel for each in driver.notifies]
                said.extend(watching.announced(each.payload) for each in driver.notifies if each.payload)
                driver.notifies.clear()
                if "test_is_over" in told:
                    return sorted(set(told[: told.index("test_is_over")]))
            raise AssertionError("the listener received no announcement")

        yield listen
    listening.dispose()
