-- Statements of people's requests on webhooks and their deliveries. A transaction locks the webhook's row before its deliveries.

-- name: add
-- parameters: webhook_id uuid, organization_id text, url text, events text[], secret bytea, created_by text
-- Stores a webhook. By the primary key.
INSERT INTO orchestrator.webhook (webhook_id, organization_id, url, events, secret, created_by)
VALUES (:webhook_id, :organization_id, :url, CAST(:events AS text[]), :secret, :created_by);

-- name: list
-- parameters: organization_id text
-- The webhooks of an organization, oldest first. By the index webhook_of_organization.
SELECT webhook_id, organization_id, url, events, secret, CASE WHEN previous_until > clock_timestamp() THEN previous_until END AS previous_until,
       created_by, created_at, failing_since, disabled_at, disabled_because
FROM orchestrator.webhook WHERE organization_id = :organization_id ORDER BY webhook_id;

-- name: find
-- parameters: webhook_id uuid
-- One webhook. By the primary key.
SELECT webhook_id, organization_id, url, events, secret, CASE WHEN previous_until > clock_timestamp() THEN previous_until END AS previous_until,
       created_by, created_at, failing_since, disabled_at, disabled_because
FROM orchestrator.webhook WHERE webhook_id = :webhook_id;

-- name: lock
-- parameters: webhook_id uuid
-- Locks a webhook against every other change, and against new deliveries. By the primary key.
SELECT FROM orchestrator.webhook WHERE webhook_id = :webhook_id FOR UPDATE;

-- name: rotate
-- parameters: webhook_id uuid, secret bytea, previous_until timestamptz
-- Gives a locked webhook another secret, and keeps the present one for a time. By the primary key.
UPDATE orchestrator.webhook SET previous_secret = secret, previous_until = :previous_until, secret = :secret WHERE webhook_id = :webhook_id;

-- name: enable
-- parameters: webhook_id uuid
-- Enables a locked webhook. By the primary key.
UPDATE orchestrator.webhook SET disabled_at = NULL, disabled_because = NULL, failing_since = NULL WHERE webhook_id = :webhook_id;

-- name: remove
-- parameters: webhook_id uuid
-- Removes a locked webhook and its deliveries. By the primary keys.
WITH deliveries AS (DELETE FROM orchestrator.webhook_delivery WHERE webhook_id = :webhook_id)
DELETE FROM orchestrator.webhook WHERE webhook_id = :webhook_id;

-- name: note_change
-- parameters: webhook_id uuid, change text, because text, changed_by text, channel text
-- Notes who did what with a locked webhook, before it is removed. By the primary key. Of the URL it keeps scheme and host, and for the rest the beginning
-- of a hash of the whole: receivers put passwords into paths and queries.
INSERT INTO orchestrator.webhook_change (organization_id, webhook_id, change, because, url, events, changed_by, channel)
SELECT organization_id, webhook_id, :change, :because,
       substring(url FROM '^[^/]+//[^/?]+')
       || CASE WHEN url ~ '^[^/]+//[^/?]+/?$' THEN '' ELSE '/#' || left(encode(sha256(convert_to(url, 'UTF8')), 'hex'), 8) END,
       events, :changed_by, :channel
FROM orchestrator.webhook WHERE webhook_id = :webhook_id;

-- name: changes
-- parameters: organization_id text, before bigint, most integer
-- A page of the changes of an organization's webhooks, newest first. By the index webhook_change_page.
SELECT number, webhook_id, change, because, url, events, changed_by, channel, changed_at FROM orchestrator.webhook_change
WHERE organization_id = :organization_id AND (CAST(:before AS bigint) IS NULL OR number < CAST(:before AS bigint))
ORDER BY number DESC LIMIT :most;

-- name: add_delivery
-- parameters: webhook_id uuid, event_id uuid, organization_id text, event_type text, body text
-- Stores a delivery that is due now. By the primary key.
INSERT INTO orchestrator.webhook_delivery (webhook_id, event_id, organization_id, event_type, body)
VALUES (:webhook_id, :event_id, :organization_id, :event_type, :body) ON CONFLICT DO NOTHING;

-- name: redeliver
-- parameters: webhook_id uuid, event_id uuid
-- Makes a delivery of a locked webhook due now, and gives it another three days. By the primary key.
UPDATE orchestrator.webhook_delivery
SET state = 'pending', tried_from = clock_timestamp(), due_at = clock_timestamp()
WHERE (webhook_id, event_id) = (:webhook_id, :event_id);

-- name: delivery
-- parameters: webhook_id uuid, event_id uuid
-- One delivery. By the primary key.
SELECT webhook_id, event_id, event_type, state, created_at, due_at, attempts, attempted_at, problem, status, response, took_ms
FROM orchestrator.webhook_delivery WHERE (webhook_id, event_id) = (:webhook_id, :event_id);

-- name: deliveries
-- parameters: webhook_id uuid, state text, before_created timestamptz, before_event uuid, most integer
-- A page of a webhook's deliveries, newest first. By the index webhook_delivery_page; a rare state reads many rows of it.
SELECT webhook_id, event_id, event_type, state, created_at, due_at, attempts, attempted_at, problem, status, response, took_ms
FROM orchestrator.webhook_delivery
WHERE webhook_id = :webhook_id AND (CAST(:state AS text) IS NULL OR state = CAST(:state AS text))
  AND (CAST(:before_created AS timestamptz) IS NULL
       OR (created_at, event_id) < (CAST(:before_created AS timestamptz), CAST(:before_event AS uuid)))
ORDER BY created_at DESC, event_id DESC LIMIT :most;
