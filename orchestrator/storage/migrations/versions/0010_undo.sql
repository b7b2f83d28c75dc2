-- Undo (docs/decisions/0034-undo.md): who revoked an activity, and why. The column `revoked_at` has existed from the beginning.
ALTER TABLE registration.activity ADD COLUMN revoked_by text, ADD COLUMN revocation_reason text;
-- The reason of an action that has one.
ALTER TABLE registration.audit ADD COLUMN reason text;

-- The item stays `success`, because it was registered.
ALTER TABLE orchestrator.batch_item ADD COLUMN revoked_at timestamptz, ADD COLUMN revoked_by text, ADD COLUMN revocation_reason text;
-- How many items are revoked. A constant default fills no rows.
ALTER TABLE orchestrator.batch ADD COLUMN revoked integer NOT NULL DEFAULT 0;

-- A revocation is a new kind of edit. The check of the kinds is dropped instead of widened, because validating a new one would hold a lock. Only
-- our own statements write the kinds.
ALTER TABLE orchestrator.batch_edit DROP CONSTRAINT batch_edit_kind;

-- The index that a revocation needs is built afterwards, without a lock (orchestrator/storage/large_indexes.py).

-- The API revokes, and changes nothing else of an activity. Its policies stay as they are.
GRANT UPDATE (revoked_at, revoked_by, revocation_reason, overrides_duplicate) ON registration.activity TO bulkreg_api;
GRANT INSERT ON registration.audit TO bulkreg_api;
