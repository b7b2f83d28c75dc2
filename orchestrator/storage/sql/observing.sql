-- Statements that observe the product. The tables are small: a row for each partition, and the starts of one day.

-- name: note_queues
-- parameters: topics text[], partitions integer[], topic_ids text[], firsts bigint[], next_offsets bigint[]
-- Stores where queues end and how far they are handled. `stands_since` is when a queue was first seen behind its end without moving. Progress
-- of another incarnation does not count. Sorted by the primary key, so that two of these statements can't deadlock.
INSERT INTO orchestrator.queue_end AS q (topic, partition, topic_id, next_offset, handled, stands_since, seen_at)
SELECT n.topic, n.partition, n.topic_id, n.next_offset, seen.handled,
       CASE WHEN seen.handled < n.next_offset THEN clock_timestamp() END, clock_timestamp()
FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:topic_ids AS text[]), CAST(:firsts AS bigint[]),
            CAST(:next_offsets AS bigint[])) AS n (topic, partition, topic_id, first_offset, next_offset)
LEFT JOIN orchestrator.consumer_progress p
       ON (p.topic, p.partition) = (n.topic, n.partition) AND (p.topic_id = n.topic_id OR '' IN (p.topic_id, n.topic_id))
CROSS JOIN LATERAL (SELECT greatest(n.first_offset, coalesce(p.next_offset, 0)) AS handled) AS seen
ORDER BY n.topic, n.partition
ON CONFLICT (topic, partition) DO UPDATE
SET topic_id = excluded.topic_id, next_offset = excluded.next_offset, handled = excluded.handled, seen_at = excluded.seen_at,
    stands_since = CASE WHEN excluded.stands_since IS NULL THEN NULL
                        WHEN q.topic_id = excluded.topic_id AND q.handled = excluded.handled THEN coalesce(q.stands_since, excluded.seen_at)
                        ELSE excluded.seen_at END;

-- name: forget_queues
-- parameters: topics text[], partitions integer[]
-- Deletes queues that no longer exist. Reads the whole table.
DELETE FROM orchestrator.queue_end q
WHERE NOT EXISTS (SELECT FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[])) AS n (topic, partition)
                  WHERE (n.topic, n.partition) = (q.topic, q.partition));

-- name: standing
-- How many records wait, and the longest time without movement, by topic. Reads the whole table.
SELECT topic, sum(greatest(0, next_offset - handled)) AS waiting,
       coalesce(extract(epoch FROM max(clock_timestamp() - stands_since)), 0) AS stands_s
FROM orchestrator.queue_end GROUP BY topic;

-- name: standing_partitions
-- parameters: topics text[], trouble_after interval
-- The partitions of these topics whose consumer does not move although records follow. Reads the whole table.
SELECT topic, partition FROM orchestrator.queue_end
WHERE topic = ANY (CAST(:topics AS text[])) AND stands_since < now() - :trouble_after AND seen_at > now() - :trouble_after
ORDER BY topic, partition;

-- name: note_starts
-- parameters: host text, roles text[]
-- Records that roles have started.
INSERT INTO orchestrator.role_start (role, host, started_at)
SELECT role, :host, clock_timestamp() FROM unnest(CAST(:roles AS text[])) AS r (role);

-- name: forget_starts
-- parameters: kept interval
-- Deletes starts that are too old to count. By the index role_start_recent.
DELETE FROM orchestrator.role_start WHERE started_at < clock_timestamp() - :kept;

-- name: starts
-- parameters: host text, roles text[], within interval
-- How often these roles have started on this host within the given period. By the index role_start_recent.
SELECT role, count(*) AS starts FROM orchestrator.role_start
WHERE host = :host AND role = ANY (:roles) AND started_at > clock_timestamp() - :within GROUP BY role;

-- name: oldest_outbox_row
-- parameters: slots smallint[]
-- How long the oldest row of the outbox has waited. Looks up the first row of each slot by the primary key, instead of reading all rows of a
-- backlog.
SELECT extract(epoch FROM max(clock_timestamp() - row.created_at))
FROM unnest(CAST(:slots AS smallint[])) AS owned (slot)
CROSS JOIN LATERAL (SELECT created_at FROM orchestrator.outbox o WHERE o.slot = owned.slot ORDER BY outbox_id LIMIT 1) AS row;

-- name: figures
-- parameters: slots smallint[]
-- The state of the whole product for its metrics. Reads at most 100,000 rows of the outbox, the first row of each slot, and the running batches
-- by the index batch_running. A session sees the waits of its own role only, so the API's are not among them.
SELECT (SELECT count(*) FROM (SELECT FROM orchestrator.outbox LIMIT 100000) AS counted) AS outbox_rows,
       (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - row.created_at)), 0)
        FROM unnest(CAST(:slots AS smallint[])) AS owned (slot)
        CROSS JOIN LATERAL (SELECT created_at FROM orchestrator.outbox o WHERE o.slot = owned.slot ORDER BY outbox_id LIMIT 1) AS row
       ) AS outbox_oldest_s,
       running.items AS backlog_items, running.oldest_s AS oldest_unfinished_s,
       (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - s.state_change)), 0)
        FROM pg_stat_activity s WHERE s.usename = current_user AND s.wait_event = 'SyncRep') AS commit_wait_s,
       v.breaches AS verify_breaches, extract(epoch FROM v.completed_at) AS verify_completed_at
FROM (SELECT coalesce(sum(b.pending), 0) AS items,
             coalesce(extract(epoch FROM max(clock_timestamp() - coalesce(b.measured_from, b.submitted_at))), 0) AS oldest_s
      FROM orchestrator.batch b WHERE b.status = 'processing' AND b.deleted_at IS NULL) AS running
LEFT JOIN orchestrator.verification v ON true;

-- name: note_verification
-- parameters: breaches integer
-- Stores the result of the last verification in the table's only row.
INSERT INTO orchestrator.verification AS v (breaches, completed_at) VALUES (:breaches, clock_timestamp())
ON CONFLICT (is_last) DO UPDATE SET breaches = excluded.breaches, completed_at = excluded.completed_at;
