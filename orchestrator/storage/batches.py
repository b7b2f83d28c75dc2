"""Statements on `batch` and `batch_part`."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator.batches.model import BatchFilter, BatchPage, BatchView, Measurement, Revocation
from orchestrator.batches.repository import ActivityRepository, BatchChange, BatchToCreate, EventOf
from orchestrator.batches.states import TERMINAL_BATCH_STATUSES, BatchStatus, Counts
from orchestrator.storage import arrays, creating, locks, outbox, relay_wakeup, revoking, watching
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.statements import read_statements
from schemas.envelope import OutgoingEvent
from schemas.spelling import SQL_BLANKS, SQL_INVISIBLE, canonical

BATCH_COLUMNS = """
    b.batch_id::text, b.organization_id, b.coordinator_id, b.submitted_by, b.channel, b.label, b.status, b.pending, b.completed,
    b.failed, b.cancelled, b.retry_number, b.version, b.edit_version, b.submitted_at, b.changed_at, b.completed_at,
    b.cancelled_at, b.cancelled_by, b.cancellation_reason, b.trace_id, b.revoked, b.dismissed_at,
    coalesce(b.measured_from, b.submitted_at) AS measured_from, coalesce(b.measured_items, b.total_items) AS measured_items,
    clock_timestamp() AS read_at
"""

# `b.failed > 0` saves reading the items of a batch of which none has failed.
ERRORS_BY_CODE = """
    (SELECT coalesce(jsonb_object_agg(code, n), '{}') FROM (
        SELECT i.error ->> 'code' AS code, count(*) AS n FROM orchestrator.batch_item i
        WHERE :counts_errors AND b.failed > 0 AND i.batch_id = b.batch_id AND i.status = 'failed' GROUP BY 1
    ) AS codes) AS errors_by_code
"""


def batch_view(row: Row[Any]) -> BatchView:
    """Converts a row with `BATCH_COLUMNS` to the domain's view of the batch."""
    return BatchView(
        batch_id=UUID(row.batch_id),
        organization_id=row.organization_id,
        coordinator_id=row.coordinator_id,
        submitted_by=row.submitted_by,
        channel=row.channel,
        label=row.label,
        status=BatchStatus(row.status),
        counts=Counts(row.pending, row.completed, row.failed, row.cancelled),
        retry_number=row.retry_number,
        version=row.version,
        edit_version=row.edit_version,
        submitted_at=row.submitted_at,
        changed_at=row.changed_at,
        completed_at=row.completed_at,
        cancelled_at=row.cancelled_at,
        cancelled_by=row.cancelled_by,
        cancellation_reason=row.cancellation_reason,
        trace_id=row.trace_id,
        measurement=Measurement(row.measured_from, row.measured_items, row.read_at),
        errors_by_code=getattr(row, "errors_by_code", {}),
        revoked=row.revoked,
        dismissed_at=row.dismissed_at,
    )


# The row lock blocks the aggregator. It can't deadlock with `_LOCK_FOR_FOLD`, because both lock batches in order of id, and then items.
_LOCK_ROW = text(
    f"SELECT {BATCH_COLUMNS} FROM orchestrator.batch b WHERE b.batch_id = :batch_id AND (b.deleted_at IS NULL OR :or_deleted)"
    " FOR NO KEY UPDATE"
)

# The aggregator's lock on its batches, taken before any item; see `_LOCK_ROW`.
_LOCK_FOR_FOLD = Prepared(f"""
    SELECT {BATCH_COLUMNS} FROM orchestrator.batch b WHERE b.batch_id = ANY (CAST(:batch_ids AS uuid[])) ORDER BY b.batch_id FOR NO KEY UPDATE
""")

_SQL = read_statements("orchestrator/storage/sql/batches.sql")

_CHANGE = _SQL["change"].prepared()
_MARK_CANCELLED = _SQL["mark_cancelled"].text()
_RELABEL = _SQL["relabel"].text()
_DISMISS = _SQL["dismiss"].text()
_DELETE = _SQL["delete"].text()
_CLOCK = _SQL["clock"].prepared()
_CLOCK_AFTER_DECISIONS = _SQL["clock_after_decisions"].text()

_WAKE_RELAYS = Prepared(f"SELECT pg_notify('{relay_wakeup.CHANNEL}', CAST(:payload AS text))")

_FIND = Prepared(f"""
    SELECT {BATCH_COLUMNS}, {ERRORS_BY_CODE} FROM orchestrator.batch b
    WHERE b.batch_id = :batch_id AND (b.deleted_at IS NULL OR :or_deleted)
""")

_FILTER = """
    b.organization_id = :organization_id AND b.deleted_at IS NULL
    AND (CAST(:statuses AS text[]) IS NULL OR b.status = ANY (CAST(:statuses AS text[])))
    AND (NOT :needs_attention OR (b.failed > 0 AND b.status <> 'cancelled' AND b.dismissed_at IS NULL))
    AND (CAST(:coordinator_id AS text) IS NULL OR b.coordinator_id = :coordinator_id)
    AND (CAST(:submitted_from AS timestamptz) IS NULL OR b.submitted_at >= :submitted_from)
    AND (CAST(:submitted_to AS timestamptz) IS NULL OR b.submitted_at < :submitted_to)
    AND (CAST(:label AS text) IS NULL
         OR strpos(lower(normalize(translate(b.label, :unseen, :blanks), NFC)), lower(:label)) > 0)
"""

# One statement, so that the page and the total are from one snapshot. The inner query finds the page first; otherwise the errors of the batches
# that OFFSET skips would be counted, too.
_LIST = text(f"""
    SELECT {BATCH_COLUMNS}, {ERRORS_BY_CODE}, (SELECT count(*) FROM orchestrator.batch b WHERE {_FILTER}) AS total
    FROM orchestrator.batch b
    WHERE b.batch_id = ANY (ARRAY (
        SELECT b.batch_id FROM orchestrator.batch b
        WHERE {_FILTER}
          AND (CAST(:after_at AS timestamptz) IS NULL OR (b.submitted_at, b.batch_id) < (:after_at, CAST(:after_id AS uuid)))
        ORDER BY b.submitted_at DESC, b.batch_id DESC
        LIMIT :limit OFFSET :offset))
    ORDER BY b.submitted_at DESC, b.batch_id DESC
""")
_COUNT = text(f"SELECT count(*) FROM orchestrator.batch b WHERE {_FILTER}")


CountErrors = Callable[[Sequence[BatchView]], list[BatchView]]
"""Returns the batches with the number of failed items by error code."""


class Batches(ActivityRepository):
    """The methods of the repository that are about batches."""

    def __init__(self, connection: Connection, count_errors: CountErrors | None = None) -> None:
        self._connection = connection
        # Without it, the statement that reads a batch also counts its errors.
        self._count_errors = count_errors

    def clock(self) -> datetime:
        now: datetime = _CLOCK.scalars(self._connection)[0]
        return now

    def clock_after_decisions(self, batch_id: UUID) -> datetime:
        now: datetime = self._connection.execute(_CLOCK_AFTER_DECISIONS, {"batch_id": batch_id}).scalar_one()
        return now

    def create_batches(self, batches: Sequence[BatchToCreate]) -> Set[UUID]:
        return creating.create_batches(self._connection, batches)

    def lock_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        locks.take_batches(self._connection, [batch_id])
        row = self._connection.execute(_LOCK_ROW, {"batch_id": batch_id, "or_deleted": or_deleted}).one_or_none()
        return None if row is None else batch_view(row)

    def lock_batches(self, batch_ids: Collection[UUID]) -> None:
        locks.take_batches(self._connection, batch_ids)
        self.lock_for_fold(sorted(batch_ids))

    def lock_for_fold(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchView]:
        rows = _LOCK_FOR_FOLD.named(self._connection, {"batch_ids": arrays.plain(batch_ids)})
        return {view.batch_id: view for view in map(batch_view, rows)}

    def change_batches(self, changes: Sequence[BatchChange]) -> None:
        if not changes:
            return
        _CHANGE.later(
            self._connection,
            {
                "batch_ids": arrays.plain([change.batch_id for change in changes]),
                "pending": arrays.plain([change.counts.pending for change in changes]),
                "completed": arrays.plain([change.counts.completed for change in changes]),
                "failed": arrays.plain([change.counts.failed for change in changes]),
                "cancelled": arrays.plain([change.counts.cancelled for change in changes]),
                "statuses": arrays.plain([change.status for change in changes]),
                "now": [change.now for change in changes],
                "completed_at": [change.completed_at for change in changes],
            },
        )
        watching.announce(
            self._connection,
            [change.batch_id for change in changes if change.status in TERMINAL_BATCH_STATUSES],
            going_on=[change.batch_id for change in changes if change.status not in TERMINAL_BATCH_STATUSES],
        )

    def mark_cancelled(self, batch_id: UUID, *, at: datetime, by: str, reason: str | None) -> None:
        self._connection.execute(_MARK_CANCELLED, {"batch_id": batch_id, "at": at, "by": by, "reason": reason})

    def relabel(self, batch_id: UUID, label: str | None, at: datetime) -> None:
        self._connection.execute(_RELABEL, {"batch_id": batch_id, "label": label, "at": at})
        watching.announce(self._connection, [batch_id])

    def mark_revoked(self, batch_id: UUID, positions: Sequence[int], revocation: Revocation) -> None:
        revoking.mark_revoked(self._connection, batch_id, positions, revocation)
        watching.announce(self._connection, [batch_id])

    def mark_requests(self, batch_id: UUID, requests: Mapping[int, str], revocation: Revocation) -> None:
        revoking.mark_requests(self._connection, batch_id, requests, revocation)
        watching.announce(self._connection, [batch_id])

    def dismiss(self, batch_id: UUID, *, at: datetime, by: str) -> None:
        self._connection.execute(_DISMISS, {"batch_id": batch_id, "at": at, "by": by})
        watching.announce(self._connection, [batch_id])

    def mark_deleted(self, batch_id: UUID, at: datetime) -> None:
        self._connection.execute(_DELETE, {"batch_id": batch_id, "at": at})
        watching.announce(self._connection, [batch_id])

    def publish(self, organization_id: str, batch_id: UUID, events: Sequence[OutgoingEvent]) -> None:
        self.publish_all([EventOf(organization_id, batch_id, event) for event in events])

    def publish_all(self, events: Sequence[EventOf]) -> None:
        outbox.insert_events(self._connection, events)

    def wake_relays(self, *, hurried: bool = True) -> None:
        _WAKE_RELAYS.later(self._connection, {"payload": "" if hurried else relay_wakeup.UNHURRIED})

    def find_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        parameters = {"batch_id": batch_id, "or_deleted": or_deleted, "counts_errors": self._count_errors is None}
        found = self._views(_FIND.named(self._connection, parameters))
        return found[0] if found else None

    def _views(self, rows: Iterable[Row[Any]]) -> list[BatchView]:
        """The batches as they are shown, with the number of failed items by error code."""
        views = [batch_view(row) for row in rows]
        return views if self._count_errors is None else self._count_errors(views)

    def list_batches(self, organization_id: str, wanted: BatchFilter) -> BatchPage:
        after_at, after_id = wanted.after or (None, None)
        parameters = {
            "organization_id": organization_id,
            "statuses": arrays.plain(wanted.statuses) if wanted.statuses else None,
            "needs_attention": wanted.needs_attention,
            "coordinator_id": wanted.coordinator_id,
            "submitted_from": wanted.submitted_from,
            "submitted_to": wanted.submitted_to,
            "label": None if wanted.label_contains is None else canonical(wanted.label_contains),
            # As in `canonical`: blanks of any width become plain ones, and invisible characters are removed.
            "unseen": SQL_BLANKS + SQL_INVISIBLE,
            "blanks": " " * len(SQL_BLANKS),
            "after_at": after_at,
            "after_id": after_id,
            # One more than shown, to see whether there is a next page.
            "limit": wanted.limit + 1,
            "offset": 0 if wanted.after else (wanted.page - 1) * wanted.limit,
            "counts_errors": self._count_errors is None,
        }
        rows = self._connection.execute(_LIST, parameters).all()
        batches = self._views(rows[: wanted.limit])
        last = batches[-1] if len(rows) > wanted.limit else None
        total = rows[0].total if rows else self._connection.execute(_COUNT, parameters).scalar_one()
        return BatchPage(batches, total, (last.submitted_at, last.batch_id) if last else None)
