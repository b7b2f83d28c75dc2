-- Statements that revoke activities (docs/decisions/0034-undo.md). The item ids of a batch are one range, so its activities are found by the
-- unique index on item_id, even if the batch is purged.

-- name: closed_through
-- parameters: organization_id text
-- The last day of an organization's closed period. By the primary key.
SELECT closed_through FROM registration.organization WHERE organization_id = :organization_id;

-- name: place
-- parameters: activity_id uuid
-- The organization, coordinator and item of an activity. By the primary key.
SELECT organization_id, registered_by, batch_id::text, item_id::text FROM registration.activity WHERE activity_id = :activity_id;

-- name: of_batch
-- parameters: batch_id uuid, first_item_id uuid, last_item_id uuid
-- All activities of a batch. By the index on item_id.
SELECT activity_id::text, item_id::text, activity_date, created_at, revoked_at, revoked_by, revocation_reason FROM registration.activity
WHERE item_id BETWEEN :first_item_id AND :last_item_id AND batch_id = :batch_id
ORDER BY item_id;

-- name: of_items
-- parameters: batch_id uuid, item_ids uuid[]
-- The activities of some items. By the index on item_id.
SELECT activity_id::text, item_id::text, activity_date, created_at, revoked_at, revoked_by, revocation_reason FROM registration.activity
WHERE item_id = ANY (CAST(:item_ids AS uuid[])) AND batch_id = :batch_id
ORDER BY item_id;

-- name: lock
-- parameters: activity_ids uuid[]
-- Locks every living activity of the mentors, types and dates of these activities. The order is that of the key, as in the registration's
-- inserts; for each key, the unflagged activity comes first, because it serves as the lock of the key. By the two partial indexes of living
-- activities.
WITH keys AS MATERIALIZED (
    SELECT DISTINCT organization_id, attributed_to, activity_type, activity_date FROM registration.activity
    WHERE activity_id = ANY (CAST(:activity_ids AS uuid[]))
), living AS MATERIALIZED (
    SELECT u.activity_id FROM keys k
    JOIN registration.activity u USING (organization_id, attributed_to, activity_type, activity_date)
    WHERE NOT u.overrides_duplicate AND u.revoked_at IS NULL
    UNION ALL
    SELECT f.activity_id FROM keys k
    JOIN registration.activity f USING (organization_id, attributed_to, activity_type, activity_date)
    WHERE f.overrides_duplicate AND f.revoked_at IS NULL
)
SELECT a.activity_id FROM registration.activity a JOIN living USING (activity_id)
WHERE a.revoked_at IS NULL
ORDER BY a.organization_id, a.attributed_to, a.activity_type, a.activity_date, a.overrides_duplicate, a.activity_id
FOR NO KEY UPDATE OF a;

-- name: revoke
-- parameters: activity_ids uuid[], at timestamptz, by text, reason text, channel text
-- Revokes activities that are locked, and writes an audit row for each. By the primary keys of both tables: an item's id ends with its
-- position. The position is a column before it is joined: row level security evaluates an expression only after it has read the row, so
-- each activity would read all items of its batch. Of an item that was purged, the audit row of the registration has the attempt; that row is
-- found by `audit_activity`.
WITH revoked AS (
    UPDATE registration.activity SET revoked_at = :at, revoked_by = :by, revocation_reason = :reason
    WHERE activity_id = ANY (CAST(:activity_ids AS uuid[])) AND revoked_at IS NULL
    RETURNING organization_id, activity_id, registered_by, attributed_to, batch_id, activity_type, activity_date, duration_minutes, item_id,
              CAST(CAST('x' || right(CAST(item_id AS text), 5) AS bit(20)) AS integer) AS position
)
INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at, reason,
                                activity_type, activity_date, duration_minutes, item_id, attempt)
SELECT r.organization_id, 'revoked', r.activity_id, r.registered_by, r.attributed_to, :by, r.batch_id, :channel, :at, :reason,
       r.activity_type, r.activity_date, r.duration_minutes, r.item_id,
       coalesce(i.attempt, (SELECT max(u.attempt) FROM registration.audit u WHERE u.activity_id = r.activity_id AND u.action = 'registered'))
FROM revoked r LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (r.batch_id, r.position);

-- name: clear_flags
-- parameters: activity_ids uuid[]
-- For each of these activities that was unflagged, the oldest flagged one of the same mentor, type and date loses its flag (invariant 6). It is a
-- separate statement, because the activity can enter the unique index only after the revoked one has left it. By the index on flagged
-- activities.
WITH keys AS MATERIALIZED (
    SELECT DISTINCT organization_id, attributed_to, activity_type, activity_date FROM registration.activity
    WHERE activity_id = ANY (CAST(:activity_ids AS uuid[])) AND NOT overrides_duplicate
), heirs AS MATERIALIZED (
    SELECT DISTINCT ON (k.organization_id, k.attributed_to, k.activity_type, k.activity_date) f.activity_id
    FROM keys k JOIN registration.activity f USING (organization_id, attributed_to, activity_type, activity_date)
    WHERE f.overrides_duplicate AND f.revoked_at IS NULL
    ORDER BY k.organization_id, k.attributed_to, k.activity_type, k.activity_date, f.created_at, f.activity_id
)
UPDATE registration.activity a SET overrides_duplicate = false FROM heirs h WHERE a.activity_id = h.activity_id;
