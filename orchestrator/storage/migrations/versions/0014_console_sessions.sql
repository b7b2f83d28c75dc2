-- Who is logged in to the console. The browser holds 256 random bits, and this table their SHA-256: reading the table is not enough to take over a session.
CREATE TABLE orchestrator.console_session (
    session_hash    bytea       NOT NULL PRIMARY KEY,
    organization_id text        NOT NULL,
    subject         text        NOT NULL,
    role            text        NOT NULL,
    logged_in_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT console_session_hash CHECK (length(session_hash) = 32),
    CONSTRAINT console_session_role CHECK (role IN ('coordinator', 'admin', 'auditor'))
);
-- For the purge.
CREATE INDEX console_session_age ON orchestrator.console_session (used_at);

-- A request knows its session before it knows its organization. So the API sees the one session whose hash its transaction names.
ALTER TABLE orchestrator.console_session ENABLE ROW LEVEL SECURITY;
ALTER TABLE orchestrator.console_session FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON orchestrator.console_session TO bulkreg_worker USING (true) WITH CHECK (true);
CREATE POLICY owner ON orchestrator.console_session TO CURRENT_USER USING (true) WITH CHECK (true);
CREATE POLICY api ON orchestrator.console_session TO bulkreg_api
    USING (session_hash = decode(current_setting('bulkreg.console_session', true), 'hex'))
    WITH CHECK (session_hash = decode(current_setting('bulkreg.console_session', true), 'hex'));
GRANT SELECT, INSERT, UPDATE, DELETE ON orchestrator.console_session TO bulkreg_worker;
GRANT SELECT, INSERT, DELETE, UPDATE (used_at) ON orchestrator.console_session TO bulkreg_api;
