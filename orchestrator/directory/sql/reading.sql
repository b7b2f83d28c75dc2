-- Statements that read the directory. Row level security shows the organization of the transaction, and each statement names it
-- as well.

-- name: organization
-- parameters: organization_id text, time_zone text, subject text
-- The organization, the date and the closed period there, and what the directory calls the caller. There is always a row: an organization whose activities
-- an external service registers may have no directory. By the primary keys.
SELECT coalesce(o.name, given.organization_id) AS name, coalesce(o.time_zone, :time_zone) AS time_zone,
       (statement_timestamp() AT TIME ZONE coalesce(o.time_zone, :time_zone))::date AS today, o.closed_through,
       (SELECT k.name FROM registration.coordinator k
        WHERE k.organization_id = given.organization_id AND k.coordinator_id = :subject) AS name_of_caller
FROM (SELECT CAST(:organization_id AS text) AS organization_id) AS given
LEFT JOIN registration.organization o USING (organization_id);

-- name: scope
-- parameters: organization_id text, coordinator_id text
-- The chapters that a coordinator may register for, as in the registration rules; null for an admin, who may register for all. `is_known` is
-- whether the directory has the coordinator. By the primary keys.
SELECT k.coordinator_id IS NOT NULL AS is_known,
       CASE WHEN k.role IS DISTINCT FROM 'admin' THEN ARRAY (
           SELECT s.chapter_id FROM registration.coordinator_scope s
           WHERE (s.organization_id, s.coordinator_id) = (given.organization_id, given.coordinator_id)) END AS chapters
FROM (SELECT CAST(:organization_id AS text) AS organization_id, CAST(:coordinator_id AS text) AS coordinator_id) AS given
LEFT JOIN registration.coordinator k USING (organization_id, coordinator_id);

-- name: mentors
-- parameters: organization_id text, scope text[], chapter_id text, q text, active_on date, after text, time_zone text, most integer
-- A page of mentors by id, of some chapters or of the whole organization. Reads along the primary key until the page is full.
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
  AND (CAST(:scope AS text[]) IS NULL OR m.chapter_id = ANY (CAST(:scope AS text[])))
ORDER BY m.mentor_id LIMIT :most;

-- name: chapters
-- parameters: organization_id text, scope text[], after text, most integer
-- A page of chapters by id: those of a scope, or all that occur in mentors, scopes and chapters.csv. Reads the organization's mentors.
SELECT c.chapter_id, coalesce(n.name, c.chapter_id) AS name
FROM (SELECT chapter_id FROM registration.mentor WHERE organization_id = :organization_id
      UNION SELECT chapter_id FROM registration.coordinator_scope WHERE organization_id = :organization_id
      UNION SELECT chapter_id FROM registration.chapter WHERE organization_id = :organization_id) AS c
LEFT JOIN registration.chapter n ON (n.organization_id, n.chapter_id) = (:organization_id, c.chapter_id)
WHERE (CAST(:after AS text) IS NULL OR c.chapter_id > :after)
  AND (CAST(:scope AS text[]) IS NULL OR c.chapter_id = ANY (CAST(:scope AS text[])))
ORDER BY c.chapter_id LIMIT :most;

-- name: activity_types
-- parameters: organization_id text, after text, most integer
-- A page of activity types by their code. By the primary key.
SELECT activity_type, name, default_minutes, minimum_minutes FROM registration.activity_type
WHERE organization_id = :organization_id AND (CAST(:after AS text) IS NULL OR activity_type > :after)
ORDER BY activity_type LIMIT :most;

-- name: coordinators
-- parameters: organization_id text, q text, after text, most integer
-- A page of coordinators by id, including closed ones. Reads along the primary key until the page is full.
SELECT coordinator_id, name, role FROM registration.coordinator
WHERE organization_id = :organization_id AND (CAST(:after AS text) IS NULL OR coordinator_id > :after)
  AND (CAST(:q AS text) IS NULL OR strpos(registration.folded(name), registration.folded(:q)) > 0
       OR strpos(registration.folded(coordinator_id), registration.folded(:q)) > 0)
ORDER BY coordinator_id LIMIT :most;

-- name: minimum_minutes
-- parameters: organization_id text, types text[]
-- The minimum durations of the given types that have one. By the primary key.
SELECT activity_type, minimum_minutes FROM registration.activity_type
WHERE organization_id = :organization_id AND activity_type = ANY (CAST(:types AS text[])) AND minimum_minutes IS NOT NULL;

-- name: mentor_names
-- parameters: organization_id text, scope text[], mentors text[]
-- The names of the given mentors who are in the scope. By the primary key.
SELECT mentor_id, name FROM registration.mentor
WHERE organization_id = :organization_id AND mentor_id = ANY (CAST(:mentors AS text[]))
  AND (CAST(:scope AS text[]) IS NULL OR chapter_id = ANY (CAST(:scope AS text[])));

-- name: activity_type_names
-- parameters: organization_id text, types text[]
-- The names of these activity types. By the primary key.
SELECT activity_type, name FROM registration.activity_type
WHERE organization_id = :organization_id AND activity_type = ANY (CAST(:types AS text[]));

-- name: registrations
-- parameters: organization_id text, scope text[], activities uuid[]
-- Who registered these activities, and when, of mentors in the scope. By the primary keys.
SELECT a.activity_id::text, k.name AS registered_by_name, a.created_at AS registered_at
FROM registration.activity a
JOIN registration.mentor m ON (m.organization_id, m.mentor_id) = (a.organization_id, a.attributed_to)
LEFT JOIN registration.coordinator k ON (k.organization_id, k.coordinator_id) = (a.organization_id, a.registered_by)
WHERE a.organization_id = :organization_id AND a.activity_id = ANY (CAST(:activities AS uuid[]))
  AND (CAST(:scope AS text[]) IS NULL OR m.chapter_id = ANY (CAST(:scope AS text[])));
