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
