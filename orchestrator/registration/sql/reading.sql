-- Statements that read activities for auditors (docs/decisions/0039-reading-activities.md). They never read notes. A condition whose parameter is NULL
-- disappears when the statement is planned, because the parameters are in its text. The order is total: dates repeat, ids don't.

-- name: page
-- parameters: organization_id text, date_from date, date_to date, activity_type text, chapter_id text, coordinator_id text, mentor_id text, revoked boolean, after_date date, after_id uuid, limit integer
-- A page of activities, the latest date first. By the index activity_by_… that suits the filters, and in its order. ORDER BY names the
-- table's column, because the text that is selected under the same name is in no index.
SELECT activity_id::text, organization_id, attributed_to, registered_by, activity_type, activity_date, duration_minutes, chapter_id, batch_id::text,
       item_id::text, overrides_duplicate, created_at, revoked_at, revoked_by, revocation_reason
FROM registration.activity a
WHERE organization_id = :organization_id
  AND (CAST(:date_from AS date) IS NULL OR activity_date >= CAST(:date_from AS date))
  AND (CAST(:date_to AS date) IS NULL OR activity_date <= CAST(:date_to AS date))
  AND (CAST(:activity_type AS text) IS NULL OR activity_type = :activity_type)
  AND (CAST(:chapter_id AS text) IS NULL OR chapter_id = :chapter_id)
  AND (CAST(:coordinator_id AS text) IS NULL OR registered_by = :coordinator_id)
  AND (CAST(:mentor_id AS text) IS NULL OR attributed_to = :mentor_id)
  AND (CAST(:revoked AS boolean) IS NULL OR (CAST(:revoked AS boolean) AND revoked_at IS NOT NULL)
       OR (NOT CAST(:revoked AS boolean) AND revoked_at IS NULL))
  AND (CAST(:after_id AS uuid) IS NULL OR (activity_date, activity_id) < (CAST(:after_date AS date), CAST(:after_id AS uuid)))
ORDER BY a.activity_date DESC, a.activity_id DESC
LIMIT :limit;

-- name: one
-- parameters: organization_id text, activity_id uuid
-- An activity. By the primary key.
SELECT activity_id::text, organization_id, attributed_to, registered_by, activity_type, activity_date, duration_minutes, chapter_id, batch_id::text,
       item_id::text, overrides_duplicate, created_at, revoked_at, revoked_by, revocation_reason
FROM registration.activity
WHERE activity_id = :activity_id AND organization_id = :organization_id;

-- name: trail
-- parameters: organization_id text, activity_id uuid, batch_id uuid, position integer
-- The history of an activity, in the order of time: its submission, the failed attempts, the audit rows, and the erasures of notes. The purge removes
-- batch and attempts; the others remain. By primary keys, and the audit's index on its activity.
SELECT at, kind, by, channel, attempt, error, correction, reason FROM (
    SELECT submitted_at AS at, 1 AS step, 'submitted' AS kind, submitted_by AS by, channel, NULL::integer AS attempt, NULL::jsonb AS error,
           NULL::jsonb AS correction, NULL::text AS reason
    FROM orchestrator.batch WHERE batch_id = :batch_id AND organization_id = :organization_id
    UNION ALL
    SELECT attempt_at, 2, 'failed', NULL, NULL, attempt, error, NULL, NULL
    FROM orchestrator.item_history WHERE batch_id = :batch_id AND position = :position
    UNION ALL
    SELECT retried_at, 3, 'retried', retried_by, NULL, attempt + 1, NULL, correction - 'notes', NULL
    FROM orchestrator.item_history WHERE batch_id = :batch_id AND position = :position
    UNION ALL
    SELECT at, 4, action, submitted_by, channel, NULL, NULL, NULL, reason
    FROM registration.audit WHERE activity_id = :activity_id AND organization_id = :organization_id
    UNION ALL
    SELECT erased_at, 5, 'notes_erased', erased_by, channel, NULL, NULL, NULL, NULL
    FROM registration.notes_erasure WHERE batch_id = :batch_id AND position = :position AND organization_id = :organization_id
) AS events
ORDER BY at, step, attempt;

-- name: summary
-- parameters: organization_id text, date_from date, date_to date, coordinator_id text, mentor_id text, by_type boolean, by_month boolean, by_chapter boolean, by_coordinator boolean
-- Activities and minutes by group. By the index activity_by_date, which holds every column that the statement reads; of one mentor by
-- activity_by_mentor.
SELECT CASE WHEN :by_type THEN activity_type END AS activity_type,
       CASE WHEN :by_month THEN date_trunc('month', activity_date)::date END AS month,
       CASE WHEN :by_chapter THEN chapter_id END AS chapter_id,
       CASE WHEN :by_coordinator THEN registered_by END AS coordinator_id,
       count(*) FILTER (WHERE revoked_at IS NULL) AS live,
       coalesce(sum(duration_minutes) FILTER (WHERE revoked_at IS NULL), 0) AS live_minutes,
       count(*) FILTER (WHERE revoked_at IS NOT NULL) AS revoked,
       coalesce(sum(duration_minutes) FILTER (WHERE revoked_at IS NOT NULL), 0) AS revoked_minutes
FROM registration.activity
WHERE organization_id = :organization_id
  AND (CAST(:date_from AS date) IS NULL OR activity_date >= CAST(:date_from AS date))
  AND (CAST(:date_to AS date) IS NULL OR activity_date <= CAST(:date_to AS date))
  AND (CAST(:coordinator_id AS text) IS NULL OR registered_by = :coordinator_id)
  AND (CAST(:mentor_id AS text) IS NULL OR attributed_to = :mentor_id)
GROUP BY 1, 2, 3, 4
ORDER BY 2, 1, 3, 4;
