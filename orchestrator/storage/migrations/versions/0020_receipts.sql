-- The logs of receipts (docs/decisions/0044-receipt-logs.md). Each organization has one append-only Merkle log (RFC 9162) of its audit rows, in the
-- order of their ids. Only the role `notary` appends.

-- An organization's logs. The one with the highest number grows; it replaces those before it. `frontier` has the hashes of the perfect subtrees
-- that cover the log, from left to right: from them the root is computed, and the log grows. `signed_size` is the size at the newest checkpoint.
-- Audit rows up to `before_log` are older than the log.
CREATE TABLE orchestrator.receipt_log (
    organization_id text        NOT NULL,
    log             integer     NOT NULL,
    origin          text        NOT NULL,
    reason          text,
    before_log      bigint      NOT NULL,
    size            bigint      NOT NULL DEFAULT 0,
    frontier        bytea       NOT NULL DEFAULT '',
    began_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    signed_size     bigint      NOT NULL DEFAULT 0,
    signed_at       timestamptz,
    PRIMARY KEY (organization_id, log),
    CONSTRAINT receipt_log_signed CHECK (signed_size <= size)
) WITH (fillfactor = 50);

-- The leaves, in runs of at most 256. A run never crosses a multiple of 256, so that the hashes of such a span are found by one condition.
-- `leaves` has a line for each leaf (RFC 8785), compressed (RFC 1950); `hashes` has 32 bytes for each.
CREATE TABLE orchestrator.receipt_run (
    organization_id text        NOT NULL,
    log             integer     NOT NULL,
    first_index     bigint      NOT NULL,
    audit_ids       bigint[]    NOT NULL,
    hashes          bytea       NOT NULL,
    leaves          bytea       NOT NULL,
    PRIMARY KEY (organization_id, log, first_index)
);
-- The values are hashes, or compressed already.
ALTER TABLE orchestrator.receipt_run ALTER audit_ids SET STORAGE EXTERNAL, ALTER hashes SET STORAGE EXTERNAL, ALTER leaves SET STORAGE EXTERNAL;

-- Which runs have leaves of a batch.
CREATE TABLE orchestrator.receipt_batch (
    organization_id text        NOT NULL,
    log             integer     NOT NULL,
    first_index     bigint      NOT NULL,
    batch_id        uuid        NOT NULL,
    PRIMARY KEY (organization_id, log, first_index, batch_id)
);
CREATE INDEX receipt_batch_of ON orchestrator.receipt_batch (batch_id);

-- The hashes of perfect subtrees, of every eighth level: 8, 16, … Those between are computed from the level below.
CREATE TABLE orchestrator.receipt_node (
    organization_id text        NOT NULL,
    log             integer     NOT NULL,
    level           smallint    NOT NULL,
    index           bigint      NOT NULL,
    hash            bytea       NOT NULL,
    PRIMARY KEY (organization_id, log, level, index)
);

-- Signed checkpoints. `note` is the signed text.
CREATE TABLE orchestrator.receipt_checkpoint (
    organization_id text        NOT NULL,
    log             integer     NOT NULL,
    size            bigint      NOT NULL,
    root            bytea       NOT NULL,
    note            text        NOT NULL,
    signed_at       timestamptz NOT NULL,
    PRIMARY KEY (organization_id, log, size)
);

-- The newest checkpoint of each log that was read back from the lifecycle topic. `ahead`: the log in these tables is shorter. `forked`: it has
-- another root at that size. In both states nothing is signed.
CREATE TABLE orchestrator.receipt_published (
    organization_id text        NOT NULL,
    log             integer     NOT NULL,
    size            bigint      NOT NULL,
    root            bytea       NOT NULL,
    note            text        NOT NULL,
    state           text        NOT NULL,
    PRIMARY KEY (organization_id, log),
    CONSTRAINT receipt_published_state CHECK (state IN ('ahead', 'agrees', 'forked'))
);

-- The salt of each person in a log. Without it, the person's hash in a leaf names nobody.
CREATE TABLE orchestrator.receipt_salt (
    organization_id text        NOT NULL,
    person_id       text        NOT NULL,
    salt            bytea       NOT NULL,
    PRIMARY KEY (organization_id, person_id),
    CONSTRAINT receipt_salt_size CHECK (length(salt) = 32)
);

-- Rows are added and never changed or removed.
CREATE TRIGGER receipt_runs_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON orchestrator.receipt_run
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();
CREATE TRIGGER receipt_batches_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON orchestrator.receipt_batch
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();
CREATE TRIGGER receipt_nodes_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON orchestrator.receipt_node
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();
CREATE TRIGGER receipt_checkpoints_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON orchestrator.receipt_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['receipt_log', 'receipt_run', 'receipt_batch', 'receipt_node', 'receipt_checkpoint', 'receipt_published', 'receipt_salt'] LOOP
        EXECUTE format('ALTER TABLE orchestrator.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE orchestrator.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON orchestrator.%I TO bulkreg_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY owner ON orchestrator.%I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY api ON orchestrator.%I TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))'
                       ' WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()))', name);
        EXECUTE format('GRANT SELECT ON orchestrator.%I TO bulkreg_api', name);
        EXECUTE format('GRANT SELECT, INSERT ON orchestrator.%I TO bulkreg_worker', name);
    END LOOP;
END $$;
GRANT UPDATE ON orchestrator.receipt_log, orchestrator.receipt_published TO bulkreg_worker;
-- A person is forgotten.
GRANT DELETE ON orchestrator.receipt_salt TO bulkreg_worker, bulkreg_api;

-- The public keys that have signed checkpoints, or are about to, as C2SP signed notes write them. They belong to the whole deployment.
CREATE TABLE orchestrator.receipt_key (
    verifier text        NOT NULL PRIMARY KEY,
    added_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON orchestrator.receipt_key TO bulkreg_api;
GRANT SELECT, INSERT ON orchestrator.receipt_key TO bulkreg_worker;

-- How far the audit is in the logs, in one row, and up to which audit row records are older than the logs.
CREATE TABLE orchestrator.receipt_cursor (
    is_only          boolean NOT NULL DEFAULT true PRIMARY KEY,
    appended_through bigint  NOT NULL,
    before_log       bigint  NOT NULL,
    CONSTRAINT receipt_cursor_is_only CHECK (is_only)
) WITH (fillfactor = 50);
INSERT INTO orchestrator.receipt_cursor (appended_through, before_log) SELECT 0, coalesce(max(audit_id), 0) FROM registration.audit;
GRANT SELECT, UPDATE ON orchestrator.receipt_cursor TO bulkreg_worker;

-- How far the checkpoints on the lifecycle topic were compared with the logs. It is restored with the logs, so that later checkpoints are read again.
CREATE TABLE orchestrator.receipt_reading (
    partition   integer NOT NULL PRIMARY KEY,
    next_offset bigint  NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON orchestrator.receipt_reading TO bulkreg_worker;
