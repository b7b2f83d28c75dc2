"""The registration role: reads commands, decides one outcome for each, and produces results."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import cast

from sqlalchemy import Connection

from consumers.loop.handler import REGISTRATION, Handled, Lane, Record, RefusedError
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import Outcome
from orchestrator.process import metrics
from orchestrator.registration.external import CANCELLED_DECISION, dispatched_decisions
from orchestrator.registration.port import Candidate, Decision, RegistrationService
from orchestrator.registration.results import ResultWriter
from orchestrator.registration.rules import INTERNAL_ERROR
from orchestrator.storage.blame import kind_of
from orchestrator.storage.locks import share_batches_and_periods, share_periods
from orchestrator.storage.outcomes import CommandState, NewOutcome, command_states, insert_outcomes
from schemas.envelope import Topic
from schemas.events import EventData, RegisterActivity, RevokeActivity
from schemas.ids import derived_ids

Register = Callable[[Connection, Sequence[Candidate], datetime], Sequence[Decision | None]]


class RegistrationHandler:
    """Handles commands at least once, with the dedup table: a redelivered command only repeats its result.

    It reads values from the database and not from the command, so an event alone can't make anything happen.
    """

    name = REGISTRATION
    topics: tuple[Topic, ...] = (Topic.COMMANDS, Topic.COMMANDS_BULK)

    def __init__(self, service: RegistrationService) -> None:
        self._service = service

    def lane(self, topic: Topic, data: EventData) -> Lane:
        """Returns the lane of the command topic: each of the two is a lane."""
        return Lane.BULK if topic is Topic.COMMANDS_BULK else Lane.SMALL

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        """Decides new commands, and repeats the results of decided ones."""
        return self._handle(connection, records, self._service.register)

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        """Ends the item with `internal_error` when its command fails even alone, and puts the record aside for those who look for the bug.

        If an external service was asked for the item, the item may exist there. Then the `dispatch` row decides, or the item waits.
        """

        def fail(_: Connection, candidates: Sequence[Candidate], at: datetime) -> Sequence[Decision]:
            return [Decision(None, INTERNAL_ERROR)] * len(candidates)

        handled = self._handle(connection, [record], fail)
        return replace(handled, refused=[(0, RefusedError(INTERNAL_ERROR.code, kind_of(error)))])

    def _handle(self, connection: Connection, records: Sequence[Record[EventData]], register: Register) -> Handled:
        # A command to revoke is settled before the transaction, by `consumers/external/adapter.py`. Nothing is left to do for it here.
        records = [record for record in records if not isinstance(record.data, RevokeActivity)]
        if not records:
            return Handled(())
        commands = [cast("RegisterActivity", record.data) for record in records]
        keys = [OutcomeKey(str(command.batch_id), command.position, command.attempt) for command in commands]
        expected = {command.organization_id for command in commands}
        share_batches_and_periods(connection, [key.batch_id for key in keys], expected)
        now, states = command_states(connection, keys)
        if others := {state.organization_id for state in states.values()} - expected:
            # Only a command that somebody else wrote names another organization than its batch has.
            share_periods(connection, others)
        new = _first_of_each(keys, states)
        decided: dict[OutcomeKey, NewOutcome] = {}
        if new and now is not None:
            candidates = _candidates([(keys[index], states[index]) for index in new])
            decisions = _decisions(connection, candidates, [states[index] for index in new], register, now)
            for index, decision in zip(new, decisions, strict=True):
                if decision is not None:
                    decided[keys[index]] = _outcome(keys[index], states[index], decision)
            if decided:
                insert_outcomes(connection, list(decided.values()), now)
        writer = ResultWriter()
        produced = [
            writer.write(keys[index], state, decided.get(keys[index]), bulk=records[index].topic is Topic.COMMANDS_BULK)
            for index, state in states.items()
            if state.outcome is not None or keys[index] in decided
        ]
        return Handled(produced, count=partial(_count, list(decided.values())))


def _count(outcomes: Sequence[NewOutcome]) -> None:
    for (outcome, code), items in Counter((each.outcome, each.error.code if each.error else "") for each in outcomes).items():
        metrics.ITEMS_DECIDED.labels(outcome, code).inc(items)


def _decisions(
    connection: Connection, candidates: Sequence[Candidate], states: Sequence[CommandState], register: Register, now: datetime
) -> Sequence[Decision | None]:
    """Returns the decisions. The `dispatch` rows of an external service come first, then a cancel; `register` decides the others.

    So neither a cancelled batch nor an item that an external service may have registered gets an activity, whatever service is configured.
    """
    if not any(state.has_dispatches or state.is_cancelled for state in states):
        return register(connection, candidates, now)
    asked = [index for index, state in enumerate(states) if state.has_dispatches]
    settled = dispatched_decisions(connection, [candidates[index] for index in asked]) if asked else {}
    decisions: dict[int, Decision | None] = {asked[number]: decision for number, decision in settled.items()}
    decisions |= {
        index: CANCELLED_DECISION for index, state in enumerate(states) if state.is_cancelled and index not in decisions
    }
    free = [index for index in range(len(candidates)) if index not in decisions]
    if free:
        decisions |= zip(free, register(connection, [candidates[index] for index in free], now), strict=True)
    return [decisions[index] for index in range(len(candidates))]


def _first_of_each(keys: Sequence[OutcomeKey], states: Mapping[int, CommandState]) -> list[int]:
    """Returns the indexes of commands without an outcome. A command that occurs twice in the set counts once."""
    seen: set[OutcomeKey] = set()
    new: list[int] = []
    for index, state in states.items():
        if state.outcome is None and keys[index] not in seen:
            seen.add(keys[index])
            new.append(index)
    return new


def _candidates(new: Sequence[tuple[OutcomeKey, CommandState]]) -> list[Candidate]:
    return [
        Candidate(key.batch_id, key.position, state.item_id, derived_ids(key.batch_id).activity_id(key.position))
        for key, state in new
    ]


def _outcome(key: OutcomeKey, state: CommandState, decision: Decision) -> NewOutcome:
    if decision.error is not None:
        return NewOutcome(key, state.organization_id, Outcome.FAILED, None, decision.error)
    if decision.activity_id is None:
        return NewOutcome(key, state.organization_id, Outcome.CANCELLED, None, None)
    return NewOutcome(key, state.organization_id, Outcome.SUCCESS, decision.activity_id, None)
