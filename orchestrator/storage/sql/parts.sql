-- Statements on `batch_part` while an upstream batch is collected, under the batch's advisory lock.

-- name: known_parts
-- parameters: batch_ids uuid[], parts integer[]
-- What is stored of these parts and their batches. It first runs without the lock, which a part that is already stored does not need. For all
-- other parts it runs again under the lock. By the primary keys.
SELECT b.batch_id::text, b.organization_id, b.parts, b.content_hash AS header_hash, n.part, p.content_hash, p.public_hash
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:parts AS integer[])) AS n (batch_id, part)
JOIN orchestrator.batch b ON b.batch_id = n.batch_id
LEFT JOIN orchestrator.batch_part p ON (p.batch_id, p.part) = (n.batch_id, n.part);

-- name: create
-- parameters: batch_id uuid, organization_id text, coordinator_id text, submitted_by text, channel text, label text
-- parameters: total integer, parts integer, content_hash bytea, trace_id text
-- Creates the batch when its first part arrives, with all items counted as pending but without items.
INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items,
                                pending, parts, content_hash, trace_id, submitted_at, changed_at)
VALUES (:batch_id, :organization_id, :coordinator_id, :submitted_by, :channel, :label, 'pending', :total,
        :total, :parts, :content_hash, :trace_id, clock_timestamp(), clock_timestamp());

-- name: add
-- parameters: batch_id uuid, part integer, organization_id text, content_hash bytea, public_hash bytea, items jsonb
-- parameters: data_bytes integer
-- Stores a part. It keeps its items until all parts have arrived.
INSERT INTO orchestrator.batch_part (batch_id, part, organization_id, content_hash, public_hash, items, data_bytes, received_at)
VALUES (:batch_id, :part, :organization_id, :content_hash, :public_hash, CAST(:items AS jsonb), :data_bytes, clock_timestamp());

-- name: present
-- parameters: batch_id uuid
-- How many parts are stored, and their total size. By the primary key.
SELECT count(*) AS parts, coalesce(sum(data_bytes), 0) AS data_bytes FROM orchestrator.batch_part WHERE batch_id = :batch_id;

-- name: collected
-- parameters: batch_id uuid
-- The items of all parts, in the order of the parts and of the items in them. By the primary key.
SELECT p.part, p.received_at, CAST(e.item ->> 0 AS integer) AS position, e.item ->> 1 AS mentor_id, e.item ->> 2 AS activity_type,
       CAST(e.item ->> 3 AS date) AS activity_date, CAST(e.item ->> 4 AS integer) AS duration_minutes,
       e.item ->> 6 AS client_reference, CAST(e.item ->> 7 AS boolean) AS override_duplicates
FROM orchestrator.batch_part p CROSS JOIN LATERAL jsonb_array_elements(p.items) WITH ORDINALITY AS e (item, place)
WHERE p.batch_id = :batch_id
ORDER BY p.part, e.place;

-- name: insert_items
-- parameters: item_prefix text, item_tail bigint, override boolean, at timestamptz, batch_id uuid
-- Inserts the items of a batch whose parts have all arrived. Their ids are built here, from the prefix and the tail plus the position. By the
-- primary keys.
INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                     duration_minutes, notes, client_reference, override_duplicates, attempt_at, changed_version)
SELECT b.batch_id, i.position, CAST(:item_prefix || lpad(to_hex(CAST(:item_tail AS bigint) + i.position), 16, '0') AS uuid),
       b.organization_id, e.item ->> 1, e.item ->> 2, CAST(e.item ->> 3 AS date), CAST(e.item ->> 4 AS integer), e.item ->> 5,
       e.item ->> 6, coalesce(CAST(e.item ->> 7 AS boolean), :override), :at, b.version
FROM orchestrator.batch b
JOIN orchestrator.batch_part p USING (batch_id)
CROSS JOIN LATERAL jsonb_array_elements(p.items) AS e (item)
CROSS JOIN LATERAL CAST(e.item ->> 0 AS integer) AS i (position)
WHERE b.batch_id = :batch_id;

-- name: finish
-- parameters: at timestamptz, batch_id uuid
-- Moves the batch to `processing`. By the primary key.
UPDATE orchestrator.batch SET status = 'processing', submitted_at = :at, changed_at = :at, version = version + 1
WHERE batch_id = :batch_id;

-- name: drop_items
-- parameters: batch_id uuid
-- Removes the items from the parts, because they are now in `batch_item`. By the primary key.
UPDATE orchestrator.batch_part SET items = NULL WHERE batch_id = :batch_id;

-- name: forget_parts
-- parameters: batch_id uuid
-- Removes the parts of a batch that forget_batch has removed. By the primary key.
DELETE FROM orchestrator.batch_part WHERE batch_id = :batch_id;

-- name: forget_edits
-- parameters: batch_id uuid
-- Removes the edits of a batch that forget_batch has removed. By the primary key.
DELETE FROM orchestrator.batch_edit WHERE batch_id = :batch_id;

-- name: forget_batch
-- parameters: batch_id uuid
-- Removes a batch that is still being collected, because a part was refused or did not arrive in time. By the primary key.
DELETE FROM orchestrator.batch WHERE batch_id = :batch_id AND status = 'pending';
