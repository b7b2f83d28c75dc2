-- Statements that read the logs of receipts, for proofs and receipts.

-- name: run_hashes
-- parameters: organization_id text, log integer, first_index bigint, end_index bigint
-- The hashes of leaves, by runs. By the primary key.
SELECT first_index, hashes FROM orchestrator.receipt_run
WHERE organization_id = :organization_id AND log = :log AND first_index >= :first_index AND first_index < :end_index;

-- name: nodes
-- parameters: organization_id text, log integer, level smallint, first_index bigint, end_index bigint
-- The stored hashes of a level. By the primary key.
SELECT index, hash FROM orchestrator.receipt_node
WHERE organization_id = :organization_id AND log = :log AND level = :level AND index >= :first_index AND index < :end_index;

-- name: last_checkpoint
-- parameters: organization_id text
-- The newest checkpoint of the organization. By the primary key.
SELECT c.log, c.size, c.root, c.note FROM orchestrator.receipt_checkpoint c
WHERE c.organization_id = :organization_id ORDER BY c.log DESC, c.size DESC LIMIT 1;

-- name: leaves_of_batch
-- parameters: organization_id text, log integer, batch_id uuid, size bigint
-- The runs with leaves of a batch, in a log of this size. By the index receipt_batch_of.
SELECT r.first_index, r.audit_ids, r.leaves
FROM orchestrator.receipt_batch b
JOIN orchestrator.receipt_run r ON (r.organization_id, r.log, r.first_index) = (b.organization_id, b.log, b.first_index)
WHERE b.batch_id = :batch_id AND b.organization_id = :organization_id AND b.log = :log AND b.first_index < :size
ORDER BY r.first_index;

-- name: persons
-- parameters: organization_id text, audit_ids bigint[]
-- The persons that audit rows name, with their salts. By the primary keys.
SELECT u.audit_id, u.attributed_to AS mentor_id, m.salt AS mentor_salt, u.by_id, b.salt AS by_salt
FROM (SELECT *, CASE WHEN action = 'registered' THEN registered_by ELSE submitted_by END AS by_id FROM registration.audit
      WHERE audit_id = ANY (CAST(:audit_ids AS bigint[])) AND organization_id = :organization_id) AS u
LEFT JOIN orchestrator.receipt_salt m ON (m.organization_id, m.person_id) = (u.organization_id, u.attributed_to)
LEFT JOIN orchestrator.receipt_salt b ON (b.organization_id, b.person_id) = (u.organization_id, u.by_id);
