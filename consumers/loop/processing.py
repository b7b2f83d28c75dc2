"""Steps 3 and 4 of the loop: handles a micro-batch in the database and produces the events that result."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Engine
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from consumers.loop.dead_letters import dead_letter
from consumers.loop.decoding import Entry
from consumers.loop.deliveries import IDLE_LOOK_S, Deliveries, Pending
from consumers.loop.handler import Handled, Handler, Preparation, RefusedError
from consumers.loop.micro_batch_span import send_span
from consumers.loop.postponing import Failure
from orchestrator.batches.publishing import Publisher
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.failpoints import Failpoint
from orchestrator.process.tracing import current, now_ns
from orchestrator.storage.blame import Blame, blame, is_environments, is_transient, kind_of
from orchestrator.storage.database import begin
from orchestrator.storage.progress import Position, advance_progress
from schemas.envelope import OutgoingEvent, Topic

# A database or broker that is unavailable is tried again after about 0.1 s, then at growing intervals. The longest bounds both the load on
# a server that is coming back and the time until its return is noticed.
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0

# A rival, or the holder of a lock, is mostly gone at the next try. After these tries the unit waits its turn behind others.
TRIES_OF_LOCKED = 3

Returned = TypeVar("Returned")
NextOffsets = Mapping[tuple[Topic, int], Position]


@dataclass(slots=True)
class _Settled:
    """The durable results of a part of a micro-batch."""

    events: list[OutgoingEvent] = field(default_factory=list)
    refused: list[tuple[Entry, RefusedError]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """The records that are not settled. They are tried again after others."""

    def __add__(self, other: "_Settled") -> "_Settled":
        return _Settled(self.events + other.events, self.refused + other.refused, self.failures + other.failures)


@dataclass(frozen=True, slots=True)
class Processed:
    """What the worker returns: records that failed, and events that may not be acknowledged yet."""

    failures: Sequence[Failure]
    pending: Pending


NOTHING = Processed((), Pending(0, []))


class Processor:
    """Handles micro-batches. It runs in the loop's worker thread."""

    def __init__(
        self,
        handler: Handler,
        engine: Engine,
        publisher: Publisher,
        passed: Callable[[Failpoint], None],
        stopping: threading.Event,
        preparation: Preparation | None = None,
    ) -> None:
        self._handler = handler
        self._engine = engine
        self._deliveries = Deliveries(handler.name, publisher)
        self._passed = passed
        self._stopping = stopping
        self._preparation = preparation
        self._tries_of_locked = TRIES_OF_LOCKED
        self._last_chance: str | None = None

    def process(self, entries: Sequence[Entry], next_offsets: NextOffsets, *, last_chance: str | None = None) -> Processed:
        """Returns when every effect is durable and every event is sent. Mostly all events are acknowledged by then.

        Returns failures for records that had no effect, if it is not known whether they are to blame. A record that fails alone with an
        error of the kind `last_chance` is given up instead.

        Retries for as long as the database is unavailable. If the loop is stopping, it raises the database's error. Any other error that it
        raises is a bug.
        """
        started_ns = now_ns()
        self._passed(Failpoint.CONSUMER_BEFORE_HANDLE)
        self._tries_of_locked = TRIES_OF_LOCKED
        self._last_chance = last_chance
        with metrics.STEP_SECONDS.labels(self._handler.name, "handle").time():
            settled = self._persistently(is_environments, "database", lambda: self._handle(entries, next_offsets))
        self._passed(Failpoint.CONSUMER_AFTER_HANDLE_COMMIT)
        letters = [dead_letter(entry, refusal) for entry, refusal in settled.refused]
        with metrics.STEP_SECONDS.labels(self._handler.name, "produce").time():
            pending = self._deliveries.send([*settled.events, *letters])
        if (tracer := current()) is not None:
            send_span(tracer, self._handler.name, entries, started_ns)
        self._passed(Failpoint.CONSUMER_AFTER_PRODUCE)
        self._count(entries, settled)
        return Processed(settled.failures, pending)

    def look_for_acknowledgements(self) -> Processed:
        """Sends again the outstanding events that are due, and waits a moment for acknowledgements."""
        self._deliveries.advance(IDLE_LOOK_S)
        return NOTHING

    @property
    def has_room(self) -> bool:
        """Whether another micro-batch may be processed while events of others are outstanding."""
        return self._deliveries.has_room

    def note_progress(self, next_offsets: NextOffsets) -> Processed:
        """Stores the progress of partitions whose last offsets hold no record. Raises as `process` does; nothing else can fail."""
        self._persistently(is_environments, "database", lambda: self._settle((), next_offsets))
        return NOTHING

    def _persistently(self, worth_it: Callable[[BaseException], bool], why: str, work: Callable[[], Returned]) -> Returned:
        def note(state: RetryCallState) -> None:
            metrics.RETRIES.labels(self._handler.name, why).inc()
            error = state.outcome.exception() if state.outcome else None
            log_action(
                Action.MICRO_BATCH_RETRIED,
                role=self._handler.name,
                attempt=state.attempt_number,
                error=without_values(error),
            )

        retrying = Retrying(
            retry=retry_if_exception(worth_it),
            wait=wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_MAX_S),
            stop=stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            before_sleep=note,
            reraise=True,
        )
        return retrying(work)

    # --- Step 3 -------------------------------------------------------------------------------------------------------

    def _handle(self, entries: Sequence[Entry], next_offsets: NextOffsets) -> _Settled:
        """Handles all entries in one transaction. If a record makes it fail, handles parts in transactions of their own."""
        unreadable = _Settled(refused=[(entry, entry.refusal) for entry in entries if entry.refusal is not None])
        readable = [entry for entry in entries if entry.record is not None]
        return unreadable + self._settle(readable, next_offsets)

    def _settle(self, entries: Sequence[Entry], next_offsets: NextOffsets) -> _Settled:
        records = [entry.record for entry in entries if entry.record is not None]
        try:
            if records and self._preparation is not None:
                with metrics.STEP_SECONDS.labels(self._handler.name, "prepare").time():
                    self._preparation.prepare(records, self._stopping)
            with begin(self._engine) as connection:
                handled = self._handler.handle(connection, records) if records else None
                advance_progress(connection, next_offsets)
        except Exception as error:
            if not entries or self._repeats_at_once(error):
                raise
            settled = self._judge(entries, error)
            # The offsets belong to the whole micro-batch, so they are written after the last part.
            if not settled.failures:
                with self._engine.begin() as connection:
                    advance_progress(connection, next_offsets)
            return settled
        if handled is None:
            return _Settled()
        handled.count()
        return _settled(entries, handled)

    def _repeats_at_once(self, error: Exception) -> bool:
        """Whether the same work is tried again before any other. Counts the tries after a rival or a lock."""
        if self._stopping.is_set() and is_transient(error):
            return True
        match blame(error):
            case Blame.PASSING:
                return True
            case Blame.RIVAL | Blame.LOCKED:
                self._tries_of_locked -= 1
                return self._tries_of_locked > 0
            case _:
                return False

    def _judge(self, entries: Sequence[Entry], error: Exception) -> _Settled:
        """Finds the record if the error is the record's fault or a bug, and settles it now. For other errors no record is blamed yet."""
        if blame(error) in (Blame.RECORD, Blame.BUG):
            return self._divide(entries, error)
        if len(entries) == 1 and kind_of(error) == self._last_chance:
            return self._give_up(entries[0], error)
        return _Settled(failures=[Failure(entries, error)])

    def _divide(self, entries: Sequence[Entry], error: Exception) -> _Settled:
        """Finds the record that can't be handled, and handles the others. Each part has its own transaction. Savepoints would keep the
        locks of what was rolled back, and so break the lock order."""
        if len(entries) == 1:
            return self._give_up(entries[0], error)
        metrics.BISECTIONS.labels(self._handler.name).inc()
        middle = len(entries) // 2
        return self._settle(entries[:middle], {}) + self._settle(entries[middle:], {})

    def _give_up(self, entry: Entry, error: Exception) -> _Settled:
        assert entry.record is not None
        if isinstance(error, RefusedError):
            return _Settled(refused=[(entry, error)])
        log_action(Action.RECORD_FAILED, role=self._handler.name, **entry.log_fields, error=without_values(error))
        try:
            with self._engine.begin() as connection:
                handled = self._handler.give_up(connection, entry.record, error)
        except Exception as last:
            if is_transient(last):
                raise
            if blame(last) is Blame.LASTING and kind_of(last) != self._last_chance:
                return _Settled(failures=[Failure([entry], last)])
            log_action(Action.GIVE_UP_FAILED, role=self._handler.name, **entry.log_fields, error=without_values(last))
            return _Settled(refused=[(entry, RefusedError("internal_error", kind_of(last)))])
        handled.count()
        return _settled([entry], handled)

    def _count(self, entries: Sequence[Entry], settled: _Settled) -> None:
        role = self._handler.name
        metrics.RECORDS.labels(role).inc(len(entries) - sum(len(failure.entries) for failure in settled.failures))
        metrics.BATCH_RECORDS.labels(role).observe(len(entries))
        metrics.RECORD_AGE_SECONDS.labels(role).set(time.time() - entries[0].raw.timestamp_ms / 1000)
        for entry, refusal in settled.refused:
            metrics.DEAD_LETTERS.labels(role, refusal.reason).inc()
            log_action(Action.DEAD_LETTERED, role=role, **entry.log_fields, reason=refusal.reason)


def _settled(entries: Sequence[Entry], handled: Handled) -> _Settled:
    return _Settled(list(handled.events), [(entries[index], refusal) for index, refusal in handled.refused])
