-- The edits of a batch by people: one row for each label, cancel and deletion, written in the same transaction. The batch's own row has the
-- result. If a replay finds that row missing or damaged, these rows confirm the edits; an event alone never does (decision 15).
CREATE TABLE orchestrator.batch_edit (
    batch_id        uuid        NOT NULL,
    version         bigint      NOT NULL,
    organization_id text        NOT NULL,
    kind            text        NOT NULL,
    label           text,
    reason          text,
    edited_by       text,
    edited_at       timestamptz NOT NULL,
    PRIMARY KEY (batch_id, version),
    CONSTRAINT batch_edit_kind CHECK (kind IN ('relabelled', 'cancelled', 'deleted'))
);

ALTER TABLE orchestrator.batch_edit ENABLE ROW LEVEL SECURITY;
ALTER TABLE orchestrator.batch_edit FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON orchestrator.batch_edit TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON orchestrator.batch_edit TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON orchestrator.batch_edit TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.batch_edit TO bulkreg_worker;
GRANT SELECT, INSERT ON orchestrator.batch_edit TO bulkreg_api;

-- Earlier cancels and deletions. (Of labels only the last one is known, and it is in the batch's row.)
INSERT INTO orchestrator.batch_edit (batch_id, version, organization_id, kind, reason, edited_by, edited_at)
SELECT batch_id, 0, organization_id, 'cancelled', cancellation_reason, cancelled_by, cancelled_at
FROM orchestrator.batch WHERE cancelled_at IS NOT NULL
UNION ALL
SELECT batch_id, version, organization_id, 'deleted', NULL, NULL, deleted_at FROM orchestrator.batch WHERE deleted_at IS NOT NULL;

-- For `bulkreg doctor`: items that were sent to an external service that has not responded yet. Usually few.
CREATE INDEX dispatch_in_doubt ON orchestrator.dispatch (batch_id) WHERE state = 'asked';
