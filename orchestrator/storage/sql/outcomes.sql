-- Statements of the registration on the dedup table, under the shared locks of the batches. They run after the lock, each with a
-- snapshot that has what the lock's last holder committed.

-- name: batches
-- parameters: batch_ids uuid[]
-- What all commands of a batch have in common. `now` is when this statement came, after the lock as well, so that no outcome of a
-- batch is older than a cancel that it came after (invariant 7). The clock may be set back, the order of the two may not:
-- `cancel_batch` does the same for what it comes after. By the primary keys.
SELECT batch_id::text, organization_id, trace_id, cancelled_at IS NOT NULL,
       EXISTS (SELECT FROM orchestrator.dispatch d WHERE d.batch_id = b.batch_id),
       greatest(statement_timestamp(), b.cancelled_at + interval '1 microsecond') AS now
FROM orchestrator.batch b WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: not_new
-- parameters: batch_ids uuid[], positions integer[], attempts integer[]
-- The commands that are not new: decided before, or of an attempt that the item does not hold. Mostly all are new, and there is
-- no row: one for each was a tenth of the registration's CPU. By the primary keys.
SELECT n.ord, o.outcome, o.activity_id::text, o.error, o.created_at
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
     WITH ORDINALITY AS n (batch_id, position, attempt, ord)
LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, n.attempt)
WHERE o.outcome IS NOT NULL OR i.attempt IS DISTINCT FROM n.attempt;

-- name: insert
-- parameters: batch_ids uuid[], positions integer[], attempts integer[], organizations text[], outcomes text[]
-- parameters: activity_ids uuid[], errors jsonb[], at timestamptz
-- The outcomes, inserted last and complete. The primary key admits one for each attempt. A rival can only be another delivery of
-- the same command: the loser rolls everything back. Sorted, so that two of them don't wait in a circle.
INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, activity_id, error, created_at)
SELECT n.batch_id, n.position, n.attempt, n.organization_id, n.outcome, n.activity_id, n.error, CAST(:at AS timestamptz)
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]), CAST(:organizations AS text[]),
            CAST(:outcomes AS text[]), CAST(:activity_ids AS uuid[]), CAST(:errors AS jsonb[]))
     AS n (batch_id, position, attempt, organization_id, outcome, activity_id, error)
ORDER BY n.batch_id, n.position, n.attempt
ON CONFLICT DO NOTHING;
