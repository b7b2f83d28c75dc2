"""Corruptions that `verify` must detect, and similar states that it must not report: tables with one case a line, however long the SQL is."""

# fmt: off
Corruption = tuple[str, str, str]
"""The check that must detect it, the kind of batch that is damaged, and the SQL that damages it (`:b` is the batch's id)."""

CORRUPTIONS: list[Corruption] = [
    ("success_without_activity", "completed", "DELETE FROM registration.activity WHERE activity_id = (SELECT activity_id FROM orchestrator.batch_item WHERE batch_id = :b AND position = 1)"),
    ("success_differs_from_answer", "completed", "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, activity_id, dispatched_at, answered_at) VALUES (:b, 1, 'org-standard', 1, 'registered', gen_random_uuid(), now(), now())"),
    ("success_differs_from_answer", "cancelled", "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at) VALUES (:b, 2, 'org-standard', 1, 'asked', now())"),
    ("registered_inside_and_asked_outside", "completed", "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at) VALUES (:b, 1, 'org-standard', 1, 'asked', now())"),
    ("activity_without_item", "partial", "INSERT INTO registration.activity SELECT gen_random_uuid(), organization_id, 'mentor-9', registered_by, activity_type, activity_date, 60, NULL, batch_id, gen_random_uuid(), false, now(), NULL FROM registration.activity WHERE batch_id = :b LIMIT 1"),
    ("activity_without_success", "partial", "INSERT INTO registration.activity SELECT gen_random_uuid(), i.organization_id, 'nobody', 'coord-1', i.activity_type, i.activity_date, 60, NULL, i.batch_id, i.item_id, false, now(), NULL FROM orchestrator.batch_item i WHERE i.batch_id = :b AND i.position = 1"),
    ("two_activities_of_an_item", "completed", "INSERT INTO registration.activity SELECT gen_random_uuid(), organization_id, attributed_to, registered_by, activity_type, activity_date, duration_minutes, notes, batch_id, item_id, true, created_at, NULL FROM registration.activity WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET duration_minutes = 61 WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET attributed_to = registered_by, registered_by = attributed_to WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET attributed_to = 'mentor-9' WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET registered_by = 'coord-9' WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET activity_type = 'call' WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET activity_date = activity_date - 1 WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET notes = 'another note' WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("activity_differs_from_item", "completed", "UPDATE registration.activity SET notes = NULL WHERE batch_id = :b AND notes IS NOT NULL"),
    ("activity_without_audit", "completed", "DELETE FROM registration.audit WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("audit_differs_from_activity", "completed", "UPDATE registration.audit SET duration_minutes = 61 WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("audit_differs_from_activity", "revoked", "UPDATE registration.audit SET activity_date = activity_date - 1 WHERE batch_id = :b AND action = 'revoked'"),
    ("audit_can_be_changed", "completed", "GRANT UPDATE (reason) ON registration.audit TO bulkreg_worker; GRANT DELETE ON registration.audit TO bulkreg_worker"),
    ("audit_can_be_changed", "completed", "DROP TRIGGER audit_is_append_only ON registration.audit"),
    ("audit_can_be_changed", "completed", "ALTER TABLE registration.audit DISABLE TRIGGER audit_is_append_only"),
    ("request_differs_from_item", "completed", "UPDATE orchestrator.batch_item SET revocation_request = 'unresolved' WHERE batch_id = :b AND position = 1"),
    ("request_differs_from_item", "completed", "INSERT INTO orchestrator.revocation_request (batch_id, position, organization_id, state, asked_at, asked_by, channel, reason, is_bulk, sent_at) VALUES (:b, 1, 'org-standard', 'asked', now(), 'boss', 'api', 'a mistake', false, now())"),
    ("organization_of_revocation_request", "completed", "INSERT INTO orchestrator.revocation_request (batch_id, position, organization_id, state, asked_at, asked_by, channel, reason, is_bulk, sent_at) VALUES (:b, 1, 'org-other', 'asked', now(), 'boss', 'api', 'a mistake', false, now())"),
    ("revocation_without_audit", "revoked", "DELETE FROM registration.audit WHERE batch_id = :b AND action = 'revoked'"),
    ("revocation_without_audit", "revoked", "UPDATE registration.audit SET reason = 'another' WHERE batch_id = :b AND action = 'revoked'"),
    ("revocation_without_audit", "completed", "UPDATE registration.activity SET revoked_at = now() WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("revocation_without_audit", "revoked", "UPDATE registration.activity SET revoked_at = NULL WHERE batch_id = :b"),
    ("audit_of_no_activity", "revoked", "UPDATE registration.audit SET activity_id = gen_random_uuid() WHERE batch_id = :b AND action = 'revoked'"),
    ("revocation_differs_from_activity", "revoked", "UPDATE registration.activity SET revoked_by = 'somebody else' WHERE batch_id = :b"),
    ("revocation_differs_from_activity", "revoked", "UPDATE orchestrator.batch_item SET revoked_at = NULL, revoked_by = NULL, revocation_reason = NULL WHERE batch_id = :b"),
    ("revocation_differs_from_activity", "partial", "UPDATE orchestrator.batch_item SET revoked_at = now(), revoked_by = 'boss', revocation_reason = 'why' WHERE batch_id = :b AND position = 1"),
    ("revoked_differs_from_items", "revoked", "UPDATE orchestrator.batch SET revoked = 0 WHERE batch_id = :b"),
    ("changed_in_closed_period", "completed", "INSERT INTO registration.period_change SELECT 'org-standard', n, CASE n WHEN 1 THEN DATE '2026-03-25' END, CASE n WHEN 2 THEN DATE '2026-03-25' END, 'why', 'boss', 'api', now(), CASE n WHEN 1 THEN first - 1 ELSE last END FROM generate_series(1, 2) AS n, (SELECT min(audit_id) AS first, max(audit_id) AS last FROM registration.audit WHERE batch_id = :b) AS u"),
    ("changed_in_closed_period", "revoked", "INSERT INTO registration.period_change SELECT 'org-standard', n, CASE n WHEN 1 THEN DATE '2026-03-25' END, CASE n WHEN 2 THEN DATE '2026-03-25' END, 'why', 'boss', 'api', now(), CASE n WHEN 1 THEN first - 1 ELSE last END FROM generate_series(1, 2) AS n, (SELECT min(audit_id) AS first, max(audit_id) AS last FROM registration.audit WHERE batch_id = :b AND action = 'revoked') AS u"),
    ("period_differs_from_history", "completed", "UPDATE registration.organization SET closed_through = '2026-03-25'"),
    ("period_differs_from_history", "completed", "INSERT INTO registration.period_change VALUES ('gone', 1, '2026-03-25', NULL, 'why', 'boss', 'api', now(), 99)"),
    ("period_differs_from_history", "completed", "INSERT INTO registration.period_change VALUES ('org-standard', 2, NULL, '2026-03-25', 'why', 'boss', 'api', now(), 99)"),
    ("period_differs_from_history", "completed", "UPDATE registration.organization SET closed_through = '2026-03-25'; INSERT INTO registration.period_change VALUES ('org-standard', 2, '2026-03-25', NULL, 'why', 'boss', 'api', now(), 99)"),
    ("webhook_changes_can_be_changed", "completed", "GRANT UPDATE ON orchestrator.webhook_change TO bulkreg_api"),
    ("webhook_changes_can_be_changed", "completed", "DROP TRIGGER webhook_changes_are_append_only ON orchestrator.webhook_change"),
    ("webhook_changes_can_be_changed", "completed", "ALTER TABLE orchestrator.webhook_change DISABLE TRIGGER webhook_changes_are_append_only"),
    ("period_history_can_be_changed", "completed", "GRANT DELETE ON registration.period_change TO bulkreg_api"),
    ("period_history_can_be_changed", "completed", "DROP TRIGGER period_changes_are_append_only ON registration.period_change"),
    ("period_history_can_be_changed", "completed", "ALTER TABLE registration.period_change DISABLE TRIGGER period_changes_are_append_only"),
    ("erased_notes_are_back", "completed", "INSERT INTO registration.notes_erasure SELECT batch_id, position, attempt, organization_id, item_id, 'boss', 'api', now() FROM orchestrator.batch_item WHERE batch_id = :b AND notes IS NOT NULL"),
    ("notes_erasures_can_be_changed", "completed", "GRANT UPDATE, DELETE ON registration.notes_erasure TO bulkreg_api"),
    ("notes_erasures_can_be_changed", "completed", "DROP TRIGGER notes_erasures_are_append_only ON registration.notes_erasure"),
    ("notes_erasures_can_be_changed", "completed", "ALTER TABLE registration.notes_erasure DISABLE TRIGGER notes_erasures_are_append_only"),
    ("two_outcomes_of_an_attempt", "completed", "INSERT INTO orchestrator.outcome SELECT * FROM orchestrator.outcome WHERE batch_id = :b AND position = 1"),
    ("outcome_of_a_later_attempt", "partial", "INSERT INTO orchestrator.outcome SELECT batch_id, position, 2, organization_id, outcome, activity_id, error, created_at FROM orchestrator.outcome WHERE batch_id = :b AND position = 1"),
    ("outcome_without_item", "partial", "INSERT INTO orchestrator.outcome SELECT batch_id, 77, 1, organization_id, outcome, activity_id, error, created_at FROM orchestrator.outcome WHERE batch_id = :b AND position = 1"),
    ("attempt_after_success", "retried", "UPDATE orchestrator.outcome SET outcome = 'cancelled', error = NULL WHERE batch_id = :b AND position = 1 AND attempt = 1"),
    ("counts_differ_from_items", "completed", "UPDATE orchestrator.batch SET completed = 3, total_items = 3 WHERE batch_id = :b"),
    ("counts_differ_from_items", "running", "UPDATE orchestrator.batch SET pending = 1, failed = 1 WHERE batch_id = :b"),
    ("counts_differ_from_items", "completed", "DELETE FROM orchestrator.batch_item WHERE batch_id = :b AND position = 1"),
    ("positions_not_contiguous", "completed", "UPDATE orchestrator.batch_item SET position = 7 WHERE batch_id = :b AND position = 1"),
    ("item_without_batch", "partial", "DELETE FROM orchestrator.batch WHERE batch_id = :b"),
    ("item_id_not_derived", "running", "UPDATE orchestrator.batch_item SET item_id = gen_random_uuid() WHERE batch_id = :b AND position = 0"),
    ("status_differs", "completed", "UPDATE orchestrator.batch SET status = 'partial' WHERE batch_id = :b"),
    ("status_differs", "running", "UPDATE orchestrator.batch SET status = 'pending' WHERE batch_id = :b"),
    ("status_differs", "cancelled", "UPDATE orchestrator.batch SET status = 'partial' WHERE batch_id = :b"),
    ("item_differs_from_outcome", "partial", "UPDATE orchestrator.batch_item SET status = 'cancelled' WHERE batch_id = :b AND position = 1"),
    ("item_differs_from_outcome", "partial", "UPDATE orchestrator.batch_item SET error = jsonb_set(error, '{code}', '\"out_of_scope\"') WHERE batch_id = :b AND position = 1"),
    ("item_differs_from_outcome", "partial", "DELETE FROM orchestrator.outcome WHERE batch_id = :b AND position = 1"),
    ("pending_item_with_an_answer", "running", "UPDATE orchestrator.batch_item SET activity_id = gen_random_uuid() WHERE batch_id = :b AND position = 0"),
    ("history_not_contiguous", "retried", "DELETE FROM orchestrator.item_history WHERE batch_id = :b"),
    ("completion_time", "completed", "UPDATE orchestrator.batch SET completed_at = NULL WHERE batch_id = :b"),
    ("completion_time", "running", "UPDATE orchestrator.batch SET completed_at = now() WHERE batch_id = :b"),
    ("deleted_while_running", "running", "UPDATE orchestrator.batch SET deleted_at = now() WHERE batch_id = :b"),
    ("decided_and_not_folded", "running", "WITH o AS (UPDATE orchestrator.outcome SET created_at = now() - interval '1 hour' WHERE batch_id = :b) UPDATE orchestrator.batch SET changed_at = now() - interval '1 hour' WHERE batch_id = :b"),
    ("given_up_and_not_answered", "running", "INSERT INTO orchestrator.sweep_watch (batch_id, position, attempt, organization_id, stage, resends, next_at) SELECT batch_id, position, attempt, organization_id, 'registration', 6, now() FROM orchestrator.batch_item WHERE batch_id = :b AND position = 0"),
    ("two_unflagged", "completed", "UPDATE registration.activity SET overrides_duplicate = false WHERE overrides_duplicate"),
    ("flagged_alone", "overriding", "UPDATE registration.activity SET revoked_at = now() WHERE attributed_to = 'mentor-1' AND NOT overrides_duplicate"),
    ("outcome_after_cancel", "cancelled", "UPDATE orchestrator.outcome SET created_at = now() + interval '1 second' WHERE batch_id = :b AND position = 2"),
    ("organization_of_batch_item", "running", "UPDATE orchestrator.batch_item SET organization_id = 'other' WHERE batch_id = :b AND position = 0"),
    ("organization_of_outcome", "running", "UPDATE orchestrator.outcome SET organization_id = 'other' WHERE batch_id = :b AND position = 0"),
    ("organization_of_item_history", "retried", "UPDATE orchestrator.item_history SET organization_id = 'other' WHERE batch_id = :b"),
    ("organization_of_batch_part", "completed", "UPDATE orchestrator.batch_part SET organization_id = 'other' WHERE batch_id = :b"),
    ("organization_of_batch_edit", "completed", "INSERT INTO orchestrator.batch_edit (batch_id, version, organization_id, kind, edited_at) VALUES (:b, 9, 'other', 'deleted', now())"),
    ("organization_of_receipt_batch", "completed", "INSERT INTO orchestrator.receipt_batch VALUES ('other', 1, 0, :b)"),
    ("organization_of_batch_dismissal", "partial", "INSERT INTO orchestrator.batch_dismissal VALUES (:b, 9, 'other', 'somebody', now())"),
    ("organization_of_dispatch", "completed", "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, activity_id, dispatched_at, answered_at) SELECT batch_id, position, 'other', 1, 'registered', activity_id, now(), now() FROM orchestrator.batch_item WHERE batch_id = :b AND position = 1"),
    ("organization_of_outbox", "running", "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at) VALUES (0, 'other', :b, 'batches', 'k', '[]', '{}', now())"),
    ("organization_of_idempotency_key", "running", "INSERT INTO orchestrator.idempotency_key VALUES ('other', 's', 'k', '', :b, NULL, now())"),
    ("organization_of_activity", "completed", "UPDATE registration.activity SET organization_id = 'other' WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("organization_of_audit", "completed", "UPDATE registration.audit SET organization_id = 'other' WHERE batch_id = :b AND attributed_to = 'mentor-2'"),
    ("row_level_security", "completed", "ALTER TABLE orchestrator.batch NO FORCE ROW LEVEL SECURITY"),
    ("row_level_security", "completed", "ALTER TABLE registration.activity DISABLE ROW LEVEL SECURITY"),
    ("api_role", "completed", "ALTER TABLE orchestrator.batch OWNER TO bulkreg_api"),
    ("notes_in_outbox", "running", "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at) VALUES (0, 'org-standard', :b, 'batches', 'k', '[]', '{\"notes\":\"x\"}', now())"),
    ("notes_in_error", "partial", "WITH e AS (UPDATE orchestrator.outcome o SET error = jsonb_set(o.error, '{message}', to_jsonb(i.notes)) FROM orchestrator.batch_item i WHERE (i.batch_id, i.position) = (o.batch_id, o.position) AND o.batch_id = :b AND o.position = 1) UPDATE orchestrator.batch_item SET error = jsonb_set(error, '{message}', to_jsonb(notes)) WHERE batch_id = :b AND position = 1"),
    ("waiting_and_not_watched", "queued", "UPDATE orchestrator.batch_item SET attempt_at = now() - interval '1 hour' WHERE batch_id = :b"),
    ("event_waits", "running", "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at) VALUES (0, 'org-standard', :b, 'batches', 'k', '[]', '{}', now() - interval '6 minutes')"),
    ("event_waits", "running", "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at, held_for, held_why, held_at) VALUES (-1, 'org-standard', :b, 'lifecycle', 'k', '[]', '{}', now() - interval '6 minutes', 'lifecycle', 'unknown topic', now())"),
    ("event_refused", "running", "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at, held_for, held_why, held_at) VALUES (-1, 'org-standard', :b, 'lifecycle', 'k', '[]', '{}', now(), 'refused', 'too large', now())"),
    ("queue_stands", "running", "INSERT INTO orchestrator.queue_end VALUES ('batches', 1, 'id', 7, 3, now() - interval '6 minutes', now())"),
    ("role_restarts", "running", "INSERT INTO orchestrator.role_start SELECT 'splitter', 'host', now() - n * interval '1 minute' FROM generate_series(1, 6) AS n"),
    ("nothing_decided", "running", "WITH i AS (UPDATE orchestrator.batch_item SET attempt_at = now() - interval '2 hours' WHERE batch_id = :b), o AS (UPDATE orchestrator.outcome SET created_at = now() - interval '2 hours' WHERE batch_id = :b) UPDATE orchestrator.batch SET changed_at = now() WHERE batch_id = :b"),
    ("nothing_decided", "queued", "UPDATE orchestrator.batch_item SET attempt_at = now() - interval '2 hours' WHERE batch_id = :b"),
    ("parts_overdue", "running", "UPDATE orchestrator.batch SET status = 'pending', submitted_at = now() - interval '30 hours' WHERE batch_id = :b"),
    ("purged_and_alive", "completed", "INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, content_hash, now() FROM orchestrator.batch WHERE batch_id = :b"),
    ("registered_after_purge", "deleted", "INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, content_hash, submitted_at FROM orchestrator.batch WHERE batch_id = :b"),
    ("organization_of_purged", "deleted", "INSERT INTO orchestrator.tombstone SELECT batch_id, 'other', content_hash, now() FROM orchestrator.batch WHERE batch_id = :b"),
    ("organization_of_sweep_watch", "running", "INSERT INTO orchestrator.sweep_watch (batch_id, position, attempt, organization_id, stage, next_at) VALUES (:b, 0, 1, 'other', 'splitter', now())"),
    ("api_policy", "completed", "DROP POLICY api ON registration.activity"),
    ("api_policy", "completed", "CREATE POLICY report ON registration.mentor USING (true)"),
    ("api_policy", "completed", "ALTER POLICY api ON orchestrator.batch USING (true)"),
    ("api_policy", "completed", "ALTER POLICY api ON orchestrator.console_session USING (true)"),
    ("api_grants", "completed", "GRANT UPDATE ON orchestrator.outcome TO bulkreg_api"),
    ("api_grants", "completed", "GRANT DELETE ON registration.audit TO PUBLIC"),
    ("api_grants", "completed", "GRANT TRUNCATE ON registration.activity TO bulkreg_api"),
    ("api_policy", "completed", "CREATE POLICY report ON registration.mentor TO bulkreg_api USING (true)"),
    ("api_role", "completed", "ALTER TABLE registration.activity OWNER TO bulkreg_api"),
    ("row_level_security", "completed", "ALTER TABLE orchestrator.outcome DISABLE ROW LEVEL SECURITY"),
    ("row_level_security", "completed", "ALTER TABLE registration.mentor NO FORCE ROW LEVEL SECURITY"),
    ("notes_in_history", "retried", "UPDATE orchestrator.item_history SET submitted = jsonb_set(submitted, '{notes}', to_jsonb(CAST('a note that is long enough' AS text))), error = jsonb_set(error, '{message}', to_jsonb(CAST('no: a note that is long enough' AS text))) WHERE batch_id = :b"),
]

# --- Clause by clause: each case differs in one column from a healthy state ------------------------------------------------------------

ITEM = "UPDATE orchestrator.batch_item SET {} WHERE batch_id = :b"
BATCH = "UPDATE orchestrator.batch SET {} WHERE batch_id = :b"
OUTCOME = "UPDATE orchestrator.outcome SET {} WHERE batch_id = :b"
AUDIT = "UPDATE registration.audit SET {} WHERE batch_id = :b"
OF_ITEM = "item_id = (SELECT item_id FROM orchestrator.batch_item WHERE batch_id = :b AND position = {})"
LOSE_ACTIVITY = f"WITH a AS (DELETE FROM registration.activity WHERE {OF_ITEM} RETURNING activity_id) DELETE FROM registration.audit u USING a WHERE u.activity_id = a.activity_id"
DISPATCH = "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, activity_id, error, dispatched_at, answered_at)"
ASKED = DISPATCH + " VALUES (:b, {}, 'org-standard', 1, 'asked', NULL, NULL, now() - interval '1 hour', NULL)"
REGISTERED = DISPATCH + " SELECT batch_id, position, organization_id, 1, 'registered', coalesce(activity_id, gen_random_uuid()), NULL, now(), now() FROM orchestrator.batch_item WHERE batch_id = :b AND position = {}"
REFUSED = DISPATCH + " VALUES (:b, {}, 'org-standard', 1, 'refused', NULL, '{{}}', now() - interval '1 hour', now())"
WITHDRAWN = DISPATCH + " SELECT batch_id, {}, organization_id, 1, 'withdrawn', NULL, NULL, cancelled_at + {} * interval '1 second', now() FROM orchestrator.batch WHERE batch_id = :b"
WATCH = "INSERT INTO orchestrator.sweep_watch (batch_id, position, attempt, organization_id, stage, resends, next_at) VALUES (:b, {}, {}, 'org-standard', 'registration', {}, now())"
OUTBOX = "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at) VALUES (0, 'org-standard', :b, '{}', 'k', '[]', '{{}}', now() - interval '{} minutes')"
TWIN = "UPDATE registration.activity SET {} WHERE batch_id <> :b AND attributed_to = (SELECT attributed_to FROM registration.activity WHERE batch_id = :b)"
ACTIVITY = "INSERT INTO registration.activity SELECT gen_random_uuid(), {organization}, {mentor}, 'coord-1', 'visit', '2026-03-25', 60, NULL, {batch}, {item}, {flagged}, now(), {revoked} FROM orchestrator.batch_item WHERE batch_id = :b AND position = 0"
AUDITED = "INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at) SELECT organization_id, 'registered', activity_id, registered_by, attributed_to, 'x', batch_id, 'x', now() FROM registration.activity a WHERE batch_id = {batch} AND NOT EXISTS (SELECT FROM registration.audit u WHERE u.activity_id = a.activity_id)"
TOMBSTONE = "INSERT INTO orchestrator.tombstone VALUES ({batch}, {organization}, '', now())"
# A purged batch, whose activities are left.
PURGED = "CAST(md5(CAST(:b AS text)) AS uuid)"
ERROR = "jsonb_set(error, '{{message}}', to_jsonb(CAST('about {}, perhaps' AS text)))"

ERASED = "INSERT INTO registration.notes_erasure SELECT batch_id, position, {}, organization_id, item_id, 'boss', 'api', now() FROM orchestrator.batch_item WHERE batch_id = :b"
HISTORY_NOTES = "UPDATE orchestrator.item_history SET submitted = submitted || '{\"notes\": \"x\"}' WHERE batch_id = :b"

Case = tuple[str, str, str]
"""The check, the kind of batch, and statements separated by semicolons."""

CLAUSES: list[Case] = [
    ("success_without_activity", "done", ITEM.format("activity_id = gen_random_uuid()") + " AND position = 1"),
    ("success_without_activity", "done", LOSE_ACTIVITY.format(1) + ";" + ASKED.format(1)),
    ("success_without_activity", "done", LOSE_ACTIVITY.format(1) + ";" + REGISTERED.format(0)),
    ("success_differs_from_answer", "done", REGISTERED.format(1) + "; UPDATE orchestrator.dispatch SET activity_id = gen_random_uuid() WHERE batch_id = :b"),
    ("success_differs_from_answer", "cancelled", ASKED.format(2)),
    ("success_differs_from_answer", "cancelled", REGISTERED.format(2)),
    ("registered_inside_and_asked_outside", "done", ASKED.format(1)),
    ("registered_inside_and_asked_outside", "done", REGISTERED.format(1)),
    ("activity_without_item", "done", "UPDATE registration.activity SET batch_id = :b WHERE batch_id = :spare"),
    ("activity_without_item", "done", "UPDATE registration.activity SET item_id = gen_random_uuid() WHERE batch_id = :b"),
    ("activity_without_success", "done", OUTCOME.format("activity_id = gen_random_uuid()") + " AND position = 1"),
    ("activity_without_success", "done", OUTCOME.format("outcome = 'failed'") + " AND position = 1"),
    ("activity_without_success", "done", OUTCOME.format("position = 7") + " AND position = 1"),
    ("activity_without_success", "waiting", ACTIVITY.format(organization="organization_id", mentor="mentor_id", batch="batch_id", item="item_id", flagged="false", revoked="NULL")),
    ("two_activities_of_an_item", "done", ACTIVITY.format(organization="organization_id", mentor="'somebody else'", batch="batch_id", item="item_id", flagged="false", revoked="now()")),
    ("activity_without_audit", "done", "DELETE FROM registration.audit WHERE batch_id = :b"),
    ("activity_without_audit", "done", "INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at) SELECT organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at FROM registration.audit WHERE batch_id = :b"),
    ("activity_without_audit", "done", AUDIT.format("action = 'revoked'")),
    ("activity_without_audit", "done", AUDIT.format("batch_id = gen_random_uuid()")),
    *(
        ("audit_differs_from_activity", "done", AUDIT.format(change))
        for change in (
            "registered_by = 'x'", "attributed_to = 'x'", "activity_type = 'x'", "activity_date = activity_date - 1", "duration_minutes = 1",
            "item_id = gen_random_uuid()", "attempt = 2", "at = at + interval '1 second'", "action = 'altered'",
        )
    ),
    ("activity_without_audit", "done", AUDIT.format("activity_id = gen_random_uuid()")),
    ("outcome_of_a_later_attempt", "done", ITEM.format("attempt = 0")),
    ("outcome_without_item", "done", "DELETE FROM orchestrator.batch_item WHERE batch_id = :b AND position = 1"),
    ("attempt_after_success", "retried", OUTCOME.format("outcome = 'success', activity_id = gen_random_uuid(), error = NULL") + " AND attempt = 1 AND position = 0"),
    ("attempt_after_success", "retried", OUTCOME.format("outcome = 'cancelled', error = NULL") + " AND attempt = 1 AND position = 0"),
    *(("counts_differ_from_items", "done", BATCH.format(f"{name} = {name} + 1")) for name in ("total_items", "pending", "completed", "failed", "cancelled")),
    *(("counts_differ_from_items", "done", ITEM.format(f"status = '{status}'") + " AND position = 1") for status in ("pending", "failed", "cancelled")),
    ("counts_differ_from_items", "collecting", BATCH.format("parts = 1")),
    ("counts_differ_from_items", "collecting", BATCH.format("completed = 1")),
    ("counts_differ_from_items", "collecting", BATCH.format("failed = 1")),
    ("counts_differ_from_items", "collecting", BATCH.format("pending = pending - 1")),
    ("counts_differ_from_items", "collecting", BATCH.format("status = 'processing'")),
    ("counts_differ_from_items", "collecting", BATCH.format("status = 'cancelled'")),
    ("counts_differ_from_items", "stopped", BATCH.format("cancelled = cancelled - 1")),
    ("counts_differ_from_items", "stopped", BATCH.format("status = 'pending'")),
    ("revoked_differs_from_items", "collecting", BATCH.format("revoked = 1")),
    ("revoked_differs_from_items", "done", BATCH.format("revoked = 1")),
    ("positions_not_contiguous", "done", ITEM.format("position = position + 1") + " AND position = 1"),
    ("positions_not_contiguous", "done", "DELETE FROM orchestrator.batch_item WHERE batch_id = :b AND position = 0"),
    ("item_differs_from_outcome", "done", ITEM.format("activity_id = gen_random_uuid()") + " AND position = 1"),
    ("item_differs_from_outcome", "failed", ITEM.format("error = error || '{\"retryable\": true}'") + " AND position = 0"),
    ("item_differs_from_outcome", "retried", "DELETE FROM orchestrator.outcome WHERE batch_id = :b AND position = 0 AND attempt = 2"),
    ("pending_item_with_an_answer", "waiting", ITEM.format("error = '{}'") + " AND position = 0"),
    ("pending_item_with_an_answer", "waiting", ITEM.format("activity_id = gen_random_uuid()") + " AND position = 0"),
    ("history_not_contiguous", "retried", "DELETE FROM orchestrator.item_history WHERE batch_id = :b"),
    ("history_not_contiguous", "retried", "UPDATE orchestrator.item_history SET attempt = 2 WHERE batch_id = :b"),
    ("history_not_contiguous", "retried", "UPDATE orchestrator.item_history SET position = 1 WHERE batch_id = :b"),
    *(("completion_time", kind, BATCH.format("completed_at = NULL")) for kind in ("done", "failed", "failing", "cancelled")),
    *(("completion_time", kind, BATCH.format("completed_at = now()")) for kind in ("waiting", "unresolved", "collecting")),
    ("deleted_while_running", "unresolved", BATCH.format("deleted_at = now()")),
    ("decided_and_not_folded", "decided", OUTCOME.format("created_at = now() - interval '6 minutes'")),
    ("given_up_and_not_answered", "waiting", WATCH.format(0, 1, 6)),
    ("waiting_and_not_watched", "waiting", ITEM.format("attempt_at = now() - interval '6 minutes'")),
    ("waiting_and_not_watched", "unresolved", ITEM.format("attempt_at = now() - interval '6 minutes'")),
    ("waiting_and_not_watched", "again", ITEM.format("attempt_at = now() - interval '6 minutes'") + ";" + WATCH.format(0, 1, 0)),
    ("waiting_and_not_watched", "waiting", ITEM.format("attempt_at = now() - interval '6 minutes'") + ";" + WATCH.format(1, 1, 0)),
    ("parts_overdue", "collecting", BATCH.format("submitted_at = now() - interval '24 hours 6 minutes'")),
    ("event_waits", "done", OUTBOX.format("batches", 6)),
    ("nothing_decided", "waiting", ITEM.format("attempt_at = now() - interval '61 minutes'") + ";" + WATCH.format(0, 1, 0) + ";" + WATCH.format(1, 1, 0)),
    ("nothing_decided", "again", ITEM.format("attempt_at = now() - interval '61 minutes'") + " AND position = 0;" + OUTCOME.format("created_at = now() - interval '61 minutes'") + ";" + WATCH.format(0, 2, 0)),
    ("nothing_decided", "unresolved", ITEM.format("attempt_at = now() - interval '61 minutes'") + ";" + OUTCOME.format("created_at = now() - interval '61 minutes'")),
    ("two_unflagged", "done", ACTIVITY.format(organization="organization_id", mentor="mentor_id", batch="batch_id", item="gen_random_uuid()", flagged="false", revoked="NULL")),
    ("flagged_alone", "done", "UPDATE registration.activity SET overrides_duplicate = true WHERE batch_id = :b"),
    *(
        ("flagged_alone", "overriding", TWIN.format(change))
        for change in (
            "organization_id = 'org-x'", "attributed_to = 'somebody else ' || attributed_to", "activity_type = 'other'",
            "activity_date = activity_date - 1", "overrides_duplicate = true", "revoked_at = now()",
        )
    ),
    ("outcome_after_cancel", "cancelled", OUTCOME.format("created_at = now() + interval '1 second'") + " AND position = 2"),
    ("outcome_after_cancel", "cancelled", OUTCOME.format("created_at = now() + interval '9 seconds'") + " AND position = 2;" + WITHDRAWN.format(2, 1)),
    ("outcome_after_cancel", "cancelled", OUTCOME.format("created_at = now() + interval '9 seconds'") + " AND position = 2;" + WITHDRAWN.format(1, -1)),
    ("purged_and_alive", "done", TOMBSTONE.format(batch=":b", organization="'org-standard'")),
    ("purged_and_alive", "deleted", TOMBSTONE.format(batch=":b", organization="'org-standard'") + ";" + BATCH.format("deleted_at = now() + interval '1 second'")),
    ("registered_after_purge", "deleted", TOMBSTONE.format(batch=":b", organization="'org-standard'") + "; UPDATE registration.activity SET created_at = now() + interval '1 second' WHERE batch_id = :b"),
    ("organization_of_purged", "deleted", TOMBSTONE.format(batch=":b", organization="'org-x'")),
    ("notes_in_error", "failed", ITEM.format(f"notes = '12345678', error = {ERROR.format('12345678')}") + " AND position = 0"),
    ("erased_notes_are_back", "failed", ERASED.format("attempt") + "; " + ITEM.format("notes = 'x'") + " AND position = 0"),
    ("erased_notes_are_back", "again", ERASED.format("1") + " AND attempt > 1; " + HISTORY_NOTES),
    ("erased_notes_are_back", "done", ERASED.format("attempt") + " AND position = 1; UPDATE registration.activity SET notes = 'x' WHERE " + OF_ITEM.format(1)),
    ("notes_in_history", "retried", f"UPDATE orchestrator.item_history SET submitted = submitted || '{{\"notes\": \"12345678\"}}', error = {ERROR.format('12345678')} WHERE batch_id = :b"),
    ("status_differs", "collecting", BATCH.format("status = 'processing'")),
    ("status_differs", "collecting", BATCH.format("cancelled_at = now()")),
    ("status_differs", "done", BATCH.format("cancelled_at = now()")),
    ("status_differs", "cancelled", BATCH.format("cancelled_at = NULL")),
    ("status_differs", "failed", BATCH.format("status = 'failed'")),
    ("status_differs", "failing", BATCH.format("status = 'partial'")),
    ("status_differs", "waiting", BATCH.format("status = 'pending'")),
    ("item_id_not_derived", "done", ITEM.format("item_id = gen_random_uuid()") + " AND position = 1"),
]

# A revocation's other effects: its audit row, its item and its batch's count.
REVOKED_TOO = (
    "; UPDATE registration.activity SET revoked_by = 'boss', revocation_reason = 'a mistake' WHERE revoked_at IS NOT NULL AND revoked_by IS NULL"
    "; INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at, reason) SELECT organization_id, 'revoked', activity_id, registered_by, attributed_to, revoked_by, batch_id, 'api', revoked_at, revocation_reason FROM registration.activity a WHERE revoked_at IS NOT NULL AND NOT EXISTS (SELECT FROM registration.audit u WHERE u.activity_id = a.activity_id AND u.action = 'revoked')"
    "; UPDATE orchestrator.batch_item i SET revoked_at = a.revoked_at, revoked_by = a.revoked_by, revocation_reason = a.revocation_reason FROM registration.activity a WHERE a.item_id = i.item_id AND a.revoked_at IS NOT NULL"
    "; UPDATE orchestrator.batch b SET revoked = (SELECT count(revoked_at) FROM orchestrator.batch_item i WHERE i.batch_id = b.batch_id)"
    " WHERE b.batch_id IN (SELECT batch_id FROM orchestrator.batch_item WHERE revoked_at IS NOT NULL)"
)

WELL: list[tuple[str, str]] = [
    *((kind, "") for kind in ("done", "failed", "failing", "retried", "again", "waiting", "decided", "cancelled", "unresolved", "collecting", "stopped", "deleted", "overriding")),
    # An external service registered it, so there is no activity of ours.
    ("done", LOSE_ACTIVITY.format(1) + ";" + REGISTERED.format(1)),
    # A later attempt has notes again.
    ("retried", ERASED.format("1") + " AND position = 0; UPDATE orchestrator.item_history SET submitted = submitted || '{\"notes\": null}' WHERE batch_id = :b"),
    ("done", REFUSED.format(1)),
    ("failed", ASKED.format(0)),
    ("cancelled", REFUSED.format(2)),
    ("cancelled", WITHDRAWN.format(2, -1)),
    # It is slow, and still within the limit.
    ("decided", OUTCOME.format("created_at = now() - interval '4 minutes'")),
    ("done", OUTCOME.format("created_at = now() - interval '2 hours'") + ";" + ITEM.format("attempt_at = now() - interval '2 hours'")),
    ("again", OUTCOME.format("created_at = now() - interval '2 hours'")),
    ("waiting", WATCH.format(0, 1, 5)),
    ("done", WATCH.format(0, 1, 9)),
    ("again", WATCH.format(0, 1, 9)),
    ("waiting", ITEM.format("attempt_at = now() - interval '4 minutes'")),
    ("waiting", ITEM.format("attempt_at = now() - interval '59 minutes'") + ";" + WATCH.format(0, 1, 0) + ";" + WATCH.format(1, 1, 0)),
    ("waiting", ITEM.format("attempt_at = now() - interval '6 minutes'") + ";" + OUTBOX.format("batches", 1)),
    ("waiting", ITEM.format("attempt_at = now() - interval '2 hours'") + " AND position = 0;" + WATCH.format(0, 1, 0)),
    ("decided", ITEM.format("attempt_at = now() - interval '2 hours'")),
    # Of two outcomes, one is recent.
    ("again", ITEM.format("attempt_at = now() - interval '2 hours'") + " AND position = 0;" + OUTCOME.format("created_at = now() - interval '2 hours'") + " AND position = 0;" + WATCH.format(0, 2, 0)),
    ("collecting", BATCH.format("submitted_at = now() - interval '24 hours 4 minutes'")),
    ("waiting", BATCH.format("submitted_at = now() - interval '30 hours'")),
    ("done", OUTBOX.format("batches", 4)),
    # These differ in one column from an activity that they could conflict with.
    ("done", TOMBSTONE.format(batch=PURGED, organization="'org-x'") + ";" + ACTIVITY.format(organization="'org-x'", mentor="mentor_id", batch=PURGED, item="gen_random_uuid()", flagged="false", revoked="NULL") + ";" + AUDITED.format(batch=PURGED)),
    ("done", TOMBSTONE.format(batch=PURGED, organization="'org-standard'") + ";" + ACTIVITY.format(organization="organization_id", mentor="mentor_id", batch=PURGED, item="gen_random_uuid()", flagged="false", revoked="now()") + ";" + AUDITED.format(batch=PURGED) + REVOKED_TOO),
    ("done", TOMBSTONE.format(batch=PURGED, organization="'org-standard'") + ";" + ACTIVITY.format(organization="organization_id", mentor="mentor_id", batch=PURGED, item="gen_random_uuid()", flagged="true", revoked="NULL") + ";" + AUDITED.format(batch=PURGED)),
    ("overriding", TWIN.format("revoked_at = now()") + "; UPDATE registration.activity SET revoked_at = now() WHERE batch_id = :b" + REVOKED_TOO),
    # One of two activities is revoked.
    ("done", "UPDATE registration.activity SET revoked_at = now() WHERE " + OF_ITEM.format(0) + REVOKED_TOO),
    # A request was under way when the batch was cancelled.
    ("cancelled", OUTCOME.format("created_at = now() + interval '9 seconds'") + " AND position = 2;" + WITHDRAWN.format(2, 0)),
    # Decided at the moment of the cancel.
    ("cancelled", OUTCOME.format("created_at = (SELECT cancelled_at FROM orchestrator.batch WHERE batch_id = :b)") + " AND position = 2"),
    ("deleted", "INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, '', deleted_at FROM orchestrator.batch WHERE batch_id = :b; UPDATE registration.activity SET created_at = (SELECT deleted_at FROM orchestrator.batch WHERE batch_id = :b) WHERE batch_id = :b; " + AUDIT.format("at = (SELECT deleted_at FROM orchestrator.batch WHERE batch_id = :b)")),
    # A purge has begun.
    ("deleted", TOMBSTONE.format(batch=":b", organization="'org-standard'")),
    ("deleted", TOMBSTONE.format(batch=":b", organization="'org-standard'") + "; DELETE FROM orchestrator.batch_item WHERE batch_id = :b AND position = 0; DELETE FROM orchestrator.outcome WHERE batch_id = :b AND position = 0"),
    ("deleted", TOMBSTONE.format(batch=":b", organization="'org-standard'") + "; DELETE FROM orchestrator.batch_item WHERE batch_id = :b; DELETE FROM orchestrator.outcome WHERE batch_id = :b; DELETE FROM orchestrator.batch WHERE batch_id = :b"),
    # Seven characters occur in many texts by chance.
    ("failed", f"{ITEM.format('notes = $$1234567$$, error = ' + ERROR.format('1234567'))} AND position = 0; UPDATE orchestrator.outcome SET error = {ERROR.format('1234567')} WHERE batch_id = :b AND position = 0"),
    ("retried", f"UPDATE orchestrator.item_history SET submitted = submitted || '{{\"notes\": \"1234567\"}}', error = {ERROR.format('1234567')} WHERE batch_id = :b"),
]

# The check, whether the older or the younger one is a breach, and the SQL that makes something with the age `:age`.
AGED: list[Case] = [
    ("decided_and_not_folded", "older", OUTCOME.format("created_at = now() - :age")),
    ("waiting_and_not_watched", "older", "DELETE FROM orchestrator.outcome WHERE batch_id = :b; DELETE FROM orchestrator.outbox;" + ITEM.format("attempt_at = now() - :age")),
    ("parts_overdue", "older", BATCH.format("status = 'pending', submitted_at = now() - :age")),
    ("event_waits", "older", OUTBOX.format("batches", 0) + "; UPDATE orchestrator.outbox SET created_at = now() - :age"),
    ("queue_stands", "older", "INSERT INTO orchestrator.queue_end VALUES ('batches', 1, 'id', 7, 3, now() - :age, now())"),
    ("queue_stands", "younger", "INSERT INTO orchestrator.queue_end VALUES ('batches', 1, 'id', 7, 3, now() - interval '2 hours', now() - :age)"),
    ("role_restarts", "younger", "INSERT INTO orchestrator.role_start VALUES ('splitter', 'host', now() - :age)"),
    ("nothing_decided", "older", ITEM.format("attempt_at = now() - :age") + ";" + OUTCOME.format("created_at = now() - :age")),
]
