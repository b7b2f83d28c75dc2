-- The statement of watching.py.

-- name: versions
-- parameters: batch_ids uuid[]
-- The present versions of batches. By the primary key.
SELECT batch_id::text, version FROM orchestrator.batch WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));
