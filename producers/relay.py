"""The outbox relay: publishes the events that transactions wrote to the outbox, in order for each batch, at least once.

1. take or release slots, so that all live relays share them evenly
2. read the oldest rows of the owned slots: the first of each stream (a key on its topic), unless it is on its way already
3. send them; note what is acknowledged, without waiting long for the others
4. delete acknowledged rows; hold rows that were not accepted
5. repeat while there may be more; then wait for a NOTIFY, for an acknowledgement, or for the poll interval

The relay keeps no cursor and locks no row. It deletes what is published, so it also finds a row that commits late with a lower id. Order
holds because a batch's rows are in one slot, a slot has one owner, the writers of a batch take turns (they hold its lock), and at most one
row of a stream is on its way.

Trouble stays where it is (docs/decisions/0023-relay.md). A place is a topic or a partition. A place that does not acknowledge gets only an
occasional probe, and its rows are held in the table until one is accepted. A row that Kafka refuses even when it is sent alone is held as
refused, and so is its stream.

The owner of a slot is the session that holds the slot's advisory lock. The same session reads and deletes, so the ownership ends with it. A
relay that has lost a slot without noticing may publish rows a second time that were published before, never a new one. So the first copies
of a stream's events are in order, and consumers ignore the second copies.
"""

import contextlib
import select
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from psycopg2 import Error as DriverError
from sqlalchemy import Connection, text

from orchestrator.batches.publishing import Delivery, Publisher, Trouble
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.failpoints import Failpoint, failpoints
from orchestrator.process.health import LoopHealth
from orchestrator.process.settings import Settings
from orchestrator.process.tracing import current
from orchestrator.storage import timelines
from orchestrator.storage.blame import is_environments
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.observing import oldest_outbox_row_s
from orchestrator.storage.outbox import (
    REFUSED,
    SLOTS,
    Hold,
    OutboxRow,
    ReadLimits,
    Stream,
    delete_rows,
    held_places,
    held_rows,
    hold_rows,
    oldest_rows,
    read_by_key,
    reconsider_refused,
)
from orchestrator.storage.relay_wakeup import CHANNEL, UNHURRIED
from orchestrator.storage.slots import announce, balance
from producers.places import Places, backoff_s
from producers.publish_span import send_span

# Ten parts of a large batch: they delay others by some milliseconds.
MAX_ROUND_BYTES = 1024 * 1024
# How long a round waits for acknowledgements, which take some milliseconds. Later ones are handled in the next rounds.
ROUND_S = 0.1
# How often to check for acknowledgements while some are outstanding.
ACK_LOOK_S = 0.01
# A place that has not acknowledged a row for this long is in trouble. (A busy broker takes a tenth of that.)
SLOW_S = 2.0
# How many rows may be on their way to places that work, and to all. Less than the producer's queue, or the relay would wait for room in it.
MAX_FLIGHT_ROWS = 2_000
MAX_FLIGHT_BYTES = 4 * MAX_ROUND_BYTES
MAX_TOTAL_FLIGHT_BYTES = 32 * MAX_ROUND_BYTES
# How many places are tried separately. Streams that have a trouble of their own count, too.
MAX_PLACES = 100
# How long events that nobody waits for gather. Under load, submissions wake the relay in the meantime, which saves each second round.
GATHER_S = 0.05
# How late an idle relay notices `stop`.
STOP_LOOK_S = 0.25
# How long `stop` waits for outstanding acknowledgements.
DRAIN_S = 5.0
# How often the relay checks whether a broker responds (`LoopHealth`), and how often it does while acknowledgements come: the question may go
# to a broker that does not respond, and then takes a second.
CONTACT_INTERVAL_S = 5.0
CONTACT_INTERVAL_UNDER_LOAD_S = 60.0


class _NoBrokerError(Exception):
    """No broker responds to this relay. Another relay may reach one, so this one releases its slots."""


@dataclass(slots=True)
class _Sent:
    """A row on its way. `label` is the place that it was held for."""

    row: OutboxRow
    label: str | None
    delivery: Delivery
    index: int
    at: float
    place: str | None = None
    is_late: bool = False
    """It was not acknowledged in its own round. Rows that its stream got in the meantime were not read."""


class OutboxRelay:
    """One relay. `run` blocks its thread until `stop`, which any thread or signal handler may call."""

    def __init__(self, settings: Settings, publisher: Publisher, clock: Callable[[], float] = time.monotonic) -> None:
        """Only the thread of `run` uses `publisher`. `clock` decides only when to act again."""
        self.health = LoopHealth()
        self.slots: frozenset[int] = frozenset()
        """The slots of the outbox that this relay owns. Only the thread of `run` changes them."""
        self._settings = settings
        self._publisher = publisher
        self._clock = clock
        self._poll_s = settings.relay_poll_ms / 1000
        self._lease = timedelta(milliseconds=settings.relay_lease_ms)
        self._trouble_after_s = settings.trouble_after_ms / 1000
        # Often enough that other relays do not take this one for silent.
        self._balance_s = min(self._poll_s, self._lease.total_seconds() / 4)
        self._stopping = threading.Event()
        self._passed = failpoints(settings.failpoints)
        self._reconsidered: set[int] = set()
        self._places = Places()
        self._flight: dict[Stream, _Sent] = {}
        self._failures = 0
        self._contact_at = self._reached_at = self._acknowledged_at = float("-inf")

    def stop(self) -> None:
        """Asks the relay to finish its round and to release its slots."""
        self._stopping.set()

    def run(self) -> None:
        """Continues when the database or the broker is unavailable. Raises any other error, which is a bug."""
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
                    if not isinstance(error, _NoBrokerError) and not is_environments(error):
                        raise
                    self._back_off(error)
        finally:
            engine.dispose()

    def _session(self, connection: Connection) -> None:
        """Works until it is stopped or fails. Then it ends the session, so that another relay gets its slots."""
        try:
            connection.execute(text(f"LISTEN {CHANNEL}"))
            # No round waits for the disk. If a crash of the server loses a deletion, the row is published again.
            connection.execute(text("SET synchronous_commit = off"))
            # Longer than any statement here takes, and shorter than the lease, so that a healthy session keeps its lease.
            connection.execute(text(f"SET statement_timeout = {self._settings.relay_lease_ms // 2}"))
            read_by_key(connection)
            # A relay without a broker takes no slots, so that relays with a broker get them.
            self._reached_at = self._clock() - self._lease.total_seconds()
            self._note_contact()
            announce(connection)
            balanced_at = float("-inf")
            while not self._stopping.is_set():
                if self._clock() - balanced_at >= self._balance_s:
                    self._balance(connection)
                    balanced_at = self._clock()
                    if balanced_at - self._contact_at >= self._contact_interval_s(balanced_at):
                        self._note_contact()
                if not self._round(connection):
                    self._wait(connection)
            self._drain(connection)
        finally:
            self._own(frozenset())
            self._flight.clear()
            self._publisher.abandon()
            # A session that returns to the pool would live on and keep its locks.
            connection.invalidate()

    # --- Step 1: slots ----------------------------------------------------------------------------------------------------

    def _balance(self, connection: Connection) -> None:
        # A relay that stays with a former primary does not see what is written to the new one.
        timelines.check(connection)
        self._gather(connection, ROUND_S)
        # Rows that are on their way to a place in trouble do not keep the slot: it is harmless if the next owner publishes them as well.
        busy = {sent.row.owned_slot for sent in self._well()}
        owned = balance(connection, self.slots, lease=self._lease, busy=busy)
        new = owned - self.slots
        self._own(owned)
        self._note_age(connection)
        if new:
            if to_reconsider := new - self._reconsidered:
                reconsider_refused(connection, sorted(to_reconsider))
                self._reconsidered |= to_reconsider
            self._places.expect_held(held_places(connection, sorted(new)))

    def _note_age(self, connection: Connection) -> None:
        oldest_s = oldest_outbox_row_s(connection, self.slots)
        metrics.OUTBOX_OLDEST_SECONDS.set(oldest_s)
        is_too_old = oldest_s > self._trouble_after_s
        self.health.failing = (
            f"the oldest event of its slots waits for {oldest_s:.0f} s; bulkreg verify says which" if is_too_old else None
        )

    def _own(self, slots: frozenset[int]) -> None:
        if slots != self.slots:
            log_action(Action.RELAY_SLOTS, role="relay", slots=sorted(slots))
        self.slots = slots
        metrics.OUTBOX_SLOTS.set(len(slots))
        self.health.holding = f"owns {len(slots)} of the {SLOTS} slots of the outbox"

    # --- Steps 2 to 5: a round ----------------------------------------------------------------------------------------------

    def _round(self, connection: Connection) -> bool:
        """Publishes and deletes some rows. Returns whether there may be more to read. Raises DBAPIError.

        Rows that commit after the read are announced by a NOTIFY, so there is no need to read again at once. Such a read would mostly find
        nothing and cost as much as the round. (Half of all reads did, at 5,000 items/s.)
        """
        is_more = self._send_held(connection)
        is_more = self._send_oldest(connection) or is_more
        is_more = self._gather(connection, ROUND_S) or is_more
        self._failures = 0
        self.health.turned()
        return is_more

    def _send_oldest(self, connection: Connection) -> bool:
        """Sends the oldest rows of each stream. Returns whether reading stopped at a limit."""
        limits = self._room()
        if not self.slots or limits.max_rows <= 0:
            return False
        rows = oldest_rows(connection, sorted(self.slots), limits, busy=self._flight)
        is_more = len(rows) >= limits.max_rows or sum(len(row.event.value) for row in rows) >= limits.max_bytes
        if self._places.known:
            to_hold = [
                Hold(row, place, "its place is in trouble")
                for row in rows
                if self._places.is_failing(place := self._publisher.place(row.event))
            ]
            self._hold(connection, to_hold)
            held = {hold.row.outbox_id for hold in to_hold}
            rows = [row for row in rows if row.outbox_id not in held]
        self._send(rows, label=None)
        return is_more

    def _send_held(self, connection: Connection) -> bool:
        """Sends held rows of places that work again, and a probe to places that may. Returns whether there may be more."""
        is_more = False
        now = self._clock()
        for name in self._places.known:
            is_probe = self._places.is_failing(name)
            is_awaited = self._is_awaited(name)
            room = self._room()
            if (is_probe and (is_awaited or now < self._places.retry_at(name))) or room.max_rows <= 0:
                continue
            # A probe is the oldest row of each slot. So one row that has a trouble of its own can't hide that the place works again.
            limits = replace(room, max_rows_of_slot=1) if is_probe else room
            rows = held_rows(connection, name, sorted(self.slots), limits, busy=self._flight) if self.slots else []
            self._send(rows, label=name)
            if not rows and not is_awaited:
                self._places.forget(name)
            is_more = is_more or (bool(rows) and not is_probe)
        return is_more

    def _is_awaited(self, place: str) -> bool:
        return any(place in (sent.place, sent.label) for sent in self._flight.values())

    def _room(self) -> ReadLimits:
        """Returns how much may be read. Rows on their way to places in trouble take no room from others: no more are sent there."""
        bytes_in_all = sum(len(sent.row.event.value) for sent in self._flight.values())
        well = self._well()
        bytes_left = MAX_FLIGHT_BYTES - sum(len(sent.row.event.value) for sent in well)
        if bytes_left <= 0 or bytes_in_all >= MAX_TOTAL_FLIGHT_BYTES:
            return ReadLimits(0, 0)
        return ReadLimits(min(self._settings.relay_batch_rows, MAX_FLIGHT_ROWS - len(well)), min(MAX_ROUND_BYTES, bytes_left))

    def _send(self, rows: Sequence[OutboxRow], *, label: str | None) -> None:
        if not rows:
            return
        self._passed(Failpoint.RELAY_BEFORE_PUBLISH)
        delivery = self._publisher.send([row.event for row in rows])
        now = self._clock()
        for index, row in enumerate(rows):
            self._flight[row.stream] = _Sent(row, label, delivery, index, now)

    def _gather(self, connection: Connection, within_s: float) -> bool:
        """Waits for acknowledgements, except of places in trouble; then deletes and holds rows. Returns whether rows may have waited for
        these."""
        until = self._clock() + within_s
        while self._flight and (remaining := until - self._clock()) > 0:
            self._publisher.poll(min(ACK_LOOK_S, remaining))
            if not any(sent.index in sent.delivery.outstanding and not sent.is_late for sent in self._flight.values()):
                break
        return self._take_stock(connection)

    def _drain(self, connection: Connection) -> None:
        """Waits for the rows on their way to places that work. Otherwise the next owner of their slots would publish them again."""
        until = self._clock() + DRAIN_S
        while self._well() and self._clock() < until:
            self._publisher.poll(ACK_LOOK_S)
            self._take_stock(connection)

    def _well(self) -> list[_Sent]:
        """The rows on their way to places that are not in trouble."""
        return [sent for sent in self._flight.values() if sent.place is None or not self._places.is_failing(sent.place)]

    def _take_stock(self, connection: Connection) -> bool:
        now = self._clock()
        settled = [sent for sent in self._flight.values() if sent.index not in sent.delivery.outstanding]
        for sent in settled:
            del self._flight[sent.row.stream]
        for sent in self._flight.values():
            sent.is_late = True
            if now - sent.at >= SLOW_S:
                place = self._place(sent)
                if not self._places.is_failing(place):
                    self._places.failed(place, now, f"no acknowledgement for {SLOW_S:.0f} s")
        failed = [(sent, sent.delivery.failed[sent.index]) for sent in settled if sent.index in sent.delivery.failed]
        acknowledged = [sent for sent in settled if sent.index not in sent.delivery.failed]
        if acknowledged:
            self._acknowledged(connection, acknowledged)
        if failed:
            well = {self._place(sent) for sent in acknowledged}
            self._hold(connection, [hold for sent, trouble in failed if (hold := self._failed(sent, trouble, now, well))])
        return any(sent.is_late or sent.row.is_followed for sent in acknowledged)

    def _place(self, sent: _Sent) -> str:
        if sent.place is None:
            sent.place = self._publisher.place(sent.row.event)
        return sent.place

    def _acknowledged(self, connection: Connection, acknowledged: Sequence[_Sent]) -> None:
        self.health.broker_contact = True
        self._acknowledged_at = self._reached_at = self._clock()
        if self._places.known:
            for sent in acknowledged:
                self._places.works(self._place(sent))
                if sent.label is not None:
                    self._places.works(sent.label)
        self._passed(Failpoint.RELAY_AFTER_PUBLISH)
        if (tracer := current()) is not None:
            for sent in acknowledged:
                send_span(tracer, sent.row.batch_id, sent.row.event, waited_s=self._clock() - sent.at)
        delete_rows(connection, [sent.row for sent in acknowledged])
        metrics.OUTBOX_PUBLISHED.inc(len(acknowledged))
        self._passed(Failpoint.RELAY_AFTER_DELETE)

    def _failed(self, sent: _Sent, trouble: Trouble, now: float, well: Collection[str]) -> Hold | None:
        """Returns what the row is to wait for. None: it waits for that already. `well` are places that have just acknowledged other
        rows."""
        topic, place = sent.row.event.topic.value, self._place(sent)
        metrics.OUTBOX_FAILURES.labels("delivery").inc()
        if trouble.is_permanent:
            metrics.OUTBOX_REFUSED.labels(topic).inc()
            log_action(
                Action.EVENT_REFUSED,
                role="relay",
                batch=sent.row.batch_id,
                topic=topic,
                place=place,
                row=sent.row.outbox_id,
                error=trouble.detail,
            )
            # A broker has examined the row, so the place works.
            for name in {place, sent.label or place}:
                self._places.works(name)
            return Hold(sent.row, REFUSED, trouble.detail)
        # If others get through, the trouble is the row's own: its stream waits and its place goes on.
        cause = ":".join(sent.row.stream) if place in well and len(self._places.known) < MAX_PLACES else place
        for name in {cause, sent.label or cause}:
            self._places.failed(name, now, trouble.detail)
        return None if sent.label == cause else Hold(sent.row, cause, trouble.detail)

    def _hold(self, connection: Connection, holds: Sequence[Hold]) -> None:
        if not holds:
            return
        hold_rows(connection, holds)
        for hold in holds:
            if not hold.row.is_held and hold.held_for != REFUSED:
                metrics.OUTBOX_HELD.labels(hold.row.event.topic.value).inc()

    def _wait(self, connection: Connection) -> None:
        """Returns at a NOTIFY, at an acknowledgement, when a place may be tried again, after the poll interval, or when the relay is to
        stop."""
        driver = connection.connection.driver_connection
        assert driver is not None
        retries = [self._places.retry_at(name) for name in self._places.known if not self._is_awaited(name)]
        now = self._clock()
        deadline = min(now + self._balance_s, max(now + ACK_LOOK_S, min(retries, default=float("inf"))))
        # A NOTIFY may have arrived with the result of the last statement. If the connection has ended, the next statement raises.
        while not driver.closed and not self._stopping.is_set() and (remaining := deadline - self._clock()) > 0:
            if driver.notifies:
                if any(notice.payload != UNHURRIED for notice in driver.notifies):
                    break
                driver.notifies.clear()
                deadline = min(deadline, self._clock() + GATHER_S)
                continue
            if self._flight:
                self._publisher.poll(min(ACK_LOOK_S, remaining))
                if any(sent.index not in sent.delivery.outstanding for sent in self._flight.values()):
                    break
            if select.select([driver], [], [], 0 if self._flight else min(STOP_LOOK_S, remaining))[0]:
                with contextlib.suppress(DriverError):
                    driver.poll()
                if not driver.notifies:
                    break
        driver.notifies.clear()

    def _is_heard(self, now: float) -> bool:
        """Whether some broker has acknowledged something just now."""
        return now - self._acknowledged_at < CONTACT_INTERVAL_S

    def _contact_interval_s(self, now: float) -> float:
        return CONTACT_INTERVAL_UNDER_LOAD_S if self._is_heard(now) else CONTACT_INTERVAL_S

    def _note_contact(self) -> None:
        now = self._contact_at = self._clock()
        self.health.broker_contact = self._publisher.is_reachable() or self._is_heard(now)
        if self.health.broker_contact:
            self._reached_at = now
        elif now - self._reached_at >= self._lease.total_seconds():
            raise _NoBrokerError("no broker responds")

    def _back_off(self, error: Exception) -> None:
        why = "broker" if isinstance(error, _NoBrokerError) else "database"
        metrics.OUTBOX_FAILURES.labels(why).inc()
        told = str(error) if isinstance(error, _NoBrokerError) else without_values(error)
        log_action(Action.RELAY_FAILED, role="relay", error=told)
        self._failures += 1
        self._stopping.wait(backoff_s(self._failures - 1))
