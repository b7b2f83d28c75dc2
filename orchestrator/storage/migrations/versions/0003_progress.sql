-- The time from which a batch's speed is measured, and how many items were pending then. Each retry writes both, in a statement that it needs
-- anyway. Null (also in rows of the version before) means since the submission, with all items. After a retry by the version before, the
-- progress shows too little speed until the batch is finished. Only the progress uses these columns.
ALTER TABLE orchestrator.batch ADD COLUMN measured_from timestamptz, ADD COLUMN measured_items integer;
