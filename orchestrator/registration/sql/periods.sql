-- Statements on closed periods (docs/decisions/0040-closed-periods.md). A transaction that writes holds the exclusive lock of the organization's period.

-- name: period
-- parameters: organization_id text, time_zone text
-- The period of an organization; always one row. What an external service has not answered is found by the indexes dispatch_in_doubt and
-- revocation_request_asked, the rest by primary keys.
SELECT o.closed_through, coalesce(p.number, 0) AS version,
       (statement_timestamp() AT TIME ZONE coalesce(o.time_zone, :time_zone))::date AS today,
       (SELECT count(*) FROM orchestrator.dispatch d
        JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
        WHERE d.state = 'asked' AND d.organization_id = given.organization_id AND i.activity_date <= o.closed_through)
       + (SELECT count(*) FROM orchestrator.revocation_request r
          JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (r.batch_id, r.position)
          WHERE r.state = 'asked' AND r.organization_id = given.organization_id AND i.activity_date <= o.closed_through) AS unresolved
FROM (SELECT CAST(:organization_id AS text) AS organization_id) AS given
LEFT JOIN registration.organization o USING (organization_id)
LEFT JOIN LATERAL (SELECT number FROM registration.period_change c WHERE c.organization_id = given.organization_id
                   ORDER BY number DESC LIMIT 1) AS p ON true;

-- name: write
-- parameters: organization_id text, time_zone text, closed_through date
-- Writes a new last day. An organization without a directory gets its row. By the primary key.
INSERT INTO registration.organization AS o (organization_id, name, time_zone, closed_through)
VALUES (:organization_id, :organization_id, :time_zone, :closed_through)
ON CONFLICT (organization_id) DO UPDATE SET closed_through = EXCLUDED.closed_through;

-- name: add_change
-- parameters: organization_id text, number integer, closed_through date, previously date, reason text, changed_by text, channel text, changed_at timestamptz
-- Adds a change to the history. Every registration and revocation before it has committed, so its audit row has at most the sequence's last id. By the
-- primary key.
INSERT INTO registration.period_change (organization_id, number, closed_through, previously, reason, changed_by, channel, changed_at, last_audit_id)
VALUES (:organization_id, :number, :closed_through, :previously, :reason, :changed_by, :channel, :changed_at,
        coalesce(pg_sequence_last_value('registration.audit_audit_id_seq'), 0));

-- name: changes
-- parameters: organization_id text, before integer, most integer
-- A page of the changes, newest first. By the primary key.
SELECT number, closed_through, previously, reason, changed_by, channel, changed_at FROM registration.period_change
WHERE organization_id = :organization_id AND (CAST(:before AS integer) IS NULL OR number < CAST(:before AS integer))
ORDER BY number DESC LIMIT :most;
