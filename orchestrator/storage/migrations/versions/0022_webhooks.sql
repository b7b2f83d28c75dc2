-- Where an organization wants to be told of events. The secrets are encrypted under the keys of BULKREG_WEBHOOK_KEYS.
CREATE TABLE orchestrator.webhook (
    webhook_id       uuid        NOT NULL PRIMARY KEY,
    organization_id  text        NOT NULL,
    url              text        NOT NULL,
    events           text[]      NOT NULL,
    secret           bytea       NOT NULL,
    previous_secret  bytea,                -- signs too, until previous_until
    previous_until   timestamptz,
    created_by       text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    failing_since    timestamptz,          -- the first of the failed attempts since the last success
    disabled_at      timestamptz,
    disabled_because text,
    CONSTRAINT webhook_previous_secret CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CONSTRAINT webhook_disabled CHECK ((disabled_at IS NULL) = (disabled_because IS NULL)),
    CONSTRAINT webhook_disabled_because CHECK (disabled_because IN ('gone', 'failing'))
);
CREATE INDEX webhook_of_organization ON orchestrator.webhook (organization_id, webhook_id);

-- An event for a webhook: the text to send, and what became of the last attempt. Without a foreign key, so that recording many deliveries checks
-- the webhook once; what removes a webhook removes these rows first, under the lock of its row.
CREATE TABLE orchestrator.webhook_delivery (
    webhook_id      uuid        NOT NULL,
    event_id        uuid        NOT NULL,
    organization_id text        NOT NULL,
    event_type      text        NOT NULL,
    body            text        NOT NULL,
    state           text        NOT NULL DEFAULT 'pending',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    tried_from      timestamptz NOT NULL DEFAULT clock_timestamp(), -- its creation, or the last redelivery by hand
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(), -- the next attempt; while one is under way, the end of its lease
    attempts        integer     NOT NULL DEFAULT 0,
    attempted_at    timestamptz,
    problem         text,
    status          integer,
    response        text,
    took_ms         integer,
    PRIMARY KEY (webhook_id, event_id),
    CONSTRAINT webhook_delivery_state CHECK (state IN ('pending', 'delivered', 'failed'))
);
-- For the notifier, which looks for due deliveries of each webhook.
CREATE INDEX webhook_delivery_due ON orchestrator.webhook_delivery (webhook_id, due_at) WHERE state = 'pending';
-- For the list, newest first.
CREATE INDEX webhook_delivery_page ON orchestrator.webhook_delivery (webhook_id, created_at, event_id);
-- For the purge.
CREATE INDEX webhook_delivery_age ON orchestrator.webhook_delivery (created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['webhook', 'webhook_delivery'] LOOP
        EXECUTE format('ALTER TABLE orchestrator.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE orchestrator.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON orchestrator.%I TO bulkreg_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY owner ON orchestrator.%I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY api ON orchestrator.%I TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))'
                       ' WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.%I TO bulkreg_worker, bulkreg_api', name);
    END LOOP;
END $$;
