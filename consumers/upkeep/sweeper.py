"""The sweeper role: finds items that should have moved and have not, and drives them forward (invariant 5).

An item that only waits in a queue is not stuck. An item counts as lost when the consumers have passed a mark: where the topics ended at a
moment when the item was old already and nothing of its batch was in the outbox. The splitter has to pass such a mark first, then the
registration. Then the item is sent again, at growing intervals, and finally fails with `internal_error`. Items that were lost together
with a topic are sent again as well, and that never counts against the item. A batch that makes a step fail is set aside, and the others
are swept (`isolation.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import timedelta
from functools import partial
from operator import add
from uuid import UUID

from sqlalchemy import Connection, Engine

from consumers.upkeep.isolation import Found, Isolation
from orchestrator.batches.parts import incomplete_batch
from orchestrator.batches.projection import fold_outcomes
from orchestrator.batches.repository import EventOf, OutcomeKey
from orchestrator.batches.states import Outcome
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.settings import Settings
from orchestrator.registration.commands import commands_for
from orchestrator.registration.external_revoking import send_commands
from orchestrator.registration.results import ResultWriter
from orchestrator.registration.rules import INTERNAL_ERROR
from orchestrator.storage import outbox, sweeping
from orchestrator.storage.database import transact
from orchestrator.storage.locks import share_batches
from orchestrator.storage.observing import QueueState, note_queues
from orchestrator.storage.outcomes import NewOutcome, command_states, insert_outcomes
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.revocation_requests import RevocationKey, note_resent, open_requests, overdue_requests
from schemas.envelope import Topic

_COMMANDS = (Topic.COMMANDS, Topic.COMMANDS_BULK)
_TO_REGISTRATION = (Topic.BATCHES, *_COMMANDS)
_CONSUMED = (*_TO_REGISTRATION, Topic.RESULTS)
# No item waits for the notifier. But while none runs, nobody else knows what is not delivered.
_OBSERVED = (*_CONSUMED, Topic.LIFECYCLE)

EndOffsets = Callable[[Sequence[Topic]], sweeping.Queues]
"""Asks the broker where the partitions of these topics begin and end."""


@dataclass(frozen=True, slots=True)
class SweepPolicy:
    """How long the sweeper waits, and how much it does at once."""

    quiet: timedelta
    resend_pause: timedelta
    max_resends: int
    parts_patience: timedelta
    bulk_threshold_items: int
    # The most of each kind in one transaction. After an outage there are many, so a sweep continues while it finds as many as this.
    max_items: int = 5_000
    max_rounds: int = 20

    @classmethod
    def of(cls, settings: Settings) -> "SweepPolicy":
        """Returns the policy that the settings ask for."""
        return cls(
            quiet=timedelta(milliseconds=settings.sweep_stuck_after_ms),
            resend_pause=timedelta(milliseconds=settings.sweep_interval_ms),
            max_resends=settings.sweep_max_resends,
            parts_patience=timedelta(hours=settings.parts_timeout_hours),
            bulk_threshold_items=settings.bulk_threshold_items,
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did, in items. `batches_ended` are upstream batches whose parts never came."""

    folded: int = 0
    watched: int = 0
    resent: int = 0
    given_up: int = 0
    batches_ended: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def __add__(self, other: "Swept") -> "Swept":
        return Swept(*map(add, astuple(self), astuple(other)))


class Sweeper:
    """Any number of sweepers may run. One of them sweeps at a time."""

    def __init__(self, policy: SweepPolicy, end_offsets: EndOffsets) -> None:
        self._policy = policy
        self._end_offsets = end_offsets

    @property
    def steps(self) -> Mapping[str, Callable[[Engine], Swept]]:
        """Returns the steps of a sweep by name, in their order. Each runs even if others failed.

        A step raises errors that no single batch causes, for instance if the broker does not respond. Each transaction takes its
        batches' locks before any row (decision 29). A transaction that began with folding could not do that.
        """
        return {
            "fold": self._fold_lost,
            "drive_on": self._drive_on_lost,
            "ask_to_revoke_again": self._ask_again,
            "end_collections": self._end_overdue,
            "observe": self._observe,
        }

    def _fold_lost(self, engine: Engine) -> Swept:
        """Folds decided outcomes."""
        return self._repeatedly(engine, "fold", self._decided, self._fold)

    def _drive_on_lost(self, engine: Engine) -> Swept:
        """Drives lost items forward, and watches those that may be lost."""
        # Progress is read once, before this sweep takes its marks: the next sweep finds what this one puts behind a mark. The queues' ends
        # are read before the progress, so whatever is gone by then was also gone when the progress was read.
        queues = self._end_offsets(_CONSUMED)
        passed_by_splitter, passed = transact(engine, partial(self._passed_marks, queues=queues))
        driven = self._repeatedly(
            engine, "drive_on", partial(self._lost, passed=passed), partial(self._drive_on, gone=passed.gone)
        )
        watched = Swept()
        for _ in range(self._policy.max_rounds):
            more = transact(engine, partial(self._watch, passed_by_splitter=passed_by_splitter.all))
            watched += more
            if more.watched < self._policy.max_items:
                break
        return driven + watched

    def _ask_again(self, engine: Engine) -> Swept:
        """Sends requests to revoke again that an external service has not answered, for as long as it takes."""
        return self._repeatedly(engine, "ask_to_revoke_again", self._overdue_requests, self._request_again)

    def _end_overdue(self, engine: Engine) -> Swept:
        """Ends batches that will never be complete."""
        return self._repeatedly(engine, "end_collections", self._overdue, self._end_collections)

    def _observe(self, engine: Engine) -> Swept:
        """Notes where the queues end and whether they move. The broker knows their ends, the database the progress."""
        queues = self._end_offsets(_OBSERVED)

        def note(connection: Connection) -> dict[Topic, QueueState]:
            return note_queues(connection, queues) if sweeping.try_lock(connection) else {}

        for topic, state in transact(engine, note).items():
            metrics.QUEUE_RECORDS.labels(topic.value).set(state.waiting)
            metrics.QUEUE_STANDS_SECONDS.labels(topic.value).set(state.stands_s)
        return Swept()

    def _repeatedly(
        self,
        engine: Engine,
        step: str,
        find: Callable[[Connection, Sequence[str]], Sequence[Found]],
        work: Callable[[Connection, Sequence[Found]], Swept],
    ) -> Swept:
        """Runs one transaction after another while each reaches its limit. None of them does anything while another sweeper sweeps."""
        isolation = Isolation(engine, step, find, work, may_work=sweeping.try_lock)
        total = Swept()
        for _ in range(self._policy.max_rounds):
            found, swept = isolation.round()
            total = sum(swept, total)
            if found < self._policy.max_items:
                break
        return total

    def _decided(self, connection: Connection, aside: Sequence[str]) -> Sequence[sweeping.DecidedItem]:
        return sweeping.decided_not_folded(connection, quiet=self._policy.quiet, aside=aside, limit=self._policy.max_items)

    def _fold(self, connection: Connection, decided: Sequence[sweeping.DecidedItem]) -> Swept:
        fold_outcomes(PostgresActivityRepository(connection), [each.key for each in decided])
        if lost := [each.key for each in decided if each.is_lost]:
            self._announce(connection, lost)
        return Swept(folded=len(decided))

    def _announce(self, connection: Connection, keys: Sequence[OutcomeKey]) -> None:
        """Publishes the results of decided items, because a replay learns an outcome only from its result."""
        _, states = command_states(connection, keys)
        writer, is_bulk = ResultWriter(), self._lane_of(connection, keys)
        results = [
            EventOf(
                state.organization_id,
                UUID(keys[index].batch_id),
                writer.write(keys[index], state, None, bulk=is_bulk(keys[index])),
            )
            for index, state in states.items()
        ]
        outbox.insert_events(connection, results)

    def _passed_marks(
        self, connection: Connection, *, queues: sweeping.Queues
    ) -> tuple[sweeping.PassedMarks, sweeping.PassedMarks]:
        """Returns the marks that the splitter has passed, and those that the registration has."""
        if not sweeping.try_lock(connection):
            return sweeping.PassedMarks([], []), sweeping.PassedMarks([], [])
        sweeping.forget_moved(connection)
        return sweeping.passed_marks(connection, [Topic.BATCHES], queues), sweeping.passed_marks(connection, _COMMANDS, queues)

    def _lost(
        self, connection: Connection, aside: Sequence[str], *, passed: sweeping.PassedMarks
    ) -> Sequence[sweeping.LostCommand]:
        policy = self._policy
        return sweeping.lost_commands(connection, passed, max_resends=policy.max_resends, aside=aside, limit=policy.max_items)

    def _drive_on(self, connection: Connection, lost: Sequence[sweeping.LostCommand], *, gone: Sequence[int]) -> Swept:
        given_up = self._give_up(connection, [each.key for each in lost if each.is_hopeless])
        return Swept(
            resent=self._send_again(connection, [each.key for each in lost if not each.is_hopeless], gone), given_up=given_up
        )

    def _watch(self, connection: Connection, *, passed_by_splitter: Sequence[int]) -> Swept:
        """Creates the mark together with its watches; unreferenced marks are deleted.

        Reads the topics' end offsets last: events already seen to have left the outbox then lie before these offsets.
        """
        if not sweeping.try_lock(connection):
            return Swept()
        mark = sweeping.new_mark(connection)
        sweeping.advance(connection, mark, passed_by_splitter=passed_by_splitter)
        watched = sweeping.watch_quiet_items(connection, mark, quiet=self._policy.quiet, limit=self._policy.max_items)
        if sweeping.is_waited_for(connection, mark):
            sweeping.set_mark(connection, mark, _TO_REGISTRATION, self._end_offsets(_TO_REGISTRATION))
        return Swept(watched=watched)

    def _send_again(self, connection: Connection, keys: Sequence[OutcomeKey], gone: Sequence[int]) -> int:
        """Sends the items again through the outbox. The same transaction records that they were sent."""
        is_bulk = self._lane_of(connection, keys)
        commands = commands_for(connection, keys, is_bulk=lambda index: is_bulk(keys[index]))
        sent = [EventOf(item.data["organization_id"], UUID(item.data["batch_id"]), command) for item, command in commands]
        outbox.insert_events(connection, sent)
        policy = self._policy
        sweeping.note_resent(connection, keys, gone=gone, pause=policy.resend_pause, max_resends=policy.max_resends)
        return len(commands)

    def _give_up(self, connection: Connection, keys: Sequence[OutcomeKey]) -> int:
        """Writes `internal_error` into the items' rows of the dedup table, under the lock that their registration would take. Also
        announces it with a result, because a replay learns an outcome only from its result."""
        if not keys:
            return 0
        share_batches(connection, [key.batch_id for key in keys])
        now, states = command_states(connection, keys)
        given_up = [
            (state, NewOutcome(keys[index], state.organization_id, Outcome.FAILED, None, INTERNAL_ERROR))
            for index, state in states.items()
            # The batch was cancelled since the item was found: its remaining items wait for an external service's decision.
            if state.outcome is None and not state.is_cancelled
        ]
        if now is None or not given_up:
            return 0
        insert_outcomes(connection, [outcome for _, outcome in given_up], now)
        fold_outcomes(PostgresActivityRepository(connection), [outcome.key for _, outcome in given_up])
        writer, is_bulk = ResultWriter(), self._lane_of(connection, keys)
        results = []
        for state, outcome in given_up:
            key = outcome.key
            result = writer.write(key, state, outcome, bulk=is_bulk(key))
            results.append(EventOf(state.organization_id, UUID(key.batch_id), result))
            log_action(Action.ITEM_GIVEN_UP, role="sweeper", batch=key.batch_id, position=key.position, attempt=key.attempt)
        outbox.insert_events(connection, results)
        return len(given_up)

    def _lane_of(self, connection: Connection, keys: Sequence[OutcomeKey]) -> Callable[[OutcomeKey], bool]:
        """Returns a function that tells whether an item travels in the bulk lane. As in the splitter, the number of items that were
        submitted or retried together decides.

        So a repeated event equals the first one byte for byte, with two exceptions: the threshold was changed in between, or it is above
        what an event holds. Then the first part of a retry travels in the small lane. Only fairness depends on the lane.
        """
        sizes = sweeping.sizes_of_requests(connection, keys)
        return lambda key: sizes.get(key, 0) > self._policy.bulk_threshold_items

    def _overdue_requests(self, connection: Connection, aside: Sequence[str]) -> Sequence[RevocationKey]:
        policy = self._policy
        return overdue_requests(connection, quiet=policy.quiet, pause=policy.resend_pause, aside=aside, limit=policy.max_items)

    def _request_again(self, connection: Connection, overdue: Sequence[RevocationKey]) -> Swept:
        send_commands(connection, open_requests(connection, overdue))
        note_resent(connection, overdue)
        return Swept(resent=len(overdue))

    def _overdue(self, connection: Connection, aside: Sequence[str]) -> Sequence[sweeping.Overdue]:
        policy = self._policy
        return sweeping.unfinished_collections(connection, patience=policy.parts_patience, aside=aside, limit=policy.max_items)

    def _end_collections(self, connection: Connection, overdue: Sequence[sweeping.Overdue]) -> Swept:
        """Rejects upstream batches as a whole when their parts did not come in time."""
        repository, parts = PostgresActivityRepository(connection), CollectedParts(connection)
        batch_ids = [UUID(each.batch_id) for each in overdue]
        repository.lock_batches(batch_ids)
        for batch_id in batch_ids:
            batch = repository.lock_batch(batch_id)
            if batch is not None and parts.forget(batch_id):
                repository.publish(batch.organization_id, batch_id, [incomplete_batch(batch, at=repository.clock())])
        return Swept(batches_ended=len(overdue))
