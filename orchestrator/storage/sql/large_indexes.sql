-- Indexes of tables that grow for good. Each is built while everybody goes on writing, which no transaction can do: so none is part of a
-- migration (large_indexes.py). The name of a statement is that of its index.

-- name: activity_flagged
-- Of one mentor, type and date the flagged activities that live: a revocation of the unflagged one makes the oldest of them unflagged.
CREATE INDEX CONCURRENTLY activity_flagged ON registration.activity (organization_id, attributed_to, activity_type, activity_date)
WHERE overrides_duplicate AND revoked_at IS NULL;
