-- Statements that fill in a column of a large table (docs/decisions/0039-reading-activities.md).

-- name: fill
-- parameters: after uuid, chunk integer
-- Fills in the chapters of a chunk of activities, and returns the last of them, or NULL if there was none. By the index
-- activity_without_chapter.
WITH chunk AS MATERIALIZED (
    SELECT activity_id, organization_id, attributed_to FROM registration.activity
    WHERE chapter_id IS NULL AND activity_id > :after
    ORDER BY activity_id LIMIT :chunk
), filled AS (
    UPDATE registration.activity a SET chapter_id = m.chapter_id
    FROM chunk c JOIN registration.mentor m ON (m.organization_id, m.mentor_id) = (c.organization_id, c.attributed_to)
    WHERE a.activity_id = c.activity_id AND a.chapter_id IS NULL
)
SELECT max(activity_id::text)::uuid FROM chunk;
