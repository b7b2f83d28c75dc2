-- Statements of the splitter. They lock nothing: expanding a batch twice, or after a cancel, only produces commands that have no effect.

-- name: pending
-- parameters: batch_ids uuid[], positions integer[], attempts integer[]
-- The items that are still pending in the named attempt, in the order of the names. By the primary key.
SELECT n.ord, i.attempt_at::text, i.mentor_id, i.activity_type, i.activity_date::text, i.duration_minutes, i.override_duplicates
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
     WITH ORDINALITY AS n (batch_id, position, attempt, ord)
JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
WHERE i.status = 'pending'
ORDER BY n.ord;

-- name: batches
-- parameters: batch_ids uuid[]
-- The values that all commands of a batch have in common, read once instead of with each item. By the primary key.
SELECT batch_id::text, trace_id, organization_id, coordinator_id
FROM orchestrator.batch WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));
