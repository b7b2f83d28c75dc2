"""The outbox relay: publishes what transactions decided to publish, in order per batch, at least once.

1. take slots, or give some back, so that the relays that live share them evenly
2. read the oldest rows of the owned slots
3. publish them, wait for all acknowledgements
4. delete them
5. again while there may be more; then wait for a NOTIFY, or for the poll interval

No cursor is kept and no row is locked: what is published is deleted, so a row that commits late, with a lower id, is found like any
other. Order per batch holds because a batch's rows are in one slot, a slot has one owner, and the writers of a batch take turns (they
hold its lock). The owner is whoever holds the slot's advisory lock, in the very session that reads and deletes: with the session goes
the ownership. A relay that has lost it unawares publishes its rows a second time, whole and in order, which consumers don't mind.
"""

import logging
import random
import select
import threading
import time
from collections.abc import Sequence

from sqlalchemy import Connection, text

from orchestrator import metrics
from orchestrator.error_text import without_values
from orchestrator.failpoints import Failpoint, failpoints
from orchestrator.health import LoopHealth
from orchestrator.publishing import DeliveryError, Publisher
from orchestrator.settings import Settings
from orchestrator.storage.blame import is_environments
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.outbox import OutboxRow, delete_rows, oldest_rows, read_by_key
from orchestrator.storage.slots import announce, balance
from orchestrator.storage.wakeup import CHANNEL

_logger = logging.getLogger(__name__)

# Ten parts of a large batch: some milliseconds for which others wait.
MAX_ROUND_BYTES = 1024 * 1024
# How late `stop` is seen by an idle relay.
STOP_LOOK_S = 0.25
# How often an idle relay asks whether a broker answers (`LoopHealth`).
CONTACT_INTERVAL_S = 5.0
# After a failure, doubled with each in a row: soon enough for a restart, and no hot loop in an outage.
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


class OutboxRelay:
    """One relay. `run` blocks its thread until `stop`, which any thread or signal handler may call."""

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        """`publisher` is used by the thread that runs."""
        self.health = LoopHealth()
        self._settings = settings
        self._publisher = publisher
        self._poll_s = settings.relay_poll_ms / 1000
        self._stopping = threading.Event()
        self._passed = failpoints(settings.failpoints)
        self._slots: frozenset[int] = frozenset()
        self._failures = 0
        self._contact_at = -CONTACT_INTERVAL_S

    @property
    def slots(self) -> frozenset[int]:
        """The slots that it owns."""
        return self._slots

    def stop(self) -> None:
        """Asks the relay to finish its round and to give its slots back."""
        self._stopping.set()

    def run(self) -> None:
        """Goes on when the database or the broker is away; raises what else goes wrong, which is a bug."""
        engine = create_database_engine(
            self._settings.worker_url, self._settings, connections=1, application_name="bulkreg relay"
        )
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        try:
            while not self._stopping.is_set():
                try:
                    with engine.connect() as connection:
                        self._session(connection)
                except Exception as error:
                    if not isinstance(error, DeliveryError) and not is_environments(error):
                        raise
                    self._back_off(error)
        finally:
            engine.dispose()

    def _session(self, connection: Connection) -> None:
        """Works until it is stopped or fails. Then the session is ended, so that another relay, which may do better, has its slots."""
        try:
            connection.execute(text(f"LISTEN {CHANNEL}"))
            # A deletion that a crash of the server undoes publishes the row again; so no round waits for the disk.
            connection.execute(text("SET synchronous_commit = off"))
            read_by_key(connection)
            announce(connection)
            balanced_at = float("-inf")
            while not self._stopping.is_set():
                if time.monotonic() - balanced_at >= self._poll_s:
                    self._own(balance(connection, self._slots))
                    balanced_at = time.monotonic()
                    self._note_contact()
                if not self._round(connection):
                    self._wait(connection)
        finally:
            self._own(frozenset())
            # Returned to the pool, the session would live on, and the locks with it.
            connection.invalidate()

    def _own(self, slots: frozenset[int]) -> None:
        if slots != self._slots:
            _logger.info("relay_slots: %s", sorted(slots))
        self._slots = slots
        metrics.OUTBOX_SLOTS.set(len(slots))

    def _round(self, connection: Connection) -> bool:
        """Publishes and deletes some rows; whether it stopped at a limit, so that there may be more. Raises DeliveryError, DBAPIError.

        What is committed after the rows were read is followed by a NOTIFY: to look again at once would find nothing, mostly, and costs as
        much as the round. (Half of all looks did, at 5,000 items/s.)
        """
        max_rows = self._settings.relay_batch_rows
        rows = oldest_rows(connection, sorted(self._slots), max_rows=max_rows, max_bytes=MAX_ROUND_BYTES) if self._slots else []
        if rows:
            self._passed(Failpoint.RELAY_BEFORE_PUBLISH)
            self._publish(connection, rows)
            self._passed(Failpoint.RELAY_AFTER_DELETE)
        self._failures = 0
        self.health.turned()
        return len(rows) >= max_rows or sum(len(row.event.value) for row in rows) >= MAX_ROUND_BYTES

    def _publish(self, connection: Connection, rows: Sequence[OutboxRow]) -> None:
        try:
            self._publisher.publish([row.event for row in rows])
        except DeliveryError as error:
            self.health.broker_contact = False
            # One batch's event that Kafka refuses must not hold up the others. Of its own batch nothing is taken for done: what
            # comes after it would otherwise overtake it.
            held_up = {rows[index].event.key for index in error.unacknowledged}
            self._delete(connection, [row for row in rows if row.event.key not in held_up])
            raise
        self.health.broker_contact = True
        self._passed(Failpoint.RELAY_AFTER_PUBLISH)
        self._delete(connection, rows)

    def _delete(self, connection: Connection, rows: Sequence[OutboxRow]) -> None:
        if rows:
            delete_rows(connection, rows)
            metrics.OUTBOX_PUBLISHED.inc(len(rows))

    def _wait(self, connection: Connection) -> None:
        """Until a NOTIFY comes, the poll interval is over, or the relay is to stop."""
        driver = connection.connection.driver_connection
        assert driver is not None
        deadline = time.monotonic() + self._poll_s
        # A NOTIFY may have come with the answer to the last statement. Whatever lies on the socket the next statement will read, also
        # that the connection is gone.
        while not driver.notifies and not self._stopping.is_set() and (remaining := deadline - time.monotonic()) > 0:
            if select.select([driver], [], [], min(STOP_LOOK_S, remaining))[0]:
                break
        driver.notifies.clear()

    def _note_contact(self) -> None:
        if time.monotonic() - self._contact_at >= CONTACT_INTERVAL_S:
            self._contact_at = time.monotonic()
            self.health.broker_contact = self._publisher.is_reachable()

    def _back_off(self, error: Exception) -> None:
        why = "delivery" if isinstance(error, DeliveryError) else "database"
        metrics.OUTBOX_FAILURES.labels(why).inc()
        _logger.warning("relay_failed: %s", error if isinstance(error, DeliveryError) else without_values(error))
        delay_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        # Jitter, so that relays which failed together don't come back together.
        self._stopping.wait(delay_s * random.uniform(0.5, 1.0))  # noqa: S311
