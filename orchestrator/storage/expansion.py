"""Statements of the splitter: read the pending items from which it builds commands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements
from schemas.ids import derived_ids

_SQL = read_statements("orchestrator/storage/sql/expansion.sql")

_PENDING = _SQL["pending"].prepared()
_BATCHES = _SQL["batches"].prepared()


@dataclass(slots=True)
class PendingItem:
    """The attempt of a pending item, as its command carries it. `index` is the index of the key that named it."""

    index: int
    data: dict[str, Any]
    attempt_at: datetime
    trace_id: str


def pending_items(connection: Connection, keys: Sequence[OutcomeKey]) -> Iterator[PendingItem]:
    """The items that the keys name and that are pending in that attempt, in the order of the keys."""
    rows = _PENDING.rows(connection, arrays.attempts(keys))
    batches = {row[0]: row for row in _BATCHES.rows(connection, {"batch_ids": arrays.plain({key.batch_id for key in keys})})}
    ids = {batch_id: derived_ids(batch_id) for batch_id in batches}
    # Most items of a batch begin their attempt at the same time. Parsing that time for each item was half the cost of a row.
    moments: dict[str, datetime] = {}
    for number, at, mentor_id, activity_type, activity_date, duration_minutes, override_duplicates in rows:
        key = keys[number - 1]
        if key.batch_id not in batches:
            continue  # the batch was purged since
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
