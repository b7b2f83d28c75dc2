-- The topic's id in Kafka. A topic that was deleted and recreated, or restored from a copy, has another id, and its offsets start again. So
-- progress in one does not apply to the other. Empty means unknown, as the version before writes it.
ALTER TABLE orchestrator.consumer_progress ADD COLUMN topic_id text NOT NULL DEFAULT '';

-- Where each consumed partition began and ended when the sweeper last asked the broker, and how far its consumer was. Since `stands_since`, the
-- consumer has been behind the end without moving; null if it is not behind, or moves.
CREATE TABLE orchestrator.queue_end (
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    topic_id        text        NOT NULL,
    next_offset     bigint      NOT NULL,
    handled         bigint      NOT NULL,
    stands_since    timestamptz,
    seen_at         timestamptz NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- Each start of a worker's role. A role that restarts again and again on one host does not do its work.
CREATE TABLE orchestrator.role_start (
    role            text        NOT NULL,
    host            text        NOT NULL,
    started_at      timestamptz NOT NULL
);
CREATE INDEX role_start_recent ON orchestrator.role_start (started_at);

-- These tables have no organization's data, and the API does not need them.
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.queue_end, orchestrator.role_start TO bulkreg_worker;
