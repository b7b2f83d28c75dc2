-- What the checks in Python read: whole tables, in the snapshot of all checks. They use no index and block nobody.

-- name: statuses
-- The status of each batch, and what it is derived from. Batches that are being purged are left out: they lose their items a chunk at
-- a time, but keep their counts.
SELECT b.batch_id::text, b.status, b.pending, b.completed, b.failed, b.cancelled, b.cancelled_at IS NOT NULL AS was_cancelled,
       b.parts = 1 OR EXISTS (SELECT FROM orchestrator.batch_item i WHERE i.batch_id = b.batch_id) AS has_items
FROM orchestrator.batch b
WHERE NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = b.batch_id);

-- name: item_ids
-- The id of each item. It is read as a stream.
SELECT batch_id::text, position, item_id::text FROM orchestrator.batch_item;
