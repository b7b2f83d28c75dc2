-- The advisory locks of batches, until the end of the transaction. The array is sorted by key, and `unnest` keeps its order, so that two
-- transactions can't deadlock. The locks queue fairly: a cancel does not starve behind overlapping micro-batches.

-- name: share
-- parameters: keys bigint[]
-- Takes shared locks, for transactions that decide about items.
SELECT pg_advisory_xact_lock_shared(key) FROM unnest(CAST(:keys AS bigint[])) AS locked (key);

-- name: alone
-- parameters: keys bigint[]
-- Takes exclusive locks, for transactions that cancel, retry, delete, take in or promote a batch.
SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS locked (key);
