"""Statements on `dispatch`: the items that were sent to an external registration service, and its responses."""

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
"""The service may have registered an undecided item with a dispatch in such a state, so we must not cancel or correct it."""

_POSITIONS_IN_DOUBT = text(f"""
    SELECT position FROM orchestrator.dispatch
    WHERE batch_id = :batch_id AND position = ANY (CAST(:positions AS integer[])) AND {IN_DOUBT_SQL} ORDER BY position
""")


class DispatchState(StrEnum):
    """The state of an item at the service: asked, without a definite response so far, or the definite response."""

    ASKED = "asked"
    REGISTERED = "registered"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The dispatch row of an item that was sent to the service."""

    state: DispatchState
    activity_id: str | None
    error: ItemError | None
    is_of_present_attempt: bool
    is_cancelled: bool


@dataclass(frozen=True, slots=True)
class SettledDispatch:
    """The service's definite response to the key with this number of refusals before it."""

    batch_id: str
    position: int
    refusals: int
    state: DispatchState
    activity_id: str | None
    error: ItemError | None


def mark_dispatched(connection: Connection, commands: Sequence[OutcomeKey]) -> Sequence[Row[Any]]:
    """Marks the items that may be sent as dispatched. Returns the items in doubt with their values; `ord` counts from 1.

    The commands must be for different items, and the transaction must hold the shared locks of their batches.
    """
    keys = arrays.attempts(commands)
    connection.execute(_MARK, keys)
    return connection.execute(_OPEN, keys).all()


def record_settled(connection: Connection, settled: Sequence[SettledDispatch]) -> None:
    """Stores definite responses, each for the key that it belongs to."""
    errors = [None if each.error is None else orjson.dumps(each.error.as_json()).decode() for each in settled]
    connection.execute(
        _RECORD,
        {
            **arrays.items((each.batch_id, each.position) for each in settled),
            "refusals": arrays.plain([each.refusals for each in settled]),
            "states": arrays.plain([each.state for each in settled]),
            "activity_ids": arrays.plain([each.activity_id or "NULL" for each in settled]),
            "errors": arrays.texts(errors),
        },
    )


def dispatches(connection: Connection, items: Sequence[tuple[str, int]]) -> Mapping[int, Dispatch]:
    """The dispatch rows of these items (batch id, position), by index. An item that was never sent to the service is absent."""
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
    """The positions of the given undecided or failed items that the service may have registered."""
    found = connection.execute(_POSITIONS_IN_DOUBT, {"batch_id": batch_id, "positions": arrays.plain(positions)})
    return list(found.scalars())
