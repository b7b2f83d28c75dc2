-- Statements on `idempotency_key`, and on the directory.

-- name: use_keys
-- parameters: organizations text[], subjects text[], keys text[], hashes bytea[], batch_ids uuid[]
-- Claims Idempotency-Keys. Returns the batches whose keys were free. The primary key decides, and waits for a concurrent transaction that uses
-- the same key. Sorted by the key, so that two of these statements can't deadlock.
INSERT INTO orchestrator.idempotency_key (organization_id, subject, key, request_hash, batch_id, created_at)
SELECT u.organization_id, u.subject, u.key, u.request_hash, u.batch_id, now()
FROM unnest(CAST(:organizations AS text[]), CAST(:subjects AS text[]), CAST(:keys AS text[]), CAST(:hashes AS bytea[]),
            CAST(:batch_ids AS uuid[])) WITH ORDINALITY AS u (organization_id, subject, key, request_hash, batch_id, ord)
ORDER BY u.organization_id, u.subject, u.key, u.ord
ON CONFLICT DO NOTHING
RETURNING batch_id::text;

-- name: used_keys
-- parameters: organizations text[], subjects text[], keys text[], batch_ids uuid[]
-- The committed uses of these keys. By the primary key.
SELECT u.batch_id::text AS wanted_by, k.request_hash, k.batch_id::text, k.answer
FROM unnest(CAST(:organizations AS text[]), CAST(:subjects AS text[]), CAST(:keys AS text[]), CAST(:batch_ids AS uuid[]))
     AS u (organization_id, subject, key, batch_id)
JOIN orchestrator.idempotency_key k USING (organization_id, subject, key);

-- name: used_key
-- parameters: organization_id text, subject text, key text
-- The committed use of one key. By the primary key.
SELECT request_hash, batch_id::text, answer FROM orchestrator.idempotency_key
WHERE (organization_id, subject, key) = (:organization_id, :subject, :key);

-- name: store_result
-- parameters: answer jsonb, organization_id text, subject text, key text
-- Stores the result that a repetition of the request returns. By the primary key.
UPDATE orchestrator.idempotency_key SET answer = CAST(:answer AS jsonb)
WHERE (organization_id, subject, key) = (:organization_id, :subject, :key);

-- name: known_coordinators
-- parameters: organization_id text, coordinator_ids text[]
-- The given coordinators who are in the directory. By the primary key.
SELECT coordinator_id FROM registration.coordinator
WHERE organization_id = :organization_id AND coordinator_id = ANY (CAST(:coordinator_ids AS text[]));
