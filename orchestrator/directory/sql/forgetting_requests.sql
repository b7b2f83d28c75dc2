-- Statements on requests to forget a person, and on what refuses one (docs/decisions/0045-forgetting.md).

-- name: ask
-- parameters: forgetting_id uuid, organization_id text, mentor_id text, requested_by text, channel text, place json
-- Stores a request, unless one for this person is open. With a place, it is not known yet whether anybody has the id. By the unique index
-- forgetting_open.
INSERT INTO registration.forgetting (forgetting_id, organization_id, mentor_id, requested_by, channel, requested_at, place)
VALUES (:forgetting_id, :organization_id, :mentor_id, :requested_by, :channel, clock_timestamp(), CAST(:place AS jsonb))
ON CONFLICT (organization_id, mentor_id) WHERE done_at IS NULL DO NOTHING;

-- name: open
-- parameters: organization_id text, mentor_id text
-- The open request for a person. By the unique index forgetting_open.
SELECT forgetting_id::text, pseudonym, requested_by, requested_at, changed_rows, done_at FROM registration.forgetting
WHERE organization_id = :organization_id AND mentor_id = :mentor_id AND done_at IS NULL;

-- name: stop_seeking
-- parameters: organization_id text, mentor_id text
-- Ends the search for somebody with the id of an open request, which then begins although nobody may have it. By the unique index forgetting_open.
UPDATE registration.forgetting SET place = NULL
WHERE organization_id = :organization_id AND mentor_id = :mentor_id AND done_at IS NULL AND pseudonym IS NULL;

-- name: find
-- parameters: organization_id text, forgetting_id uuid
-- A request. By the primary key.
SELECT forgetting_id::text, pseudonym, requested_by, requested_at, changed_rows, done_at FROM registration.forgetting
WHERE forgetting_id = :forgetting_id AND organization_id = :organization_id;

-- name: runs
-- parameters: organization_id text, mentor_id text
-- Whether a running batch has an item for the person. By the index batch_running, and the primary key of `batch_item`.
SELECT EXISTS (
    SELECT FROM orchestrator.batch b JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id
    WHERE b.status IN ('pending', 'processing') AND b.organization_id = :organization_id AND i.mentor_id = :mentor_id
);

-- name: coordinates
-- parameters: organization_id text, mentor_id text, closed text
-- Whether the id is also that of a coordinator who is not closed. By the primary key.
SELECT EXISTS (SELECT FROM registration.coordinator WHERE organization_id = :organization_id AND coordinator_id = :mentor_id AND role <> :closed);
