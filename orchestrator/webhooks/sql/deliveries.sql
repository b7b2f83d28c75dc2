-- Statements of the notifier: what is to be delivered, what became of it. A transaction locks the webhook's row before its deliveries.

-- name: told
-- parameters: organizations text[]
-- Which of these organizations have a webhook that is enabled: `record` would look at the events of all others in vain. By the index
-- webhook_of_organization.
SELECT DISTINCT organization_id FROM orchestrator.webhook WHERE organization_id = ANY (CAST(:organizations AS text[])) AND disabled_at IS NULL;

-- name: foreign
-- parameters: event_ids uuid[], batch_ids uuid[], organizations text[]
-- Which of these events name another organization than that of their batch. By the primary key.
SELECT e.event_id
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:batch_ids AS uuid[]), CAST(:organizations AS text[])) AS e (event_id, batch_id, organization_id)
JOIN orchestrator.batch b ON b.batch_id = e.batch_id WHERE b.organization_id <> e.organization_id;

-- name: record
-- parameters: event_ids uuid[], organizations text[], event_types text[], bodies text[], received_at timestamptz[], tolerance interval
-- Stores a delivery for each event and each webhook that is told of it; none twice. A webhook is not told of events from before its creation. Locks
-- the webhooks against removal, in the order of their ids, so that two of these statements can't deadlock. By the index webhook_of_organization.
INSERT INTO orchestrator.webhook_delivery (webhook_id, event_id, organization_id, event_type, body)
SELECT w.webhook_id, e.event_id, w.organization_id, e.event_type, e.body
FROM unnest(CAST(:event_ids AS uuid[]), CAST(:organizations AS text[]), CAST(:event_types AS text[]), CAST(:bodies AS text[]),
            CAST(:received_at AS timestamptz[])) AS e (event_id, organization_id, event_type, body, received_at)
JOIN orchestrator.webhook w ON w.organization_id = e.organization_id AND e.event_type = ANY (w.events)
                           AND w.disabled_at IS NULL AND w.created_at <= e.received_at + CAST(:tolerance AS interval)
ORDER BY w.webhook_id, e.event_id
FOR KEY SHARE OF w
ON CONFLICT DO NOTHING;

-- name: claim
-- parameters: busy uuid[], under_way integer[], served uuid[], turns bigint[], most integer, first integer, more integer, lease interval
-- Claims deliveries that are due, at most `most` of each webhook together with those under way. `first` is how many may be the only request to a webhook
-- that does not fail, `more` how many others: those of webhooks with fewer requests before those of webhooks with more, then those of webhooks that this
-- process has served longest ago (`turns`), or never, then what has been due for longest. So a receiver with old deliveries can't be first each time.
-- Until the lease ends, no other process claims them. By the index webhook_delivery_due, for each webhook by itself: a receiver with a long queue is not
-- in the way of another. What another process claims at the same moment is left out.
WITH due AS MATERIALIZED (
    SELECT w.webhook_id, d.event_id, d.due_at, coalesce(b.under_way, 0) + d.place AS place, coalesce(s.turn, 0) AS turn,
           w.failing_since IS NULL AND coalesce(b.under_way, 0) + d.place = 1 AS is_first
    FROM orchestrator.webhook w
    LEFT JOIN unnest(CAST(:busy AS uuid[]), CAST(:under_way AS integer[])) AS b (webhook_id, under_way) ON b.webhook_id = w.webhook_id
    LEFT JOIN unnest(CAST(:served AS uuid[]), CAST(:turns AS bigint[])) AS s (webhook_id, turn) ON s.webhook_id = w.webhook_id
    CROSS JOIN LATERAL (SELECT event_id, due_at, row_number() OVER (ORDER BY due_at) AS place FROM orchestrator.webhook_delivery
                        WHERE webhook_id = w.webhook_id AND state = 'pending' AND due_at <= clock_timestamp()
                        ORDER BY due_at LIMIT greatest(0, :most - coalesce(b.under_way, 0))) AS d
    WHERE w.disabled_at IS NULL
), ranked AS (
    SELECT webhook_id, event_id, is_first, row_number() OVER (PARTITION BY is_first ORDER BY place, turn, due_at) AS number FROM due
), chosen AS MATERIALIZED (
    SELECT d.webhook_id, d.event_id, r.is_first
    FROM ranked r JOIN orchestrator.webhook_delivery d ON (d.webhook_id, d.event_id) = (r.webhook_id, r.event_id)
    WHERE r.number <= CASE WHEN r.is_first THEN :first ELSE :more END AND d.state = 'pending' AND d.due_at <= clock_timestamp()
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE orchestrator.webhook_delivery d
SET due_at = clock_timestamp() + CAST(:lease AS interval), attempts = d.attempts + 1, attempted_at = clock_timestamp()
FROM chosen c JOIN orchestrator.webhook w ON w.webhook_id = c.webhook_id
WHERE (d.webhook_id, d.event_id) = (c.webhook_id, c.event_id)
RETURNING d.webhook_id, d.event_id, d.event_type, d.body, d.attempts, c.is_first, w.url, w.secret,
          CASE WHEN w.previous_until > clock_timestamp() THEN w.previous_secret END AS previous_secret;

-- name: lock
-- parameters: webhook_id uuid, event_id uuid
-- Locks the webhook and then its delivery, for a result. No row: one of them was removed. By the primary keys.
WITH locked AS MATERIALIZED (
    SELECT webhook_id, failing_since, disabled_at FROM orchestrator.webhook WHERE webhook_id = :webhook_id FOR NO KEY UPDATE
)
SELECT w.failing_since, w.disabled_at, d.state, d.attempts, d.tried_from, clock_timestamp() AS now
FROM locked w JOIN orchestrator.webhook_delivery d ON d.webhook_id = w.webhook_id AND d.event_id = :event_id
FOR UPDATE OF d;

-- name: end
-- parameters: webhook_id uuid, event_id uuid, state text, due_at timestamptz, problem text, status integer, response text, took_ms integer
-- Stores the result of an attempt. By the primary key.
UPDATE orchestrator.webhook_delivery
SET state = :state, due_at = :due_at, problem = :problem, status = :status, response = :response, took_ms = :took_ms
WHERE (webhook_id, event_id) = (:webhook_id, :event_id);

-- name: failing
-- parameters: webhook_id uuid, failing_since timestamptz
-- Notes since when a locked webhook has failed; null: it works. By the primary key.
UPDATE orchestrator.webhook SET failing_since = :failing_since WHERE webhook_id = :webhook_id;

-- name: disable
-- parameters: webhook_id uuid, because text
-- Disables a locked webhook. What waited for it is not delivered. By the primary key and the index webhook_delivery_due.
WITH waiting AS (
    UPDATE orchestrator.webhook_delivery SET state = 'failed', problem = 'webhook_disabled'
    WHERE webhook_id = :webhook_id AND state = 'pending'
)
UPDATE orchestrator.webhook SET disabled_at = clock_timestamp(), disabled_because = :because WHERE webhook_id = :webhook_id;

-- name: secrets
-- All secrets, with the id of their webhook. Reads the whole table, which is small.
SELECT webhook_id, secret, previous_secret FROM orchestrator.webhook ORDER BY webhook_id;

-- name: reseal
-- parameters: webhook_id uuid, sealed bytea, resealed bytea
-- Stores a secret that was encrypted under another key, unless it was rotated meanwhile. By the primary key.
UPDATE orchestrator.webhook
SET secret = CASE WHEN secret = :sealed THEN :resealed ELSE secret END,
    previous_secret = CASE WHEN previous_secret = :sealed THEN :resealed ELSE previous_secret END
WHERE webhook_id = :webhook_id;

-- name: expire
-- parameters: after interval, most integer
-- Deletes deliveries that ended and are older than `after`. By the index webhook_delivery_age.
DELETE FROM orchestrator.webhook_delivery
WHERE (webhook_id, event_id) IN (
    SELECT webhook_id, event_id FROM orchestrator.webhook_delivery
    WHERE created_at < clock_timestamp() - CAST(:after AS interval) AND state <> 'pending' ORDER BY created_at LIMIT :most FOR UPDATE SKIP LOCKED
);

-- name: figures
-- The state of all webhooks for the metrics. Looks up the first due delivery of each by the index webhook_delivery_due.
SELECT count(*) FILTER (WHERE w.disabled_at IS NOT NULL) AS disabled,
       count(*) FILTER (WHERE w.disabled_at IS NULL AND w.failing_since IS NOT NULL) AS failing,
       coalesce(extract(epoch FROM max(clock_timestamp() - first.due_at) FILTER (WHERE w.disabled_at IS NULL)), 0) AS overdue_s
FROM orchestrator.webhook w
LEFT JOIN LATERAL (SELECT d.due_at FROM orchestrator.webhook_delivery d
                   WHERE d.webhook_id = w.webhook_id AND d.state = 'pending' ORDER BY d.due_at LIMIT 1) AS first ON true;

-- name: disabled
-- The webhooks that the notifier has disabled. Reads the whole table, which is small.
SELECT webhook_id, organization_id, disabled_at, disabled_because FROM orchestrator.webhook WHERE disabled_at IS NOT NULL ORDER BY disabled_at;
