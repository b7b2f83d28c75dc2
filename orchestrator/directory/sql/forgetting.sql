-- Statements of forgetting a person (docs/decisions/0045-forgetting.md). Those on the columns that are searched are composed in forgetting.py.

-- name: has_open
-- Whether any request is open. By the partial index forgetting_open.
SELECT EXISTS (SELECT FROM registration.forgetting WHERE done_at IS NULL);

-- name: oldest_s
-- How long the oldest open request has waited, in seconds. By the partial index forgetting_open.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(requested_at)), 0) FROM registration.forgetting WHERE done_at IS NULL;

-- name: take
-- parameters: aside uuid[]
-- Locks the oldest open request that nobody else is working on. By the partial index forgetting_open.
SELECT forgetting_id::text, organization_id, mentor_id, name, pseudonym, place FROM registration.forgetting
WHERE done_at IS NULL AND NOT forgetting_id = ANY (CAST(:aside AS uuid[])) ORDER BY requested_at, forgetting_id LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: remove_from_directory
-- parameters: organization_id text, mentor_id text
-- Removes the person from the directory, and returns the name. From now on, the mentor is unknown. By the primary keys.
WITH scopes AS (
    DELETE FROM registration.coordinator_scope WHERE organization_id = :organization_id AND coordinator_id = :mentor_id
), coordinators AS (
    DELETE FROM registration.coordinator WHERE organization_id = :organization_id AND coordinator_id = :mentor_id RETURNING name
), mentors AS (
    DELETE FROM registration.mentor WHERE organization_id = :organization_id AND mentor_id = :mentor_id RETURNING name
)
SELECT coalesce((SELECT name FROM mentors), (SELECT name FROM coordinators));

-- name: begin
-- parameters: forgetting_id uuid, name text, pseudonym text
-- Stores what is searched for, and what replaces it. By the primary key.
UPDATE registration.forgetting SET name = :name, pseudonym = :pseudonym, place = NULL WHERE forgetting_id = :forgetting_id;

-- name: move
-- parameters: forgetting_id uuid, place json, changed_rows bigint
-- Stores where the search continues. By the primary key.
UPDATE registration.forgetting SET place = CAST(:place AS jsonb), changed_rows = changed_rows + :changed_rows WHERE forgetting_id = :forgetting_id;

-- name: finish
-- parameters: forgetting_id uuid, changed_rows bigint
-- Removes what was searched for. Without a pseudonym, nobody has the id. By the primary key.
UPDATE registration.forgetting
SET mentor_id = NULL, name = NULL, place = NULL, changed_rows = changed_rows + :changed_rows, done_at = clock_timestamp()
WHERE forgetting_id = :forgetting_id;

-- name: busy
-- parameters: batch_ids uuid[]
-- Those of the batches that are running, or have an event that is not published yet. By the primary key; the outbox is small.
SELECT batch_id::text FROM orchestrator.batch WHERE batch_id = ANY (CAST(:batch_ids AS uuid[])) AND pending > 0
UNION
SELECT batch_id::text FROM orchestrator.outbox WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: sizes
-- parameters: batch_ids uuid[]
-- How many items these batches have. By the primary key.
SELECT batch_id::text, total_items FROM orchestrator.batch WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]));

-- name: text_bytes
-- parameters: batch_ids uuid[]
-- How large the notes and the earlier attempts of these batches are. By the primary keys.
SELECT batch_id::text, CAST(coalesce(sum(bytes), 0) AS bigint) AS text_bytes FROM (
    SELECT batch_id, octet_length(notes) AS bytes FROM orchestrator.batch_item WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))
    UNION ALL
    SELECT batch_id, octet_length(concat(submitted, correction)) FROM orchestrator.item_history WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))
) AS t GROUP BY batch_id;

-- name: empty_parts
-- parameters: batch_ids uuid[]
-- Removes the items from parts that still have some: of these batches, only a version before emptied no parts when a batch was cancelled. Items are
-- arrays without names of fields, so a person's own notes could not be told from others. By the primary key.
UPDATE orchestrator.batch_part SET items = '[]' WHERE batch_id = ANY (CAST(:batch_ids AS uuid[])) AND items <> '[]';

-- name: own_items
-- parameters: organization_id text, mentor_id text, batch_ids uuid[], first_items uuid[], last_items uuid[]
-- The items of these batches that are or were for the person. By the primary keys, and the unique index on the activities' item_id. An item's id ends
-- with its position.
SELECT i.batch_id::text, i.position, i.item_id::text FROM orchestrator.batch_item i
WHERE i.batch_id = ANY (CAST(:batch_ids AS uuid[])) AND i.organization_id = :organization_id
  AND (i.mentor_id = :mentor_id
       OR EXISTS (SELECT FROM orchestrator.item_history h
                  WHERE (h.batch_id, h.position) = (i.batch_id, i.position)
                    AND :mentor_id IN (h.submitted ->> 'mentor_id', h.correction ->> 'mentor_id')))
UNION
SELECT a.batch_id::text, CAST(CAST('x' || right(CAST(a.item_id AS text), 5) AS bit(20)) AS integer), a.item_id::text
FROM unnest(CAST(:first_items AS uuid[]), CAST(:last_items AS uuid[])) AS n (first, last)
JOIN registration.activity a ON a.item_id BETWEEN n.first AND n.last AND a.organization_id = :organization_id AND a.attributed_to = :mentor_id
ORDER BY 1, 2;
