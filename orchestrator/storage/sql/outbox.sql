-- Statements on the table `outbox`. No row is ever locked: the rows of a slot are read and deleted by the slot's owner, and
-- inserted by anybody. What is read to be published is put together in outbox.py.

-- name: delete
-- parameters: slots smallint[], ids bigint[]
-- Removes what Kafka has acknowledged. Each row is looked up by the primary key (OFFSET keeps the planner from joining), and then
-- deleted by its place.
DELETE FROM orchestrator.outbox WHERE ctid = ANY (ARRAY (
    SELECT row.ctid FROM unnest(CAST(:slots AS smallint[]), CAST(:ids AS bigint[])) AS published (slot, outbox_id)
    CROSS JOIN LATERAL (
        SELECT ctid FROM orchestrator.outbox WHERE (slot, outbox_id) = (published.slot, published.outbox_id) OFFSET 0
    ) AS row
));

-- name: hold
-- parameters: slots smallint[], ids bigint[], places text[], reasons text[]
-- Moves rows to the shadow of their slot, or notes what held rows wait for now. By the primary key.
UPDATE orchestrator.outbox o SET slot = least(o.slot, -1 - o.slot), held_for = h.held_for, held_why = h.held_why,
       held_at = coalesce(o.held_at, clock_timestamp())
FROM unnest(CAST(:slots AS smallint[]), CAST(:ids AS bigint[]), CAST(:places AS text[]), CAST(:reasons AS text[]))
     AS h (slot, outbox_id, held_for, held_why)
WHERE (o.slot, o.outbox_id) = (h.slot, h.outbox_id);

-- name: places
-- parameters: refused text, slots smallint[]
-- What the held rows of these slots wait for. By the partial index outbox_held_for.
SELECT DISTINCT held_for FROM orchestrator.outbox
WHERE held_for IS NOT NULL AND held_for <> :refused AND slot = ANY (CAST(:slots AS smallint[]));

-- name: reconsider
-- parameters: refused text, slots smallint[]
-- Has refused rows wait for their topic, which is as good a place as any: each is tried, and held anew if it has to be. By the
-- partial index outbox_held_for.
UPDATE orchestrator.outbox SET held_for = topic WHERE held_for = :refused AND slot = ANY (CAST(:slots AS smallint[]));

-- name: count
-- How many rows there are. Reads the whole table.
SELECT count(*) FROM orchestrator.outbox;

-- name: held_now
-- What is held, by topic and place. By the partial index outbox_held_for, or the whole table.
SELECT topic, held_for, count(*) AS rows, min(held_at) AS since, (array_agg(held_why ORDER BY held_at))[1] AS why
FROM orchestrator.outbox WHERE held_for IS NOT NULL GROUP BY topic, held_for ORDER BY since;
