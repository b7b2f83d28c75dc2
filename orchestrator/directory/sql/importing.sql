-- Statements that import a directory. The rows of a file are passed as one JSON parameter. An unchanged row is not written again, so that
-- the counts show what changed. The tables of a directory are small beside those of batches, so a statement that can't use a primary key
-- reads the whole table.

-- name: being_forgotten
-- The people whom an open request asks to forget. By the partial index forgetting_open.
SELECT organization_id, mentor_id FROM registration.forgetting WHERE done_at IS NULL;

-- name: organizations
-- parameters: time_zone text, rows json
-- Writes organizations. If a file has no time zones, existing organizations keep theirs. By the primary key.
WITH written AS (
    INSERT INTO registration.organization AS o (organization_id, name, time_zone)
    SELECT organization_id, coalesce(nullif(given.name, ''), organization_id), coalesce(given.time_zone, known.time_zone, :time_zone)
    FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, name text, time_zone text)
    LEFT JOIN registration.organization known USING (organization_id)
    ON CONFLICT (organization_id) DO UPDATE SET name = EXCLUDED.name, time_zone = EXCLUDED.time_zone
    WHERE (o.name, o.time_zone) IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.time_zone)
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM written;

-- name: named_elsewhere
-- parameters: time_zone text, organizations text[]
-- Creates organizations that only the other files name. By the primary key.
INSERT INTO registration.organization (organization_id, name, time_zone)
SELECT organization_id, organization_id, :time_zone FROM unnest(CAST(:organizations AS text[])) AS named (organization_id)
ON CONFLICT (organization_id) DO NOTHING;

-- name: mentors
-- parameters: rows json
-- Writes mentors. By the primary key.
WITH written AS (
    INSERT INTO registration.mentor AS m (organization_id, mentor_id, name, chapter_id, active_from, active_until)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given
        (organization_id text, mentor_id text, name text, chapter_id text, active_from date, active_until date)
    ON CONFLICT (organization_id, mentor_id) DO UPDATE
    SET name = EXCLUDED.name, chapter_id = EXCLUDED.chapter_id, active_from = EXCLUDED.active_from,
        active_until = EXCLUDED.active_until
    WHERE (m.name, m.chapter_id, m.active_from, m.active_until)
        IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.chapter_id, EXCLUDED.active_from, EXCLUDED.active_until)
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM written;

-- name: coordinators
-- parameters: rows json
-- Writes coordinators. By the primary key.
WITH written AS (
    INSERT INTO registration.coordinator AS k (organization_id, coordinator_id, name, role)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given
        (organization_id text, coordinator_id text, name text, role text)
    ON CONFLICT (organization_id, coordinator_id) DO UPDATE SET name = EXCLUDED.name, role = EXCLUDED.role
    WHERE (k.name, k.role) IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.role)
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM written;

-- name: activity_types
-- parameters: rows json
-- Writes activity types. If a file has no column for minutes, existing types keep theirs; a blank cell removes them. By the primary key.
WITH given AS (
    SELECT g.organization_id, g.activity_type, g.name,
           CASE WHEN (r.record -> 'default_minutes') IS NULL THEN known.default_minutes ELSE g.default_minutes END AS default_minutes,
           CASE WHEN (r.record -> 'minimum_minutes') IS NULL THEN known.minimum_minutes ELSE g.minimum_minutes END AS minimum_minutes
    FROM json_array_elements(CAST(:rows AS json)) AS r (record)
    CROSS JOIN LATERAL json_to_record(r.record) AS g
        (organization_id text, activity_type text, name text, default_minutes integer, minimum_minutes integer)
    LEFT JOIN registration.activity_type known USING (organization_id, activity_type)
), written AS (
    INSERT INTO registration.activity_type AS t (organization_id, activity_type, name, default_minutes, minimum_minutes)
    SELECT * FROM given
    ON CONFLICT (organization_id, activity_type) DO UPDATE
    SET name = EXCLUDED.name, default_minutes = EXCLUDED.default_minutes, minimum_minutes = EXCLUDED.minimum_minutes
    WHERE (t.name, t.default_minutes, t.minimum_minutes)
        IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.default_minutes, EXCLUDED.minimum_minutes)
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM written;

-- name: chapters
-- parameters: rows json
-- Writes the names of chapters. By the primary key.
WITH written AS (
    INSERT INTO registration.chapter AS c (organization_id, chapter_id, name)
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, chapter_id text, name text)
    ON CONFLICT (organization_id, chapter_id) DO UPDATE SET name = EXCLUDED.name WHERE c.name IS DISTINCT FROM EXCLUDED.name
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM written;

-- name: scopes
-- parameters: rows json
-- Replaces the scopes of every organization that the file names; otherwise access could never be withdrawn. A row with nothing but an
-- organization grants nothing, so that the last access can be withdrawn too. By the primary key.
WITH given AS (
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, coordinator_id text, chapter_id text)
), withdrawn AS (
    DELETE FROM registration.coordinator_scope s
    WHERE organization_id IN (SELECT organization_id FROM given)
      AND NOT EXISTS (SELECT FROM given g WHERE (g.organization_id, g.coordinator_id, g.chapter_id)
                                                = (s.organization_id, s.coordinator_id, s.chapter_id))
    RETURNING 1
), granted AS (
    INSERT INTO registration.coordinator_scope (organization_id, coordinator_id, chapter_id)
    SELECT * FROM given WHERE coordinator_id IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM granted) AS added, (SELECT count(*) FROM withdrawn) AS withdrawn;

-- name: absent_mentors
-- parameters: organizations text[], rows json
-- The mentors who are not in the file and not closed yet, of the organizations that the file names.
SELECT m.organization_id, m.mentor_id AS id FROM registration.mentor m, registration.organization o
WHERE m.organization_id = o.organization_id AND m.organization_id = ANY (CAST(:organizations AS text[]))
  AND (m.active_until IS NULL OR m.active_until >= (statement_timestamp() AT TIME ZONE o.time_zone)::date)
  AND (m.organization_id, m.mentor_id) NOT IN (
      SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, mentor_id text))
ORDER BY 1, 2;

-- name: close_mentors
-- parameters: organizations text[], people text[]
-- Closes the mentors that absent_mentors has found. Their activity ends yesterday, in the organization's time zone, so that activities until
-- then can still be registered. By the primary keys.
UPDATE registration.mentor m SET active_until = (statement_timestamp() AT TIME ZONE o.time_zone)::date - 1
FROM unnest(CAST(:organizations AS text[]), CAST(:people AS text[])) AS n (organization_id, mentor_id)
JOIN registration.organization o USING (organization_id)
WHERE (m.organization_id, m.mentor_id) = (n.organization_id, n.mentor_id);

-- name: absent_coordinators
-- parameters: organizations text[], closed text, rows json
-- The coordinators who are not in the file and not closed yet, of the organizations that the file names.
SELECT k.organization_id, k.coordinator_id AS id FROM registration.coordinator k
WHERE k.organization_id = ANY (CAST(:organizations AS text[])) AND k.role <> :closed
  AND (k.organization_id, k.coordinator_id) NOT IN (
      SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, coordinator_id text))
ORDER BY 1, 2;

-- name: close_coordinators
-- parameters: closed text, organizations text[], people text[]
-- Closes the coordinators that absent_coordinators has found. They lose the role and all scopes. By the primary keys.
WITH closed AS (
    UPDATE registration.coordinator k SET role = :closed
    FROM unnest(CAST(:organizations AS text[]), CAST(:people AS text[])) AS n (organization_id, coordinator_id)
    WHERE (k.organization_id, k.coordinator_id) = (n.organization_id, n.coordinator_id)
    RETURNING k.organization_id, k.coordinator_id
)
DELETE FROM registration.coordinator_scope WHERE (organization_id, coordinator_id) IN (SELECT * FROM closed);

-- name: unknown_time_zones
-- parameters: time_zones text[]
-- The numbers, from 1, of the time zones that PostgreSQL does not know.
SELECT index FROM unnest(CAST(:time_zones AS text[])) WITH ORDINALITY AS given (time_zone, index)
WHERE time_zone NOT IN (SELECT name FROM pg_timezone_names) ORDER BY 1;

-- name: scopes_of_nobody
-- parameters: rows json, closed text
-- The rows whose coordinator is not a coordinator of the organization. By the primary key.
SELECT index FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, coordinator_id text, index int)
WHERE given.coordinator_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM registration.coordinator k WHERE k.role <> :closed
                  AND (k.organization_id, k.coordinator_id) = (given.organization_id, given.coordinator_id))
ORDER BY 1;
