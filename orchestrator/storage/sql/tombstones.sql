-- Statements on `tombstone`: what is left of purged batches.

-- name: purged
-- parameters: batch_ids uuid[]
-- Which of these batches were purged. By the primary key.
SELECT batch_id::text FROM orchestrator.tombstone WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: tombstones
-- parameters: batch_ids uuid[]
-- What is left of these batches. By the primary key.
SELECT batch_id::text, organization_id, content_hash FROM orchestrator.tombstone
WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));
