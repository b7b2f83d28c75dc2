"""Wakes the outbox relays after commits.

NOTIFY inside the transactions would serialise their commits (architecture, 7), so one connection sends one for all the requests that
came while the last was on its way. A lost one costs `relay_poll_ms`: the relays look by themselves, too.
"""

import logging
import threading

from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from orchestrator.settings import Settings
from orchestrator.storage.database import create_database_engine

CHANNEL = "bulkreg_outbox"

_logger = logging.getLogger(__name__)
_NOTIFY = text(f"NOTIFY {CHANNEL}")


class RelayWaker:
    """One per process; any thread may call `wake`."""

    def __init__(self, url: URL, settings: Settings) -> None:
        self._engine = create_database_engine(url, settings, connections=1, application_name="bulkreg waker").execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._asked = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="relay-waker", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """To be called after a commit that may have written to the outbox. Returns at once."""
        self._asked.set()

    def close(self) -> None:
        """Sends what was asked for, and ends."""
        self._closing = True
        self._asked.set()
        self._thread.join()
        self._engine.dispose()

    def _run(self) -> None:
        closing = False
        while not closing:
            self._asked.wait()
            # Before the NOTIFY: whoever commits from here on gets another one.
            self._asked.clear()
            closing = self._closing
            try:
                with self._engine.connect() as connection:
                    connection.execute(_NOTIFY)
            except DBAPIError as error:
                _logger.warning("relay_wake_failed: %s", type(error.orig).__name__)
