-- The statements on `consumer_progress`.

-- name: advance
-- parameters: topics text[], partitions integer[], next_offsets bigint[], topic_ids text[]
-- Stores how far partitions are handled. It is the last statement of its transaction, and sorted, so that another process that waits here holds
-- no lock that this transaction still needs. (That process is a consumer that has lost the partition without noticing.) Within an incarnation
-- the offset never decreases, because such a consumer may be the last to commit. By the primary key.
INSERT INTO orchestrator.consumer_progress (topic, partition, next_offset, topic_id, updated_at)
SELECT topic, partition, next_offset, topic_id, clock_timestamp()
FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:next_offsets AS bigint[]), CAST(:topic_ids AS text[]))
     AS handled (topic, partition, next_offset, topic_id)
ORDER BY topic, partition
ON CONFLICT (topic, partition) DO UPDATE
SET next_offset = excluded.next_offset, topic_id = excluded.topic_id, updated_at = excluded.updated_at
WHERE consumer_progress.topic_id <> excluded.topic_id OR consumer_progress.next_offset < excluded.next_offset;

-- name: read
-- parameters: topics text[]
-- How far the partitions of these topics are handled. Reads the whole table, which has a row for each partition.
SELECT topic, partition, next_offset, topic_id FROM orchestrator.consumer_progress WHERE topic = ANY (:topics);
