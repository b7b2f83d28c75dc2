-- The advisory locks of batches, until the end of the transaction. They come as an array sorted by key, and `unnest` keeps its
-- order, so that two transactions don't wait in a circle. The locks queue fairly: a cancel does not starve behind overlapping
-- micro-batches.

-- name: share
-- parameters: keys bigint[]
-- Shares batches: for what decides about their items.
SELECT pg_advisory_xact_lock_shared(key) FROM unnest(CAST(:keys AS bigint[])) AS locked (key);

-- name: alone
-- parameters: keys bigint[]
-- Takes batches alone: for what cancels, retries, deletes, takes in or promotes one.
SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS locked (key);
