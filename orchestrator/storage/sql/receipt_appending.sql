-- Statements that append audit rows to the logs of receipts (docs/decisions/0044-receipt-logs.md). All run in one transaction, under the advisory
-- lock of the logs.

-- name: try_turn
-- parameters: space integer, which integer
-- Whether this transaction may append. It holds an advisory lock until its end; other notaries find the lock taken, and return.
SELECT pg_try_advisory_xact_lock(:space, :which);

-- name: turn
-- parameters: space integer, which integer
-- Waits until this transaction may change logs or salts, and holds the lock until its end.
SELECT pg_advisory_xact_lock(:space, :which);

-- name: position
-- How far the audit is in the logs, and the newest committed audit row. By the primary keys.
SELECT appended_through, before_log, coalesce((SELECT max(audit_id) FROM registration.audit), 0) AS newest FROM orchestrator.receipt_cursor;

-- name: writers
-- The running transactions that may have written audit rows. A transaction locks the table before it draws an id, and releases it when its rows
-- are visible, or will never be. The lock of a prepared transaction has no process.
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = CAST('registration.audit' AS regclass)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND granted AND pid IS DISTINCT FROM pg_backend_pid();

-- name: rows
-- parameters: after bigint, through bigint, organization_id text, rows integer
-- Audit rows in the order of their ids, of one organization or of all. By the primary key. A row of an early version has no values: its activity has
-- them, and its item the attempt. OFFSET keeps the planner from looking activities up for other rows.
SELECT u.audit_id, u.organization_id, u.action, u.activity_id::text, u.attributed_to AS mentor_id,
       CASE WHEN u.action = 'registered' THEN u.registered_by ELSE u.submitted_by END AS by_id, u.batch_id::text, u.at,
       coalesce(u.activity_type, old.activity_type) AS activity_type, coalesce(u.activity_date, old.activity_date) AS activity_date,
       coalesce(u.duration_minutes, old.duration_minutes) AS duration_minutes, coalesce(u.item_id, old.item_id)::text AS item_id,
       coalesce(u.attempt, old.attempt) AS attempt
FROM registration.audit u
LEFT JOIN LATERAL (
    SELECT a.activity_type, a.activity_date, a.duration_minutes, a.item_id, i.attempt
    FROM (SELECT *, CAST(CAST('x' || right(CAST(item_id AS text), 5) AS bit(20)) AS integer) AS position
          FROM registration.activity WHERE u.item_id IS NULL AND activity_id = u.activity_id OFFSET 0) AS a
    LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (a.batch_id, a.position)
    OFFSET 0
) AS old ON true
WHERE u.audit_id > :after AND u.audit_id <= :through
  AND (CAST(:organization_id AS text) IS NULL OR u.organization_id = CAST(:organization_id AS text))
  AND (u.item_id IS NOT NULL OR old.item_id IS NOT NULL)
ORDER BY u.audit_id LIMIT :rows;

-- name: lost_rows
-- parameters: after bigint, through bigint, organization_id text
-- Audit rows of an early version whose activity somebody has removed, of one organization or of all. By the primary key.
SELECT u.audit_id, u.organization_id, u.activity_id::text FROM registration.audit u
WHERE u.audit_id > :after AND u.audit_id <= :through AND u.item_id IS NULL
  AND (CAST(:organization_id AS text) IS NULL OR u.organization_id = CAST(:organization_id AS text))
  AND NOT EXISTS (SELECT FROM registration.activity a WHERE a.activity_id = u.activity_id)
ORDER BY u.audit_id;

-- name: logs
-- parameters: organization_ids text[]
-- The newest log of each of these organizations. By the primary key.
SELECT DISTINCT ON (organization_id) organization_id, log, before_log, size, frontier FROM orchestrator.receipt_log
WHERE organization_id = ANY (CAST(:organization_ids AS text[])) ORDER BY organization_id, log DESC;

-- name: begin_log
-- parameters: organization_id text, log integer, origin text, reason text, before_log bigint
-- Begins a log, which is empty.
INSERT INTO orchestrator.receipt_log (organization_id, log, origin, reason, before_log)
VALUES (:organization_id, :log, :origin, :reason, :before_log);

-- name: salts
-- parameters: organization_ids text[], person_ids text[]
-- The salts that these persons have. By the primary key.
SELECT s.organization_id, s.person_id, s.salt
FROM unnest(CAST(:organization_ids AS text[]), CAST(:person_ids AS text[])) AS p (organization_id, person_id)
JOIN orchestrator.receipt_salt s USING (organization_id, person_id);

-- name: store_salts
-- parameters: organization_ids text[], person_ids text[], salts bytea[]
-- Stores the salts of persons who had none.
INSERT INTO orchestrator.receipt_salt (organization_id, person_id, salt)
SELECT * FROM unnest(CAST(:organization_ids AS text[]), CAST(:person_ids AS text[]), CAST(:salts AS bytea[]));

-- name: store_run
-- parameters: organization_id text, log integer, first_index bigint, audit_ids bigint[], hashes bytea, leaves bytea, batch_ids uuid[]
-- Stores a run of leaves, and the batches that they are of.
WITH run AS (
    INSERT INTO orchestrator.receipt_run (organization_id, log, first_index, audit_ids, hashes, leaves)
    VALUES (:organization_id, :log, :first_index, CAST(:audit_ids AS bigint[]), :hashes, :leaves)
)
INSERT INTO orchestrator.receipt_batch (organization_id, log, first_index, batch_id)
SELECT :organization_id, :log, :first_index, batch_id FROM unnest(CAST(:batch_ids AS uuid[])) AS b (batch_id);

-- name: store_nodes
-- parameters: organization_id text, log integer, levels smallint[], indexes bigint[], hashes bytea[]
-- Stores hashes of perfect subtrees.
INSERT INTO orchestrator.receipt_node (organization_id, log, level, index, hash)
SELECT :organization_id, :log, n.level, n.index, n.hash
FROM unnest(CAST(:levels AS smallint[]), CAST(:indexes AS bigint[]), CAST(:hashes AS bytea[])) AS n (level, index, hash);

-- name: grow
-- parameters: organization_id text, log integer, size bigint, frontier bytea
-- Stores the new size of a log. By the primary key.
UPDATE orchestrator.receipt_log SET size = :size, frontier = :frontier WHERE organization_id = :organization_id AND log = :log;

-- name: advance
-- parameters: through bigint
-- Stores how far the audit is in the logs.
UPDATE orchestrator.receipt_cursor SET appended_through = :through;

-- name: behind
-- How long the oldest audit row that is in no log has existed. By the primary key.
SELECT coalesce(extract(epoch FROM clock_timestamp() - (
    SELECT at FROM registration.audit WHERE audit_id > (SELECT appended_through FROM orchestrator.receipt_cursor) ORDER BY audit_id LIMIT 1
)), 0);

-- name: forget
-- parameters: organization_id text, person_id text
-- Destroys the salt of a person. By the primary key.
DELETE FROM orchestrator.receipt_salt WHERE organization_id = :organization_id AND person_id = :person_id;
