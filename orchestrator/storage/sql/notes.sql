-- Statements that erase notes (docs/decisions/0045-forgetting.md). The transaction holds the exclusive locks of the batches, so no registration and no
-- retry copies notes meanwhile.

-- name: erase
-- parameters: batch_ids uuid[], positions integer[], item_ids uuid[], organizations text[], at timestamptz, by text, channel text
-- Erases the notes of items from the item, its earlier attempts and its activity, and stores that they were erased. Items that have no notes
-- get no row. The erased attempt of a purged item is that of its registration. Items change with the version that the batch is about to get.
-- By the primary keys, the unique index on the activities' item_id, and `audit_activity`.
WITH n AS MATERIALIZED (
    SELECT * FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:item_ids AS uuid[]), CAST(:organizations AS text[]))
         AS n (batch_id, position, item_id, organization_id)
), items AS (
    UPDATE orchestrator.batch_item i SET notes = NULL, changed_version = b.version + 1
    FROM n JOIN orchestrator.batch b USING (batch_id)
    WHERE (i.batch_id, i.position) = (n.batch_id, n.position) AND i.notes IS NOT NULL
    RETURNING i.batch_id, i.position
), history AS (
    UPDATE orchestrator.item_history h
    SET submitted = h.submitted || '{"notes": null}', correction = nullif(h.correction - 'notes', '{}')
    FROM n WHERE (h.batch_id, h.position) = (n.batch_id, n.position)
             AND (h.submitted ->> 'notes' IS NOT NULL OR h.correction ->> 'notes' IS NOT NULL)
    RETURNING h.batch_id, h.position
), activities AS (
    UPDATE registration.activity a SET notes = NULL
    FROM n WHERE a.item_id = n.item_id AND a.batch_id = n.batch_id AND a.notes IS NOT NULL
    RETURNING n.batch_id, n.position, a.activity_id
), erased AS (
    SELECT batch_id, position FROM items UNION SELECT batch_id, position FROM history UNION SELECT batch_id, position FROM activities
)
INSERT INTO registration.notes_erasure (batch_id, position, attempt, organization_id, item_id, erased_by, channel, erased_at)
SELECT n.batch_id, n.position,
       coalesce(i.attempt, (SELECT max(u.attempt) FROM activities a JOIN registration.audit u ON u.activity_id = a.activity_id
                            WHERE (a.batch_id, a.position) = (n.batch_id, n.position)), 1),
       n.organization_id, n.item_id, :by, :channel, :at
FROM erased JOIN n USING (batch_id, position)
LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
ON CONFLICT (batch_id, position, attempt) DO NOTHING;

-- name: lock_activities
-- parameters: batch_ids uuid[], item_ids uuid[]
-- Locks the activities with notes of these items, in the order of their key (docs/decisions/0029-one-lock-order.md). By the unique index on item_id.
SELECT 1 FROM registration.activity a
WHERE a.item_id = ANY (CAST(:item_ids AS uuid[])) AND a.batch_id = ANY (CAST(:batch_ids AS uuid[])) AND a.notes IS NOT NULL
ORDER BY a.organization_id, a.attributed_to, a.activity_type, a.activity_date, a.overrides_duplicate, a.activity_id
FOR NO KEY UPDATE OF a;

-- name: touch
-- parameters: batch_ids uuid[], at timestamptz
-- Raises the versions of locked batches, so that nobody is told that a copy with the notes is still the newest. By the primary key.
UPDATE orchestrator.batch SET version = version + 1, changed_at = :at WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: place
-- parameters: item_id uuid, batch_id uuid
-- The organization and coordinator of the activity of an item, also of a purged batch. By the unique index on item_id.
SELECT organization_id, registered_by FROM registration.activity WHERE item_id = :item_id AND batch_id = :batch_id;

-- name: due_items
-- parameters: after interval, aside uuid[], max_items integer
-- The oldest decided items whose present attempt began long enough ago and that have notes. An item that an external service was asked for has to
-- be sent again as it is. By the partial index batch_item_notes.
SELECT i.batch_id::text FROM orchestrator.batch_item i
WHERE i.notes IS NOT NULL AND i.attempt_at < clock_timestamp() - :after AND i.status <> 'pending' AND NOT i.batch_id = ANY (CAST(:aside AS uuid[]))
  AND NOT EXISTS (SELECT FROM orchestrator.dispatch d WHERE (d.batch_id, d.position, d.state) = (i.batch_id, i.position, 'asked'))
ORDER BY i.attempt_at LIMIT :max_items;

-- name: due_at
-- parameters: after interval, batch_ids uuid[], max_items integer
-- The items of locked batches that `due_items` finds, after the lock. By the primary key.
SELECT i.batch_id::text, i.position, i.item_id::text, i.organization_id FROM orchestrator.batch_item i
WHERE i.batch_id = ANY (CAST(:batch_ids AS uuid[])) AND i.notes IS NOT NULL AND i.attempt_at < clock_timestamp() - :after AND i.status <> 'pending'
  AND NOT EXISTS (SELECT FROM orchestrator.dispatch d WHERE (d.batch_id, d.position, d.state) = (i.batch_id, i.position, 'asked'))
ORDER BY i.batch_id, i.position LIMIT :max_items;

-- name: due_activities
-- parameters: after interval, max_items integer
-- The oldest activities with notes that were registered long enough ago and whose item is purged. By the partial index activity_notes.
SELECT a.batch_id::text, CAST(CAST('x' || right(CAST(a.item_id AS text), 5) AS bit(20)) AS integer) AS position, a.item_id::text, a.organization_id
FROM registration.activity a
WHERE a.notes IS NOT NULL AND a.created_at < clock_timestamp() - :after
  AND NOT EXISTS (SELECT FROM orchestrator.batch b WHERE b.batch_id = a.batch_id)
ORDER BY a.created_at LIMIT :max_items;
