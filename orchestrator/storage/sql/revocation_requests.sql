-- Statements on `revocation_request`: what an external registration service was asked to revoke (docs/external-registration.md). A call and an
-- answer hold the row of the batch.

-- name: living
-- parameters: batch_id uuid, positions integer[]
-- The living activities of these items that the service has registered, and whether it was asked to revoke them. By the primary keys.
SELECT d.position, d.answered_at AS created_at, r.state IS NOT DISTINCT FROM 'asked' AS is_requested
FROM orchestrator.dispatch d
JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
LEFT JOIN orchestrator.revocation_request r ON (r.batch_id, r.position) = (d.batch_id, d.position)
WHERE d.batch_id = :batch_id AND d.position = ANY (CAST(:positions AS integer[]))
  AND d.state = 'registered' AND i.revoked_at IS NULL
ORDER BY d.position;

-- name: request
-- parameters: batch_id uuid, positions integer[], organization_id text, at timestamptz, by text, channel text, reason text, is_bulk boolean
-- Stores new requests. A request that the service has refused is followed by the next one. The batch is locked. By the primary key.
INSERT INTO orchestrator.revocation_request AS r (batch_id, position, organization_id, asked_at, asked_by, channel, reason, is_bulk, sent_at)
SELECT :batch_id, position, :organization_id, :at, :by, :channel, :reason, :is_bulk, :at
FROM unnest(CAST(:positions AS integer[])) AS n (position)
ORDER BY position
ON CONFLICT (batch_id, position) DO UPDATE
SET request = r.request + 1, state = 'asked', asked_at = excluded.asked_at, asked_by = excluded.asked_by, channel = excluded.channel,
    reason = excluded.reason, code = NULL, answered_at = NULL, is_bulk = excluded.is_bulk, sent_at = excluded.sent_at, resends = 0
WHERE r.state = 'refused';

-- name: open
-- parameters: batch_ids uuid[], positions integer[]
-- The requests of these items that the service has not answered, with what it is asked. By the primary keys.
SELECT r.batch_id::text, r.position, r.request, r.organization_id, r.asked_at, r.asked_by, r.channel, r.reason, r.is_bulk,
       d.activity_id::text, b.trace_id
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[])) AS n (batch_id, position)
JOIN orchestrator.revocation_request r ON (r.batch_id, r.position) = (n.batch_id, n.position)
JOIN orchestrator.dispatch d ON (d.batch_id, d.position) = (r.batch_id, r.position)
JOIN orchestrator.batch b ON b.batch_id = r.batch_id
WHERE r.state = 'asked'
ORDER BY r.batch_id, r.position;

-- name: record
-- parameters: batch_ids uuid[], positions integer[], requests integer[], codes text[], at timestamptz
-- Stores answers; one without a code says that the activity is revoked. Only the answer to the open request counts; a late or repeated one
-- changes nothing. Returns the requests that it has answered. The batches' rows are locked. By the primary key.
UPDATE orchestrator.revocation_request r
SET state = CASE WHEN n.code IS NULL THEN 'revoked' ELSE 'refused' END, code = n.code, answered_at = :at
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:requests AS integer[]), CAST(:codes AS text[]))
     AS n (batch_id, position, request, code)
WHERE (r.batch_id, r.position, r.request) = (n.batch_id, n.position, n.request) AND r.state = 'asked'
RETURNING r.batch_id::text, r.position, r.asked_by, r.reason, r.code;

-- name: overdue
-- parameters: quiet interval, pause interval, aside uuid[], limit integer
-- Locks requests without an answer that were sent some time ago; skips those that are being answered, and so waits for nobody. The time doubles
-- with each resend. By the partial index revocation_request_asked.
SELECT batch_id::text, position FROM orchestrator.revocation_request
WHERE state = 'asked' AND sent_at < clock_timestamp() - greatest(:quiet, CAST(:pause AS interval) * power(2, least(resends, 20)))
  AND NOT batch_id = ANY (CAST(:aside AS uuid[]))
ORDER BY batch_id, position LIMIT :limit FOR UPDATE SKIP LOCKED;

-- name: note_resent
-- parameters: batch_ids uuid[], positions integer[]
-- Counts a resend of these requests, which are locked. By the primary key.
UPDATE orchestrator.revocation_request r SET sent_at = clock_timestamp(), resends = r.resends + 1
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[])) AS n (batch_id, position)
WHERE (r.batch_id, r.position) = (n.batch_id, n.position) AND r.state = 'asked';
