-- Statements of the registration through an external service.

-- name: in_closed_periods
-- parameters: batch_ids uuid[], positions integer[]
-- The items, by their number from 1, that are in a closed period. The transaction shares the lock of the period. By the primary keys.
SELECT n.ord
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[])) WITH ORDINALITY AS n (batch_id, position, ord)
JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (n.batch_id, n.position)
JOIN registration.organization o ON o.organization_id = i.organization_id
WHERE i.activity_date <= o.closed_through;
