-- From when a batch's speed is measured, and how many items were pending then: each retry writes both, in a statement that it makes
-- anyway. Null, also for what the version before wrote: since its submission, with all its items. Readers of a retry by the version
-- before see more pending than this says, or too little speed, until the batch is finished; nothing but progress looks at them.
ALTER TABLE orchestrator.batch ADD COLUMN measured_from timestamptz, ADD COLUMN measured_items integer;
