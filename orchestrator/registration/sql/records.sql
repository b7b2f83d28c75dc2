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
-- activities. Nothing here is a join: a table without statistics seems to have one row of an organization, and PostgreSQL then compares each
-- of 10,000 keys with each activity, which took 18 s. `IS TRUE` keeps it from turning the comparison with all keys, a hash table, into a join.
-- DISTINCT keeps the arrays short: where PostgreSQL compares each activity with an array, one of 10,000 elements took 1.1 s, one of 50 took 0.1 s.
WITH keys AS MATERIALIZED (
    SELECT organization_id, attributed_to, activity_type, activity_date FROM registration.activity
    WHERE activity_id = ANY (CAST(:activity_ids AS uuid[]))
), living AS MATERIALIZED (
    SELECT activity_id FROM registration.activity
    WHERE organization_id = ANY (ARRAY(SELECT DISTINCT organization_id FROM keys))
      AND attributed_to = ANY (ARRAY(SELECT DISTINCT attributed_to FROM keys))
      AND activity_type = ANY (ARRAY(SELECT DISTINCT activity_type FROM keys))
      AND activity_date = ANY (ARRAY(SELECT DISTINCT activity_date FROM keys))
      AND NOT overrides_duplicate AND revoked_at IS NULL
      AND ((organization_id, attributed_to, activity_type, activity_date) IN (SELECT * FROM keys)) IS TRUE
    UNION ALL
    SELECT activity_id FROM registration.activity
    WHERE organization_id = ANY (ARRAY(SELECT DISTINCT organization_id FROM keys))
      AND attributed_to = ANY (ARRAY(SELECT DISTINCT attributed_to FROM keys))
      AND activity_type = ANY (ARRAY(SELECT DISTINCT activity_type FROM keys))
      AND activity_date = ANY (ARRAY(SELECT DISTINCT activity_date FROM keys))
      AND overrides_duplicate AND revoked_at IS NULL
      AND ((organization_id, attributed_to, activity_type, activity_date) IN (SELECT * FROM keys)) IS TRUE
)
SELECT activity_id FROM registration.activity
WHERE activity_id = ANY (ARRAY(SELECT activity_id FROM living)) AND revoked_at IS NULL
ORDER BY organization_id, attributed_to, activity_type, activity_date, overrides_duplicate, activity_id
FOR NO KEY UPDATE;

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
       coalesce(i.attempt, (SELECT max(u.attempt) FROM registration.audit u WHERE u.activity_id = r.activity_id))
FROM revoked r LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (r.batch_id, r.position);

-- name: clear_flags
-- parameters: activity_ids uuid[]
-- For each of these activities that was unflagged, the oldest flagged one of the same mentor, type and date loses its flag (invariant 6). It is a
-- separate statement, because the activity can enter the unique index only after the revoked one has left it. By the index on flagged
-- activities, without a join, like `lock`.
WITH keys AS MATERIALIZED (
    SELECT organization_id, attributed_to, activity_type, activity_date FROM registration.activity
    WHERE activity_id = ANY (CAST(:activity_ids AS uuid[])) AND NOT overrides_duplicate
), heirs AS MATERIALIZED (
    SELECT DISTINCT ON (organization_id, attributed_to, activity_type, activity_date) activity_id FROM registration.activity
    WHERE organization_id = ANY (ARRAY(SELECT DISTINCT organization_id FROM keys))
      AND attributed_to = ANY (ARRAY(SELECT DISTINCT attributed_to FROM keys))
      AND activity_type = ANY (ARRAY(SELECT DISTINCT activity_type FROM keys))
      AND activity_date = ANY (ARRAY(SELECT DISTINCT activity_date FROM keys))
      AND overrides_duplicate AND revoked_at IS NULL
      AND ((organization_id, attributed_to, activity_type, activity_date) IN (SELECT * FROM keys)) IS TRUE
    ORDER BY organization_id, attributed_to, activity_type, activity_date, created_at, activity_id
)
UPDATE registration.activity SET overrides_duplicate = false WHERE activity_id = ANY (ARRAY(SELECT activity_id FROM heirs));
