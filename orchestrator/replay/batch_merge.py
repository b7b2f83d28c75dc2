"""Statements that merge one rebuilt batch (`replay/shadow_tables.py`) into the live tables, under the batch's lock."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from orchestrator.batches.states import BatchStatus, Counts
from orchestrator.storage import watching
from orchestrator.storage.locks import take_batches

# Keeps the aggregator out, as `_LOCK_ROW` in batches.py does; deleted batches too.
_LOCK_ROW = text("""
    SELECT organization_id, status, version, retry_number, edit_version, completed_at, cancelled_at, deleted_at
    FROM orchestrator.batch WHERE batch_id = :batch_id FOR NO KEY UPDATE
""")

_REBUILT = text("SELECT * FROM replay_batch WHERE batch_id = :batch_id")

# After the lock, a statement and a snapshot of its own.
_EVIDENCE = text("""
    SELECT EXISTS (SELECT FROM orchestrator.tombstone WHERE batch_id = :batch_id) AS is_purged,
           EXISTS (SELECT FROM orchestrator.batch_part p JOIN replay_chosen_part c USING (batch_id, part)
                   WHERE p.batch_id = :batch_id AND c.header_hash = :header_hash AND p.public_hash <> c.public_hash)
           OR EXISTS (SELECT FROM orchestrator.batch_part WHERE batch_id = :batch_id AND organization_id <> :organization_id)
           OR EXISTS (SELECT FROM orchestrator.outcome WHERE batch_id = :batch_id AND organization_id <> :organization_id)
           OR EXISTS (SELECT FROM orchestrator.batch WHERE batch_id = :batch_id AND content_hash <> :header_hash)
           AS is_contradicted,
           EXISTS (SELECT FROM orchestrator.batch_part WHERE batch_id = :batch_id)
           OR EXISTS (SELECT FROM orchestrator.outcome WHERE batch_id = :batch_id)
           OR EXISTS (SELECT FROM orchestrator.batch_item WHERE batch_id = :batch_id) AS is_known,
           EXISTS (SELECT FROM orchestrator.outcome WHERE batch_id = :batch_id)
           OR EXISTS (SELECT FROM orchestrator.batch_item WHERE batch_id = :batch_id) AS has_items,
           EXISTS (SELECT FROM orchestrator.batch_part WHERE batch_id = :batch_id AND items IS NOT NULL) AS is_collecting,
           (SELECT min(created_at) FROM orchestrator.outcome WHERE batch_id = :batch_id AND outcome = 'cancelled') AS cancelled_at,
           EXISTS (SELECT FROM replay_before s WHERE s.batch_id = :batch_id AND s.version = :version AND NOT s.is_waiting) AS is_unmoved,
           clock_timestamp() AS now
""")

# What people have done to the batch, whatever the topics say.
_EDITS = text("""
    SELECT count(*) AS edits, max(version) AS version, bool_or(kind = 'relabelled') AS is_relabelled,
           (array_agg(label ORDER BY version DESC) FILTER (WHERE kind = 'relabelled'))[1] AS label,
           min(edited_at) FILTER (WHERE kind = 'cancelled') AS cancelled_at, min(edited_by) FILTER (WHERE kind = 'cancelled') AS cancelled_by,
           min(reason) FILTER (WHERE kind = 'cancelled') AS cancellation_reason,
           min(edited_at) FILTER (WHERE kind = 'deleted') AS deleted_at
    FROM orchestrator.batch_edit WHERE batch_id = :batch_id
""")

# Announced by the retry that the history knows as the last one, and not by one that only an event names.
_COMPLETED_AT = text("""
    SELECT max(completed_at) FROM replay_completion
    WHERE batch_id = :batch_id AND organization_id = :organization_id
      AND retry_number = greatest(:retry_number,
                                  (SELECT count(DISTINCT retried_at) FROM orchestrator.item_history WHERE batch_id = :batch_id))
""")

_INSERT_BATCH = text("""
    INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items, pending,
                                    version, edit_version, parts, content_hash, trace_id, submitted_at, changed_at)
    SELECT batch_id, organization_id, coordinator_id, submitted_by, channel, :label, 'processing', total_items, total_items,
           greatest(version + :edits, :edited_version), 1 + :edits, parts, header_hash, trace_id, submitted_at, :now
    FROM replay_batch WHERE batch_id = :batch_id
""")

_INSERT_PARTS = text("""
    INSERT INTO orchestrator.batch_part (batch_id, part, organization_id, content_hash, public_hash, received_at)
    SELECT batch_id, part, organization_id, content_hash, public_hash, at
    FROM replay_chosen_part WHERE batch_id = :batch_id AND header_hash = :header_hash
    ON CONFLICT DO NOTHING
""")

# What began each attempt after the first. The history knows it with its notes; the topics know what the history has lost.
_CORRECTIONS = """
    corrections AS (
        SELECT DISTINCT ON (position, attempt) position, attempt, correction, retried_by, at FROM (
            SELECT position, attempt + 1 AS attempt, correction, retried_by, retried_at AS at, 1 AS turn
            FROM orchestrator.item_history WHERE batch_id = :batch_id
            UNION ALL
            SELECT position, attempt, correction, retried_by, at, 2 FROM replay_retry WHERE batch_id = :batch_id
        ) AS known ORDER BY position, attempt, turn
    )
"""

# The values of an attempt, as jsonb: what was submitted (s), and every correction up to it over that.
_VALUES_OF_ATTEMPT = """
    jsonb_build_object('mentor_id', s.mentor_id, 'activity_type', s.activity_type, 'activity_date', s.activity_date,
                       'duration_minutes', s.duration_minutes, 'notes', s.notes, 'override_duplicates', s.override_duplicates)
    || coalesce((SELECT jsonb_object_agg(e.key, e.value ORDER BY c.attempt) FROM corrections c, jsonb_each(c.correction) AS e
                 WHERE c.position = s.position AND c.attempt <= {attempt}), '{{}}')
"""

# An item's attempt is the highest that an outcome or the history bears out, and never lower than the live one. A row that is missing
# is made where everything is known that led to that attempt; one that is there is changed where it is behind, or differs from what was
# submitted and no activity says otherwise. Notes are on no topic of ours: they come from the activity, or stay what they are.
_MERGE_ITEMS = text(f"""
    WITH {_CORRECTIONS}, begun AS (
        SELECT position, max(attempt) AS attempt FROM (
            SELECT position, attempt FROM orchestrator.outcome WHERE batch_id = :batch_id
            UNION ALL SELECT position, attempt + 1 FROM orchestrator.item_history WHERE batch_id = :batch_id
        ) AS known GROUP BY position
    ), target AS (
        SELECT s.*, greatest(1, g.attempt, l.attempt) AS attempt, l.position IS NOT NULL AS is_live
        FROM replay_submitted s
        LEFT JOIN begun g ON g.position = s.position
        LEFT JOIN orchestrator.batch_item l ON (l.batch_id, l.position) = (s.batch_id, s.position)
        WHERE s.batch_id = :batch_id
    ), merged AS (
        SELECT s.position, s.item_id, s.client_reference, s.attempt, s.is_live, {_VALUES_OF_ATTEMPT.format(attempt="s.attempt")} AS values,
               coalesce((SELECT c.at FROM corrections c WHERE (c.position, c.attempt) = (s.position, s.attempt)), :submitted_at) AS attempt_at
        FROM target s
        WHERE s.attempt = 1 OR s.attempt - 1 = (SELECT count(*) FROM corrections c WHERE c.position = s.position AND c.attempt <= s.attempt)
    ), typed AS (
        SELECT m.position, m.item_id, m.client_reference, m.attempt, m.is_live, m.attempt_at, v.*
        FROM merged m CROSS JOIN LATERAL jsonb_to_record(m.values) AS v (
            mentor_id text, activity_type text, activity_date date, duration_minutes integer, notes text, override_duplicates boolean)
    ), inserted AS (
        INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                             duration_minutes, notes, client_reference, override_duplicates, attempt, attempt_at,
                                             changed_version)
        SELECT :batch_id, t.position, t.item_id, :organization_id, t.mentor_id, t.activity_type, t.activity_date, t.duration_minutes,
               CASE WHEN a.item_id IS NULL THEN t.notes ELSE a.notes END, t.client_reference, t.override_duplicates, t.attempt,
               t.attempt_at, :version
        FROM typed t LEFT JOIN registration.activity a ON a.item_id = t.item_id
        WHERE NOT t.is_live
        RETURNING position
    ), updated AS (
        UPDATE orchestrator.batch_item i
        SET item_id = t.item_id, organization_id = :organization_id, mentor_id = t.mentor_id, activity_type = t.activity_type,
            activity_date = t.activity_date, duration_minutes = t.duration_minutes, override_duplicates = t.override_duplicates,
            client_reference = t.client_reference, attempt = t.attempt, changed_version = :version,
            status = CASE WHEN i.attempt = t.attempt THEN i.status ELSE 'pending' END,
            activity_id = CASE WHEN i.attempt = t.attempt THEN i.activity_id END,
            error = CASE WHEN i.attempt = t.attempt THEN i.error END,
            attempt_at = CASE WHEN i.attempt = t.attempt THEN i.attempt_at ELSE t.attempt_at END,
            planned = CASE WHEN i.attempt = t.attempt THEN i.planned END
        FROM typed t
        WHERE t.is_live AND (i.batch_id, i.position) = (:batch_id, t.position)
          AND (i.item_id, i.organization_id, i.mentor_id, i.activity_type, i.activity_date, i.duration_minutes, i.override_duplicates,
               i.client_reference, i.attempt)
              IS DISTINCT FROM
              (t.item_id, :organization_id, t.mentor_id, t.activity_type, t.activity_date, t.duration_minutes, t.override_duplicates,
               t.client_reference, t.attempt)
          AND NOT EXISTS (
              SELECT FROM registration.activity a
              WHERE a.item_id = t.item_id AND (a.attributed_to, a.activity_type, a.activity_date, a.duration_minutes)
                                              IS DISTINCT FROM (t.mentor_id, t.activity_type, t.activity_date, t.duration_minutes))
        RETURNING i.position
    )
    SELECT (SELECT count(*) FROM inserted) + (SELECT count(*) FROM updated)
""")

_UNDECIDED = text("""
    SELECT count(*) FROM orchestrator.batch_item i
    LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
    WHERE i.batch_id = :batch_id AND o.batch_id IS NULL
""")

# The dedup table decides, whatever the topics or the live row say. What has no outcome is pending where the topics say so too, and
# nothing else says otherwise.
_FOLD = text("""
    WITH state AS (
        SELECT i.position, coalesce(o.outcome, 'pending') AS status, o.activity_id, o.error
        FROM orchestrator.batch_item i
        LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
        LEFT JOIN replay_item r ON (r.batch_id, r.position, r.attempt) = (i.batch_id, i.position, i.attempt)
        WHERE i.batch_id = :batch_id
          AND CASE WHEN o.batch_id IS NOT NULL THEN :folds_pending OR i.status <> 'pending'
                   ELSE i.status = 'pending'
                        OR r.status = 'pending' AND NOT :is_cancelled
                           AND NOT EXISTS (SELECT FROM registration.activity a WHERE a.item_id = i.item_id) END
    )
    UPDATE orchestrator.batch_item i
    SET status = s.status, activity_id = s.activity_id, error = s.error, changed_version = :version
    FROM state s
    WHERE (i.batch_id, i.position) = (:batch_id, s.position)
      AND (i.status, i.activity_id, i.error) IS DISTINCT FROM (s.status, s.activity_id, s.error)
""")

_MERGE_HISTORY = text(f"""
    WITH {_CORRECTIONS}
    INSERT INTO orchestrator.item_history (batch_id, position, attempt, organization_id, submitted, error, attempt_at, correction,
                                           retried_by, retried_at)
    SELECT i.batch_id, i.position, over.attempt, i.organization_id, {_VALUES_OF_ATTEMPT.format(attempt="over.attempt")}, o.error,
           coalesce((SELECT c.at FROM corrections c WHERE (c.position, c.attempt) = (i.position, over.attempt)), :submitted_at),
           n.correction, n.retried_by, n.at
    FROM orchestrator.batch_item i
    JOIN replay_submitted s ON (s.batch_id, s.position) = (i.batch_id, i.position)
    CROSS JOIN LATERAL generate_series(1, i.attempt - 1) AS over (attempt)
    JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt, o.outcome) = (i.batch_id, i.position, over.attempt, 'failed')
    JOIN corrections n ON (n.position, n.attempt) = (i.position, over.attempt + 1)
    WHERE i.batch_id = :batch_id
    ON CONFLICT DO NOTHING
""")

_COUNTS = text("""
    SELECT count(*) FILTER (WHERE status = 'pending') AS pending, count(*) FILTER (WHERE status = 'success') AS completed,
           count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
           (SELECT count(DISTINCT retried_at) FROM orchestrator.item_history WHERE batch_id = :batch_id) AS retries
    FROM orchestrator.batch_item WHERE batch_id = :batch_id
""")

_MERGE_BATCH = text("""
    UPDATE orchestrator.batch b
    SET coordinator_id = r.coordinator_id, label = CASE WHEN :is_label_known THEN :label ELSE b.label END,
        status = :status, total_items = r.total_items, pending = :pending, completed = :completed, failed = :failed,
        cancelled = :cancelled, retry_number = :retry_number, completed_at = :completed_at, cancelled_at = :cancelled_at,
        cancelled_by = CASE WHEN :cancelled_at IS NOT NULL THEN coalesce(b.cancelled_by, :cancelled_by, r.cancelled_by) END,
        cancellation_reason = CASE WHEN :cancelled_at IS NOT NULL
                                   THEN coalesce(b.cancellation_reason, :cancellation_reason, r.cancellation_reason) END,
        deleted_at = :deleted_at, edit_version = greatest(b.edit_version, 1 + :edits), version = :version, changed_at = :now
    FROM replay_batch r
    WHERE b.batch_id = :batch_id AND r.batch_id = b.batch_id
      AND (:has_changed OR
           (b.coordinator_id, CASE WHEN :is_label_known THEN b.label END, b.status, b.total_items, b.pending, b.completed, b.failed,
            b.cancelled, b.retry_number, b.completed_at, b.cancelled_at, b.deleted_at)
           IS DISTINCT FROM
           (r.coordinator_id, CASE WHEN :is_label_known THEN :label END, :status, r.total_items, :pending, :completed, :failed,
            :cancelled, :retry_number, CAST(:completed_at AS timestamptz), CAST(:cancelled_at AS timestamptz),
            CAST(:deleted_at AS timestamptz)))
""")

# The next comparison holds the batch against what it has become, and not for one that somebody changed meanwhile.
_REMEMBER = text("""
    INSERT INTO replay_before SELECT batch_id, version, false FROM orchestrator.batch WHERE batch_id = :batch_id
    ON CONFLICT (batch_id) DO UPDATE SET version = excluded.version, is_waiting = false
""")


@dataclass(frozen=True, slots=True)
class MergedBatch:
    """What the row of a batch becomes. `is_label_known`: the label as well."""

    is_label_known: bool
    label: str | None
    counts: Counts
    status: BatchStatus
    retry_number: int
    completed_at: datetime | None
    cancelled_at: datetime | None
    deleted_at: datetime | None


class BatchMerge:
    """The statements for one batch, in the caller's transaction."""

    def __init__(self, connection: Connection, batch_id: UUID) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self.version = 0
        """What the batch's version becomes if anything changes."""

    def _execute(self, statement: Any, **parameters: Any) -> Any:
        return self._connection.execute(statement, {"batch_id": self._batch_id, **parameters})

    def rebuilt(self) -> Row[Any] | None:
        """The batch as the topics say it; None when they don't cover it."""
        row: Row[Any] | None = self._execute(_REBUILT).one_or_none()
        return row

    def lock(self) -> Row[Any] | None:
        """Takes the batch for itself until the commit; its row, None when there is none."""
        take_batches(self._connection, [self._batch_id])
        row: Row[Any] | None = self._execute(_LOCK_ROW).one_or_none()
        return row

    def evidence(self, rebuilt: Row[Any], version: int | None) -> Row[Any]:
        """What the rest of the database says about the rebuilt batch."""
        row: Row[Any] = self._execute(
            _EVIDENCE, header_hash=rebuilt.header_hash, organization_id=rebuilt.organization_id, version=version
        ).one()
        return row

    def edits(self) -> Row[Any]:
        """What people have done to the batch."""
        row: Row[Any] = self._execute(_EDITS).one()
        return row

    def insert_batch(self, rebuilt: Row[Any], edits: Row[Any], now: datetime) -> None:
        """Makes the missing row, `processing`, with everything pending."""
        label = edits.label if edits.is_relabelled else rebuilt.submitted_label
        self._execute(_INSERT_BATCH, label=label, edits=edits.edits, edited_version=edits.version, now=now)

    def merge_items(self, rebuilt: Row[Any]) -> int:
        """Makes and mends items, their parts and their history; how many items changed. None becomes worse."""
        self._execute(_INSERT_PARTS, header_hash=rebuilt.header_hash)
        at = {"submitted_at": rebuilt.submitted_at}
        changed: int = self._execute(
            _MERGE_ITEMS, organization_id=rebuilt.organization_id, version=self.version, **at
        ).scalar_one()
        self._execute(_MERGE_HISTORY, **at)
        return changed

    def announced_at(self, rebuilt: Row[Any], retry_number: int) -> datetime | None:
        """When the completion after the last retry was announced; `retry_number` is that of the live row."""
        parameters = {"organization_id": rebuilt.organization_id, "retry_number": retry_number}
        at: datetime | None = self._execute(_COMPLETED_AT, **parameters).scalar_one()
        return at

    def undecided(self) -> int:
        """How many items have no outcome in their attempt."""
        return int(self._execute(_UNDECIDED).scalar_one())

    def fold(self, *, folds_pending: bool, is_cancelled: bool) -> int:
        """Puts every item where its outcome says it is; how many changed."""
        return int(self._execute(_FOLD, folds_pending=folds_pending, is_cancelled=is_cancelled, version=self.version).rowcount)

    def counts(self) -> tuple[Counts, int]:
        """The counts of the items, and how many retries their history knows."""
        row = self._execute(_COUNTS).one()
        return Counts(row.pending, row.completed, row.failed, row.cancelled), row.retries

    def merge_batch(self, merged: MergedBatch, edits: Row[Any], *, has_changed: bool, now: datetime) -> bool:
        """Writes the batch's row where it differs, and tells who follows it; whether it did."""
        written = self._execute(
            _MERGE_BATCH,
            status=merged.status,
            pending=merged.counts.pending,
            completed=merged.counts.completed,
            failed=merged.counts.failed,
            cancelled=merged.counts.cancelled,
            retry_number=merged.retry_number,
            completed_at=merged.completed_at,
            cancelled_at=merged.cancelled_at,
            deleted_at=merged.deleted_at,
            version=self.version,
            is_label_known=merged.is_label_known,
            label=merged.label,
            edits=edits.edits,
            cancelled_by=edits.cancelled_by,
            cancellation_reason=edits.cancellation_reason,
            has_changed=has_changed,
            now=now,
        ).rowcount
        if written:
            watching.announce(self._connection, [self._batch_id])
        self._execute(_REMEMBER)
        return bool(written)
