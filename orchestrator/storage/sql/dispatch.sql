-- Statements on `dispatch`. They run under the shared locks of the batches, so that a cancel comes before or after them. Rows are locked in
-- order of batch and position.

-- name: mark
-- parameters: batch_ids uuid[], positions integer[], attempts integer[]
-- Marks items as asked. An item in doubt is sent again under the same key, a new attempt of a refused item under the next key. Items with a
-- definite response to this attempt are left unchanged. Items of a cancelled batch or in a closed period are never sent again, unless they are in
-- doubt: these were sent before. By the primary keys.
INSERT INTO orchestrator.dispatch AS d (batch_id, position, organization_id, attempt, state, dispatched_at)
SELECT i.batch_id, i.position, i.organization_id, i.attempt, 'asked', clock_timestamp()
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
     AS n (batch_id, position, attempt)
JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
JOIN orchestrator.batch b ON b.batch_id = i.batch_id
LEFT JOIN registration.organization o ON o.organization_id = i.organization_id
WHERE b.cancelled_at IS NULL
  AND (i.activity_date <= o.closed_through IS NOT TRUE
       OR EXISTS (SELECT FROM orchestrator.dispatch x WHERE (x.batch_id, x.position, x.state) = (i.batch_id, i.position, 'asked')))
ORDER BY i.batch_id, i.position
ON CONFLICT (batch_id, position) DO UPDATE
SET attempt = excluded.attempt, state = 'asked', error = NULL, dispatched_at = excluded.dispatched_at, answered_at = NULL
WHERE d.state = 'asked' OR d.state = 'refused' AND d.attempt < excluded.attempt;

-- name: open
-- parameters: batch_ids uuid[], positions integer[], attempts integer[]
-- The items in doubt, with their values. By the primary keys.
SELECT n.ord, d.refusals, i.item_id::text, i.organization_id, i.mentor_id, b.coordinator_id, b.submitted_by, b.channel,
       i.activity_type, i.activity_date, i.duration_minutes, i.notes, i.override_duplicates, b.trace_id,
       b.cancelled_at IS NOT NULL AS is_cancelled
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
     WITH ORDINALITY AS n (batch_id, position, attempt, ord)
JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
JOIN orchestrator.batch b ON b.batch_id = i.batch_id
JOIN orchestrator.dispatch d ON (d.batch_id, d.position) = (i.batch_id, i.position)
WHERE d.state = 'asked'
ORDER BY n.ord;

-- name: record
-- parameters: batch_ids uuid[], positions integer[], refusals integer[], states text[], activity_ids uuid[], errors jsonb[]
-- Stores responses. Only a response to the key in doubt counts; a late or repeated response changes nothing. By the primary key. FOR UPDATE
-- locks the rows in its order, because the update alone would lock them in any order.
WITH n AS (
    SELECT * FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:refusals AS integer[]),
                         CAST(:states AS text[]), CAST(:activity_ids AS uuid[]), CAST(:errors AS jsonb[]))
         AS n (batch_id, position, refusals, state, activity_id, error)
), locked AS (
    SELECT d.batch_id, d.position FROM orchestrator.dispatch d JOIN n USING (batch_id, position)
    WHERE d.state = 'asked' AND d.refusals = n.refusals
    ORDER BY d.batch_id, d.position FOR UPDATE OF d
)
UPDATE orchestrator.dispatch d
SET state = n.state, activity_id = n.activity_id, error = n.error, answered_at = clock_timestamp(),
    refusals = d.refusals + CAST(n.state = 'refused' AS integer)
FROM n JOIN locked USING (batch_id, position)
WHERE (d.batch_id, d.position) = (n.batch_id, n.position);

-- name: find
-- parameters: batch_ids uuid[], positions integer[]
-- The state of items at the service. By the primary keys.
SELECT n.ord, d.state, d.activity_id::text, d.error, d.attempt = i.attempt AS is_of_present_attempt,
       b.cancelled_at IS NOT NULL AS is_cancelled
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[])) WITH ORDINALITY AS n (batch_id, position, ord)
JOIN orchestrator.dispatch d ON (d.batch_id, d.position) = (n.batch_id, n.position)
JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
JOIN orchestrator.batch b ON b.batch_id = n.batch_id;
