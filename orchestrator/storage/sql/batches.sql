-- Statements on `batch`. Those that select a batch's columns are composed in batches.py. Edits by people are also stored in `batch_edit`, where
-- a replay finds them confirmed. A version conflicts there only after an older copy was restored; then only the batch's row has what came
-- after.

-- name: change
-- parameters: batch_ids uuid[], pending integer[], completed integer[], failed integer[], cancelled integer[], statuses text[]
-- parameters: now timestamptz[], completed_at timestamptz[]
-- Writes the counts and the status after a fold. The rows are already locked. By the primary key.
UPDATE orchestrator.batch b
SET pending = n.pending, completed = n.completed, failed = n.failed, cancelled = n.cancelled, status = n.status,
    changed_at = n.now, completed_at = n.completed_at, version = b.version + 1,
    -- Another item has failed since somebody was done with the batch.
    dismissed_at = CASE WHEN n.failed > b.failed THEN NULL ELSE b.dismissed_at END
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:pending AS integer[]), CAST(:completed AS integer[]), CAST(:failed AS integer[]),
            CAST(:cancelled AS integer[]), CAST(:statuses AS text[]), CAST(:now AS timestamptz[]), CAST(:completed_at AS timestamptz[]))
     AS n (batch_id, pending, completed, failed, cancelled, status, now, completed_at)
WHERE b.batch_id = n.batch_id;

-- name: mark_cancelled
-- parameters: at timestamptz, by text, reason text, batch_id uuid
-- Marks a batch as cancelled. Its version is raised afterwards, with the counts. Parts whose batch never became whole lose their items: nobody reads
-- them any more, and no retention of notes reaches them. They don't become NULL, which says that the items are in `batch_item`. By the primary keys.
WITH emptied AS (
    UPDATE orchestrator.batch_part SET items = '[]' WHERE batch_id = :batch_id AND items IS NOT NULL
), edited AS (
    UPDATE orchestrator.batch SET cancelled_at = :at, cancelled_by = :by, cancellation_reason = :reason, edit_version = edit_version + 1
    WHERE batch_id = :batch_id RETURNING batch_id, version + 1 AS version, organization_id
)
INSERT INTO orchestrator.batch_edit (batch_id, version, organization_id, kind, label, reason, edited_by, edited_at)
SELECT batch_id, version, organization_id, 'cancelled', NULL, :reason, :by, :at FROM edited
ON CONFLICT DO NOTHING;

-- name: relabel
-- parameters: label text, at timestamptz, batch_id uuid
-- Gives a batch another label. By the primary key.
WITH edited AS (
    UPDATE orchestrator.batch SET label = :label, version = version + 1, edit_version = edit_version + 1, changed_at = :at
    WHERE batch_id = :batch_id RETURNING batch_id, version, organization_id
)
INSERT INTO orchestrator.batch_edit (batch_id, version, organization_id, kind, label, reason, edited_by, edited_at)
SELECT batch_id, version, organization_id, 'relabelled', :label, NULL, NULL, :at FROM edited
ON CONFLICT DO NOTHING;

-- name: dismiss
-- parameters: at timestamptz, by text, batch_id uuid
-- Somebody is done with the failed items of a locked batch. By the primary key.
WITH dismissed AS (
    UPDATE orchestrator.batch SET dismissed_at = :at, version = version + 1, changed_at = :at
    WHERE batch_id = :batch_id RETURNING batch_id, version, organization_id
)
INSERT INTO orchestrator.batch_dismissal (batch_id, version, organization_id, dismissed_by, dismissed_at)
SELECT batch_id, version, organization_id, :by, :at FROM dismissed
ON CONFLICT DO NOTHING;

-- name: delete
-- parameters: at timestamptz, batch_id uuid
-- Marks a batch as deleted; the purge removes it later. By the primary key.
WITH edited AS (
    UPDATE orchestrator.batch SET deleted_at = :at, version = version + 1, edit_version = edit_version + 1, changed_at = :at
    WHERE batch_id = :batch_id RETURNING batch_id, version, organization_id
)
INSERT INTO orchestrator.batch_edit (batch_id, version, organization_id, kind, label, reason, edited_by, edited_at)
SELECT batch_id, version, organization_id, 'deleted', NULL, NULL, NULL, :at FROM edited
ON CONFLICT DO NOTHING;

-- name: clock
-- The database's time.
SELECT clock_timestamp();

-- name: clock_after_decisions
-- parameters: batch_id uuid
-- The database's time, but not earlier than the batch's last outcome or dispatch, even if the clock was set back (invariant 7). Reads the
-- batch's outcomes and dispatches, by the primary keys.
SELECT greatest(clock_timestamp(),
                (SELECT max(created_at) FROM orchestrator.outcome WHERE batch_id = :batch_id),
                (SELECT max(dispatched_at) FROM orchestrator.dispatch WHERE batch_id = :batch_id));
