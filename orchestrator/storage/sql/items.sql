-- Statements on `batch_item`, `item_history` and `outcome`. Those that select the columns of a batch or an item are composed in items.py.

-- name: fold
-- parameters: batch_ids uuid[], positions integer[], attempts integer[], versions bigint[]
-- Copies outcomes into items that are pending in the outcome's attempt. Repeated, late and reordered results change nothing. Items are locked
-- after their batches' rows (`_LOCK_FOR_FOLD` in batches.py), so that a fold and a cancel can't deadlock. By the primary keys.
WITH named AS (
    SELECT n.ord, n.batch_id, n.version, o.position, o.attempt, o.outcome, o.activity_id, o.error
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]), CAST(:versions AS bigint[]))
         WITH ORDINALITY AS n (batch_id, position, attempt, version, ord)
    LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (n.batch_id, n.position, n.attempt)
), changed AS (
    UPDATE orchestrator.batch_item i
    SET status = n.outcome, activity_id = n.activity_id, error = n.error, changed_version = n.version + 1
    FROM named n
    WHERE (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt) AND i.status = 'pending' AND n.version IS NOT NULL
    RETURNING i.batch_id, i.status
)
SELECT NULL AS ord, batch_id::text, status, count(*) AS items, clock_timestamp() AS at FROM changed GROUP BY batch_id, status
UNION ALL
SELECT ord, NULL, NULL, NULL, NULL FROM named WHERE outcome IS NULL;

-- name: fold_batch
-- parameters: batch_id uuid
-- Copies every outcome of one locked batch into its items. By the primary keys.
WITH changed AS (
    UPDATE orchestrator.batch_item i
    SET status = o.outcome, activity_id = o.activity_id, error = o.error, changed_version = b.version + 1
    FROM orchestrator.outcome o JOIN orchestrator.batch b ON b.batch_id = o.batch_id
    WHERE o.batch_id = :batch_id AND (i.batch_id, i.position, i.attempt) = (o.batch_id, o.position, o.attempt)
      AND i.status = 'pending'
    RETURNING i.status
)
SELECT status, count(*) AS items FROM changed GROUP BY status;

-- name: by_identity
-- parameters: mentors text[], types text[], dates date[], batch_id uuid
-- The items of a batch with these values. Reads all items of the batch, by the primary key.
SELECT i.position, v.ord FROM orchestrator.batch_item i
JOIN unnest(CAST(:mentors AS text[]), CAST(:types AS text[]), CAST(:dates AS date[]))
     WITH ORDINALITY AS v (mentor_id, activity_type, activity_date, ord) USING (mentor_id, activity_type, activity_date)
WHERE i.batch_id = :batch_id;

-- name: keep_history
-- parameters: by text, at timestamptz, positions integer[], corrections jsonb[], batch_id uuid
-- Stores the attempts that end here, with their corrections. By the primary key.
INSERT INTO orchestrator.item_history (batch_id, position, attempt, organization_id, submitted, error, attempt_at, correction,
                                       retried_by, retried_at)
SELECT i.batch_id, i.position, i.attempt, i.organization_id,
       jsonb_build_object('mentor_id', i.mentor_id, 'activity_type', i.activity_type, 'activity_date', i.activity_date,
                          'duration_minutes', i.duration_minutes, 'notes', i.notes, 'override_duplicates', i.override_duplicates),
       i.error, i.attempt_at, n.correction, :by, :at
FROM unnest(CAST(:positions AS integer[]), CAST(:corrections AS jsonb[])) AS n (position, correction)
JOIN orchestrator.batch_item i ON i.batch_id = :batch_id AND i.position = n.position;

-- name: begin_attempts
-- parameters: at timestamptz, version bigint, positions integer[], mentors text[], types text[], dates date[]
-- parameters: durations integer[], notes text[], overrides boolean[], batch_id uuid
-- Begins the next attempt of failed items, with their corrected values. Runs under the batch's lock. By the primary key.
UPDATE orchestrator.batch_item i
SET status = 'pending', attempt = i.attempt + 1, attempt_at = :at, error = NULL, planned = NULL, changed_version = :version,
    mentor_id = n.mentor_id, activity_type = n.activity_type, activity_date = n.activity_date,
    duration_minutes = n.duration_minutes, notes = n.notes, override_duplicates = n.override_duplicates
FROM unnest(CAST(:positions AS integer[]), CAST(:mentors AS text[]), CAST(:types AS text[]), CAST(:dates AS date[]),
            CAST(:durations AS integer[]), CAST(:notes AS text[]), CAST(:overrides AS boolean[]))
     AS n (position, mentor_id, activity_type, activity_date, duration_minutes, notes, override_duplicates)
WHERE i.batch_id = :batch_id AND i.position = n.position;

-- name: next_retry
-- parameters: at timestamptz, attempts integer, batch_id uuid
-- Counts the retry, and makes it the start for measuring the batch's speed. By the primary key.
UPDATE orchestrator.batch SET retry_number = retry_number + 1, measured_from = :at, measured_items = pending + :attempts
WHERE batch_id = :batch_id RETURNING retry_number;

-- name: history
-- parameters: batch_id uuid, position integer
-- The finished attempts of an item, oldest first. By the primary key.
SELECT attempt, submitted, error, attempt_at, correction, retried_by, retried_at FROM orchestrator.item_history
WHERE batch_id = :batch_id AND position = :position ORDER BY attempt;

-- name: changed_since
-- parameters: batch_id uuid, version bigint
-- The items that changed after a version of their batch. Reads all items of the batch, by the primary key.
SELECT position FROM orchestrator.batch_item WHERE batch_id = :batch_id AND changed_version > :version ORDER BY position;
