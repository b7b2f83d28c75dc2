"""The sweeper role: looks for what should have moved and has not, and drives it forward (invariant 5).

What is only queued is not stuck. An item counts as lost only when the consumers have passed where the topics ended at a moment when
it was old already and nothing of its batch was in the outbox: first the splitter, then the registration. Then it is sent again, ever
more rarely, and finally fails with `internal_error`. What was lost together with a topic is sent again as well, and that never
counts against the item. A batch that makes a step fail is set aside, and the others are swept (`isolation.py`).
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
from orchestrator.registration.results import ResultWriter
from orchestrator.registration.rules import INTERNAL_ERROR
from orchestrator.storage import outbox, sweeping
from orchestrator.storage.database import transact
from orchestrator.storage.locks import share_batches
from orchestrator.storage.observing import QueueState, note_queues
from orchestrator.storage.outcomes import NewOutcome, command_states, insert_outcomes
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.envelope import Topic

_COMMANDS = (Topic.COMMANDS, Topic.COMMANDS_BULK)
_TO_REGISTRATION = (Topic.BATCHES, *_COMMANDS)
_CONSUMED = (*_TO_REGISTRATION, Topic.RESULTS)

EndOffsets = Callable[[Sequence[Topic]], sweeping.Queues]
"""Asks the broker where the partitions of these topics begin and end."""


@dataclass(frozen=True, slots=True)
class SweepPolicy:
    """How patient the sweeper is."""

    quiet: timedelta
    resend_pause: timedelta
    max_resends: int
    parts_patience: timedelta
    bulk_threshold_items: int
    # Of each kind in one transaction. After an outage there are many at once: a sweep goes on while it finds as many as it may.
    max_items: int = 5_000
    max_rounds: int = 20

    @classmethod
    def of(cls, settings: Settings) -> "SweepPolicy":
        """The policy that the settings ask for."""
        return cls(
            quiet=timedelta(milliseconds=settings.sweep_stuck_after_ms),
            resend_pause=timedelta(milliseconds=settings.sweep_interval_ms),
            max_resends=settings.sweep_max_resends,
            parts_patience=timedelta(hours=settings.parts_timeout_hours),
            bulk_threshold_items=settings.bulk_threshold_items,
        )


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did, in items; `batches_ended` are upstream batches whose parts never came."""

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
    """Any number of sweepers may run; one of them sweeps at a time."""

    def __init__(self, policy: SweepPolicy, end_offsets: EndOffsets) -> None:
        self._policy = policy
        self._end_offsets = end_offsets

    def sweep(self, engine: Engine) -> Swept:
        """All steps, one after the other. Raises errors that no single batch causes, for instance a broker that does not respond."""
        return sum((step(engine) for step in self.steps.values()), Swept())

    @property
    def steps(self) -> Mapping[str, Callable[[Engine], Swept]]:
        """The steps of a sweep by name: each does what it can, whatever has become of the others.

        Each transaction takes its batches' locks before any row (decision 29), which one that began with folding could not.
        """
        return {
            "fold": self._fold_lost,
            "drive_on": self._drive_on_lost,
            "end_collections": self._end_overdue,
            "observe": self._observe,
        }

    def _fold_lost(self, engine: Engine) -> Swept:
        """Folds what is decided."""
        return self._repeatedly(engine, "fold", self._decided, self._fold)

    def _drive_on_lost(self, engine: Engine) -> Swept:
        """Drives on what is lost, and watches what may be."""
        # Progress is read once, before the marks of this sweep are taken: what this sweep gives a mark is for the next one to find behind
        # it. Where the queues are is asked for before: what is gone by now was gone when the progress was read.
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

    def _end_overdue(self, engine: Engine) -> Swept:
        """Ends what will never be whole."""
        return self._repeatedly(engine, "end_collections", self._overdue, self._end_collections)

    def _observe(self, engine: Engine) -> Swept:
        """Notes where the queues end and whether they move: the broker knows the one, the database the other."""
        queues = self._end_offsets(_CONSUMED)

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
        """One transaction after the other while they come to their limit; none of them does anything while somebody else sweeps."""
        isolation = Isolation(engine, step, find, work, may_work=sweeping.try_lock)
        total = Swept()
        for _ in range(self._policy.max_rounds):
            found, swept = isolation.round()
            total = sum(swept, total)
            if found < self._policy.max_items:
                break
        return total

    def _decided(self, connection: Connection, aside: Sequence[str]) -> Sequence[OutcomeKey]:
        return sweeping.decided_not_folded(connection, quiet=self._policy.quiet, aside=aside, limit=self._policy.max_items)

    def _fold(self, connection: Connection, decided: Sequence[OutcomeKey]) -> Swept:
        fold_outcomes(PostgresActivityRepository(connection), decided)
        return Swept(folded=len(decided))

    def _passed_marks(
        self, connection: Connection, *, queues: sweeping.Queues
    ) -> tuple[sweeping.PassedMarks, sweeping.PassedMarks]:
        """The marks that the splitter has passed, and those that the registration has."""
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
        """Through the outbox: what is sent, and that it was sent, is one decision."""
        is_bulk = self._lane_of(connection, keys)
        commands = commands_for(connection, keys, is_bulk=lambda index: is_bulk(keys[index]))
        sent = [EventOf(item.data["organization_id"], UUID(item.data["batch_id"]), command) for item, command in commands]
        outbox.insert_events(connection, sent)
        policy = self._policy
        sweeping.note_resent(connection, keys, gone=gone, pause=policy.resend_pause, max_resends=policy.max_resends)
        return len(commands)

    def _give_up(self, connection: Connection, keys: Sequence[OutcomeKey]) -> int:
        """Writes `internal_error` into the items' own dedup rows, under the lock that any registration of them takes, and announces it: a
        replay knows an outcome by its result only."""
        if not keys:
            return 0
        share_batches(connection, [key.batch_id for key in keys])
        now, states = command_states(connection, keys)
        given_up = [
            (state, NewOutcome(keys[index], state.organization_id, Outcome.FAILED, None, INTERNAL_ERROR))
            for index, state in states.items()
            # Cancelled since it was found hopeless: its remaining items wait for an external service's decision.
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
        """Tells whether an item travels in the bulk lane: as with the splitter, by how many were submitted or retried with it.

        So a repeated event is the first one, byte for byte. It is not where the threshold was set anew in between, or is above what an
        event holds: then the first part of a retry travels in the small lane. Nothing but fairness depends on the lane.
        """
        sizes = sweeping.sizes_of_requests(connection, keys)
        return lambda key: sizes.get(key, 0) > self._policy.bulk_threshold_items

    def _overdue(self, connection: Connection, aside: Sequence[str]) -> Sequence[sweeping.Overdue]:
        policy = self._policy
        return sweeping.unfinished_collections(connection, patience=policy.parts_patience, aside=aside, limit=policy.max_items)

    def _end_collections(self, connection: Connection, overdue: Sequence[sweeping.Overdue]) -> Swept:
        """Upstream batches whose parts did not come in time are rejected as a whole."""
        repository, parts = PostgresActivityRepository(connection), CollectedParts(connection)
        batch_ids = [UUID(each.batch_id) for each in overdue]
        repository.lock_batches(batch_ids)
        for batch_id in batch_ids:
            batch = repository.lock_batch(batch_id)
            if batch is not None and parts.forget(batch_id):
                repository.publish(batch.organization_id, batch_id, [incomplete_batch(batch, at=repository.clock())])
        return Swept(batches_ended=len(overdue))
