-- Folds the records of the topics into shadow tables, and compares these with the live ones. The tables are temporary. Only their own
-- session sees them, so no statement here waits for a lock or blocks another session.

-- name: tables
-- Script. Creates the tables that COPY fills. They have no indexes: indexes are built when everything has been read.
CREATE TEMPORARY TABLE replay_part (
    batch_id uuid NOT NULL, part integer NOT NULL, parts integer NOT NULL, total_items integer NOT NULL,
    organization_id text NOT NULL, coordinator_id text NOT NULL, label text, override_duplicates boolean NOT NULL,
    submitted_by text NOT NULL, channel text NOT NULL, is_ours boolean NOT NULL, event_id text NOT NULL, trace_id text NOT NULL,
    header_hash bytea NOT NULL, content_hash bytea NOT NULL, public_hash bytea NOT NULL, first_item_id uuid NOT NULL,
    at timestamptz NOT NULL, written_at timestamptz NOT NULL, partition integer NOT NULL, record_offset bigint NOT NULL,
    item_count integer NOT NULL,
    -- Read once and dropped soon, so not worth compressing.
    items json STORAGE EXTERNAL NOT NULL, part_number bigint NOT NULL GENERATED ALWAYS AS IDENTITY
);
CREATE TEMPORARY TABLE replay_malformed (
    event_id text NOT NULL, written_at timestamptz NOT NULL, partition integer NOT NULL, record_offset bigint NOT NULL
);
CREATE TEMPORARY TABLE replay_retry_read (
    batch_id uuid NOT NULL, position integer NOT NULL, attempt integer NOT NULL CHECK (attempt > 1), correction jsonb,
    retry_number integer NOT NULL, retried_by text NOT NULL, at timestamptz NOT NULL, organization_id text NOT NULL,
    partition integer NOT NULL, record_offset bigint NOT NULL
);
CREATE TEMPORARY TABLE replay_cancel (
    batch_id uuid NOT NULL, part integer NOT NULL, reason text, cancelled_by text NOT NULL, at timestamptz NOT NULL,
    cancelled integer NOT NULL, runs jsonb NOT NULL, partition integer NOT NULL, record_offset bigint NOT NULL
);
CREATE TEMPORARY TABLE replay_relabel (
    batch_id uuid NOT NULL, version integer NOT NULL, label text, partition integer NOT NULL, record_offset bigint NOT NULL
);
CREATE TEMPORARY TABLE replay_revocation_read (
    batch_id uuid NOT NULL, organization_id text NOT NULL, at timestamptz NOT NULL, revoked_by text NOT NULL, reason text NOT NULL,
    runs jsonb NOT NULL, partition integer NOT NULL, record_offset bigint NOT NULL
);
CREATE TEMPORARY TABLE replay_delete (batch_id uuid NOT NULL);
CREATE TEMPORARY TABLE replay_completion (
    batch_id uuid NOT NULL, retry_number integer NOT NULL, completed_at timestamptz NOT NULL, organization_id text NOT NULL
);
CREATE TEMPORARY TABLE replay_rejection (
    batch_id uuid NOT NULL, event_id text NOT NULL, batch_continues boolean NOT NULL, at timestamptz NOT NULL
);
CREATE TEMPORARY TABLE replay_result (
    batch_id uuid NOT NULL, position integer NOT NULL, attempt integer NOT NULL CHECK (attempt > 0), outcome text NOT NULL,
    activity_id uuid, error jsonb, partition integer NOT NULL, record_offset bigint NOT NULL
);
CREATE TEMPORARY TABLE replay_skipped (batch_id uuid NOT NULL);
CREATE TEMPORARY TABLE replay_difference (
    batch_id uuid NOT NULL, item_id uuid, position integer, field text NOT NULL, live jsonb, rebuilt jsonb
);

-- name: remember_live
-- Script. Records the versions of the live batches before the topics are read. One statement has one snapshot. The ends of the topics are
-- determined afterwards. So if a batch has no events in the outbox now, and still has the same version when it is compared, all its
-- events are on the topics before their ends. Also who was forgotten, before the replay reads it.
CREATE TEMPORARY TABLE replay_before AS
SELECT b.batch_id, b.version, o.batch_id IS NOT NULL AS is_waiting
FROM orchestrator.batch b LEFT JOIN (SELECT DISTINCT batch_id FROM orchestrator.outbox) o ON o.batch_id = b.batch_id;
CREATE UNIQUE INDEX ON replay_before (batch_id);
CREATE TEMPORARY TABLE replay_handled AS SELECT topic, partition, next_offset FROM orchestrator.consumer_progress;
CREATE TEMPORARY TABLE replay_forgotten AS SELECT organization_id, hash, is_id, pseudonym FROM registration.forgotten_word;

-- name: note_skipped
-- parameters: batch_id uuid
-- Notes a batch of which a row could not be stored. There is one for each such row, so no index.
INSERT INTO replay_skipped VALUES (:batch_id);

-- name: note_handled
-- parameters: topics text[], partitions integer[], offsets bigint[]
-- Sets how far the consumers have come in the given partitions. All others keep the progress in the tables. There is one row for each
-- partition, so no index.
WITH given AS (
    SELECT * FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:offsets AS bigint[]))
                  AS t (topic, partition, next_offset)
), known AS (
    UPDATE replay_handled h SET next_offset = g.next_offset FROM given g WHERE (h.topic, h.partition) = (g.topic, g.partition)
    RETURNING h.topic, h.partition
)
INSERT INTO replay_handled SELECT * FROM given g WHERE (g.topic, g.partition) NOT IN (SELECT topic, partition FROM known);

-- name: fold
-- Script. Builds batches and items from everything that was read. Each table gets its unique index and statistics before it is joined,
-- because every join here reads whole tables.
ANALYZE replay_part (batch_id, header_hash, part, event_id); ANALYZE replay_result (batch_id, position, attempt);
ANALYZE replay_retry_read; ANALYZE replay_completion; ANALYZE replay_cancel; ANALYZE replay_relabel; ANALYZE replay_delete;
ANALYZE replay_rejection; ANALYZE replay_revocation_read; ANALYZE replay_malformed;

-- The results of each item's highest attempt.
CREATE TEMPORARY TABLE replay_outcome AS
SELECT DISTINCT ON (batch_id, position) * FROM replay_result
ORDER BY batch_id, position, attempt DESC, record_offset, partition;
TRUNCATE replay_result;
CREATE UNIQUE INDEX ON replay_outcome (batch_id, position);
ANALYZE replay_outcome (batch_id, position);
CREATE INDEX ON replay_part (batch_id);

CREATE TEMPORARY TABLE replay_retry AS
SELECT DISTINCT ON (batch_id, position, attempt) * FROM replay_retry_read r
WHERE EXISTS (SELECT FROM replay_part p WHERE (p.batch_id, p.organization_id) = (r.batch_id, r.organization_id))
ORDER BY batch_id, position, attempt, record_offset, partition;
CREATE UNIQUE INDEX ON replay_retry (batch_id, position, attempt);
ANALYZE replay_retry;

-- The batches that were refused as a whole, or given up because they were incomplete. The same batch may have been sent again, and accepted.
CREATE TEMPORARY TABLE replay_ended AS
SELECT batch_id, bool_or(event_id = batch_id::text) AS was_incomplete,
       EXISTS (SELECT FROM orchestrator.batch_part l WHERE l.batch_id = r.batch_id AND l.items IS NOT NULL) AS is_collecting,
       (SELECT b.content_hash FROM orchestrator.batch b WHERE b.batch_id = r.batch_id) AS live_hash
FROM replay_rejection r WHERE NOT batch_continues GROUP BY batch_id;
CREATE UNIQUE INDEX ON replay_ended (batch_id);
ANALYZE replay_ended;

-- The events of which each record was refused. A dead letter is redriven under the same id, and accepted the second time, so one rejection does not
-- stand for all records of its event. It has the time of the record that was refused. Of several records with one time, a rejection does not tell which
-- one was refused: such an event is undecided. Malformed records are refused too, and never accepted.
CREATE TEMPORARY TABLE replay_refused_event AS
WITH rejection AS (
    SELECT DISTINCT batch_id, event_id, at AS written_at FROM replay_rejection
), record AS (
    SELECT n.batch_id, n.event_id, p.written_at, p.partition, p.record_offset, false AS is_malformed
    FROM rejection n JOIN replay_part p USING (batch_id, event_id)
    UNION SELECT n.batch_id, n.event_id, m.written_at, m.partition, m.record_offset, true FROM rejection n JOIN replay_malformed m USING (event_id)
)
SELECT batch_id, event_id, count(*) > count(DISTINCT written_at) AS is_undecided
FROM record LEFT JOIN (SELECT *, true AS is_refused FROM rejection) AS r USING (batch_id, event_id, written_at)
GROUP BY batch_id, event_id HAVING bool_and(is_malformed OR is_refused IS NOT NULL);
ANALYZE replay_refused_event;

-- Each part once. If a batch was refused, and sent again with other content, what the database has stored counts: the order of handling is
-- unknown. A refused event counts only if there is no other for the part, and then an undecided one first.
CREATE TEMPORARY TABLE replay_chosen_part AS
SELECT DISTINCT ON (batch_id, header_hash, part) * FROM (
    SELECT p.batch_id, p.header_hash, p.part, p.parts, p.total_items, p.organization_id, p.coordinator_id, p.label, p.override_duplicates,
           p.submitted_by, p.channel, p.is_ours, p.event_id, p.trace_id, p.content_hash, p.public_hash, p.first_item_id, p.at, p.partition,
           p.record_offset, p.item_count, p.part_number, r.batch_id IS NOT NULL AS is_rejected, coalesce(r.is_undecided, false) AS is_undecided,
           coalesce(l.public_hash = p.public_hash, e.live_hash = p.header_hash, false) AS is_stored
    FROM replay_part p
    LEFT JOIN replay_refused_event r ON (r.batch_id, r.event_id) = (p.batch_id, p.event_id)
    LEFT JOIN replay_ended e ON e.batch_id = p.batch_id
    LEFT JOIN orchestrator.batch_part l ON (l.batch_id, l.part) = (e.batch_id, p.part)
) AS p
ORDER BY batch_id, header_hash, part, is_stored DESC, is_rejected, is_undecided DESC, record_offset, partition;
CREATE UNIQUE INDEX ON replay_chosen_part (batch_id, header_hash, part);
ANALYZE replay_chosen_part;

-- Batches of which all parts were read. A table of its own, so that it has statistics: with the planner's guess of one batch, each would be
-- compared with all completions.
CREATE TEMPORARY TABLE replay_whole AS
SELECT DISTINCT ON (batch_id) batch_id, header_hash, bool_or(is_rejected) AS is_rejected, bool_and(is_stored) AS is_stored,
       parts, total_items, bool_and(is_ours) AS is_ours, max(at) AS submitted_at
FROM replay_chosen_part
GROUP BY batch_id, header_hash, parts, total_items
HAVING count(*) = parts AND max(part) = parts AND sum(item_count) = total_items
ORDER BY batch_id, bool_and(is_stored) DESC, bool_or(is_rejected), min(record_offset), header_hash;
ANALYZE replay_whole;

-- Those of them that were accepted. An event that only an accepted or a cancelled batch has proves it. A label does not: a batch that still
-- lacks parts can be relabelled, and be rejected afterwards. Without proof, and if a rejection ended a batch with this id, the batch counts if
-- the database has stored it, or if its parts were not refused. It does not count while its parts are collected, because the topics also have
-- those of before, nor if it was given up as incomplete: each of its parts may be there without the others.
CREATE TEMPORARY TABLE replay_batch AS
WITH cancel_part AS (
    SELECT DISTINCT ON (batch_id, part) * FROM replay_cancel ORDER BY batch_id, part, record_offset, partition
), cancelled_runs AS (
    SELECT batch_id, jsonb_agg(run) AS runs FROM cancel_part CROSS JOIN LATERAL jsonb_array_elements(runs) AS run GROUP BY batch_id
), cancel AS (
    SELECT p.batch_id, p.reason, p.cancelled_by, p.at, p.cancelled, coalesce(r.runs, '[]') AS runs
    FROM cancel_part p LEFT JOIN cancelled_runs r USING (batch_id) WHERE p.part = 1
), relabel AS (
    SELECT DISTINCT ON (batch_id) batch_id, label FROM replay_relabel r
    -- A batch in parts may have been removed and sent again. Labels from before that do not count.
    WHERE NOT EXISTS (SELECT FROM orchestrator.batch l
                      WHERE l.batch_id = r.batch_id AND l.parts > 1
                        AND NOT EXISTS (SELECT FROM orchestrator.batch_edit e
                                        WHERE (e.batch_id, e.version) = (r.batch_id, r.version) AND e.label IS NOT DISTINCT FROM r.label))
    ORDER BY batch_id, version DESC, record_offset, partition
), retried AS (
    SELECT batch_id, max(retry_number) AS retry_number, count(DISTINCT retry_number) AS retries FROM replay_retry GROUP BY batch_id
), completion AS (
    -- There is a second, later one if a restore lost the batch and its consumers took it in again.
    SELECT batch_id, organization_id, retry_number, max(completed_at) AS completed_at
    FROM replay_completion GROUP BY batch_id, organization_id, retry_number
), resulted AS (
    SELECT batch_id, count(*) AS results FROM replay_outcome GROUP BY batch_id
)
SELECT w.batch_id, p.organization_id, p.coordinator_id, p.submitted_by, p.channel,
       CASE WHEN r.batch_id IS NULL THEN p.label ELSE r.label END AS label, NULL::text AS status, w.total_items,
       0 AS pending, 0 AS completed, 0 AS failed, 0 AS cancelled, 0 AS revoked, coalesce(n.retry_number, 0) AS retry_number,
       -- At least the version that the batch had: each fold raised it by one, and folded at least one outcome.
       2 + coalesce(o.results, 0) + 2 * coalesce(n.retries, 0) AS version, p.label AS submitted_label,
       CASE WHEN w.is_ours THEN 1 ELSE w.parts END AS parts, w.header_hash, p.trace_id, w.submitted_at, f.completed_at,
       c.at AS cancelled_at, c.cancelled_by, c.reason AS cancellation_reason, c.runs, p.first_item_id,
       EXISTS (SELECT FROM replay_delete d WHERE d.batch_id = w.batch_id) AS is_deleted,
       -- A batch that was cancelled before all its parts arrived never got items.
       NOT (c.batch_id IS NOT NULL AND c.cancelled = w.total_items AND c.runs = '[]') AS has_items, false AS is_in_flight,
       coalesce(o.batch_id, c.batch_id, n.batch_id, f.batch_id) IS NOT NULL AS is_proven
FROM replay_whole w
CROSS JOIN LATERAL (
    SELECT * FROM replay_chosen_part p WHERE (p.batch_id, p.header_hash) = (w.batch_id, w.header_hash) ORDER BY part LIMIT 1
) AS p
LEFT JOIN cancel c ON c.batch_id = w.batch_id
LEFT JOIN relabel r ON r.batch_id = w.batch_id
LEFT JOIN retried n ON n.batch_id = w.batch_id
LEFT JOIN completion f ON (f.batch_id, f.organization_id) = (w.batch_id, p.organization_id) AND f.retry_number = coalesce(n.retry_number, 0)
LEFT JOIN resulted o ON o.batch_id = w.batch_id
LEFT JOIN replay_ended e ON e.batch_id = w.batch_id
WHERE NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = w.batch_id)
  AND (coalesce(o.batch_id, c.batch_id, n.batch_id, f.batch_id) IS NOT NULL
       OR NOT coalesce(e.is_collecting, false) AND (w.is_stored OR NOT w.is_rejected AND NOT coalesce(e.was_incomplete, false)));
CREATE UNIQUE INDEX ON replay_batch (batch_id);
ANALYZE replay_batch;

-- The submitted values of each item.
CREATE TEMPORARY TABLE replay_submitted AS
SELECT b.batch_id, i.position,
       -- An item id ends with the position, in 20 bits (schemas.ids).
       CAST(left(p.first_item_id::text, 31) || lpad(to_hex(i.position), 5, '0') AS uuid) AS item_id,
       i.mentor_id, i.activity_type, i.activity_date, i.duration_minutes, i.notes, i.client_reference,
       coalesce(i.override_duplicates, p.override_duplicates) AS override_duplicates
FROM replay_batch b JOIN replay_chosen_part p USING (batch_id, header_hash) JOIN replay_part r USING (part_number)
CROSS JOIN LATERAL json_to_recordset(r.items) AS i (
    position integer, mentor_id text, activity_type text, activity_date date, duration_minutes integer, notes text,
    client_reference text, override_duplicates boolean)
WHERE b.has_items AND i.position < b.total_items;
-- A batch in which a position occurs twice is invalid.
DELETE FROM replay_batch b USING (
    SELECT batch_id, count(DISTINCT position) AS positions FROM replay_submitted GROUP BY batch_id
) AS s WHERE s.batch_id = b.batch_id AND s.positions <> b.total_items;
-- A batch of another service in which the same mentor, type and date occur twice was refused as a whole, whichever of its parts came last. So each
-- part may be in an event that no rejection names. Not if an event proves that the batch was accepted, or if there was any other content
-- under its id, which may have been accepted.
CREATE TEMPORARY TABLE replay_never_valid AS
SELECT s.batch_id
FROM replay_submitted s JOIN replay_batch b ON b.batch_id = s.batch_id AND NOT b.is_proven JOIN replay_ended e ON e.batch_id = s.batch_id
WHERE (SELECT count(DISTINCT (p.header_hash, p.part, p.public_hash)) = b.parts AND NOT bool_or(p.is_ours)
       FROM replay_part p WHERE p.batch_id = b.batch_id)
GROUP BY s.batch_id, s.mentor_id, s.activity_type, s.activity_date HAVING count(*) > 1;
DELETE FROM replay_batch b USING replay_never_valid n WHERE n.batch_id = b.batch_id;
-- The batches that were certainly refused: however they were cut, a part was refused each time it was written, or never came.
CREATE TEMPORARY TABLE replay_refused AS
SELECT batch_id FROM replay_never_valid
UNION ALL
SELECT batch_id FROM replay_ended e
WHERE NOT EXISTS (SELECT FROM replay_chosen_part p WHERE p.batch_id = e.batch_id
                  GROUP BY p.header_hash, p.parts HAVING count(*) FILTER (WHERE p.is_stored OR p.is_undecided OR NOT p.is_rejected) >= p.parts)
  AND NOT EXISTS (SELECT FROM replay_outcome o WHERE o.batch_id = e.batch_id)
  AND NOT EXISTS (SELECT FROM replay_cancel c WHERE c.batch_id = e.batch_id)
  AND NOT EXISTS (SELECT FROM replay_retry_read n WHERE n.batch_id = e.batch_id)
  AND NOT EXISTS (SELECT FROM replay_completion f WHERE f.batch_id = e.batch_id)
  AND NOT EXISTS (SELECT FROM replay_delete d WHERE d.batch_id = e.batch_id)
  AND NOT EXISTS (SELECT FROM replay_revocation_read v WHERE v.batch_id = e.batch_id);
DELETE FROM replay_submitted s WHERE NOT EXISTS (SELECT FROM replay_batch b WHERE b.batch_id = s.batch_id);
CREATE UNIQUE INDEX ON replay_submitted (batch_id, position);
ANALYZE replay_submitted (batch_id, position);

CREATE TEMPORARY TABLE replay_item AS
WITH corrected AS (
    SELECT r.batch_id, r.position, max(r.attempt) AS attempt, jsonb_object_agg(c.key, c.value ORDER BY r.attempt)
           FILTER (WHERE c.key IS NOT NULL) AS changes
    FROM replay_retry r LEFT JOIN LATERAL jsonb_each(r.correction) AS c ON true
    GROUP BY r.batch_id, r.position
), stopped AS (
    SELECT b.batch_id, position, CAST(run ->> 2 AS integer) AS attempt
    FROM replay_batch b CROSS JOIN LATERAL jsonb_array_elements(b.runs) AS run
    CROSS JOIN LATERAL generate_series(CAST(run ->> 0 AS integer), CAST(run ->> 1 AS integer)) AS position
), joined AS (
    SELECT s.*, c.changes, greatest(1, c.attempt) AS values_attempt, greatest(1, o.attempt, c.attempt, x.attempt) AS attempt,
           o.attempt AS outcome_attempt, o.outcome, o.activity_id, o.error, x.attempt AS stopped_attempt,
           coalesce(o.record_offset >= h.next_offset, false) AS is_in_flight
    FROM replay_submitted s
    LEFT JOIN corrected c USING (batch_id, position)
    LEFT JOIN replay_outcome o USING (batch_id, position)
    LEFT JOIN replay_handled h ON h.topic = 'results' AND h.partition = o.partition
    -- Our cancels name each position once. Anybody may write another.
    LEFT JOIN (SELECT batch_id, position, max(attempt) AS attempt FROM stopped GROUP BY 1, 2) x USING (batch_id, position)
)
SELECT batch_id, position, item_id, coalesce(changes ->> 'mentor_id', mentor_id) AS mentor_id,
       coalesce(changes ->> 'activity_type', activity_type) AS activity_type,
       coalesce(CAST(changes ->> 'activity_date' AS date), activity_date) AS activity_date,
       coalesce(CAST(changes ->> 'duration_minutes' AS integer), duration_minutes) AS duration_minutes, client_reference,
       coalesce(CAST(changes ->> 'override_duplicates' AS boolean), override_duplicates) AS override_duplicates,
       values_attempt, attempt,
       CASE WHEN outcome_attempt = attempt THEN outcome WHEN stopped_attempt = attempt THEN 'cancelled' ELSE 'pending' END AS status,
       CASE WHEN outcome_attempt = attempt THEN activity_id END AS activity_id,
       CASE WHEN outcome_attempt = attempt THEN error END AS error, is_in_flight,
       NULL::timestamptz AS revoked_at, NULL::text AS revoked_by, NULL::text AS revocation_reason
FROM joined;
CREATE UNIQUE INDEX ON replay_item (batch_id, position);
ANALYZE replay_item (batch_id, position);

-- An activity is revoked only once. The runs are joined instead of expanded, because an event may name more positions than its batch has.
UPDATE replay_item i SET revoked_at = r.at, revoked_by = r.revoked_by, revocation_reason = r.reason
FROM (
    SELECT DISTINCT ON (n.batch_id, n.position) n.batch_id, n.position, r.at, r.revoked_by, r.reason
    FROM replay_revocation_read r
    JOIN replay_batch b USING (batch_id, organization_id)
    CROSS JOIN LATERAL jsonb_array_elements(r.runs) AS run
    JOIN replay_item n ON n.batch_id = r.batch_id AND n.position BETWEEN CAST(run ->> 0 AS integer) AND CAST(run ->> 1 AS integer)
    ORDER BY n.batch_id, n.position, r.record_offset, r.partition
) AS r WHERE (i.batch_id, i.position, i.status) = (r.batch_id, r.position, 'success');

UPDATE replay_batch b
SET pending = i.pending, completed = i.completed, failed = i.failed, cancelled = i.cancelled, revoked = i.revoked,
    is_in_flight = i.is_in_flight
FROM (
    SELECT batch_id, count(*) FILTER (WHERE status = 'pending') AS pending, count(*) FILTER (WHERE status = 'success') AS completed,
           count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
           count(revoked_at) AS revoked, bool_or(is_in_flight) AS is_in_flight
    FROM replay_item GROUP BY batch_id
) AS i WHERE i.batch_id = b.batch_id;
UPDATE replay_batch SET cancelled = total_items WHERE NOT has_items;

-- name: counts
-- The distinct sets of counts. They are few, and Python derives the status of each once. Reads the whole table.
SELECT DISTINCT pending, completed, failed, cancelled, cancelled_at IS NOT NULL AS was_cancelled FROM replay_batch;

-- name: set_status
-- parameters: pending integer[], completed integer[], failed integer[], cancelled integer[], was_cancelled boolean[]
-- parameters: statuses text[]
-- Writes the status that belongs to each set of counts. Reads the whole table.
UPDATE replay_batch b SET status = s.status
FROM unnest(CAST(:pending AS integer[]), CAST(:completed AS integer[]), CAST(:failed AS integer[]), CAST(:cancelled AS integer[]),
            CAST(:was_cancelled AS boolean[]), CAST(:statuses AS text[]))
     AS s (pending, completed, failed, cancelled, was_cancelled, status)
WHERE (b.pending, b.completed, b.failed, b.cancelled, b.cancelled_at IS NOT NULL)
      = (s.pending, s.completed, s.failed, s.cancelled, s.was_cancelled);

-- name: compared
-- Script. Finds the batches that can be compared. A batch that changed while the topics were read, or still has records waiting in a queue,
-- is in motion and can't be compared yet. This and the next three statements run in one snapshot of the live tables.
DROP TABLE IF EXISTS replay_compared;
CREATE TEMPORARY TABLE replay_compared AS
SELECT b.batch_id, l.batch_id IS NOT NULL AS is_live,
       CASE WHEN l.batch_id IS NULL
            THEN s.batch_id IS NOT NULL
                 OR EXISTS (SELECT FROM replay_chosen_part p JOIN replay_handled h ON h.topic = 'batches' AND h.partition = p.partition
                            WHERE (p.batch_id, p.header_hash) = (b.batch_id, b.header_hash) AND p.record_offset >= h.next_offset)
            ELSE s.batch_id IS NULL OR s.is_waiting OR s.version <> l.version
       END OR b.is_in_flight AS is_in_motion
FROM replay_batch b
LEFT JOIN orchestrator.batch l ON l.batch_id = b.batch_id
LEFT JOIN replay_before s ON s.batch_id = b.batch_id;
CREATE UNIQUE INDEX ON replay_compared (batch_id);
ANALYZE replay_compared;
TRUNCATE replay_difference;

-- name: batch_differences
-- The differences of the batches' own values. Reads whole tables.
INSERT INTO replay_difference (batch_id, field, live, rebuilt)
SELECT r.batch_id, d.field, d.live, d.rebuilt
FROM replay_compared c
JOIN replay_batch r ON r.batch_id = c.batch_id
LEFT JOIN orchestrator.batch l ON l.batch_id = c.batch_id
CROSS JOIN LATERAL (
    SELECT 'batch', NULL, to_jsonb(r.status) WHERE l.batch_id IS NULL
    UNION ALL
    SELECT f.* FROM (VALUES
        ('organization_id', to_jsonb(l.organization_id), to_jsonb(r.organization_id)),
        ('coordinator_id', to_jsonb(l.coordinator_id), to_jsonb(r.coordinator_id)),
        ('label', to_jsonb(l.label), to_jsonb(r.label)),
        ('status', to_jsonb(l.status), to_jsonb(r.status)),
        ('total_items', to_jsonb(l.total_items), to_jsonb(r.total_items)),
        ('pending', to_jsonb(l.pending), to_jsonb(r.pending)),
        ('completed', to_jsonb(l.completed), to_jsonb(r.completed)),
        ('failed', to_jsonb(l.failed), to_jsonb(r.failed)),
        ('cancelled', to_jsonb(l.cancelled), to_jsonb(r.cancelled)),
        ('revoked', to_jsonb(l.revoked), to_jsonb(r.revoked)),
        ('retry_number', to_jsonb(l.retry_number), to_jsonb(r.retry_number)),
        ('cancelled_at', to_jsonb(l.cancelled_at), to_jsonb(r.cancelled_at)),
        ('deleted', to_jsonb(l.deleted_at IS NOT NULL), to_jsonb(r.is_deleted)),
        -- Known only if the announcement of the completion is among the records.
        ('completed_at', to_jsonb(l.completed_at), to_jsonb(CASE
            WHEN r.status IN ('pending', 'processing') OR r.status = 'cancelled' AND r.pending > 0 THEN NULL
            ELSE coalesce(r.completed_at, l.completed_at) END))
    ) AS f (field, live, rebuilt) WHERE l.batch_id IS NOT NULL AND f.live IS DISTINCT FROM f.rebuilt
) AS d (field, live, rebuilt)
WHERE NOT c.is_in_motion;

-- name: lost_batches
-- Batches of which only results were read. Only we write results, for batches that exist. So a batch that neither exists nor was purged has
-- been lost from the tables, even if the topics no longer have its submission. Reads all outcomes; each batch is looked up by unique
-- indexes and primary keys.
INSERT INTO replay_difference (batch_id, field, live, rebuilt)
SELECT o.batch_id, 'batch', NULL, to_jsonb(CAST('results' AS text))
FROM replay_outcome o LEFT JOIN replay_handled h ON h.topic = 'results' AND h.partition = o.partition
WHERE NOT EXISTS (SELECT FROM replay_batch b WHERE b.batch_id = o.batch_id)
  AND NOT EXISTS (SELECT FROM replay_before s WHERE s.batch_id = o.batch_id)
  AND NOT EXISTS (SELECT FROM orchestrator.batch l WHERE l.batch_id = o.batch_id)
  AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = o.batch_id)
GROUP BY o.batch_id HAVING bool_or(coalesce(o.record_offset < h.next_offset, true));

-- name: item_differences
-- The differences of the items. Values are compared only if both sides are at the same attempt. Reads whole tables.
INSERT INTO replay_difference
SELECT batch_id, coalesce(r.item_id, l.item_id), position, d.field, d.live, d.rebuilt
FROM (SELECT i.*, true AS is_there FROM replay_item i JOIN replay_compared c USING (batch_id) WHERE NOT c.is_in_motion) AS r
FULL JOIN (
    SELECT i.*, true AS is_there FROM orchestrator.batch_item i JOIN replay_compared c USING (batch_id) WHERE NOT c.is_in_motion
) AS l USING (batch_id, position)
CROSS JOIN LATERAL (
    SELECT 'item', to_jsonb(l.status), to_jsonb(r.status) WHERE l.is_there IS NULL OR r.is_there IS NULL
    UNION ALL
    SELECT f.field, f.live, f.rebuilt FROM (VALUES
        ('item_id', false, to_jsonb(l.item_id), to_jsonb(r.item_id)),
        ('mentor_id', true, to_jsonb(l.mentor_id), to_jsonb(r.mentor_id)),
        ('activity_type', true, to_jsonb(l.activity_type), to_jsonb(r.activity_type)),
        ('activity_date', true, to_jsonb(l.activity_date), to_jsonb(r.activity_date)),
        ('duration_minutes', true, to_jsonb(l.duration_minutes), to_jsonb(r.duration_minutes)),
        ('override_duplicates', true, to_jsonb(l.override_duplicates), to_jsonb(r.override_duplicates)),
        ('client_reference', false, to_jsonb(l.client_reference), to_jsonb(r.client_reference)),
        ('attempt', false, to_jsonb(l.attempt), to_jsonb(r.attempt)),
        ('status', false, to_jsonb(l.status), to_jsonb(r.status)),
        ('activity_id', false, to_jsonb(l.activity_id), to_jsonb(r.activity_id)),
        ('error', false, l.error, r.error),
        ('revoked_at', false, to_jsonb(l.revoked_at), to_jsonb(r.revoked_at)),
        ('revoked_by', false, to_jsonb(l.revoked_by), to_jsonb(r.revoked_by)),
        ('revocation_reason', false, to_jsonb(l.revocation_reason), to_jsonb(r.revocation_reason))
    ) AS f (field, is_of_attempt, live, rebuilt)
    WHERE l.is_there AND r.is_there AND f.live IS DISTINCT FROM f.rebuilt
      AND (NOT f.is_of_attempt OR l.attempt = r.attempt AND r.attempt = r.values_attempt)
) AS d (field, live, rebuilt)
WHERE (l.is_there, l.item_id, l.mentor_id, l.activity_type, l.activity_date, l.duration_minutes, l.override_duplicates,
       l.client_reference, l.attempt, l.status, l.activity_id, l.error, l.revoked_at, l.revoked_by, l.revocation_reason)
      IS DISTINCT FROM
      (r.is_there, r.item_id, r.mentor_id, r.activity_type, r.activity_date, r.duration_minutes, r.override_duplicates,
       r.client_reference, r.attempt, r.status, r.activity_id, r.error, r.revoked_at, r.revoked_by, r.revocation_reason);

-- name: by_field
-- How many differences there are, by field.
SELECT field, count(*) AS differences FROM replay_difference GROUP BY field ORDER BY field;

-- name: examples
-- parameters: limit integer
-- The first differences, by batch and position.
SELECT batch_id::text, item_id::text, field, live, rebuilt FROM replay_difference
ORDER BY batch_id, position NULLS FIRST, field LIMIT :limit;

-- name: different_batches
-- The batches with a difference.
SELECT DISTINCT batch_id::text FROM replay_difference ORDER BY 1;

-- name: in_motion
-- The batches that were not compared.
SELECT batch_id::text FROM replay_compared WHERE is_in_motion ORDER BY 1;

-- name: folded
-- How many batches and items were rebuilt.
SELECT (SELECT count(*) FROM replay_compared) AS batches, (SELECT count(*) FROM replay_item) AS items;

-- name: not_covered
-- parameters: batch_id uuid
-- The known batches that were not rebuilt, because not all their parts were read, or because they were refused and perhaps accepted later, or because a
-- row of theirs could not be stored; only this one if it is given. Reads whole tables; rebuilt and purged batches are looked up by their unique indexes.
SELECT batch_id::text FROM (
    SELECT batch_id FROM replay_before
    UNION SELECT batch_id FROM replay_part UNION SELECT batch_id FROM replay_outcome UNION SELECT batch_id FROM replay_retry_read
    UNION SELECT batch_id FROM replay_cancel UNION SELECT batch_id FROM replay_relabel UNION SELECT batch_id FROM replay_delete
    UNION SELECT batch_id FROM replay_revocation_read UNION SELECT batch_id FROM replay_completion
    UNION SELECT batch_id FROM replay_skipped
) AS seen
WHERE (CAST(:batch_id AS uuid) IS NULL OR batch_id = :batch_id)
  AND NOT EXISTS (SELECT FROM replay_batch b WHERE b.batch_id = seen.batch_id)
  AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = seen.batch_id)
  AND NOT EXISTS (SELECT FROM replay_refused r
                  WHERE r.batch_id = seen.batch_id
                    AND NOT EXISTS (SELECT FROM replay_skipped k WHERE k.batch_id = seen.batch_id)
                    AND NOT EXISTS (SELECT FROM orchestrator.batch l WHERE l.batch_id = seen.batch_id))
ORDER BY 1;
