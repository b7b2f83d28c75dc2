-- Statements that merge one rebuilt batch into the live tables. All run in one transaction that holds the batch's advisory lock
-- exclusively, in the session that has the shadow tables (shadow_tables.sql).

-- name: lock_row
-- parameters: batch_id uuid
-- Locks the batch's row, even if the batch is deleted. FOR NO KEY UPDATE blocks the aggregator, as in batches.py, but allows inserts of
-- rows that refer to the batch. By the primary key of `batch`.
SELECT organization_id, status, version, retry_number, edit_version, completed_at, cancelled_at, deleted_at
FROM orchestrator.batch WHERE batch_id = :batch_id FOR NO KEY UPDATE;

-- name: rebuilt
-- parameters: batch_id uuid
-- The batch as rebuilt from the topics; no row if they don't cover it. By the unique index of `replay_batch`.
SELECT * FROM replay_batch WHERE batch_id = :batch_id;

-- name: people
-- parameters: organization_id text
-- Whether somebody of the organization is being forgotten, and whether somebody was forgotten or readmitted since the replay read who was. By
-- the partial index forgetting_open; of each forgotten person there are a few words.
SELECT EXISTS (SELECT FROM registration.forgetting WHERE organization_id = :organization_id AND pseudonym IS NOT NULL AND done_at IS NULL)
       AS are_forgotten_now,
       EXISTS (SELECT FROM (SELECT hash, is_id, pseudonym FROM registration.forgotten_word WHERE organization_id = :organization_id) l
                  FULL JOIN (SELECT hash, is_id, pseudonym FROM replay_forgotten WHERE organization_id = :organization_id) r
                            USING (hash, is_id)
                  WHERE l.pseudonym IS DISTINCT FROM r.pseudonym) AS have_changed;

-- name: evidence
-- parameters: batch_id uuid, header_hash bytea, organization_id text, version bigint
-- What the rest of the database has about the rebuilt batch. It runs after the lock, so that its snapshot includes everything that was
-- committed before. By the primary keys, which all begin with the batch.
SELECT EXISTS (SELECT FROM orchestrator.tombstone WHERE batch_id = :batch_id) AS is_purged,
       EXISTS (SELECT FROM orchestrator.batch_part p JOIN replay_chosen_part c USING (batch_id, part)
               WHERE p.batch_id = :batch_id AND c.header_hash = :header_hash AND p.public_hash <> c.public_hash)
       OR EXISTS (SELECT FROM orchestrator.batch_part WHERE batch_id = :batch_id AND organization_id <> :organization_id)
       OR EXISTS (SELECT FROM orchestrator.outcome WHERE batch_id = :batch_id AND organization_id <> :organization_id)
       OR EXISTS (SELECT FROM orchestrator.batch WHERE batch_id = :batch_id AND content_hash <> :header_hash)
       -- Of two contents of a part, only `batch_part` tells which one was accepted; of two headers, also `batch`.
       OR EXISTS (SELECT FROM replay_part p LEFT JOIN orchestrator.batch b USING (batch_id)
                  WHERE p.batch_id = :batch_id AND (p.header_hash = b.content_hash) IS NOT FALSE
                    AND NOT EXISTS (SELECT FROM orchestrator.batch_part l WHERE (l.batch_id, l.part) = (p.batch_id, p.part))
                  GROUP BY p.part HAVING count(DISTINCT p.public_hash) > 1)
       AS is_contradicted,
       -- The rows were there when a person was forgotten who is readmitted now. The event that was read was written again afterwards, so the replay
       -- has read the id in it.
       EXISTS (SELECT FROM replay_chosen_part c
               JOIN registration.forgetting f ON f.organization_id = :organization_id AND f.done_at <= c.at
               WHERE c.batch_id = :batch_id AND c.header_hash = :header_hash
                 AND f.done_at > least((SELECT received_at FROM orchestrator.batch_part WHERE (batch_id, part) = (c.batch_id, c.part)),
                                       (SELECT submitted_at FROM orchestrator.batch WHERE batch_id = :batch_id),
                                       (SELECT min(created_at) FROM orchestrator.outcome WHERE batch_id = :batch_id))
                 AND EXISTS (SELECT FROM registration.replaced_word WHERE (organization_id, pseudonym) = (f.organization_id, f.pseudonym))
                 AND NOT EXISTS (SELECT FROM registration.forgotten_word w
                                 WHERE w.is_id AND (w.organization_id, w.pseudonym) = (f.organization_id, f.pseudonym))) AS is_later,
       EXISTS (SELECT FROM orchestrator.batch_part WHERE batch_id = :batch_id)
       OR EXISTS (SELECT FROM orchestrator.outcome WHERE batch_id = :batch_id)
       OR EXISTS (SELECT FROM orchestrator.batch_item WHERE batch_id = :batch_id) AS is_known,
       EXISTS (SELECT FROM orchestrator.outcome WHERE batch_id = :batch_id)
       OR EXISTS (SELECT FROM orchestrator.batch_item WHERE batch_id = :batch_id) AS has_items,
       EXISTS (SELECT FROM orchestrator.batch_part WHERE batch_id = :batch_id AND items IS NOT NULL) AS is_collecting,
       (SELECT min(created_at) FROM orchestrator.outcome WHERE batch_id = :batch_id AND outcome = 'cancelled') AS cancelled_at,
       EXISTS (SELECT FROM replay_before s WHERE s.batch_id = :batch_id AND s.version = :version AND NOT s.is_waiting) AS is_unmoved,
       clock_timestamp() AS now;

-- name: edits
-- parameters: batch_id uuid
-- The edits that people have made to the batch, independent of the topics. By the primary key of `batch_edit`.
SELECT count(*) AS edits, max(version) AS version, bool_or(kind = 'relabelled') AS is_relabelled,
       (array_agg(label ORDER BY version DESC) FILTER (WHERE kind = 'relabelled'))[1] AS label,
       min(edited_at) FILTER (WHERE kind = 'cancelled') AS cancelled_at, min(edited_by) FILTER (WHERE kind = 'cancelled') AS cancelled_by,
       min(reason) FILTER (WHERE kind = 'cancelled') AS cancellation_reason,
       min(edited_at) FILTER (WHERE kind = 'deleted') AS deleted_at
FROM orchestrator.batch_edit WHERE batch_id = :batch_id;

-- name: completed_at
-- parameters: batch_id uuid, organization_id text, retry_number integer
-- When the completion after the last retry in the history was announced. A retry that only an event names does not count. By the
-- primary key of `item_history`; `replay_completion` has no index and is read once for each batch.
SELECT max(completed_at) FROM replay_completion
WHERE batch_id = :batch_id AND organization_id = :organization_id
  AND retry_number = greatest(:retry_number,
                              (SELECT count(DISTINCT retried_at) FROM orchestrator.item_history WHERE batch_id = :batch_id));

-- name: insert_batch
-- parameters: batch_id uuid, label text, edits integer, edited_version bigint, now timestamptz
-- Creates the missing row, with all items pending, and returns its version: no lower than the batch's was, as far as outcomes, edits and
-- remaining items show. The lock of the batch prevents another transaction from creating it at the same time. Who submitted the batch, and through
-- which channel, comes from the audit: an event under our source may say anything. Only a batch without an activity takes both from its event. By
-- the primary keys, the unique indexes of `replay_submitted` and of the activities' item_id, and `audit_activity`.
INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items, pending,
                                version, edit_version, parts, content_hash, trace_id, submitted_at, changed_at)
SELECT batch_id, organization_id, coordinator_id, coalesce(u.submitted_by, r.submitted_by), coalesce(u.channel, r.channel), :label, 'processing',
       total_items, total_items,
       greatest(version + :edits, :edited_version,
                (SELECT max(changed_version) FROM orchestrator.batch_item WHERE batch_id = :batch_id)),
       1 + :edits, parts, header_hash, trace_id, submitted_at, :now
FROM replay_batch r
LEFT JOIN (
    SELECT u.submitted_by, u.channel
    FROM replay_submitted s JOIN registration.activity a ON a.item_id = s.item_id JOIN registration.audit u ON u.activity_id = a.activity_id
    WHERE s.batch_id = :batch_id AND u.action = 'registered' LIMIT 1
) AS u ON true
WHERE batch_id = :batch_id
RETURNING version;

-- name: insert_parts
-- parameters: batch_id uuid, header_hash bytea
-- Creates the missing parts. The primary key of `batch_part` skips existing ones. By the unique index of `replay_chosen_part`.
INSERT INTO orchestrator.batch_part (batch_id, part, organization_id, content_hash, public_hash, received_at)
SELECT batch_id, part, organization_id, content_hash, public_hash, at
FROM replay_chosen_part WHERE batch_id = :batch_id AND header_hash = :header_hash
ON CONFLICT DO NOTHING;

-- name: merge_items
-- parameters: batch_id uuid, submitted_at timestamptz, organization_id text, version bigint
-- Creates missing items and repairs existing ones. Returns how many rows changed, and how many items are missing whose activity has other values:
-- if there is one, the caller rolls everything back.
-- An item's attempt becomes the highest for which there is an outcome or a history row, and never lower than the live one. A missing row
-- is created only if all corrections up to that attempt are known. An existing row is changed if its attempt is too low, or if it differs
-- from the submitted values and no activity contradicts these. Our topics carry no notes: they are taken from the activity, or stay as
-- they are. Upstream services' topics do, so submitted notes that were erased since (`notes_erasure`) are left out.
-- `corrections` has the correction that began each attempt after the first. It comes from the history, with its notes, or from the topics
-- if the history has lost it. merge_history begins with the same query. The values of an attempt are the submitted ones, overlaid with
-- every correction up to that attempt.
-- By the primary keys and the unique indexes of the shadow tables, which all begin with the batch; activities by their unique index on
-- the item.
WITH corrections AS (
    SELECT DISTINCT ON (position, attempt) position, attempt, correction, retried_by, at FROM (
        SELECT position, attempt + 1 AS attempt, correction, retried_by, retried_at AS at, 1 AS turn
        FROM orchestrator.item_history WHERE batch_id = :batch_id
        UNION ALL
        SELECT position, attempt, correction, retried_by, at, 2 FROM replay_retry WHERE batch_id = :batch_id
    ) AS known ORDER BY position, attempt, turn
), begun AS (
    SELECT position, max(attempt) AS attempt FROM (
        SELECT position, attempt FROM orchestrator.outcome WHERE batch_id = :batch_id
        UNION ALL SELECT position, attempt + 1 FROM orchestrator.item_history WHERE batch_id = :batch_id
    ) AS known GROUP BY position
), target AS (
    SELECT s.*, greatest(1, g.attempt, l.attempt) AS attempt, l.position IS NOT NULL AS is_live,
           EXISTS (SELECT FROM registration.notes_erasure e WHERE (e.batch_id, e.position) = (s.batch_id, s.position)) AS are_notes_erased
    FROM replay_submitted s
    LEFT JOIN begun g ON g.position = s.position
    LEFT JOIN orchestrator.batch_item l ON (l.batch_id, l.position) = (s.batch_id, s.position)
    WHERE s.batch_id = :batch_id
), merged AS (
    SELECT s.position, s.item_id, s.client_reference, s.attempt, s.is_live,
           jsonb_build_object('mentor_id', s.mentor_id, 'activity_type', s.activity_type, 'activity_date', s.activity_date,
                              'duration_minutes', s.duration_minutes,
                              'notes', CASE WHEN NOT s.are_notes_erased THEN s.notes END, 'override_duplicates', s.override_duplicates)
           || coalesce((SELECT jsonb_object_agg(e.key, e.value ORDER BY c.attempt)
                        FROM corrections c, jsonb_each(c.correction) AS e
                        WHERE c.position = s.position AND c.attempt <= s.attempt), '{}') AS values,
           coalesce((SELECT c.at FROM corrections c WHERE (c.position, c.attempt) = (s.position, s.attempt)), :submitted_at) AS attempt_at
    FROM target s
    WHERE s.attempt = 1 OR s.attempt - 1 = (SELECT count(*) FROM corrections c WHERE c.position = s.position AND c.attempt <= s.attempt)
), typed AS (
    SELECT m.position, m.item_id, m.client_reference, m.attempt, m.is_live, m.attempt_at, v.*
    FROM merged m CROSS JOIN LATERAL jsonb_to_record(m.values) AS v (
        mentor_id text, activity_type text, activity_date date, duration_minutes integer, notes text, override_duplicates boolean)
), contradicted AS (
    SELECT t.position FROM typed t JOIN registration.activity a ON a.item_id = t.item_id
    WHERE (a.attributed_to, a.activity_type, a.activity_date, a.duration_minutes)
          IS DISTINCT FROM (t.mentor_id, t.activity_type, t.activity_date, t.duration_minutes)
), inserted AS (
    INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                         duration_minutes, notes, client_reference, override_duplicates, attempt, attempt_at,
                                         changed_version)
    SELECT :batch_id, t.position, t.item_id, :organization_id, t.mentor_id, t.activity_type, t.activity_date, t.duration_minutes,
           CASE WHEN a.item_id IS NULL THEN t.notes ELSE a.notes END, t.client_reference, t.override_duplicates, t.attempt,
           t.attempt_at, :version
    FROM typed t LEFT JOIN registration.activity a ON a.item_id = t.item_id
    WHERE NOT t.is_live
    RETURNING position
), updated AS (
    UPDATE orchestrator.batch_item i
    SET item_id = t.item_id, organization_id = :organization_id, mentor_id = t.mentor_id, activity_type = t.activity_type,
        activity_date = t.activity_date, duration_minutes = t.duration_minutes, override_duplicates = t.override_duplicates,
        client_reference = t.client_reference, attempt = t.attempt, changed_version = :version,
        status = CASE WHEN i.attempt = t.attempt THEN i.status ELSE 'pending' END,
        activity_id = CASE WHEN i.attempt = t.attempt THEN i.activity_id END,
        error = CASE WHEN i.attempt = t.attempt THEN i.error END,
        attempt_at = CASE WHEN i.attempt = t.attempt THEN i.attempt_at ELSE t.attempt_at END,
        planned = CASE WHEN i.attempt = t.attempt THEN i.planned END
    FROM typed t
    WHERE t.is_live AND (i.batch_id, i.position) = (:batch_id, t.position)
      AND (i.item_id, i.organization_id, i.mentor_id, i.activity_type, i.activity_date, i.duration_minutes, i.override_duplicates,
           i.client_reference, i.attempt)
          IS DISTINCT FROM
          (t.item_id, :organization_id, t.mentor_id, t.activity_type, t.activity_date, t.duration_minutes, t.override_duplicates,
           t.client_reference, t.attempt)
      AND t.position NOT IN (SELECT position FROM contradicted)
    RETURNING i.position
)
SELECT (SELECT count(*) FROM inserted) + (SELECT count(*) FROM updated) AS changed,
       (SELECT count(*) FROM contradicted JOIN typed USING (position) WHERE NOT is_live) AS contradicted;

-- name: undecided
-- parameters: batch_id uuid
-- How many items have no outcome of their present attempt. By the primary keys of `batch_item` and `outcome`.
SELECT count(*) FROM orchestrator.batch_item i
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
WHERE i.batch_id = :batch_id AND o.batch_id IS NULL;

-- name: fold
-- parameters: batch_id uuid, folds_pending boolean, is_cancelled boolean, version bigint
-- Moves every item to the state of its outcome: `outcome` decides, not the topics or the live row. An item without an outcome becomes
-- pending only if it is pending on the topics too, the batch is not cancelled, and the item has no activity. By the primary keys, and
-- the unique index of `replay_item`.
WITH state AS (
    SELECT i.position, coalesce(o.outcome, 'pending') AS status, o.activity_id, o.error
    FROM orchestrator.batch_item i
    LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
    LEFT JOIN replay_item r ON (r.batch_id, r.position, r.attempt) = (i.batch_id, i.position, i.attempt)
    WHERE i.batch_id = :batch_id
      AND CASE WHEN o.batch_id IS NOT NULL THEN :folds_pending OR i.status <> 'pending'
               ELSE i.status = 'pending'
                    OR r.status = 'pending' AND NOT :is_cancelled
                       AND NOT EXISTS (SELECT FROM registration.activity a WHERE a.item_id = i.item_id) END
)
UPDATE orchestrator.batch_item i
SET status = s.status, activity_id = s.activity_id, error = s.error, changed_version = :version
FROM state s
WHERE (i.batch_id, i.position) = (:batch_id, s.position)
  AND (i.status, i.activity_id, i.error) IS DISTINCT FROM (s.status, s.activity_id, s.error);

-- name: merge_revocations
-- parameters: batch_id uuid, version bigint
-- Copies the revocations of activities into their items. Only the activity counts, or the request that an external service has granted, and not
-- the topics, because no event revokes an activity. By the primary keys, and the unique index on the activities' item_id.
WITH revocations AS (
    SELECT i.position, coalesce(a.revoked_at, g.answered_at) AS revoked_at, coalesce(a.revoked_by, g.asked_by) AS revoked_by,
           coalesce(a.revocation_reason, g.reason) AS revocation_reason,
           CASE r.state WHEN 'asked' THEN 'unresolved' WHEN 'refused' THEN r.code END AS revocation_request
    FROM orchestrator.batch_item i LEFT JOIN registration.activity a ON a.item_id = i.item_id AND i.status = 'success'
    LEFT JOIN orchestrator.revocation_request r ON (r.batch_id, r.position) = (i.batch_id, i.position)
    LEFT JOIN orchestrator.revocation_request g ON (g.batch_id, g.position, g.state) = (i.batch_id, i.position, 'revoked')
              AND a.item_id IS NULL AND i.status = 'success'
    WHERE i.batch_id = :batch_id
)
UPDATE orchestrator.batch_item i
SET revoked_at = s.revoked_at, revoked_by = s.revoked_by, revocation_reason = s.revocation_reason,
    revocation_request = s.revocation_request, changed_version = :version
FROM revocations s
WHERE (i.batch_id, i.position) = (:batch_id, s.position)
  AND (i.revoked_at, i.revoked_by, i.revocation_reason, i.revocation_request)
      IS DISTINCT FROM (s.revoked_at, s.revoked_by, s.revocation_reason, s.revocation_request);

-- name: merge_history
-- parameters: batch_id uuid, submitted_at timestamptz
-- Creates the missing history of attempts that failed and whose correction is known. The primary key of `item_history` skips existing
-- rows. `corrections` and the values of an attempt are those of merge_items.
WITH corrections AS (
    SELECT DISTINCT ON (position, attempt) position, attempt, correction, retried_by, at FROM (
        SELECT position, attempt + 1 AS attempt, correction, retried_by, retried_at AS at, 1 AS turn
        FROM orchestrator.item_history WHERE batch_id = :batch_id
        UNION ALL
        SELECT position, attempt, correction, retried_by, at, 2 FROM replay_retry WHERE batch_id = :batch_id
    ) AS known ORDER BY position, attempt, turn
)
INSERT INTO orchestrator.item_history (batch_id, position, attempt, organization_id, submitted, error, attempt_at, correction,
                                       retried_by, retried_at)
SELECT i.batch_id, i.position, over.attempt, i.organization_id,
       jsonb_build_object('mentor_id', s.mentor_id, 'activity_type', s.activity_type, 'activity_date', s.activity_date,
                          'duration_minutes', s.duration_minutes,
                          'notes', CASE WHEN NOT EXISTS (SELECT FROM registration.notes_erasure e
                                                         WHERE (e.batch_id, e.position) = (i.batch_id, i.position)) THEN s.notes END,
                          'override_duplicates', s.override_duplicates)
       || coalesce((SELECT jsonb_object_agg(e.key, e.value ORDER BY c.attempt)
                    FROM corrections c, jsonb_each(c.correction) AS e
                    WHERE c.position = s.position AND c.attempt <= over.attempt), '{}'), o.error,
       coalesce((SELECT c.at FROM corrections c WHERE (c.position, c.attempt) = (i.position, over.attempt)), :submitted_at),
       n.correction, n.retried_by, n.at
FROM orchestrator.batch_item i
JOIN replay_submitted s ON (s.batch_id, s.position) = (i.batch_id, i.position)
CROSS JOIN LATERAL generate_series(1, i.attempt - 1) AS over (attempt)
JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt, o.outcome) = (i.batch_id, i.position, over.attempt, 'failed')
JOIN corrections n ON (n.position, n.attempt) = (i.position, over.attempt + 1)
WHERE i.batch_id = :batch_id
ON CONFLICT DO NOTHING;

-- name: counts
-- parameters: batch_id uuid
-- How many items are in each state, and how many retries the history has. By the primary keys of `batch_item` and `item_history`.
SELECT count(*) FILTER (WHERE status = 'pending') AS pending, count(*) FILTER (WHERE status = 'success') AS completed,
       count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled, count(revoked_at) AS revoked,
       (SELECT count(DISTINCT retried_at) FROM orchestrator.item_history WHERE batch_id = :batch_id) AS retries
FROM orchestrator.batch_item WHERE batch_id = :batch_id;

-- name: merge_batch
-- parameters: batch_id uuid, is_label_known boolean, label text, status text, pending integer, completed integer
-- parameters: failed integer, cancelled integer, retry_number integer, completed_at timestamptz, cancelled_at timestamptz
-- parameters: cancelled_by text, cancellation_reason text, deleted_at timestamptz, edits integer, version bigint
-- parameters: now timestamptz, has_changed boolean, revoked integer
-- Writes the batch's row if any value or item of the batch has changed. By the primary key of `batch`.
UPDATE orchestrator.batch b
SET coordinator_id = r.coordinator_id, label = CASE WHEN :is_label_known THEN :label ELSE b.label END,
    status = :status, total_items = r.total_items, pending = :pending, completed = :completed, failed = :failed,
    cancelled = :cancelled, revoked = :revoked, retry_number = :retry_number, completed_at = :completed_at, cancelled_at = :cancelled_at,
    cancelled_by = CASE WHEN :cancelled_at IS NOT NULL THEN coalesce(b.cancelled_by, :cancelled_by, r.cancelled_by) END,
    cancellation_reason = CASE WHEN :cancelled_at IS NOT NULL
                               THEN coalesce(b.cancellation_reason, :cancellation_reason, r.cancellation_reason) END,
    dismissed_at = CASE WHEN :failed > b.failed THEN NULL ELSE b.dismissed_at END,
    deleted_at = :deleted_at, edit_version = greatest(b.edit_version, 1 + :edits), version = :version, changed_at = :now
FROM replay_batch r
WHERE b.batch_id = :batch_id AND r.batch_id = b.batch_id
  AND (:has_changed OR
       (b.coordinator_id, CASE WHEN :is_label_known THEN b.label END, b.status, b.total_items, b.pending, b.completed, b.failed,
        b.cancelled, b.revoked, b.retry_number, b.completed_at, b.cancelled_at, b.deleted_at)
       IS DISTINCT FROM
       (r.coordinator_id, CASE WHEN :is_label_known THEN :label END, :status, r.total_items, :pending, :completed, :failed,
        :cancelled, :revoked, :retry_number, CAST(:completed_at AS timestamptz), CAST(:cancelled_at AS timestamptz),
        CAST(:deleted_at AS timestamptz)));

-- name: remember
-- parameters: batch_id uuid
-- Records the merged version, so that the next comparison includes the batch unless it changes again. By the unique index of
-- `replay_before`.
INSERT INTO replay_before SELECT batch_id, version, false FROM orchestrator.batch WHERE batch_id = :batch_id
ON CONFLICT (batch_id) DO UPDATE SET version = excluded.version, is_waiting = false;
