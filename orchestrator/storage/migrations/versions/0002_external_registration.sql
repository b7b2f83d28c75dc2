-- One row for each item that an external registration service was ever asked to register (docs/external-registration.md). `refusals`
-- is the n of the idempotency key that is in use, or would be used next. `attempt` is the last attempt that asked.
--   asked       a request is being sent or was sent, and it is unknown whether the service has done the work
--   registered  the activity exists at the service
--   refused     the service definitely refused the key before `refusals`; the next attempt uses a new key
--   withdrawn   the service will never honour the key: only for items of cancelled batches
-- The requested values are the item's own. They can't change while the item is in doubt, so the notes are stored only once.
CREATE TABLE orchestrator.dispatch (
    batch_id        uuid        NOT NULL,
    position        integer     NOT NULL,
    organization_id text        NOT NULL,
    attempt         integer     NOT NULL,
    refusals        integer     NOT NULL DEFAULT 0,
    state           text        NOT NULL,
    activity_id     uuid,
    error           jsonb,
    dispatched_at   timestamptz NOT NULL,
    answered_at     timestamptz,
    PRIMARY KEY (batch_id, position),
    CONSTRAINT dispatch_state CHECK (state IN ('asked', 'registered', 'refused', 'withdrawn')),
    CONSTRAINT dispatch_answer CHECK ((state = 'registered') = (activity_id IS NOT NULL) AND (state = 'refused') = (error IS NOT NULL)
                                      AND (state = 'asked') = (answered_at IS NULL))
) WITH (fillfactor = 80);

-- Cancelled batches that wait for a service's answer, for the sweeper. Almost always empty; built while `batch`, which has one row for
-- dozens of items, is locked against writing for a moment.
CREATE INDEX batch_unresolved ON orchestrator.batch (cancelled_at) WHERE status = 'cancelled' AND completed_at IS NULL;

ALTER TABLE orchestrator.dispatch ENABLE ROW LEVEL SECURITY;
ALTER TABLE orchestrator.dispatch FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON orchestrator.dispatch TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON orchestrator.dispatch TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON orchestrator.dispatch TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.dispatch TO bulkreg_worker;
-- Cancel and retry ask which items are in doubt.
GRANT SELECT ON orchestrator.dispatch TO bulkreg_api;
