"""Statements on `batch_item`, `item_history` and `outcome`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text

from orchestrator.batches.model import AttemptView, BatchView, ItemError, ItemFilter, ItemValues, ItemView, Revocation, StatusView
from orchestrator.batches.repository import Folded, NewAttempt, OutcomeKey
from orchestrator.batches.states import ItemStatus
from orchestrator.storage import arrays, dispatch
from orchestrator.storage.batches import BATCH_COLUMNS, ERRORS_BY_CODE, Batches
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.statements import read_statements
from schemas.corrections import CORRECTION, Correction

_COLUMNS = """
    i.item_id::text, i.position, i.mentor_id, i.activity_type, i.activity_date, i.duration_minutes, i.notes, i.client_reference,
    i.override_duplicates, i.status AS item_status, i.attempt, i.activity_id::text, i.error, i.planned,
    i.revoked_at, i.revoked_by, i.revocation_reason, i.revocation_request
"""


def _item_view(row: Row[Any]) -> ItemView:
    return ItemView(
        item_id=UUID(row.item_id),
        position=row.position,
        values=ItemValues(
            row.mentor_id, row.activity_type, row.activity_date, row.duration_minutes, row.notes, row.override_duplicates
        ),
        client_reference=row.client_reference,
        status=ItemStatus(row.item_status),
        attempt=row.attempt,
        activity_id=None if row.activity_id is None else UUID(row.activity_id),
        error=None if row.error is None else ItemError.from_json(row.error),
        planned=row.planned,
        revocation=None if row.revoked_at is None else Revocation(row.revoked_at, row.revoked_by, row.revocation_reason),
        revocation_request=row.revocation_request,
    )


def _correction(stored: Any) -> Correction | None:
    return None if stored is None else CORRECTION.validate_python(stored)


_SQL = read_statements("orchestrator/storage/sql/items.sql")

_FOLD = _SQL["fold"].prepared()
_FOLD_BATCH = _SQL["fold_batch"].text()

# Runs under the batch's exclusive lock, after a fold: a pending item has no outcome, and can't get another any more. A request that was
# already sent to an external service can't be stopped, so such an item stays pending, and the service's response decides (docs/states.md).
_CANCEL_PENDING = text(f"""
    WITH cancelled AS (
        UPDATE orchestrator.batch_item i SET status = 'cancelled', changed_version = b.version + 1
        FROM orchestrator.batch b
        WHERE b.batch_id = :batch_id AND i.batch_id = b.batch_id AND i.status = 'pending'
          AND NOT EXISTS (SELECT FROM orchestrator.dispatch d
                          WHERE (d.batch_id, d.position) = (i.batch_id, i.position) AND {dispatch.IN_DOUBT_SQL})
        RETURNING i.batch_id, i.position, i.attempt, i.organization_id
    ), decided AS (
        INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, created_at)
        SELECT batch_id, position, attempt, organization_id, 'cancelled', :at FROM cancelled
    )
    SELECT position, attempt FROM cancelled ORDER BY position
""")

_BY_STATUS = text(f"""
    SELECT {_COLUMNS} FROM orchestrator.batch_item i WHERE i.batch_id = :batch_id AND i.status = :status ORDER BY i.position
""")

_AT_POSITIONS = text(f"""
    SELECT {_COLUMNS} FROM orchestrator.batch_item i
    WHERE i.batch_id = :batch_id AND i.position = ANY (CAST(:positions AS integer[])) ORDER BY i.position
""")

_BY_IDENTITY = _SQL["by_identity"].text()
_KEEP_HISTORY = _SQL["keep_history"].text()
_BEGIN_ATTEMPTS = _SQL["begin_attempts"].text()
_NEXT_RETRY = _SQL["next_retry"].text()

# One statement, so that batch and items are from one snapshot. The batch is in the row of the first item, or in a row alone.
_STATUS = Prepared(f"""
    SELECT * FROM (
        SELECT 1 AS n, {BATCH_COLUMNS}, {ERRORS_BY_CODE} FROM orchestrator.batch b WHERE b.batch_id = :batch_id AND b.deleted_at IS NULL
    ) AS batch
    FULL JOIN (
        SELECT row_number() OVER (ORDER BY i.position) AS n, i.* FROM (
            SELECT {_COLUMNS} FROM orchestrator.batch_item i
            WHERE i.batch_id = :batch_id AND i.position > :after AND (CAST(:status AS text) IS NULL OR i.status = :status)
            ORDER BY i.position LIMIT :limit
        ) AS i
    ) AS page USING (n)
    ORDER BY n
""")

_HISTORY = _SQL["history"].text()
_CHANGED_SINCE = _SQL["changed_since"].text()


class Items(Batches):
    """The methods of the repository that are about items and their outcomes."""

    def fold(self, keys: Sequence[OutcomeKey], batches: Mapping[UUID, BatchView]) -> Folded:
        # Passes the versions of the batches. Joining the table again for each item took half of the statement's time.
        versions = {str(batch_id): batch.version for batch_id, batch in batches.items()}
        rows = _FOLD.named(
            self._connection,
            {
                **arrays.attempts(keys),
                # A batch that a promotion is restoring could not be locked. The promotion or the sweeper folds it.
                "versions": arrays.plain([versions.get(key.batch_id, "NULL") for key in keys]),
            },
        )
        changed: dict[UUID, dict[ItemStatus, int]] = {}
        unknown: list[int] = []
        at: datetime | None = None
        for row in rows:
            if row.ord is None:
                at = row.at
                changed.setdefault(UUID(row.batch_id), {})[ItemStatus(row.status)] = row.items
            else:
                unknown.append(row.ord - 1)
        return Folded(changed, sorted(unknown), at)

    def fold_batch(self, batch_id: UUID) -> Mapping[ItemStatus, int]:
        rows = self._connection.execute(_FOLD_BATCH, {"batch_id": batch_id})
        return {ItemStatus(row.status): row.items for row in rows}

    def cancel_pending(self, batch_id: UUID, at: datetime) -> Sequence[tuple[int, int]]:
        rows = self._connection.execute(_CANCEL_PENDING, {"batch_id": batch_id, "at": at})
        return [(row.position, row.attempt) for row in rows]

    def positions_in_doubt(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[int]:
        return dispatch.positions_in_doubt(self._connection, batch_id, positions)

    def items_by_status(self, batch_id: UUID, status: ItemStatus) -> Sequence[ItemView]:
        return [_item_view(row) for row in self._connection.execute(_BY_STATUS, {"batch_id": batch_id, "status": status})]

    def items_at(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[ItemView]:
        rows = self._connection.execute(_AT_POSITIONS, {"batch_id": batch_id, "positions": arrays.plain(positions)})
        return [_item_view(row) for row in rows]

    def positions_changed_since(self, batch_id: UUID, version: int) -> Sequence[int]:
        return list(self._connection.execute(_CHANGED_SINCE, {"batch_id": batch_id, "version": version}).scalars())

    def positions_of_identities(self, batch_id: UUID, values: Sequence[ItemValues]) -> Sequence[tuple[int, ItemValues]]:
        rows = self._connection.execute(
            _BY_IDENTITY,
            {
                "batch_id": batch_id,
                "mentors": arrays.texts([value.mentor_id for value in values]),
                "types": arrays.texts([value.activity_type for value in values]),
                "dates": arrays.plain([value.activity_date.isoformat() for value in values]),
            },
        )
        return [(row.position, values[row.ord - 1]) for row in rows]

    def begin_attempts(self, batch: BatchView, attempts: Sequence[NewAttempt], *, by: str, at: datetime) -> int:
        values = [attempt.values for attempt in attempts]
        positions = arrays.plain([attempt.position for attempt in attempts])
        corrections = [None if a.correction is None else orjson.dumps(a.correction).decode() for a in attempts]
        self._connection.execute(
            _KEEP_HISTORY,
            {"batch_id": batch.batch_id, "positions": positions, "corrections": arrays.texts(corrections), "by": by, "at": at},
        )
        self._connection.execute(
            _BEGIN_ATTEMPTS,
            {
                "batch_id": batch.batch_id,
                "positions": positions,
                "at": at,
                "version": batch.version + 1,
                "mentors": arrays.texts([value.mentor_id for value in values]),
                "types": arrays.texts([value.activity_type for value in values]),
                "dates": arrays.plain([value.activity_date.isoformat() for value in values]),
                "durations": arrays.plain([value.duration_minutes for value in values]),
                "notes": arrays.long_texts([value.notes for value in values]),
                "overrides": arrays.plain([value.override_duplicates for value in values]),
            },
        )
        number: int = self._connection.execute(
            _NEXT_RETRY, {"batch_id": batch.batch_id, "at": at, "attempts": len(attempts)}
        ).scalar_one()
        return number

    def status(self, batch_id: UUID, items: ItemFilter) -> StatusView | None:
        if items.limit is None:
            batch = self.find_batch(batch_id)
            return None if batch is None else StatusView(batch, (), None)
        rows = _STATUS.named(
            self._connection,
            {
                "batch_id": batch_id,
                "after": items.after_position,
                "status": items.status,
                "limit": items.limit + 1,
                "counts_errors": self._count_errors is None,
            },
        )
        if not rows or rows[0].batch_id is None:
            return None
        [batch] = self._views(rows[:1])
        shown = [_item_view(row) for row in rows[: items.limit] if row.position is not None]
        return StatusView(batch, shown, shown[-1].position if len(rows) > items.limit else None)

    def history(self, batch_id: UUID, position: int) -> Sequence[AttemptView]:
        rows = self._connection.execute(_HISTORY, {"batch_id": batch_id, "position": position})
        return [
            AttemptView(
                r.attempt,
                r.submitted,
                ItemError.from_json(r.error),
                r.attempt_at,
                _correction(r.correction),
                r.retried_by,
                r.retried_at,
            )
            for r in rows
        ]
