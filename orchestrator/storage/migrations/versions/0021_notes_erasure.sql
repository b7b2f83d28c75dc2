-- Erased notes (docs/decisions/0045-forgetting.md). A row says that the notes of an item, in this attempt and all earlier ones, were erased from every
-- table. It is the audit of the erasure, and a replay brings no notes back that it names. It holds no notes.
CREATE TABLE registration.notes_erasure (
    batch_id        uuid        NOT NULL,
    position        integer     NOT NULL,
    attempt         integer     NOT NULL,
    organization_id text        NOT NULL,
    item_id         uuid        NOT NULL,
    erased_by       text        NOT NULL,
    channel         text        NOT NULL,
    erased_at       timestamptz NOT NULL,
    PRIMARY KEY (batch_id, position, attempt)
);
CREATE TRIGGER notes_erasures_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON registration.notes_erasure
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();

ALTER TABLE registration.notes_erasure ENABLE ROW LEVEL SECURITY;
ALTER TABLE registration.notes_erasure FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON registration.notes_erasure TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON registration.notes_erasure TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON registration.notes_erasure TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))
    WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()));
GRANT SELECT, INSERT ON registration.notes_erasure TO bulkreg_worker, bulkreg_api;

-- The API erases notes, and changes nothing else of an activity or of an earlier attempt.
GRANT UPDATE (notes) ON registration.activity TO bulkreg_api;
GRANT UPDATE (submitted, correction) ON orchestrator.item_history TO bulkreg_api;

-- The indexes by which the retention finds notes are built afterwards, without a lock (orchestrator/storage/large_indexes.py).
