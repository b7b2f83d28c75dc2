"""The sweeper role: looks for what should have moved and has not, and drives it forward (specification, 8, invariant 5).

What is only queued is not stuck. An item counts as lost only when the consumers have passed where the topics ended at a moment when
its batch was quiet already and nothing of it was in the outbox: first the splitter, then the registration. Then it is sent again, ever
more rarely, and in the end answered with `internal_error`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import timedelta
from functools import partial
from operator import add
from uuid import UUID

from sqlalchemy import Connection, Engine

from consumers.commands import commands_for
from consumers.results import ResultWriter
from orchestrator.projection import fold_outcomes
from orchestrator.repository import EventOf, OutcomeKey
from orchestrator.rules import INTERNAL_ERROR
from orchestrator.settings import Settings
from orchestrator.storage import outbox, parts, sweeping
from orchestrator.storage.database import transact
from orchestrator.storage.outcomes import NewOutcome, command_states, insert_outcomes, share_batches
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.submission import incomplete_batch
from schemas.envelope import Topic

_logger = logging.getLogger(__name__)

_COMMANDS = (Topic.COMMANDS, Topic.COMMANDS_BULK)

EndOffsets = Callable[[Sequence[Topic]], sweeping.Offsets]
"""Asks the broker where these topics end; partitions without a record may be left out."""


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
        """Folds what is decided, drives on what is lost, ends what will never be whole. Raises when the broker can't be asked.

        Each transaction takes its batches' locks before any row (architecture, 4), which one that began with folding could not.
        """
        folded = self._repeatedly(engine, self._fold)
        # Progress is read once, and before the ends are asked for: what has passed a mark by now had passed it when they were, and what
        # this sweep gives a mark is for the next one to find behind it.
        passed_by_splitter, passed = transact(engine, self._passed_marks)
        driven = self._repeatedly(engine, partial(self._drive_on, passed=passed))
        watched = self._repeatedly(engine, partial(self._watch, passed_by_splitter=passed_by_splitter))
        return folded + driven + watched + self._repeatedly(engine, self._end_collections)

    def _repeatedly(self, engine: Engine, step: Callable[[Connection], Swept]) -> Swept:
        """One transaction after the other while they come to their limit; none of them does anything while somebody else sweeps."""
        total = Swept()
        for _ in range(self._policy.max_rounds):
            swept = transact(engine, lambda connection: step(connection) if sweeping.try_lock(connection) else Swept())
            total += swept
            if sum(astuple(swept)) < self._policy.max_items:
                break
        return total

    def _fold(self, connection: Connection) -> Swept:
        decided = sweeping.decided_not_folded(connection, quiet=self._policy.quiet, limit=self._policy.max_items)
        fold_outcomes(PostgresActivityRepository(connection), decided)
        return Swept(folded=len(decided))

    def _passed_marks(self, connection: Connection) -> tuple[list[int], list[int]]:
        """The marks that the splitter has passed, and those that the registration has."""
        if not sweeping.try_lock(connection):
            return [], []
        sweeping.forget_moved(connection)
        return sweeping.passed_marks(connection, [Topic.BATCHES]), sweeping.passed_marks(connection, _COMMANDS)

    def _drive_on(self, connection: Connection, *, passed: Sequence[int]) -> Swept:
        policy = self._policy
        again, hopeless = sweeping.lost_commands(connection, passed, max_resends=policy.max_resends, limit=policy.max_items)
        given_up = self._give_up(connection, hopeless)
        return Swept(resent=self._send_again(connection, again), given_up=given_up)

    def _watch(self, connection: Connection, *, passed_by_splitter: Sequence[int]) -> Swept:
        """The mark is taken together with those that wait behind it: one that nobody waits behind is forgotten."""
        mark = sweeping.new_mark(connection, self._end_offsets((Topic.BATCHES, *_COMMANDS)))
        sweeping.advance(connection, mark, passed_by_splitter=passed_by_splitter)
        watched = sweeping.watch_quiet_items(connection, mark, quiet=self._policy.quiet, limit=self._policy.max_items)
        return Swept(watched=watched)

    def _send_again(self, connection: Connection, keys: Sequence[OutcomeKey]) -> int:
        """Through the outbox: what is sent, and that it was sent, is one decision."""
        is_bulk = self._lane_of(connection, keys)
        commands = commands_for(connection, keys, is_bulk=lambda index: is_bulk(keys[index]))
        sent = [EventOf(item.data["organization_id"], UUID(item.data["batch_id"]), command) for item, command in commands]
        outbox.insert_events(connection, sent)
        sweeping.note_resent(connection, keys, pause=self._policy.resend_pause, max_resends=self._policy.max_resends)
        return len(commands)

    def _give_up(self, connection: Connection, keys: Sequence[OutcomeKey]) -> int:
        """Answers `internal_error` in the items' own dedup rows, under the lock that any registration of them takes, and announces it: a
        replay knows an outcome by its result only."""
        if not keys:
            return 0
        share_batches(connection, [key.batch_id for key in keys])
        now, states = command_states(connection, keys)
        given_up = [
            (state, NewOutcome(keys[index], state.organization_id, "failed", None, INTERNAL_ERROR.as_json()))
            for index, state in states.items()
            # Cancelled since it was found hopeless: what is left of it waits for an external service's answer.
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
            _logger.error("sweeper: item_given_up: batch %s, position %d, attempt %d", key.batch_id, key.position, key.attempt)
        outbox.insert_events(connection, results)
        return len(given_up)

    def _lane_of(self, connection: Connection, keys: Sequence[OutcomeKey]) -> Callable[[OutcomeKey], bool]:
        """Tells whether an item travels in the bulk lane: as with the splitter, by how many were submitted or retried with it.

        So a repeated event is the first one, byte for byte. It is not where the threshold was set anew in between, or is above what an
        event holds: then the first part of a retry travels in the small lane. Nothing but fairness depends on the lane.
        """
        sizes = sweeping.sizes_of_requests(connection, keys)
        return lambda key: sizes.get(key, 0) > self._policy.bulk_threshold_items

    def _end_collections(self, connection: Connection) -> Swept:
        """Upstream batches whose parts did not come in time are rejected as a whole."""
        repository = PostgresActivityRepository(connection)
        overdue = sweeping.unfinished_collections(connection, patience=self._policy.parts_patience, limit=self._policy.max_items)
        for batch_id in overdue:
            batch = repository.lock_batch(batch_id)
            if batch is not None and parts.forget_batch(connection, batch_id):
                repository.publish(batch.organization_id, batch_id, [incomplete_batch(batch, at=repository.clock())])
        return Swept(batches_ended=len(overdue))
