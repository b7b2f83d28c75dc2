-- Closed periods (docs/decisions/0040-closed-periods.md). No activity on this date or an earlier one may be registered or revoked.
ALTER TABLE registration.organization ADD COLUMN closed_through date;

-- Who closed and reopened the period of an organization, when and why. `closed_through` is null if no period remained closed. `last_audit_id` is the
-- newest id in registration.audit at that time: `bulkreg verify` compares ids and not times, because a clock can be set back.
CREATE TABLE registration.period_change (
    organization_id text        NOT NULL,
    number          integer     NOT NULL,
    closed_through  date,
    previously      date,
    reason          text        NOT NULL,
    changed_by      text        NOT NULL,
    channel         text        NOT NULL,
    changed_at      timestamptz NOT NULL,
    last_audit_id   bigint      NOT NULL,
    PRIMARY KEY (organization_id, number),
    CONSTRAINT period_change_differs CHECK (closed_through IS DISTINCT FROM previously)
);
CREATE TRIGGER period_changes_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON registration.period_change
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();

ALTER TABLE registration.period_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE registration.period_change FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON registration.period_change TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON registration.period_change TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON registration.period_change TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT ON registration.period_change TO bulkreg_worker, bulkreg_api;

-- The API closes periods. An organization without a directory, whose activities an external service registers, gets its row when it does so.
GRANT INSERT, UPDATE (closed_through) ON registration.organization TO bulkreg_api;
GRANT USAGE ON SEQUENCE registration.audit_audit_id_seq TO bulkreg_worker, bulkreg_api;
