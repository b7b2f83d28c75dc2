-- Who changed the webhooks of an organization, when and how. A row stays when its webhook is deleted. `url` has scheme and host, and a hash
-- instead of the rest, in which receivers put passwords. Secrets are in no column. Webhooks from before this table have no row for their creation.
CREATE TABLE orchestrator.webhook_change (
    number          bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text        NOT NULL,
    webhook_id      uuid        NOT NULL,
    change          text        NOT NULL,
    because         text,                  -- why the notifier has disabled it
    url             text        NOT NULL,
    events          text[]      NOT NULL,
    changed_by      text        NOT NULL,
    channel         text        NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT webhook_change_kind CHECK (change IN ('created', 'secret_rotated', 'enabled', 'disabled', 'deleted')),
    CONSTRAINT webhook_change_because CHECK ((change = 'disabled') = (because IS NOT NULL))
);
CREATE INDEX webhook_change_page ON orchestrator.webhook_change (organization_id, number);
CREATE TRIGGER webhook_changes_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON orchestrator.webhook_change
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();

ALTER TABLE orchestrator.webhook_change ENABLE ROW LEVEL SECURITY;
ALTER TABLE orchestrator.webhook_change FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON orchestrator.webhook_change TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON orchestrator.webhook_change TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON orchestrator.webhook_change TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT ON orchestrator.webhook_change TO bulkreg_worker, bulkreg_api;

-- The only way to change a row: a person is forgotten (0024_forgetting.sql).
CREATE FUNCTION registration.forget_in_webhook_change(organization text, person text, given_pseudonym text, change_number bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
    PERFORM registration.begin_forgetting(organization, given_pseudonym, 'webhook_change');
    UPDATE orchestrator.webhook_change c SET changed_by = given_pseudonym
    WHERE c.number = change_number AND c.organization_id = organization AND c.changed_by = person;
    PERFORM set_config('registration.forgets', '', true);
END
$$;
REVOKE ALL ON FUNCTION registration.forget_in_webhook_change(text, text, text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION registration.forget_in_webhook_change(text, text, text, bigint) TO bulkreg_worker;
