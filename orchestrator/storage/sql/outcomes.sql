-- Statements of the registration on the dedup table. They run after taking the shared locks of the batches, so that their snapshots include
-- everything that the previous holder of a lock committed.

-- name: batches
-- parameters: batch_ids uuid[]
-- The values that all commands of a batch have in common. `now` is the time after the locks were granted. (`statement_timestamp` is the time before,
-- because the locks come with the same message.) It is later than a cancel of the batch even if the clock was set back, so that the times of outcomes
-- and cancel keep their order (invariant 7). `cancel_batch` takes its time in the same way. By the primary keys.
SELECT batch_id::text, organization_id, trace_id, cancelled_at IS NOT NULL,
       EXISTS (SELECT FROM orchestrator.dispatch d WHERE d.batch_id = b.batch_id),
       greatest(clock_timestamp(), b.cancelled_at + interval '1 microsecond') AS now
FROM orchestrator.batch b WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: not_new
-- parameters: batch_ids uuid[], positions integer[], attempts integer[]
-- The commands that are not new: already decided, or of an attempt that is not the item's present one. Usually all commands are new, and no row
-- is returned; a row for each command took a tenth of the registration's CPU. By the primary keys.
SELECT n.ord, o.outcome, o.activity_id::text, o.error, o.created_at
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
     WITH ORDINALITY AS n (batch_id, position, attempt, ord)
LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, n.attempt)
WHERE o.outcome IS NOT NULL OR i.attempt IS DISTINCT FROM n.attempt;

-- name: insert
-- parameters: batch_ids uuid[], positions integer[], attempts integer[], organizations text[], outcomes text[]
-- parameters: activity_ids uuid[], errors jsonb[], at timestamptz
-- Inserts the outcomes, last in the transaction and complete. The primary key allows one for each attempt. Only another delivery of the same
-- command can conflict; the loser rolls everything back. Sorted, so that two of these statements can't deadlock.
INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, activity_id, error, created_at)
SELECT n.batch_id, n.position, n.attempt, n.organization_id, n.outcome, n.activity_id, n.error, CAST(:at AS timestamptz)
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]), CAST(:organizations AS text[]),
            CAST(:outcomes AS text[]), CAST(:activity_ids AS uuid[]), CAST(:errors AS jsonb[]))
     AS n (batch_id, position, attempt, organization_id, outcome, activity_id, error)
ORDER BY n.batch_id, n.position, n.attempt
ON CONFLICT DO NOTHING;
