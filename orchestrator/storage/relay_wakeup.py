"""Wakes the outbox relays after commits.

NOTIFY inside the transactions would serialize their commits (docs/architecture.md). So one connection sends a single NOTIFY for all requests
that arrived while the last one was being sent. A lost NOTIFY costs at most `relay_poll_ms`, because the relays also poll.
"""

import threading

from sqlalchemy import URL, Connection

from orchestrator.process.actions import Action, log_action
from orchestrator.process.settings import Settings
from orchestrator.storage import timelines
from orchestrator.storage.blame import kind_of
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.prepared import run

CHANNEL = "bulkreg_outbox"
UNHURRIED = "unhurried"
"""The payload for events that nobody waits for: a relay may wait a moment and publish them with others."""

_NOTIFY = f"NOTIFY {CHANNEL}"


class RelayWaker:
    """Sends the NOTIFY from a thread of its own. One per process; any thread may call `wake`."""

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
        """Wakes the relays soon. Call it after a commit that may have written to the outbox. Returns at once."""
        self._asked.set()

    def close(self) -> None:
        """Sends a last NOTIFY, and ends the thread."""
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
            except Exception as error:  # Also that of a bug: nobody would notice that this thread has ended.
                # The next commit sets the event again. So there is no hot loop while the database is unreachable.
                self._asked.clear()
                log_action(Action.RELAY_WAKE_FAILED, role="api", error=kind_of(error))
                self._closed = self._closing

    def _serve(self, connection: Connection) -> None:
        """Sends a NOTIFY after each `wake` until `close`. Uses one session: taking one from the pool each time cost twice as much as the
        NOTIFY itself."""
        while not self._closed:
            self._asked.wait()
            # Cleared before the NOTIFY, so that a later commit causes another one.
            self._asked.clear()
            closing = self._closing
            timelines.check(connection)
            run(connection, _NOTIFY, {})
            self._closed = closing
