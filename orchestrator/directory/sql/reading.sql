-- Statements that read the directory. Row level security shows the organization of the transaction, and each statement names it
-- as well.

-- name: organization
-- parameters: organization_id text, time_zone text, subject text
-- The organization, the date there, and what the directory calls the caller. There is always a row: an organization whose activities
-- an external service registers may have no directory. By the primary keys.
SELECT coalesce(o.name, given.organization_id) AS name, coalesce(o.time_zone, :time_zone) AS time_zone,
       (statement_timestamp() AT TIME ZONE coalesce(o.time_zone, :time_zone))::date AS today,
       (SELECT k.name FROM registration.coordinator k
        WHERE k.organization_id = given.organization_id AND k.coordinator_id = :subject) AS name_of_caller
FROM (SELECT CAST(:organization_id AS text) AS organization_id) AS given
LEFT JOIN registration.organization o USING (organization_id);

-- name: known_coordinator
-- parameters: organization_id text, coordinator_id text
-- Whether the directory has this coordinator. By the primary key.
SELECT EXISTS (SELECT FROM registration.coordinator
               WHERE organization_id = :organization_id AND coordinator_id = :coordinator_id);

-- name: mentors
-- parameters: organization_id text, coordinator_id text, chapter_id text, q text, active_on date, after text, time_zone text
-- parameters: most integer
-- A page of mentors by id, of a coordinator's scope or of the whole organization. The scope is that of the registration rules. By
-- the primary key, which is read on until the page is full.
SELECT m.mentor_id, m.name, m.chapter_id, m.active_from, m.active_until,
       coalesce(m.active_from <= day.value, true) AND coalesce(m.active_until >= day.value, true) AS active
FROM registration.mentor m
LEFT JOIN registration.organization o ON o.organization_id = m.organization_id
CROSS JOIN LATERAL (
    SELECT coalesce(CAST(:active_on AS date), (statement_timestamp() AT TIME ZONE coalesce(o.time_zone, :time_zone))::date) AS value
) day
WHERE m.organization_id = :organization_id
  AND (CAST(:after AS text) IS NULL OR m.mentor_id > :after)
  AND (CAST(:chapter_id AS text) IS NULL OR m.chapter_id = :chapter_id)
  AND (CAST(:q AS text) IS NULL OR strpos(registration.folded(m.name), registration.folded(:q)) > 0
       OR strpos(registration.folded(m.mentor_id), registration.folded(:q)) > 0)
  AND (CAST(:coordinator_id AS text) IS NULL
       OR EXISTS (SELECT FROM registration.coordinator k
                  WHERE (k.organization_id, k.coordinator_id) = (m.organization_id, :coordinator_id) AND k.role = 'admin')
       OR EXISTS (SELECT FROM registration.coordinator_scope s
                  WHERE (s.organization_id, s.coordinator_id, s.chapter_id) = (m.organization_id, :coordinator_id, m.chapter_id)))
ORDER BY m.mentor_id LIMIT :most;

-- name: chapters
-- parameters: organization_id text, coordinator_id text, after text, most integer
-- A page of chapters by id: those that mentors, scopes and chapters.csv name, in a coordinator's scope or in the whole organization.
-- Reads the organization's mentors.
SELECT c.chapter_id, coalesce(n.name, c.chapter_id) AS name
FROM (SELECT chapter_id FROM registration.mentor WHERE organization_id = :organization_id
      UNION SELECT chapter_id FROM registration.coordinator_scope WHERE organization_id = :organization_id
      UNION SELECT chapter_id FROM registration.chapter WHERE organization_id = :organization_id) AS c
LEFT JOIN registration.chapter n ON (n.organization_id, n.chapter_id) = (:organization_id, c.chapter_id)
WHERE (CAST(:after AS text) IS NULL OR c.chapter_id > :after)
  AND (CAST(:coordinator_id AS text) IS NULL
       OR EXISTS (SELECT FROM registration.coordinator k
                  WHERE (k.organization_id, k.coordinator_id) = (:organization_id, :coordinator_id) AND k.role = 'admin')
       OR EXISTS (SELECT FROM registration.coordinator_scope s
                  WHERE (s.organization_id, s.coordinator_id, s.chapter_id) = (:organization_id, :coordinator_id, c.chapter_id)))
ORDER BY c.chapter_id LIMIT :most;

-- name: activity_types
-- parameters: organization_id text, after text, most integer
-- A page of activity types by their code. By the primary key.
SELECT activity_type, name, default_minutes, minimum_minutes FROM registration.activity_type
WHERE organization_id = :organization_id AND (CAST(:after AS text) IS NULL OR activity_type > :after)
ORDER BY activity_type LIMIT :most;

-- name: coordinators
-- parameters: organization_id text, q text, after text, most integer
-- A page of coordinators by id, closed ones among them. By the primary key, which is read on until the page is full.
SELECT coordinator_id, name, role FROM registration.coordinator
WHERE organization_id = :organization_id AND (CAST(:after AS text) IS NULL OR coordinator_id > :after)
  AND (CAST(:q AS text) IS NULL OR strpos(registration.folded(name), registration.folded(:q)) > 0
       OR strpos(registration.folded(coordinator_id), registration.folded(:q)) > 0)
ORDER BY coordinator_id LIMIT :most;

-- name: minimum_minutes
-- parameters: organization_id text, types text[]
-- The shortest usual duration of those of these types that have one. By the primary key.
SELECT activity_type, minimum_minutes FROM registration.activity_type
WHERE organization_id = :organization_id AND activity_type = ANY (CAST(:types AS text[])) AND minimum_minutes IS NOT NULL;
