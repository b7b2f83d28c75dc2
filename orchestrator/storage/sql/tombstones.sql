-- Statements on `tombstone`, which has a row for each purged batch.

-- name: purged
-- parameters: batch_ids uuid[]
-- The given batches that were purged. By the primary key.
SELECT batch_id::text FROM orchestrator.tombstone WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: tombstones
-- parameters: batch_ids uuid[]
-- The tombstones of these batches. By the primary key.
SELECT batch_id::text, organization_id, content_hash FROM orchestrator.tombstone
WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));
