-- Statements on the table `outbox`. No row is ever locked: only the owner of a slot reads and deletes its rows, and any transaction inserts.
-- The statements that read rows for publishing are composed in outbox.py.

-- name: delete
-- parameters: slots smallint[], ids bigint[]
-- Removes the rows that Kafka has acknowledged. Each row is looked up by the primary key (OFFSET prevents a join), and then deleted by its
-- ctid.
DELETE FROM orchestrator.outbox WHERE ctid = ANY (ARRAY (
    SELECT row.ctid FROM unnest(CAST(:slots AS smallint[]), CAST(:ids AS bigint[])) AS published (slot, outbox_id)
    CROSS JOIN LATERAL (
        SELECT ctid FROM orchestrator.outbox WHERE (slot, outbox_id) = (published.slot, published.outbox_id) OFFSET 0
    ) AS row
));

-- name: hold
-- parameters: slots smallint[], ids bigint[], places text[], reasons text[]
-- Moves rows to the shadow of their slot, or updates what held rows wait for. By the primary key.
UPDATE orchestrator.outbox o SET slot = least(o.slot, -1 - o.slot), held_for = h.held_for, held_why = h.held_why,
       held_at = coalesce(o.held_at, clock_timestamp())
FROM unnest(CAST(:slots AS smallint[]), CAST(:ids AS bigint[]), CAST(:places AS text[]), CAST(:reasons AS text[]))
     AS h (slot, outbox_id, held_for, held_why)
WHERE (o.slot, o.outbox_id) = (h.slot, h.outbox_id);

-- name: places
-- parameters: refused text, slots smallint[]
-- The places that the held rows of these slots wait for. By the partial index outbox_held_for.
SELECT DISTINCT held_for FROM orchestrator.outbox
WHERE held_for <> :refused AND slot = ANY (CAST(:slots AS smallint[]));

-- name: reconsider
-- parameters: refused text, slots smallint[]
-- Makes refused rows wait for their topic, so that the relay tries each again, and holds it again if Kafka still refuses it. By the partial
-- index outbox_held_for.
UPDATE orchestrator.outbox SET held_for = topic WHERE held_for = :refused AND slot = ANY (CAST(:slots AS smallint[]));

-- name: count
-- How many rows there are, and how long the oldest has waited. Reads the whole table.
SELECT count(*) AS rows, min(created_at) AS oldest, extract(epoch FROM now() - min(created_at)) AS waited_s FROM orchestrator.outbox;

-- name: held_now
-- The held rows, by topic and place. By the partial index outbox_held_for, or the whole table.
SELECT topic, held_for, count(*) AS rows, min(held_at) AS since, (array_agg(held_why ORDER BY held_at))[1] AS why
FROM orchestrator.outbox WHERE held_for IS NOT NULL GROUP BY topic, held_for ORDER BY since;
