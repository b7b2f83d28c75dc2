-- How large the event of a part was, for the limit on a batch's total size. Parts that came before count as nothing.
ALTER TABLE orchestrator.batch_part ADD COLUMN data_bytes integer NOT NULL DEFAULT 0;
