-- Groups that coordinators register repeatedly: the mentors, activity type and minutes. No notes.
CREATE TABLE orchestrator.template (
    template_id      uuid        NOT NULL PRIMARY KEY,
    organization_id  text        NOT NULL,
    coordinator_id   text        NOT NULL,
    name             text        NOT NULL,
    mentor_ids       text[]      NOT NULL,
    activity_type    text        NOT NULL,
    duration_minutes integer     NOT NULL,
    weekday          smallint,             -- as in ISO 8601: 1 is Monday
    version          integer     NOT NULL,
    changed_at       timestamptz NOT NULL
);
CREATE INDEX template_of_organization ON orchestrator.template (organization_id, template_id);

-- When the batch's failed items were dismissed. A fold that raises the number of failed items sets it to null again.
ALTER TABLE orchestrator.batch ADD COLUMN dismissed_at timestamptz;

-- Who dismissed which version of a batch, and when: the history of the column above.
CREATE TABLE orchestrator.batch_dismissal (
    batch_id        uuid        NOT NULL,
    version         bigint      NOT NULL,
    organization_id text        NOT NULL,
    dismissed_by    text        NOT NULL,
    dismissed_at    timestamptz NOT NULL,
    PRIMARY KEY (batch_id, version)
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['template', 'batch_dismissal'] LOOP
        EXECUTE format('ALTER TABLE orchestrator.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE orchestrator.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON orchestrator.%I TO bulkreg_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY owner ON orchestrator.%I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY api ON orchestrator.%I TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))'
                       ' WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()))', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.%I TO bulkreg_worker', name);
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.template TO bulkreg_api;
GRANT SELECT, INSERT ON orchestrator.batch_dismissal TO bulkreg_api;
