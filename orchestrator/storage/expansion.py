"""Statements of the splitter: the pending items that commands are made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage import arrays
from orchestrator.storage.prepared import Prepared
from schemas.ids import derived_ids

# Only what is still pending in the very attempt: expanding twice, or after a cancel, brings at most commands that have no effect.
_PENDING = Prepared("""
    SELECT n.ord, i.attempt_at::text, i.mentor_id, i.activity_type, i.activity_date::text, i.duration_minutes, i.override_duplicates
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
         WITH ORDINALITY AS n (batch_id, position, attempt, ord)
    JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
    WHERE i.status = 'pending'
    ORDER BY n.ord
""")


# What all commands of a batch have in common: read once, and not with each item.
_BATCHES = Prepared("""
    SELECT batch_id::text, trace_id, organization_id, coordinator_id
    FROM orchestrator.batch WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))
""")


@dataclass(slots=True)
class PendingItem:
    """A pending item's attempt, as its command carries it. `index` is that of the key that named it."""

    index: int
    data: dict[str, Any]
    attempt_at: datetime
    trace_id: str


def pending_items(connection: Connection, keys: Sequence[OutcomeKey]) -> Iterator[PendingItem]:
    """The items that the keys name and that are pending in that attempt, in the order of the keys."""
    rows = _PENDING.rows(
        connection,
        arrays.attempts(keys),
    )
    batches = {row[0]: row for row in _BATCHES.rows(connection, {"batch_ids": arrays.plain({key.batch_id for key in keys})})}
    ids = {batch_id: derived_ids(batch_id) for batch_id in batches}
    # The items of a batch mostly begin their attempt together: to read its moment anew for each was half of what a row costs.
    moments: dict[str, datetime] = {}
    for number, at, mentor_id, activity_type, activity_date, duration_minutes, override_duplicates in rows:
        key = keys[number - 1]
        if key.batch_id not in batches:
            continue  # purged since
        batch_id, trace_id, organization_id, coordinator_id = batches[key.batch_id]
        attempt_at = moments.get(at) or moments.setdefault(at, datetime.fromisoformat(at))
        command = {
            "batch_id": batch_id,
            "item_id": ids[batch_id].item_id_text(key.position),
            "position": key.position,
            "attempt": key.attempt,
            "organization_id": organization_id,
            "coordinator_id": coordinator_id,
            "mentor_id": mentor_id,
            "activity_type": activity_type,
            "activity_date": activity_date,
            "duration_minutes": duration_minutes,
            "override_duplicates": override_duplicates,
        }
        yield PendingItem(number - 1, command, attempt_at, trace_id)
