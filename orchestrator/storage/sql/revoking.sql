-- Statements of a revocation, on the batch and its items (docs/decisions/0034-undo.md). The batch is locked.

-- name: mark_items
-- parameters: batch_id uuid, positions integer[], at timestamptz, by text, reason text
-- Writes the revocation of their activities to items. They change with the version that the batch is about to get. By the primary key.
UPDATE orchestrator.batch_item i
SET revoked_at = :at, revoked_by = :by, revocation_reason = :reason, revocation_request = NULL, changed_version = b.version + 1
FROM orchestrator.batch b
WHERE b.batch_id = :batch_id AND i.batch_id = b.batch_id AND i.position = ANY (CAST(:positions AS integer[]));

-- name: mark_requests
-- parameters: batch_id uuid, positions integer[], requests text[]
-- Writes to items what became of the request to an external service. They change with the version that the batch is about to get. By the
-- primary key.
UPDATE orchestrator.batch_item i SET revocation_request = n.request, changed_version = b.version + 1
FROM orchestrator.batch b, unnest(CAST(:positions AS integer[]), CAST(:requests AS text[])) AS n (position, request)
WHERE b.batch_id = :batch_id AND (i.batch_id, i.position) = (b.batch_id, n.position);

-- name: mark_batch
-- parameters: batch_id uuid, revoked integer, at timestamptz, by text, reason text
-- Counts revoked items, and stores the revocation as an edit. By the primary key.
WITH edited AS (
    UPDATE orchestrator.batch
    SET revoked = revoked + :revoked, version = version + 1, edit_version = edit_version + 1, changed_at = :at
    WHERE batch_id = :batch_id RETURNING batch_id, version, organization_id
)
INSERT INTO orchestrator.batch_edit (batch_id, version, organization_id, kind, label, reason, edited_by, edited_at)
SELECT batch_id, version, organization_id, 'revoked', NULL, :reason, :by, :at FROM edited
ON CONFLICT DO NOTHING;
