-- Which batches the database knows.

-- name: unknown
-- parameters: batch_ids uuid[]
-- The given batches without a row and without a tombstone. By the primary keys.
SELECT n.batch_id::text FROM unnest(CAST(:batch_ids AS uuid[])) AS n (batch_id)
WHERE NOT EXISTS (SELECT FROM orchestrator.batch b WHERE b.batch_id = n.batch_id)
  AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = n.batch_id);
