-- Statements about sessions of the console. Row level security shows the API the session whose hash the transaction names. All times are
-- the database's. Except for `remove_ended`, each statement uses the primary key.

-- name: begin
-- parameters: session_hash bytea, organization_id text, subject text, role text
-- Inserts a new session. Repeating it after a lost acknowledgement changes nothing.
INSERT INTO orchestrator.console_session (session_hash, organization_id, subject, role)
VALUES (:session_hash, :organization_id, :subject, :role) ON CONFLICT DO NOTHING;

-- name: use
-- parameters: session_hash bytea, extends boolean, idle interval, lifetime interval, noted_every interval
-- Returns the session's user and when it ends, unless it has ended. A use is stored only from time to time, because a page that loads sends
-- several requests, and each would write.
WITH alive AS (
    SELECT organization_id, subject, role, logged_in_at, used_at FROM orchestrator.console_session
    WHERE session_hash = :session_hash
      AND used_at > clock_timestamp() - CAST(:idle AS interval)
      AND logged_in_at > clock_timestamp() - CAST(:lifetime AS interval)
), noted AS (
    UPDATE orchestrator.console_session SET used_at = clock_timestamp()
    WHERE session_hash = :session_hash AND CAST(:extends AS boolean)
      AND EXISTS (SELECT FROM alive WHERE used_at < clock_timestamp() - CAST(:noted_every AS interval))
    RETURNING used_at
)
SELECT a.organization_id, a.subject, a.role,
       CAST(extract(epoch FROM least(coalesce((SELECT n.used_at FROM noted n), a.used_at) + CAST(:idle AS interval),
                                     a.logged_in_at + CAST(:lifetime AS interval))) AS double precision) AS ends_at
FROM alive a;

-- name: end
-- parameters: session_hash bytea
-- Revokes the session.
DELETE FROM orchestrator.console_session WHERE session_hash = :session_hash;

-- name: remove_ended
-- parameters: idle interval, max_sessions integer
-- Removes sessions that have been idle for too long. One that has reached its lifetime can't be used, so it is idle soon after. By the
-- index console_session_age.
DELETE FROM orchestrator.console_session s
USING (SELECT session_hash FROM orchestrator.console_session
       WHERE used_at < clock_timestamp() - CAST(:idle AS interval)
       ORDER BY used_at LIMIT :max_sessions FOR UPDATE SKIP LOCKED) AS old
WHERE s.session_hash = old.session_hash;
