-- Statements of the sweeper. They find items that should have moved but have not. One sweeper sweeps at a time. It locks no rows of batches or
-- items: an item may have moved since it was found, and the code that acts on it checks it again. A batch with undecided items is running, or
-- was cancelled while an external service had not responded. There is a partial index for each: batch_running, batch_unresolved.

-- name: sweep_lock
-- parameters: space integer, which integer
-- Whether this transaction is the one that sweeps. It holds an advisory lock until its end; the other sweepers of a deployment find the lock
-- taken and go back to sleep.
SELECT pg_try_advisory_xact_lock(:space, :which);

-- name: decided_not_folded
-- parameters: quiet interval, aside uuid[], limit integer
-- Pending items whose attempt was decided some time ago. A result is lost (`is_lost`) if the aggregator has handled everything that the
-- topic held when the last sweep asked where it ends, and the outcome was old by then. Otherwise the result may still be in the queue,
-- and the item waits twice as long: the aggregator may be unavailable. Reads the few rows of `results` in `queue_end`; items by the
-- partial indexes of `batch`, then the primary keys.
WITH caught_up AS (
    SELECT CASE WHEN bool_and(greatest(q.handled, CASE WHEN p.topic_id = q.topic_id OR '' IN (p.topic_id, q.topic_id) THEN p.next_offset END)
                              >= q.next_offset)
                THEN min(q.seen_at) END AS since
    FROM orchestrator.queue_end q
    LEFT JOIN orchestrator.consumer_progress p ON (p.topic, p.partition) = (q.topic, q.partition)
    WHERE q.topic = 'results'
)
SELECT i.batch_id::text, i.position, i.attempt, coalesce(o.created_at < c.since - :quiet, false) AS is_lost
FROM caught_up c
CROSS JOIN orchestrator.batch b
JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL)
  AND (o.created_at < c.since - :quiet OR o.created_at < clock_timestamp() - 2 * :quiet)
  AND NOT b.batch_id = ANY (CAST(:aside AS uuid[]))
ORDER BY i.batch_id LIMIT :limit;

-- name: watch
-- parameters: mark_id bigint, quiet interval, limit integer
-- Begins to watch pending items that have been quiet for a while. The item's own time counts, because a batch changes with each edit of its
-- label and each retry of other items. Items are left out while the outbox has an event that may still lead to their outcome; a refused event
-- leads to none. Items that are already watched are left out, because they would use up the limit. By the partial indexes of `batch`, then the
-- primary keys; no index of `outbox` begins with the batch, so that is read whole.
INSERT INTO orchestrator.sweep_watch (batch_id, position, attempt, organization_id, stage, mark_id, next_at)
SELECT i.batch_id, i.position, i.attempt, i.organization_id, 'splitter', :mark_id, clock_timestamp()
FROM orchestrator.batch b
JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL) AND i.attempt_at < clock_timestamp() - :quiet
  AND NOT EXISTS (SELECT FROM orchestrator.outbox x
                  WHERE x.batch_id = b.batch_id AND x.topic IN ('batches', 'commands', 'commands-bulk')
                    AND x.held_for IS DISTINCT FROM 'refused')
  AND NOT EXISTS (SELECT FROM orchestrator.outcome o
                  WHERE (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt))
  AND NOT EXISTS (SELECT FROM orchestrator.sweep_watch w
                  WHERE (w.batch_id, w.position, w.attempt) = (i.batch_id, i.position, i.attempt))
LIMIT :limit
ON CONFLICT DO NOTHING;

-- name: forget_moved
-- Stops watching items that have moved. Reads all of `sweep_watch`, which has only what is watched; items and outcomes by their
-- primary keys.
DELETE FROM orchestrator.sweep_watch w
WHERE NOT EXISTS (SELECT FROM orchestrator.batch_item i
                  WHERE (i.batch_id, i.position, i.attempt) = (w.batch_id, w.position, w.attempt) AND i.status = 'pending')
   OR EXISTS (SELECT FROM orchestrator.outcome o
              WHERE (o.batch_id, o.position, o.attempt) = (w.batch_id, w.position, w.attempt));

-- name: forget_marks
-- Deletes the marks that no item waits for. Both tables are small.
DELETE FROM orchestrator.sweep_mark m WHERE NOT EXISTS (SELECT FROM orchestrator.sweep_watch w WHERE w.mark_id = m.mark_id);

-- name: new_mark
-- Creates a mark without offsets; set_mark follows in the same transaction.
INSERT INTO orchestrator.sweep_mark (offsets, taken_at) VALUES ('[]', clock_timestamp()) RETURNING mark_id;

-- name: set_mark
-- parameters: offsets jsonb, mark_id bigint
-- Sets the offsets of a mark. By the primary key.
UPDATE orchestrator.sweep_mark m SET offsets = CAST(:offsets AS jsonb) WHERE m.mark_id = :mark_id;

-- name: waited_for
-- parameters: mark_id bigint
-- Whether any item waits for a mark.
SELECT EXISTS (SELECT FROM orchestrator.sweep_watch WHERE mark_id = :mark_id);

-- name: to_registration
-- parameters: mark_id bigint, passed bigint[]
-- Makes items that the splitter has passed wait for a new mark, for the registration.
UPDATE orchestrator.sweep_watch SET stage = 'registration', mark_id = :mark_id
WHERE stage = 'splitter' AND mark_id = ANY (:passed);

-- name: mark_sent
-- parameters: mark_id bigint
-- Gives a mark to items that were sent again, once their events have left the outbox. The comment of `watch` says which events count.
UPDATE orchestrator.sweep_watch w SET mark_id = :mark_id
WHERE w.mark_id IS NULL
  AND NOT EXISTS (SELECT FROM orchestrator.outbox x
                  WHERE x.batch_id = w.batch_id AND x.topic IN ('batches', 'commands', 'commands-bulk')
                    AND x.held_for IS DISTINCT FROM 'refused');

-- name: lost
-- parameters: max_resends integer, gone bigint[], passed bigint[], aside uuid[], limit integer
-- Items that the registration has passed without an outcome. Reads all of `sweep_watch`; batches by their primary key.
SELECT w.batch_id::text, w.position, w.attempt,
       w.resends >= :max_resends AND b.cancelled_at IS NULL AND NOT w.mark_id = ANY (:gone) AS is_hopeless
FROM orchestrator.sweep_watch w JOIN orchestrator.batch b ON b.batch_id = w.batch_id
WHERE w.stage = 'registration' AND w.mark_id = ANY (:passed) AND w.next_at <= clock_timestamp()
  AND NOT w.batch_id = ANY (CAST(:aside AS uuid[]))
ORDER BY w.batch_id, w.position LIMIT :limit;

-- name: sent_again
-- parameters: gone bigint[], max_resends integer, pause interval, batch_ids uuid[], positions integer[], attempts integer[]
-- Counts a resend, and doubles the wait before the next one. A command that was lost with its topic was never tried, so its resend does not
-- count against the item. By the primary key of `sweep_watch`.
UPDATE orchestrator.sweep_watch w
SET resends = CASE WHEN w.mark_id = ANY (:gone) THEN w.resends ELSE least(w.resends + 1, :max_resends) END, mark_id = NULL,
    next_at = clock_timestamp() + :pause * power(2, w.resends)
FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
     AS n (batch_id, position, attempt)
WHERE (w.batch_id, w.position, w.attempt) = (n.batch_id, n.position, n.attempt);

-- name: sizes_of_requests
-- parameters: batch_ids uuid[], positions integer[], attempts integer[]
-- The number of items in the submission or the retry that began each of these attempts. A retry is identified by its time, which its items
-- have, too; because of the batch's lock, no two retries have the same time. By the primary keys.
WITH named AS (
    SELECT * FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
                  AS n (batch_id, position, attempt)
), retries AS (
    SELECT h.batch_id, h.retried_at, count(*) AS items FROM orchestrator.item_history h
    WHERE h.batch_id IN (SELECT n.batch_id FROM named n WHERE n.attempt > 1) GROUP BY 1, 2
)
SELECT n.batch_id::text, n.position, n.attempt, CASE WHEN n.attempt = 1 THEN b.total_items ELSE r.items END AS items
FROM named n
JOIN orchestrator.batch b ON b.batch_id = n.batch_id
JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
LEFT JOIN retries r ON (r.batch_id, r.retried_at) = (i.batch_id, i.attempt_at)
WHERE n.attempt = 1 OR r.items IS NOT NULL;

-- name: unfinished_collections
-- parameters: patience interval, aside uuid[], limit integer
-- Upstream batches whose parts have not all arrived in time. By the partial index batch_running.
SELECT batch_id::text FROM orchestrator.batch
WHERE status = 'pending' AND submitted_at < clock_timestamp() - :patience AND NOT batch_id = ANY (CAST(:aside AS uuid[]))
ORDER BY batch_id LIMIT :limit;
