-- Statements on the checkpoints of the logs of receipts, on the keys that sign them, and on what was read back from the lifecycle topic.

-- name: due
-- parameters: signed_before interval
-- The newest log of each organization, if a checkpoint of it is due: it has grown, and one of the new leaves' batches has ended (or was purged),
-- or the last checkpoint is old. Reads all logs, of which each organization has one, and the new leaves' batches by the primary key.
SELECT l.organization_id, l.log, l.origin, l.size, l.frontier FROM orchestrator.receipt_log l
WHERE l.size > l.signed_size
  AND NOT EXISTS (SELECT FROM orchestrator.receipt_log newer WHERE newer.organization_id = l.organization_id AND newer.log > l.log)
  AND NOT EXISTS (SELECT FROM orchestrator.receipt_published p
                  WHERE p.organization_id = l.organization_id AND p.log >= l.log AND p.state <> 'agrees')
  AND (coalesce(l.signed_at, l.began_at) < clock_timestamp() - :signed_before
       OR EXISTS (SELECT FROM orchestrator.receipt_batch r LEFT JOIN orchestrator.batch b ON b.batch_id = r.batch_id
                  WHERE r.organization_id = l.organization_id AND r.log = l.log AND r.first_index >= l.signed_size
                    AND coalesce(b.status, 'purged') NOT IN ('pending', 'processing')))
ORDER BY l.organization_id;

-- name: store
-- parameters: organization_id text, log integer, size bigint, root bytea, note text, signed_at timestamptz
-- Stores a checkpoint. By the primary key of the log.
WITH signed AS (
    UPDATE orchestrator.receipt_log SET signed_size = :size, signed_at = :signed_at WHERE organization_id = :organization_id AND log = :log
)
INSERT INTO orchestrator.receipt_checkpoint (organization_id, log, size, root, note, signed_at)
VALUES (:organization_id, :log, :size, :root, :note, :signed_at);

-- name: now
-- The time of a checkpoint.
SELECT clock_timestamp();

-- name: add_key
-- parameters: verifier text
-- Makes a public key known. Returns no row if it is known.
INSERT INTO orchestrator.receipt_key (verifier) VALUES (:verifier) ON CONFLICT DO NOTHING RETURNING verifier;

-- name: keys
-- All public keys, the newest first.
SELECT verifier FROM orchestrator.receipt_key ORDER BY added_at DESC, verifier;

-- name: reading
-- How far the checkpoints on the lifecycle topic were compared.
SELECT partition, next_offset FROM orchestrator.receipt_reading;

-- name: read_again
-- Sets it back to the beginning of the topic. Writes the few rows of the table.
UPDATE orchestrator.receipt_reading SET next_offset = 0;

-- name: note_reading
-- parameters: partitions integer[], next_offsets bigint[]
-- Stores how far they were compared.
INSERT INTO orchestrator.receipt_reading AS r (partition, next_offset)
SELECT * FROM unnest(CAST(:partitions AS integer[]), CAST(:next_offsets AS bigint[]))
ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset;

-- name: sizes
-- parameters: organization_ids text[]
-- The logs of these organizations. By the primary key.
SELECT organization_id, log, size FROM orchestrator.receipt_log WHERE organization_id = ANY (CAST(:organization_ids AS text[]));

-- name: own_roots
-- parameters: organization_ids text[], logs integer[], sizes bigint[]
-- The roots of our own checkpoints of these logs at these sizes. By the primary key.
SELECT c.organization_id, c.log, c.size, c.root
FROM unnest(CAST(:organization_ids AS text[]), CAST(:logs AS integer[]), CAST(:sizes AS bigint[])) AS n (organization_id, log, size)
JOIN orchestrator.receipt_checkpoint c USING (organization_id, log, size);

-- name: published
-- parameters: organization_ids text[]
-- What was read back of these organizations' logs. By the primary key.
SELECT organization_id, log, size, root, note, state FROM orchestrator.receipt_published WHERE organization_id = ANY (CAST(:organization_ids AS text[]));

-- name: unsettled
-- The checkpoints that were read back and that the logs don't agree with. Reads the table, which has a row for each log.
SELECT p.organization_id, p.log, p.size, p.root, p.note, p.state FROM orchestrator.receipt_published p
WHERE p.state <> 'agrees'
  AND NOT EXISTS (SELECT FROM orchestrator.receipt_log newer WHERE newer.organization_id = p.organization_id AND newer.log > p.log)
ORDER BY p.organization_id, p.log;

-- name: note_published
-- parameters: organization_id text, log integer, size bigint, root bytea, note text, state text
-- Stores what was read back of a log. By the primary key.
INSERT INTO orchestrator.receipt_published AS p (organization_id, log, size, root, note, state)
VALUES (:organization_id, :log, :size, :root, :note, :state)
ON CONFLICT (organization_id, log) DO UPDATE
SET size = excluded.size, root = excluded.root, note = excluded.note, state = excluded.state;

-- name: last_log
-- parameters: organization_id text
-- The highest number of a log of the organization, in the tables or on the topic. By the primary keys.
SELECT greatest((SELECT max(log) FROM orchestrator.receipt_log WHERE organization_id = :organization_id),
                (SELECT max(log) FROM orchestrator.receipt_published WHERE organization_id = :organization_id));

-- name: figures
-- For the metrics: leaves, the time of the newest checkpoint, and how many logs may not be signed. Reads a row for each log.
SELECT coalesce(sum(l.size), 0) AS leaves, extract(epoch FROM max(l.signed_at)) AS signed_at,
       (SELECT count(*) FROM orchestrator.receipt_published p
        WHERE p.state <> 'agrees' AND NOT EXISTS (
            SELECT FROM orchestrator.receipt_log newer WHERE newer.organization_id = p.organization_id AND newer.log > p.log)) AS halted
FROM orchestrator.receipt_log l;
