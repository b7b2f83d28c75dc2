-- Statements on `template`.

-- name: add
-- parameters: template_id uuid, organization_id text, coordinator_id text, name text, mentor_ids text[], activity_type text
-- parameters: duration_minutes integer, weekday smallint, version integer, changed_at timestamptz
-- Stores a template. By the primary key.
INSERT INTO orchestrator.template (template_id, organization_id, coordinator_id, name, mentor_ids, activity_type, duration_minutes,
                                   weekday, version, changed_at)
VALUES (:template_id, :organization_id, :coordinator_id, :name, CAST(:mentor_ids AS text[]), :activity_type, :duration_minutes,
        :weekday, :version, :changed_at);

-- name: find
-- parameters: template_id uuid
-- One template. By the primary key.
SELECT template_id::text, organization_id, coordinator_id, name, mentor_ids, activity_type, duration_minutes, weekday, version,
       changed_at
FROM orchestrator.template WHERE template_id = :template_id;

-- name: lock
-- parameters: template_id uuid
-- The same, locked against other changes. Nothing else is locked by who holds it, but for an Idempotency-Key afterwards.
SELECT template_id::text, organization_id, coordinator_id, name, mentor_ids, activity_type, duration_minutes, weekday, version,
       changed_at
FROM orchestrator.template WHERE template_id = :template_id FOR UPDATE;

-- name: page
-- parameters: organization_id text, coordinator_id text, after uuid, most integer
-- Templates of an organization, or of one of its coordinators, oldest first. By the index template_of_organization.
SELECT template_id::text, organization_id, coordinator_id, name, mentor_ids, activity_type, duration_minutes, weekday, version,
       changed_at
FROM orchestrator.template
WHERE organization_id = :organization_id
  AND (CAST(:coordinator_id AS text) IS NULL OR coordinator_id = :coordinator_id)
  AND (CAST(:after AS uuid) IS NULL OR template_id > CAST(:after AS uuid))
ORDER BY template_id LIMIT :most;

-- name: write
-- parameters: template_id uuid, name text, mentor_ids text[], activity_type text, duration_minutes integer, weekday smallint
-- parameters: version integer, changed_at timestamptz
-- New values for a locked template. By the primary key.
UPDATE orchestrator.template
SET name = :name, mentor_ids = CAST(:mentor_ids AS text[]), activity_type = :activity_type, duration_minutes = :duration_minutes,
    weekday = :weekday, version = :version, changed_at = :changed_at
WHERE template_id = :template_id;

-- name: remove
-- parameters: template_id uuid
-- Removes a locked template. By the primary key.
DELETE FROM orchestrator.template WHERE template_id = :template_id;
