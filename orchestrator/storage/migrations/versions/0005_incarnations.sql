-- The topic's id in Kafka. A topic that is deleted and made anew, or restored from a copy, has another id, and its offsets begin anew: what
-- was handled of the one says nothing about the other. Empty: unknown, as the version before writes it.
ALTER TABLE orchestrator.consumer_progress ADD COLUMN topic_id text NOT NULL DEFAULT '';

-- Where each consumed partition began and ended when the sweeper last asked the broker, and how far its consumer was. `stands_since`: since
-- then the consumer is behind the end and has not moved; null when it is not behind, or moves.
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

-- Each start of a worker's role. A role that begins again and again on one host does not do its work.
CREATE TABLE orchestrator.role_start (
    role            text        NOT NULL,
    host            text        NOT NULL,
    started_at      timestamptz NOT NULL
);
CREATE INDEX role_start_recent ON orchestrator.role_start (started_at);

-- About partitions and processes, not about anybody's data; the API has no business there.
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.queue_end, orchestrator.role_start TO bulkreg_worker;
