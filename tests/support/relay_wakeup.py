"""Whether a transaction has woken the relays."""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2

from orchestrator.process.settings import Settings
from orchestrator.storage.relay_wakeup import CHANNEL


@contextmanager
def relay(settings: Settings) -> Iterator[Any]:
    """Listens like a relay that has nothing to do."""
    connection = psycopg2.connect(settings.owner_url.render_as_string(hide_password=False).replace("+psycopg2", ""))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")
    yield connection
    connection.close()


def is_woken(connection: Any) -> bool:
    """Whether a notification came since the last call. A commit's notification has arrived when the next statement returns."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    select.select([connection], [], [], 0)
    connection.poll()
    was_told = bool(connection.notifies)
    connection.notifies.clear()
    return was_told
