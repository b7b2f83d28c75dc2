"""Statements of the registration on the dedup table: find which commands are new, and insert their outcomes."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from orchestrator.batches.model import ItemError
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import Outcome
from orchestrator.storage import arrays
from orchestrator.storage.blame import TransientError
from orchestrator.storage.statements import read_statements
from schemas.ids import derived_ids


class CommandState(NamedTuple):
    """What the database has about a command. `outcome` is None if the command has to be handled."""

    item_id: str
    organization_id: str
    trace_id: str
    outcome: Outcome | None
    activity_id: str | None
    error: ItemError | None
    decided_at: datetime
    is_cancelled: bool
    """Whether the batch was cancelled. Nothing more of it is registered."""
    has_dispatches: bool
    """Whether an item of the batch was ever sent to an external registration service."""


class NewOutcome(NamedTuple):
    """The one durable outcome of a command."""

    key: OutcomeKey
    organization_id: str
    outcome: Outcome
    activity_id: str | None
    error: ItemError | None


_SQL = read_statements("orchestrator/storage/sql/outcomes.sql")

_BATCHES = _SQL["batches"].prepared()
_NOT_NEW = _SQL["not_new"].prepared()
_INSERT = _SQL["insert"].prepared()


def command_states(connection: Connection, keys: Sequence[OutcomeKey]) -> tuple[datetime | None, dict[int, CommandState]]:
    """The database's time, and the state of each command by index.

    Commands of unknown or purged batches are absent, and so are undecided ones of an attempt that is not the item's present one. They have no
    effect.
    """
    batches = {row[0]: row for row in _BATCHES.rows(connection, {"batch_ids": arrays.plain({key.batch_id for key in keys})})}
    if not batches:
        return None, {}
    not_new = _NOT_NEW.rows(connection, arrays.attempts(keys))
    decided = {
        number - 1: (
            None if outcome is None else Outcome(outcome),
            activity_id,
            None if error is None else ItemError.from_json(error),
            created_at,
        )
        for number, outcome, activity_id, error, created_at in not_new
    }
    ids = {batch_id: derived_ids(batch_id) for batch_id in batches}
    now: datetime = max(row[-1] for row in batches.values())
    new = (None, None, None, now)
    states: dict[int, CommandState] = {}
    for index, (batch_id, position, _) in enumerate(keys):
        outcome = decided.get(index, new)
        if batch_id in batches and (outcome is new or outcome[0] is not None):
            _, organization_id, trace_id, is_cancelled, has_dispatches, _ = batches[batch_id]
            item_id = ids[batch_id].item_id_text(position)
            decided_as, activity_id, error, decided_at = outcome
            states[index] = CommandState(
                item_id, organization_id, trace_id, decided_as, activity_id, error, decided_at, is_cancelled, has_dispatches
            )
    return now, states


def insert_outcomes(connection: Connection, outcomes: Sequence[NewOutcome], at: datetime) -> None:
    """Decides these commands. Raises TransientError if another delivery of one of them decided first; the caller must then roll back."""
    errors = [None if outcome.error is None else orjson.dumps(outcome.error.as_json()).decode() for outcome in outcomes]
    inserted = _INSERT.count(
        connection,
        {
            **arrays.attempts([outcome.key for outcome in outcomes]),
            "organizations": arrays.texts([outcome.organization_id for outcome in outcomes]),
            "outcomes": arrays.plain([outcome.outcome for outcome in outcomes]),
            "activity_ids": arrays.plain(["NULL" if o.activity_id is None else o.activity_id for o in outcomes]),
            "errors": arrays.texts(errors),
            "at": at,
        },
    )
    if inserted != len(outcomes):
        raise TransientError("another delivery of the same command decided first")
