"""Wakes the outbox relays after commits.

NOTIFY inside the transactions would serialise their commits (docs/architecture.md), so one connection sends one for all the requests that
came while the last was on its way. A lost one costs `relay_poll_ms`: the relays look by themselves, too.
"""

import threading

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from orchestrator.process.actions import Action, log_action
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.prepared import run

CHANNEL = "bulkreg_outbox"

_NOTIFY = f"NOTIFY {CHANNEL}"


class RelayWaker:
    """One per process; any thread may call `wake`."""

    def __init__(self, url: URL, settings: Settings) -> None:
        self._engine = create_database_engine(url, settings, connections=1, application_name="bulkreg waker").execution_options(
            isolation_level="AUTOCOMMIT"
        )
        self._asked = threading.Event()
        self._closing = False
        self._closed = False
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
        while not self._closed:
            self._asked.wait()
            try:
                with self._engine.connect() as connection:
                    self._serve(connection)
            except DBAPIError as error:
                log_action(Action.RELAY_WAKE_FAILED, role="api", error=type(error.orig).__name__)
                # Asked again by the next commit: nobody tries in a hot loop to reach a database that is away.
                self._asked.clear()
                self._closed = self._closing

    def _serve(self, connection: Connection) -> None:
        """Notifies whenever it is asked to, until the end. In one session: to take it from the pool for each cost twice the NOTIFY."""
        while not self._closed:
            self._asked.wait()
            # Before the NOTIFY, so that later commits cause another one.
            self._asked.clear()
            closing = self._closing
            run(connection, _NOTIFY, {})
            self._closed = closing
