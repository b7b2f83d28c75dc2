-- The schemas. docs/architecture.md says what each table is for. There are no foreign keys, because a reference check takes a KEY SHARE lock
-- on the batch row for every item, which slows the hot path and queues against cancels. `bulkreg verify` checks the references instead.

CREATE SCHEMA orchestrator;
CREATE SCHEMA registration;

-- Identity, people, and the counts as the status API shows them.
CREATE TABLE orchestrator.batch (
    batch_id            uuid        NOT NULL PRIMARY KEY,
    organization_id     text        NOT NULL,
    coordinator_id      text        NOT NULL,
    submitted_by        text        NOT NULL,
    channel             text        NOT NULL,
    label               text,
    status              text        NOT NULL,
    total_items         integer     NOT NULL,
    pending             integer     NOT NULL,
    completed           integer     NOT NULL DEFAULT 0,
    failed              integer     NOT NULL DEFAULT 0,
    cancelled           integer     NOT NULL DEFAULT 0,
    retry_number        integer     NOT NULL DEFAULT 0,
    version             bigint      NOT NULL DEFAULT 1,
    edit_version        integer     NOT NULL DEFAULT 1,
    parts               integer     NOT NULL DEFAULT 1,
    content_hash        bytea       NOT NULL,
    trace_id            text        NOT NULL,
    submitted_at        timestamptz NOT NULL,
    changed_at          timestamptz NOT NULL,
    completed_at        timestamptz,
    cancelled_at        timestamptz,
    cancelled_by        text,
    cancellation_reason text,
    deleted_at          timestamptz,
    CONSTRAINT batch_status CHECK (status IN ('pending', 'processing', 'completed', 'partial', 'failed', 'cancelled')),
    CONSTRAINT batch_counts CHECK (total_items = pending + completed + failed + cancelled
                                   AND pending >= 0 AND completed >= 0 AND failed >= 0 AND cancelled >= 0)
) WITH (fillfactor = 50);  -- every fold updates the row; free space on its page keeps the update HOT

CREATE INDEX batch_newest ON orchestrator.batch (organization_id, submitted_at DESC, batch_id DESC) WHERE deleted_at IS NULL;
-- The condition must not name a column that a fold changes, because the fold would then not be HOT.
CREATE INDEX batch_running ON orchestrator.batch (submitted_at) WHERE status IN ('pending', 'processing');
CREATE INDEX batch_deleted ON orchestrator.batch (deleted_at) WHERE deleted_at IS NOT NULL;

-- One row for each item: the values and the state of its present attempt. `planned` is the prediction of a preview (`success` or an error
-- code) for the first attempt of a submission with a plan.
CREATE TABLE orchestrator.batch_item (
    batch_id            uuid        NOT NULL,
    position            integer     NOT NULL,
    item_id             uuid        NOT NULL,
    organization_id     text        NOT NULL,
    mentor_id           text        NOT NULL,
    activity_type       text        NOT NULL,
    activity_date       date        NOT NULL,
    duration_minutes    integer     NOT NULL,
    notes               text,
    client_reference    text,
    override_duplicates boolean     NOT NULL,
    status              text        NOT NULL DEFAULT 'pending',
    attempt             integer     NOT NULL DEFAULT 1,
    attempt_at          timestamptz NOT NULL,
    changed_version     bigint      NOT NULL DEFAULT 1,
    activity_id         uuid,
    error               jsonb,
    planned             text,
    PRIMARY KEY (batch_id, position),
    CONSTRAINT batch_item_status CHECK (status IN ('pending', 'success', 'failed', 'cancelled'))
) WITH (fillfactor = 80);

-- The dedup table. The transaction that inserts the row of (item, attempt) decides, and the row never changes afterwards.
CREATE TABLE orchestrator.outcome (
    batch_id        uuid        NOT NULL,
    position        integer     NOT NULL,
    attempt         integer     NOT NULL,
    organization_id text        NOT NULL,
    outcome         text        NOT NULL,
    activity_id     uuid,
    error           jsonb,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (batch_id, position, attempt),
    CONSTRAINT outcome_kind CHECK (outcome IN ('success', 'failed', 'cancelled')),
    CONSTRAINT outcome_answer CHECK ((outcome = 'success') = (activity_id IS NOT NULL) AND (outcome = 'failed') = (error IS NOT NULL))
);

-- Finished attempts, with their values, and the correction that began the next attempt.
CREATE TABLE orchestrator.item_history (
    batch_id        uuid        NOT NULL,
    position        integer     NOT NULL,
    attempt         integer     NOT NULL,
    organization_id text        NOT NULL,
    submitted       jsonb       NOT NULL,
    error           jsonb       NOT NULL,
    attempt_at      timestamptz NOT NULL,
    correction      jsonb,
    retried_by      text        NOT NULL,
    retried_at      timestamptz NOT NULL,
    PRIMARY KEY (batch_id, position, attempt)
);

-- The parts of every batch. The hashes distinguish a repetition from a contradiction: `content_hash` is of the part as its sender wrote it,
-- `public_hash` of the same part without notes, as we publish it. `items` is kept only while other parts of an upstream batch are missing.
CREATE TABLE orchestrator.batch_part (
    batch_id        uuid        NOT NULL,
    part            integer     NOT NULL,
    organization_id text        NOT NULL,
    content_hash    bytea       NOT NULL,
    public_hash     bytea       NOT NULL,
    items           jsonb,
    received_at     timestamptz NOT NULL,
    PRIMARY KEY (batch_id, part)
);

-- A permanent row for each purged batch, so that late and replayed events never bring it back.
CREATE TABLE orchestrator.tombstone (
    batch_id        uuid        NOT NULL PRIMARY KEY,
    organization_id text        NOT NULL,
    content_hash    bytea       NOT NULL,
    purged_at       timestamptz NOT NULL
);

-- Events that a transaction decided to publish. All events of a batch are in one slot, and so with one relay, which keeps their order.
CREATE TABLE orchestrator.outbox (
    slot            smallint    NOT NULL,
    outbox_id       bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    organization_id text        NOT NULL,
    batch_id        uuid        NOT NULL,
    topic           text        NOT NULL,
    key             text        NOT NULL,
    headers         jsonb       NOT NULL,
    value           bytea       NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (slot, outbox_id)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE orchestrator.idempotency_key (
    organization_id text        NOT NULL,
    subject         text        NOT NULL,
    key             text        NOT NULL,
    request_hash    bytea       NOT NULL,
    batch_id        uuid        NOT NULL,
    answer          jsonb,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, subject, key)
);
CREATE INDEX idempotency_key_age ON orchestrator.idempotency_key (created_at);

-- How far each consumer group has durably handled a partition: the next offset, as in Kafka.
CREATE TABLE orchestrator.consumer_progress (
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    next_offset     bigint      NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- Items that the sweeper watches. A mark is where the topics ended at some time. Once the consumers have passed it, everything that was
-- published before that time has been handled. `stage` says which consumer has to pass the mark: the splitter or the registration.
CREATE TABLE orchestrator.sweep_mark (
    mark_id         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    offsets         jsonb       NOT NULL,
    taken_at        timestamptz NOT NULL
);
CREATE TABLE orchestrator.sweep_watch (
    batch_id        uuid        NOT NULL,
    position        integer     NOT NULL,
    attempt         integer     NOT NULL,
    organization_id text        NOT NULL,
    stage           text        NOT NULL,
    mark_id         bigint,
    resends         integer     NOT NULL DEFAULT 0,
    next_at         timestamptz NOT NULL,
    PRIMARY KEY (batch_id, position, attempt),
    CONSTRAINT sweep_watch_stage CHECK (stage IN ('splitter', 'registration'))
);

-- The default registration service. Names are part of the contract (docs/glossary.md): auditors and reports read these tables.
CREATE TABLE registration.organization (
    organization_id text NOT NULL PRIMARY KEY,
    name            text NOT NULL,
    time_zone       text NOT NULL DEFAULT 'Europe/Oslo'
);
CREATE TABLE registration.mentor (
    organization_id text NOT NULL,
    mentor_id       text NOT NULL,
    name            text NOT NULL,
    chapter_id      text NOT NULL,
    active_from     date,
    active_until    date,
    PRIMARY KEY (organization_id, mentor_id)
);
CREATE TABLE registration.coordinator (
    organization_id text NOT NULL,
    coordinator_id  text NOT NULL,
    name            text NOT NULL,
    role            text NOT NULL,
    PRIMARY KEY (organization_id, coordinator_id)
);
CREATE TABLE registration.coordinator_scope (
    organization_id text NOT NULL,
    coordinator_id  text NOT NULL,
    chapter_id      text NOT NULL,
    PRIMARY KEY (organization_id, coordinator_id, chapter_id)
);
CREATE TABLE registration.activity_type (
    organization_id text NOT NULL,
    activity_type   text NOT NULL,
    name            text NOT NULL,
    PRIMARY KEY (organization_id, activity_type)
);
CREATE TABLE registration.activity (
    activity_id         uuid        NOT NULL PRIMARY KEY,
    organization_id     text        NOT NULL,
    attributed_to       text        NOT NULL,
    registered_by       text        NOT NULL,
    activity_type       text        NOT NULL,
    activity_date       date        NOT NULL,
    duration_minutes    integer     NOT NULL,
    notes               text,
    batch_id            uuid        NOT NULL,
    item_id             uuid        NOT NULL,
    overrides_duplicate boolean     NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL,
    revoked_at          timestamptz
);
CREATE UNIQUE INDEX activity_item ON registration.activity (item_id);
CREATE UNIQUE INDEX activity_once ON registration.activity (organization_id, attributed_to, activity_type, activity_date)
    WHERE NOT overrides_duplicate AND revoked_at IS NULL;

-- Who registered what, for whom, when, in which batch, through which channel.
CREATE TABLE registration.audit (
    audit_id        bigint      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text        NOT NULL,
    action          text        NOT NULL,
    activity_id     uuid        NOT NULL,
    registered_by   text        NOT NULL,
    attributed_to   text        NOT NULL,
    submitted_by    text        NOT NULL,
    batch_id        uuid        NOT NULL,
    channel         text        NOT NULL,
    at              timestamptz NOT NULL
);

-- Row level security. The worker sees all; the API sees the organizations that its transaction names with
-- set_config('bulkreg.organizations', …, true), separated by the unit separator; unset (or '' after a commit) means no rows.
-- FORCE makes the policies apply to the owner, too. It has a policy of its own, for reports and repairs; without it, it would see no rows.
CREATE FUNCTION orchestrator.visible_organizations() RETURNS text[] LANGUAGE sql STABLE PARALLEL SAFE
    RETURN string_to_array(nullif(current_setting('bulkreg.organizations', true), ''), E'\x1f');

GRANT USAGE ON SCHEMA orchestrator, registration TO bulkreg_worker, bulkreg_api;

DO $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('orchestrator', 'registration') LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.%I TO bulkreg_worker', t.schemaname, t.tablename);
        IF t.tablename IN ('consumer_progress', 'sweep_mark') THEN
            CONTINUE;  -- has no organization's data, and the API does not need it
        END IF;
        EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY', t.schemaname, t.tablename);
        EXECUTE format('ALTER TABLE %I.%I FORCE ROW LEVEL SECURITY', t.schemaname, t.tablename);
        EXECUTE format('CREATE POLICY worker ON %I.%I TO bulkreg_worker USING (true) WITH CHECK (true)', t.schemaname, t.tablename);
        EXECUTE format('CREATE POLICY owner ON %I.%I TO CURRENT_USER USING (true) WITH CHECK (true)', t.schemaname, t.tablename);
        EXECUTE format('CREATE POLICY api ON %I.%I TO bulkreg_api USING (organization_id = ANY (orchestrator.visible_organizations()))'
                       ' WITH CHECK (organization_id = ANY (orchestrator.visible_organizations()))', t.schemaname, t.tablename);
        EXECUTE format('GRANT SELECT ON %I.%I TO bulkreg_api', t.schemaname, t.tablename);
    END LOOP;
END $$;

-- The API submits, retries, cancels, edits. It never touches activities, and never changes an outcome.
GRANT INSERT, UPDATE ON orchestrator.batch, orchestrator.batch_item, orchestrator.idempotency_key TO bulkreg_api;
GRANT INSERT ON orchestrator.outcome, orchestrator.item_history, orchestrator.batch_part, orchestrator.outbox TO bulkreg_api;
GRANT UPDATE, DELETE ON orchestrator.batch_part TO bulkreg_api;
GRANT DELETE ON orchestrator.idempotency_key TO bulkreg_api;
