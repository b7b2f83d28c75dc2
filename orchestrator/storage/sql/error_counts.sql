-- The statement of error_counts.py.

-- name: count
-- parameters: batch_ids uuid[]
-- How many items of these batches failed, by error code. Reads all items of the batches, by the primary key.
SELECT batch_id::text, jsonb_object_agg(code, n) AS errors_by_code FROM (
    SELECT i.batch_id, i.error ->> 'code' AS code, count(*) AS n FROM orchestrator.batch_item i
    WHERE i.batch_id = ANY (CAST(:batch_ids AS uuid[])) AND i.status = 'failed' GROUP BY 1, 2
) AS codes GROUP BY batch_id;
