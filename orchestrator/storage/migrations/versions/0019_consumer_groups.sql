-- The generation of each role's consumer group. A role without a row is in its first group, PREFIX.ROLE; generation 2 is PREFIX.ROLE.2.
CREATE TABLE orchestrator.consumer_group (
    role       text        NOT NULL PRIMARY KEY,
    generation integer     NOT NULL,
    renewed_at timestamptz NOT NULL,
    CONSTRAINT consumer_group_generation CHECK (generation > 1)
);
GRANT SELECT, INSERT, UPDATE ON orchestrator.consumer_group TO bulkreg_worker;
