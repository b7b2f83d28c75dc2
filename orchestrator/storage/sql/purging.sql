-- Statements of the purge. They handle a bounded number of rows at a time. The purge first locks the row of a deleted batch. It skips rows that
-- a promotion or a fold of a late result holds, and takes them next time, so it waits for nobody and needs no order. A promotion or fold may
-- have to wait for the purge, for one chunk. All of them lock a batch's row before its items (docs/decisions/0029-one-lock-order.md).

-- name: due
-- parameters: after interval, aside uuid[], max_batches integer
-- Locks batches that were deleted long enough ago. A batch waits while an external service has not answered a request to revoke one of its
-- activities. By the partial index batch_deleted.
SELECT batch_id::text FROM orchestrator.batch b
WHERE deleted_at < clock_timestamp() - :after AND NOT batch_id = ANY (CAST(:aside AS uuid[]))
  AND NOT EXISTS (SELECT FROM orchestrator.revocation_request r WHERE r.batch_id = b.batch_id AND r.state = 'asked')
ORDER BY deleted_at LIMIT :max_batches FOR UPDATE SKIP LOCKED;

-- name: lock
-- parameters: batch_ids uuid[]
-- Locks batches that an earlier transaction found with `due`. By the primary key.
SELECT batch_id::text FROM orchestrator.batch
WHERE batch_id = ANY (CAST(:batch_ids AS uuid[])) AND deleted_at IS NOT NULL FOR UPDATE SKIP LOCKED;

-- name: bury
-- parameters: batch_ids uuid[]
-- Inserts the tombstones. A batch with a tombstone counts as purged, whatever rows of it are left. By the primary keys.
INSERT INTO orchestrator.tombstone (batch_id, organization_id, content_hash, purged_at)
SELECT batch_id, organization_id, content_hash, clock_timestamp() FROM orchestrator.batch
WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))
ON CONFLICT DO NOTHING;

-- name: remove_items
-- parameters: batch_ids uuid[], max_items integer
-- Removes items with everything that belongs to them, and returns how many. If an item lost its outcome first, a redelivered command would
-- register it again. By the primary keys.
WITH chosen AS (
    SELECT batch_id, position FROM orchestrator.batch_item
    WHERE batch_id = ANY (CAST(:batch_ids AS uuid[])) ORDER BY batch_id, position LIMIT :max_items
), items AS (
    DELETE FROM orchestrator.batch_item i USING chosen c WHERE (i.batch_id, i.position) = (c.batch_id, c.position)
), outcomes AS (
    DELETE FROM orchestrator.outcome o USING chosen c WHERE (o.batch_id, o.position) = (c.batch_id, c.position)
), history AS (
    DELETE FROM orchestrator.item_history h USING chosen c WHERE (h.batch_id, h.position) = (c.batch_id, c.position)
), dispatched AS (
    DELETE FROM orchestrator.dispatch d USING chosen c WHERE (d.batch_id, d.position) = (c.batch_id, c.position)
), requests AS (
    DELETE FROM orchestrator.revocation_request r USING chosen c WHERE (r.batch_id, r.position) = (c.batch_id, c.position)
)
SELECT count(*) FROM chosen;

-- name: remove_empty
-- parameters: batch_ids uuid[]
-- Removes the batches that have no items left. It is a separate statement, so that it sees the effect of remove_items. By the primary keys.
WITH batches AS (
    DELETE FROM orchestrator.batch b
    WHERE b.batch_id = ANY (CAST(:batch_ids AS uuid[]))
      AND NOT EXISTS (SELECT FROM orchestrator.batch_item i WHERE i.batch_id = b.batch_id)
    RETURNING b.batch_id
), parts AS (
    DELETE FROM orchestrator.batch_part p USING batches b WHERE p.batch_id = b.batch_id
), edits AS (
    DELETE FROM orchestrator.batch_edit e USING batches b WHERE e.batch_id = b.batch_id
), dismissals AS (
    DELETE FROM orchestrator.batch_dismissal d USING batches b WHERE d.batch_id = b.batch_id
)
SELECT count(*) FROM batches;

-- name: remove_keys
-- parameters: after interval, max_keys integer
-- Removes expired Idempotency-Keys. A request that is using an expired key either holds its row, which is then skipped, or waits for the end of
-- this transaction and claims the key. By the index idempotency_key_age.
DELETE FROM orchestrator.idempotency_key k
USING (SELECT organization_id, subject, key FROM orchestrator.idempotency_key
       WHERE created_at < clock_timestamp() - :after ORDER BY created_at LIMIT :max_keys FOR UPDATE SKIP LOCKED) AS old
WHERE (k.organization_id, k.subject, k.key) = (old.organization_id, old.subject, old.key);
