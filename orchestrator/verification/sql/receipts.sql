-- Statements of `bulkreg receipts audit`. They run in one read-only snapshot, and read each log and the records of its organization once.

-- name: logs
-- parameters: organization_id text
-- All logs, or those of one organization. The newest of each organization has to agree with the tables.
SELECT organization_id, log, origin, before_log, size, frontier, signed_size,
       log = max(log) OVER (PARTITION BY organization_id) AS is_newest
FROM orchestrator.receipt_log
WHERE CAST(:organization_id AS text) IS NULL OR organization_id = CAST(:organization_id AS text)
ORDER BY organization_id, log;

-- name: organizations_without_log
-- parameters: organization_id text
-- Organizations with audit rows that the notary has passed, and without a log. `had_log` is false if none of these rows could become a leaf, because
-- they are of an early version and their activities were removed.
SELECT u.organization_id,
       bool_or(u.item_id IS NOT NULL OR EXISTS (SELECT FROM registration.activity a WHERE a.activity_id = u.activity_id)) AS had_log
FROM registration.audit u
WHERE u.audit_id <= (SELECT appended_through FROM orchestrator.receipt_cursor)
  AND (CAST(:organization_id AS text) IS NULL OR u.organization_id = CAST(:organization_id AS text))
  AND NOT EXISTS (SELECT FROM orchestrator.receipt_log l WHERE l.organization_id = u.organization_id)
GROUP BY u.organization_id ORDER BY u.organization_id;

-- name: runs
-- parameters: organization_id text, log integer, after_index bigint, runs integer
-- The next runs of a log. By the primary key.
SELECT first_index, audit_ids, hashes, leaves FROM orchestrator.receipt_run
WHERE organization_id = :organization_id AND log = :log AND first_index > :after_index ORDER BY first_index LIMIT :runs;

-- name: nodes
-- parameters: organization_id text, log integer
-- The stored inner hashes of a log. By the primary key.
SELECT level, index AS number, hash FROM orchestrator.receipt_node WHERE organization_id = :organization_id AND log = :log;

-- name: checkpoints
-- parameters: organization_id text, log integer
-- The checkpoints of a log, by size. By the primary key.
SELECT size, root, note FROM orchestrator.receipt_checkpoint WHERE organization_id = :organization_id AND log = :log ORDER BY size;

-- name: salts
-- parameters: organization_id text
-- All salts of an organization. By the primary key.
SELECT person_id, salt FROM orchestrator.receipt_salt WHERE organization_id = :organization_id;

-- name: being_forgotten
-- parameters: organization_id text
-- The people of an organization who are being forgotten, and the ids that replace theirs. By the partial index forgetting_open.
SELECT mentor_id, pseudonym FROM registration.forgetting
WHERE organization_id = :organization_id AND done_at IS NULL AND pseudonym IS NOT NULL;

-- name: activities
-- parameters: organization_id text, activity_ids uuid[]
-- The activities that leaves are about. By the primary key.
SELECT activity_id::text, attributed_to, registered_by, activity_type, activity_date, duration_minutes, batch_id::text, item_id::text, created_at,
       revoked_at, revoked_by
FROM registration.activity WHERE activity_id = ANY (CAST(:activity_ids AS uuid[])) AND organization_id = :organization_id;

-- name: unaudited
-- parameters: organization_id text
-- Activities whose registration is in no audit row. By the index activity_by_date, and the audit's index on its activity.
SELECT a.activity_id::text FROM registration.activity a
WHERE a.organization_id = :organization_id
  AND NOT EXISTS (SELECT FROM registration.audit u WHERE u.activity_id = a.activity_id AND u.action = 'registered');

-- name: revoked
-- parameters: organization_id text
-- Revoked activities, except those whose revocation is not in the log yet. By the index activity_revoked.
SELECT a.activity_id::text FROM registration.activity a
WHERE a.organization_id = :organization_id AND a.revoked_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM registration.audit u WHERE u.activity_id = a.activity_id AND u.action = 'revoked'
                  AND u.audit_id > (SELECT appended_through FROM orchestrator.receipt_cursor));
