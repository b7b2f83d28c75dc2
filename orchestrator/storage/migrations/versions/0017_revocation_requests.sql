-- One row for each item whose activity an external registration service was asked to revoke (docs/external-registration.md). `request` counts
-- the requests of an item, and is the n of the idempotency key.
--   asked    a request is being sent or was sent, and the service has not answered
--   revoked  the service has revoked the activity
--   refused  the service has refused the request, with `code`; another revocation makes the next request
CREATE TABLE orchestrator.revocation_request (
    batch_id        uuid        NOT NULL,
    position        integer     NOT NULL,
    organization_id text        NOT NULL,
    request         integer     NOT NULL DEFAULT 1,
    state           text        NOT NULL DEFAULT 'asked',
    asked_at        timestamptz NOT NULL,
    asked_by        text        NOT NULL,
    channel         text        NOT NULL,
    reason          text        NOT NULL,
    code            text,
    answered_at     timestamptz,
    is_bulk         boolean     NOT NULL,
    sent_at         timestamptz NOT NULL,
    resends         integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (batch_id, position),
    CONSTRAINT revocation_request_state CHECK (state IN ('asked', 'revoked', 'refused')),
    CONSTRAINT revocation_request_answer CHECK ((state = 'refused') = (code IS NOT NULL) AND (state = 'asked') = (answered_at IS NULL))
);

-- For the sweeper, which sends lost requests again.
CREATE INDEX revocation_request_asked ON orchestrator.revocation_request (sent_at) WHERE state = 'asked';

-- What people see of it: `unresolved`, or the code with which the service refused. Null when nothing was asked, and after the revocation.
ALTER TABLE orchestrator.batch_item ADD COLUMN revocation_request text;

ALTER TABLE orchestrator.revocation_request ENABLE ROW LEVEL SECURITY;
ALTER TABLE orchestrator.revocation_request FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON orchestrator.revocation_request TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON orchestrator.revocation_request TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON orchestrator.revocation_request TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.revocation_request TO bulkreg_worker;
-- A revocation reads the requests and makes new ones.
GRANT SELECT, INSERT, UPDATE ON orchestrator.revocation_request TO bulkreg_api;
