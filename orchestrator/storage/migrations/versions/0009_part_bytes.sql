-- The size of a part's event, for the limit on a batch's total size. Earlier parts count as 0 bytes.
ALTER TABLE orchestrator.batch_part ADD COLUMN data_bytes integer NOT NULL DEFAULT 0;
