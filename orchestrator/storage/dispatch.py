"""Statements on `dispatch`: what an external registration service was asked and has answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Row, text

from orchestrator.batches.model import ItemError
from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/dispatch.sql")

_MARK = _SQL["mark"].text()
_OPEN = _SQL["open"].text()
_RECORD = _SQL["record"].text()
_FIND = _SQL["find"].text()

IN_DOUBT_SQL = "state IN ('asked', 'registered')"
"""An item that is not decided and has a dispatch in such a state may exist at the service: it is not ours to cancel or to correct."""

_POSITIONS_IN_DOUBT = text(f"""
    SELECT position FROM orchestrator.dispatch
    WHERE batch_id = :batch_id AND position = ANY (CAST(:positions AS integer[])) AND {IN_DOUBT_SQL} ORDER BY position
""")


class DispatchState(StrEnum):
    """Where an item stands with the service: asked without a definite answer, or what the answer was."""

    ASKED = "asked"
    REGISTERED = "registered"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What the books say about an item that the service was asked for."""

    state: DispatchState
    activity_id: str | None
    error: ItemError | None
    is_of_present_attempt: bool
    is_cancelled: bool


@dataclass(frozen=True, slots=True)
class SettledDispatch:
    """What the service said to the key with so many refusals before it."""

    batch_id: str
    position: int
    refusals: int
    state: DispatchState
    activity_id: str | None
    error: ItemError | None


def mark_dispatched(connection: Connection, commands: Sequence[OutcomeKey]) -> Sequence[Row[Any]]:
    """Marks as dispatched what may be sent, and answers the items in doubt with their values; `ord` counts from 1.

    The commands are of different items, and the transaction shares the lock of their batches.
    """
    keys = arrays.attempts(commands)
    connection.execute(_MARK, keys)
    return connection.execute(_OPEN, keys).all()


def record_settled(connection: Connection, answers: Sequence[SettledDispatch]) -> None:
    """Writes definite answers down, each for the key that it was given to."""
    errors = [None if answer.error is None else orjson.dumps(answer.error.as_json()).decode() for answer in answers]
    connection.execute(
        _RECORD,
        {
            **arrays.items((answer.batch_id, answer.position) for answer in answers),
            "refusals": arrays.plain([answer.refusals for answer in answers]),
            "states": arrays.plain([answer.state for answer in answers]),
            "activity_ids": arrays.plain([answer.activity_id or "NULL" for answer in answers]),
            "errors": arrays.texts(errors),
        },
    )


def dispatches(connection: Connection, items: Sequence[tuple[str, int]]) -> Mapping[int, Dispatch]:
    """By index, where these items (batch id, position) stand; absent: the service was never asked."""
    rows = connection.execute(_FIND, arrays.items(items))
    return {
        row.ord - 1: Dispatch(
            DispatchState(row.state),
            row.activity_id,
            None if row.error is None else ItemError.from_json(row.error),
            row.is_of_present_attempt,
            row.is_cancelled,
        )
        for row in rows
    }


def positions_in_doubt(connection: Connection, batch_id: UUID, positions: Sequence[int]) -> Sequence[int]:
    """Which of these undecided or failed items may exist at the service."""
    found = connection.execute(_POSITIONS_IN_DOUBT, {"batch_id": batch_id, "positions": arrays.plain(positions)})
    return list(found.scalars())
