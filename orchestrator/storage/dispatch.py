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

# Under the shared lock of the batches (`share_batches`), so that a cancel comes before or after. Rows are taken in order of batch and
# position, here and in `_RECORD`. An item whose key is in doubt is asked under the same again; a new attempt of a refused one under the
# next. Whatever was answered for good is left alone, and so is a cancelled batch: nothing of it is ever sent anew.
_MARK = text("""
    INSERT INTO orchestrator.dispatch AS d (batch_id, position, organization_id, attempt, state, dispatched_at)
    SELECT i.batch_id, i.position, i.organization_id, i.attempt, 'asked', clock_timestamp()
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
         AS n (batch_id, position, attempt)
    JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
    JOIN orchestrator.batch b ON b.batch_id = i.batch_id
    WHERE b.cancelled_at IS NULL
    ORDER BY i.batch_id, i.position
    ON CONFLICT (batch_id, position) DO UPDATE
    SET attempt = excluded.attempt, state = 'asked', error = NULL, dispatched_at = excluded.dispatched_at, answered_at = NULL
    WHERE d.state = 'asked' OR d.state = 'refused' AND d.attempt < excluded.attempt
""")

_OPEN = text("""
    SELECT n.ord, d.refusals, i.item_id::text, i.organization_id, i.mentor_id, b.coordinator_id, b.submitted_by, b.channel,
           i.activity_type, i.activity_date, i.duration_minutes, i.notes, i.override_duplicates, b.trace_id,
           b.cancelled_at IS NOT NULL AS is_cancelled
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
         WITH ORDINALITY AS n (batch_id, position, attempt, ord)
    JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
    JOIN orchestrator.batch b ON b.batch_id = i.batch_id
    JOIN orchestrator.dispatch d ON (d.batch_id, d.position) = (i.batch_id, i.position)
    WHERE d.state = 'asked'
    ORDER BY n.ord
""")

# Only an answer to the key that is in doubt counts: what comes late, or twice, changes nothing.
_RECORD = text("""
    WITH n AS (
        SELECT * FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:refusals AS integer[]),
                             CAST(:states AS text[]), CAST(:activity_ids AS uuid[]), CAST(:errors AS jsonb[]))
             AS n (batch_id, position, refusals, state, activity_id, error)
    ), locked AS (
        SELECT d.batch_id, d.position FROM orchestrator.dispatch d JOIN n USING (batch_id, position)
        WHERE d.state = 'asked' AND d.refusals = n.refusals
        ORDER BY d.batch_id, d.position FOR UPDATE OF d
    )
    UPDATE orchestrator.dispatch d
    SET state = n.state, activity_id = n.activity_id, error = n.error, answered_at = clock_timestamp(),
        refusals = d.refusals + CAST(n.state = 'refused' AS integer)
    FROM n JOIN locked USING (batch_id, position)
    WHERE (d.batch_id, d.position) = (n.batch_id, n.position)
""")

_FIND = text("""
    SELECT n.ord, d.state, d.activity_id::text, d.error, d.attempt = i.attempt AS is_of_present_attempt,
           b.cancelled_at IS NOT NULL AS is_cancelled
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[])) WITH ORDINALITY AS n (batch_id, position, ord)
    JOIN orchestrator.dispatch d ON (d.batch_id, d.position) = (n.batch_id, n.position)
    JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
    JOIN orchestrator.batch b ON b.batch_id = n.batch_id
""")

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
    rows = connection.execute(
        _FIND,
        arrays.items(items),
    )
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
