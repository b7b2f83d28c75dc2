-- The checks of the invariants (docs/invariants.md). Each finds the rows that breach an invariant, and returns batch_id, item_id and a
-- detail that quotes no notes. The checks rely on no index, because a restore may have lost it. They read whole tables with hash joins in
-- one read-only snapshot (verify.py), and block nobody.

-- 1. A successful item has one activity. No other item has one, and no activity names an item that its batch does not have.

-- name: success_without_activity
-- A successful item whose activity does not exist or is another one. If an external service registered the item, the activity is with
-- that service, and its response is in the dispatch row.
SELECT i.batch_id, i.item_id, 'the item succeeded, but its activity does not exist' AS detail
FROM orchestrator.batch_item i LEFT JOIN registration.activity a ON a.item_id = i.item_id
WHERE i.status = 'success' AND a.activity_id IS DISTINCT FROM i.activity_id
  AND NOT EXISTS (SELECT FROM orchestrator.dispatch d
                  WHERE (d.batch_id, d.position) = (i.batch_id, i.position) AND d.state = 'registered');

-- name: success_differs_from_answer
-- A successful item with another activity than the external service named, or a cancelled item that the service has registered or may
-- have registered.
SELECT i.batch_id, i.item_id, 'the item is ' || i.status || ', but the state of its dispatch to the external service is ' || d.state
       || CASE WHEN i.status = 'success' THEN ' with another activity' ELSE '' END AS detail
FROM orchestrator.dispatch d JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
WHERE i.status = 'success' AND d.activity_id <> i.activity_id
   OR i.status = 'cancelled' AND d.state IN ('asked', 'registered');

-- name: registered_inside_and_asked_outside
-- An activity in our database for an item that was also sent to an external service.
SELECT i.batch_id, i.item_id, 'the item has an activity, but the external service has registered it, too, or may have' AS detail
FROM orchestrator.dispatch d JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
JOIN registration.activity a ON a.item_id = i.item_id
WHERE d.state IN ('asked', 'registered');

-- name: activity_without_item
-- An activity that names an item its batch does not have. A batch that is being purged already has its tombstone, and loses its rows
-- a chunk at a time.
SELECT a.batch_id, a.item_id, 'the activity names an item that its batch does not have' AS detail
FROM registration.activity a
LEFT JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
WHERE i.item_id IS NULL AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = a.batch_id);

-- name: activity_without_success
-- An activity whose item has no successful outcome with that activity.
SELECT a.batch_id, a.item_id, 'the activity exists, but its item has no successful outcome with it' AS detail
FROM registration.activity a
JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
LEFT JOIN orchestrator.outcome o
       ON (o.batch_id, o.position) = (i.batch_id, i.position) AND o.outcome = 'success' AND o.activity_id = a.activity_id
WHERE o.batch_id IS NULL;

-- name: two_activities_of_an_item
-- Two activities that name one item.
SELECT (array_agg(batch_id))[1] AS batch_id, item_id, 'the item has ' || count(*) || ' activities' AS detail
FROM registration.activity GROUP BY item_id HAVING count(*) > 1;

-- name: activity_differs_from_item
-- An activity with other values than its successful item.
SELECT a.batch_id, a.item_id, 'the activity has other values than its item' AS detail
FROM registration.activity a
JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
JOIN orchestrator.batch b ON b.batch_id = i.batch_id
WHERE i.status = 'success' AND (a.attributed_to, a.registered_by, a.activity_type, a.activity_date, a.duration_minutes, a.notes)
      IS DISTINCT FROM (i.mentor_id, b.coordinator_id, i.activity_type, i.activity_date, i.duration_minutes, i.notes);

-- name: activity_without_audit
-- An activity that does not have exactly one audit row.
SELECT a.batch_id, a.item_id, 'the activity has ' || count(u.activity_id) || ' audit rows, not one' AS detail
FROM registration.activity a
LEFT JOIN registration.audit u ON u.activity_id = a.activity_id AND u.action = 'registered' AND u.batch_id = a.batch_id
GROUP BY a.activity_id, a.batch_id, a.item_id HAVING count(u.activity_id) <> 1;

-- name: revocation_without_audit
-- A revoked activity without exactly one audit row that equals its revocation, or an activity that is not revoked but has such an audit row.
SELECT a.batch_id, a.item_id, 'the activity is ' || CASE WHEN a.revoked_at IS NULL THEN 'not revoked' ELSE 'revoked' END
       || ', but has ' || count(u.activity_id) || ' audit rows of this revocation' AS detail
FROM registration.activity a
LEFT JOIN registration.audit u ON u.activity_id = a.activity_id AND u.action = 'revoked' AND u.batch_id = a.batch_id
      AND (a.revoked_at IS NULL
           OR (u.at, u.submitted_by, u.reason) IS NOT DISTINCT FROM (a.revoked_at, a.revoked_by, a.revocation_reason))
GROUP BY a.activity_id, a.batch_id, a.item_id, a.revoked_at
HAVING count(u.activity_id) <> CAST(a.revoked_at IS NOT NULL AS integer);

-- name: audit_of_no_activity
-- An audit row about an activity that does not exist.
SELECT u.batch_id, NULL AS item_id, 'the activity of an audit row with the action ' || u.action || ' does not exist' AS detail
FROM registration.audit u LEFT JOIN registration.activity a ON a.activity_id = u.activity_id WHERE a.activity_id IS NULL;

-- name: audit_differs_from_activity
-- An audit row that differs from its activity, or has another attempt than the outcome. Rows of earlier versions have fewer values.
SELECT a.batch_id, a.item_id, 'the audit row, ' || u.action || ', says something else than the activity' AS detail
FROM registration.audit u JOIN registration.activity a ON a.activity_id = u.activity_id
LEFT JOIN orchestrator.outcome o ON o.batch_id = a.batch_id AND o.activity_id = a.activity_id
WHERE (u.registered_by, u.attributed_to) <> (a.registered_by, a.attributed_to)
   OR (u.activity_type, u.activity_date, u.duration_minutes, u.item_id) <> (a.activity_type, a.activity_date, a.duration_minutes, a.item_id)
   OR u.action = 'registered' AND u.at <> a.created_at
   OR u.action NOT IN ('registered', 'revoked')
   OR u.attempt <> o.attempt;

-- name: audit_can_be_changed
-- A role with the right to change the audit's rows, or a missing trigger.
SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || r.name || ' may change the audit' AS detail
FROM unnest(ARRAY['bulkreg_worker', 'bulkreg_api']) AS r (name)
WHERE has_table_privilege(r.name, 'registration.audit', 'UPDATE, DELETE, TRUNCATE')
UNION ALL
SELECT NULL, NULL, 'no trigger refuses changes of the audit'
WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('registration.audit') AND tgname = 'audit_is_append_only'
                  AND tgenabled <> 'D');

-- name: webhook_changes_can_be_changed
-- A role with the right to change who changed webhooks, or a missing trigger.
SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || r.name || ' may change the history of webhooks' AS detail
FROM unnest(ARRAY['bulkreg_worker', 'bulkreg_api']) AS r (name)
WHERE has_table_privilege(r.name, 'orchestrator.webhook_change', 'UPDATE, DELETE, TRUNCATE')
UNION ALL
SELECT NULL, NULL, 'no trigger refuses changes of the history of webhooks'
WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('orchestrator.webhook_change')
                  AND tgname = 'webhook_changes_are_append_only' AND tgenabled <> 'D');

-- name: revocation_differs_from_activity
-- An item whose revocation differs from its activity's. If an external service has the activity, the request that it granted counts.
SELECT i.batch_id, i.item_id, 'the item is ' || i.status || CASE WHEN i.revoked_at IS NULL THEN '' ELSE ' and revoked' END
       || ', but the revocation of its activity differs' AS detail
FROM orchestrator.batch_item i LEFT JOIN registration.activity a ON a.item_id = i.item_id AND i.status = 'success'
LEFT JOIN orchestrator.revocation_request r ON (r.batch_id, r.position, r.state) = (i.batch_id, i.position, 'revoked')
      AND a.item_id IS NULL AND i.status = 'success'
WHERE (i.revoked_at, i.revoked_by, i.revocation_reason)
      IS DISTINCT FROM (coalesce(a.revoked_at, r.answered_at), coalesce(a.revoked_by, r.asked_by), coalesce(a.revocation_reason, r.reason));

-- name: request_differs_from_item
-- A request to an external service to revoke an activity, of which the item shows something else; or one of an item that the service has not
-- registered.
SELECT i.batch_id, i.item_id, 'the item shows ' || coalesce(i.revocation_request, 'no request') || ', but its request to revoke is '
       || coalesce(r.state, 'missing') AS detail
FROM orchestrator.batch_item i
FULL JOIN orchestrator.revocation_request r ON (r.batch_id, r.position) = (i.batch_id, i.position)
LEFT JOIN orchestrator.dispatch d ON (d.batch_id, d.position, d.state) = (i.batch_id, i.position, 'registered')
WHERE i.revocation_request IS DISTINCT FROM CASE r.state WHEN 'asked' THEN 'unresolved' WHEN 'refused' THEN r.code END
   OR r.batch_id IS NOT NULL AND d.batch_id IS NULL;

-- 2. There is at most one outcome per (item, attempt), and none of an attempt later than the item's own.

-- name: two_outcomes_of_an_attempt
-- Two outcomes of one attempt. (The primary key prevents them, but a restore may have lost it.)
SELECT batch_id, NULL AS item_id, 'position ' || position || ' has ' || count(*) || ' outcomes of attempt ' || attempt AS detail
FROM orchestrator.outcome GROUP BY batch_id, position, attempt HAVING count(*) > 1;

-- name: outcome_of_a_later_attempt
-- An outcome of an attempt later than the item's own.
SELECT o.batch_id, i.item_id, 'attempt ' || o.attempt || ' has an outcome, but the item is at attempt ' || i.attempt AS detail
FROM orchestrator.outcome o JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE o.attempt > i.attempt;

-- name: outcome_without_item
-- An outcome of a position that the batch does not have.
SELECT o.batch_id, NULL AS item_id, 'position ' || o.position || ' has an outcome, but the batch has no such position' AS detail
FROM orchestrator.outcome o LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE i.batch_id IS NULL;

-- name: attempt_after_success
-- A later attempt after an outcome that allows no retry.
SELECT o.batch_id, i.item_id, 'attempt ' || o.attempt || ' succeeded or was cancelled, but there is a later one' AS detail
FROM orchestrator.outcome o JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE o.outcome <> 'failed' AND o.attempt < i.attempt;

-- 3. A batch's counts equal the number of its items in each state. (verify.py checks the status, with the state machine.)

-- name: counts_differ_from_items
-- A batch whose counts differ from its items' states. An upstream batch has no items until all its parts have arrived; if it was
-- cancelled before, it never gets any.
SELECT b.batch_id, NULL AS item_id, 'the counts of the batch differ from the states of its items' AS detail
FROM orchestrator.batch b
LEFT JOIN (
    SELECT batch_id, count(*) AS total, count(*) FILTER (WHERE status = 'pending') AS pending,
           count(*) FILTER (WHERE status = 'success') AS completed, count(*) FILTER (WHERE status = 'failed') AS failed,
           count(*) FILTER (WHERE status = 'cancelled') AS cancelled
    FROM orchestrator.batch_item GROUP BY batch_id
) i ON i.batch_id = b.batch_id
WHERE (b.total_items, b.pending, b.completed, b.failed, b.cancelled)
      IS DISTINCT FROM (i.total, i.pending, i.completed, i.failed, i.cancelled)
  AND NOT (i.batch_id IS NULL AND b.parts > 1 AND b.completed = 0 AND b.failed = 0
           AND (b.status, b.total_items) IN (('pending', b.pending), ('cancelled', b.cancelled)))
  AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = b.batch_id);

-- name: revoked_differs_from_items
-- A batch whose number of revoked items differs from its items. A batch that is being purged keeps its number.
SELECT b.batch_id, NULL AS item_id, 'the batch counts ' || b.revoked || ' revoked items, but has ' || coalesce(i.revoked, 0) AS detail
FROM orchestrator.batch b
LEFT JOIN (SELECT batch_id, count(revoked_at) AS revoked FROM orchestrator.batch_item GROUP BY batch_id) i ON i.batch_id = b.batch_id
WHERE b.revoked <> coalesce(i.revoked, 0)
  AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = b.batch_id);

-- name: positions_not_contiguous
-- A batch whose positions do not count up from 0.
SELECT batch_id, NULL AS item_id, 'the positions of the items are not 0 to ' || count - 1 AS detail
FROM (SELECT batch_id, min(position), max(position), count(*) FROM orchestrator.batch_item GROUP BY batch_id) AS i
WHERE (min <> 0 OR max <> count - 1) AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = i.batch_id);

-- name: item_without_batch
-- An item of a batch that does not exist.
SELECT i.batch_id, i.item_id, 'the batch of the item does not exist' AS detail
FROM orchestrator.batch_item i LEFT JOIN orchestrator.batch b ON b.batch_id = i.batch_id WHERE b.batch_id IS NULL;

-- 4. A terminal item or batch changes only through retry, cancel or delete. An item is in the state of its outcome.

-- name: item_differs_from_outcome
-- A finished item that differs from the outcome of its attempt.
SELECT i.batch_id, i.item_id, 'the item is ' || i.status || ', but the outcome of its attempt is ' || coalesce(o.outcome, 'missing')
       || CASE WHEN o.outcome = i.status THEN ' with another activity or error' ELSE '' END AS detail
FROM orchestrator.batch_item i
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
WHERE i.status <> 'pending' AND (i.status, i.activity_id, i.error) IS DISTINCT FROM (o.outcome, o.activity_id, o.error);

-- name: pending_item_with_an_answer
-- A pending item with an activity or an error.
SELECT batch_id, item_id, 'the item is pending, but has an activity or an error' AS detail
FROM orchestrator.batch_item WHERE status = 'pending' AND (activity_id IS NOT NULL OR error IS NOT NULL);

-- name: history_not_contiguous
-- An item whose history lacks an attempt before the present one.
SELECT i.batch_id, i.item_id, 'the item is at attempt ' || i.attempt || ', but its history has ' || count(h.attempt)
       || ' earlier attempts' AS detail
FROM orchestrator.batch_item i
LEFT JOIN orchestrator.item_history h ON (h.batch_id, h.position) = (i.batch_id, i.position) AND h.attempt < i.attempt
GROUP BY i.batch_id, i.position, i.item_id, i.attempt HAVING count(h.attempt) <> i.attempt - 1;

-- name: completion_time
-- A batch that is complete without a completion time, or the reverse.
SELECT batch_id, NULL AS item_id, 'the batch is ' || status || CASE WHEN completed_at IS NULL THEN ' without' ELSE ' with' END
       || ' a completion time' AS detail
FROM orchestrator.batch
WHERE (status IN ('completed', 'partial', 'failed') OR status = 'cancelled' AND pending = 0) <> (completed_at IS NOT NULL);

-- name: deleted_while_running
-- A deleted batch that was not finished.
SELECT batch_id, NULL AS item_id, 'the batch is deleted, but was not finished' AS detail
FROM orchestrator.batch WHERE deleted_at IS NOT NULL AND completed_at IS NULL;

-- 5. Every accepted batch becomes terminal: outcomes are folded, and a lost item is sent again a few times and then given up.

-- name: decided_and_not_folded
-- parameters: stuck_after interval
-- A pending item whose attempt was decided some time ago.
SELECT i.batch_id, i.item_id, 'the item was decided at ' || o.created_at || ', but its outcome is not folded: does an aggregator run?'
       AS detail
FROM orchestrator.batch b
JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
WHERE o.created_at < now() - :stuck_after;

-- name: given_up_and_not_answered
-- parameters: max_resends integer
-- A pending item that was sent again too often, but that the sweeper did not give up.
SELECT w.batch_id, i.item_id, 'the item was sent again ' || w.resends || ' times, but not given up: does a sweeper run?' AS detail
FROM orchestrator.sweep_watch w JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (w.batch_id, w.position)
WHERE w.resends > :max_resends AND i.status = 'pending' AND i.attempt = w.attempt;

-- name: waiting_and_not_watched
-- parameters: stuck_after interval
-- A pending item that has waited too long without being watched by a sweeper.
SELECT i.batch_id, i.item_id, 'the item has waited since ' || i.attempt_at || ', the outbox has no event of its batch, and no sweeper'
       || ' watches it: does a sweeper run, and does the broker respond to it?' AS detail
FROM orchestrator.batch b
JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
LEFT JOIN orchestrator.sweep_watch w ON (w.batch_id, w.position, w.attempt) = (i.batch_id, i.position, i.attempt)
WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL)
  AND i.attempt_at < now() - :stuck_after AND o.batch_id IS NULL AND w.batch_id IS NULL
  AND NOT EXISTS (SELECT FROM orchestrator.outbox x WHERE x.batch_id = b.batch_id);

-- name: parts_overdue
-- parameters: parts_patience interval, stuck_after interval
-- An upstream batch that has waited for its parts for too long.
SELECT batch_id, NULL AS item_id, 'the batch has waited for its parts since ' || submitted_at || ': does a sweeper run?' AS detail
FROM orchestrator.batch WHERE status = 'pending' AND submitted_at < now() - :parts_patience - :stuck_after;

-- name: event_waits
-- parameters: trouble_after interval
-- The oldest event of each batch and topic that has waited in the outbox for too long.
SELECT batch_id, NULL AS item_id, 'an event for the topic ' || topic || ' has waited in the outbox since ' || created_at
       || coalesce('; it has been held since ' || held_at || ', because ' || held_for || ' accepts no events: ' || held_why
                   || '; the relay publishes it when that works again', '; does a relay run, and does the topic exist?') AS detail
FROM (SELECT DISTINCT ON (batch_id, topic) * FROM orchestrator.outbox
      WHERE created_at < now() - :trouble_after AND held_for IS DISTINCT FROM 'refused'
      ORDER BY batch_id, topic, outbox_id) AS oldest;

-- name: event_refused
-- The oldest event of each batch and topic that Kafka refuses. The relay does not send it again until it is restarted.
SELECT batch_id, NULL AS item_id, 'Kafka refused an event for the topic ' || topic || ' as it is, at ' || held_at || ': ' || held_why
       || '; correct the topic, then restart the relays' AS detail
FROM (SELECT DISTINCT ON (batch_id, topic) * FROM orchestrator.outbox WHERE held_for = 'refused'
      ORDER BY batch_id, topic, outbox_id) AS oldest;

-- name: queue_stands
-- parameters: trouble_after interval
-- A partition whose consumer does not move although records follow.
SELECT NULL AS batch_id, NULL AS item_id, 'the consumer of ' || topic || '/' || partition || ' has been at offset ' || handled || ' since '
       || stands_since || ', and the partition ends at ' || next_offset || ': does the consumer run, and does an open transaction hide the'
       || ' next records?' AS detail
FROM orchestrator.queue_end WHERE stands_since < now() - :trouble_after AND seen_at > now() - :trouble_after;

-- name: role_restarts
-- parameters: restarts_within interval, max_restarts integer
-- A role that started too often within `restarts_within`.
SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || role || ' started ' || count(*) || ' times on ' || host || ', the last time at '
       || max(started_at) || ': see its log for why it ends' AS detail
FROM orchestrator.role_start WHERE started_at > now() - :restarts_within GROUP BY role, host HAVING count(*) > :max_restarts;

-- name: nothing_decided
-- parameters: batch_stuck_after interval
-- A running batch of which no item was decided for too long.
SELECT b.batch_id, NULL AS item_id, b.pending || ' items wait, and no item of the batch was decided since ' || moved.at AS detail
FROM orchestrator.batch b
JOIN (SELECT batch_id, max(attempt_at) AS at FROM orchestrator.batch_item WHERE status = 'pending' GROUP BY batch_id) AS i
  ON i.batch_id = b.batch_id
LEFT JOIN (SELECT batch_id, max(created_at) AS at FROM orchestrator.outcome GROUP BY batch_id) AS o ON o.batch_id = b.batch_id
CROSS JOIN LATERAL (SELECT greatest(i.at, o.at) AS at) AS moved
WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL) AND moved.at < now() - :batch_stuck_after;

-- 6. No two live unflagged activities share organization, mentor, type and date. For each flagged one there is an unflagged one.

-- name: two_unflagged
-- Two live unflagged activities of one mentor, type and date. (A unique index prevents them, but a restore may have lost it.)
SELECT (array_agg(batch_id))[1] AS batch_id, (array_agg(item_id))[1] AS item_id,
       count(*) || ' live unflagged activities of one mentor, type and date' AS detail
FROM registration.activity WHERE NOT overrides_duplicate AND revoked_at IS NULL
GROUP BY organization_id, attributed_to, activity_type, activity_date HAVING count(*) > 1;

-- name: flagged_alone
-- An activity that is flagged as a duplicate although there is no other.
SELECT f.batch_id, f.item_id, 'the activity is flagged as a duplicate, but there is no other' AS detail
FROM registration.activity f
LEFT JOIN registration.activity u
       ON (u.organization_id, u.attributed_to, u.activity_type, u.activity_date)
          = (f.organization_id, f.attributed_to, f.activity_type, f.activity_date)
      AND NOT u.overrides_duplicate AND u.revoked_at IS NULL
WHERE f.overrides_duplicate AND f.revoked_at IS NULL AND u.activity_id IS NULL;

-- 7. No outcome of a batch is newer than its cancel, except for items that had been sent to an external service before.

-- name: outcome_after_cancel
-- An outcome newer than the cancel of its batch, for an item that was not sent to an external service before the cancel.
SELECT o.batch_id, i.item_id, 'the item was decided at ' || o.created_at || ', after the cancel at ' || b.cancelled_at AS detail
FROM orchestrator.batch b
JOIN orchestrator.outcome o ON o.batch_id = b.batch_id AND o.created_at > b.cancelled_at
LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE NOT EXISTS (SELECT FROM orchestrator.dispatch d
                  WHERE (d.batch_id, d.position) = (o.batch_id, o.position) AND d.dispatched_at <= b.cancelled_at);

-- 8. Replaying changes nothing: a purged batch does not come back. (1, 2 and 4 find other effects of a repetition; `bulkreg replay`
-- compares with the topics.)

-- name: purged_and_alive
-- A batch that was purged but exists.
SELECT b.batch_id, NULL AS item_id, 'the batch was purged at ' || t.purged_at || ', but still exists' AS detail
FROM orchestrator.tombstone t JOIN orchestrator.batch b ON b.batch_id = t.batch_id
WHERE b.deleted_at IS NULL OR b.deleted_at > t.purged_at;

-- name: registered_after_purge
-- An activity that was registered after the purge of its batch.
SELECT a.batch_id, a.item_id, 'the activity was registered at ' || a.created_at || ', after the purge of its batch at ' || t.purged_at
       AS detail
FROM orchestrator.tombstone t JOIN registration.activity a ON a.batch_id = t.batch_id WHERE a.created_at > t.purged_at;

-- 9. No row of one organization is reachable with another's token: all rows of a batch have its organization (checks.py), and the
-- policies are in place.

-- name: organization_of_purged
-- An activity whose organization is not that of its purged batch.
SELECT a.batch_id, a.item_id, 'the activity belongs to another organization than its batch did' AS detail
FROM orchestrator.tombstone t JOIN registration.activity a ON a.batch_id = t.batch_id
WHERE a.organization_id <> t.organization_id;

-- name: row_level_security
-- A table with organizations on which row level security is not forced.
SELECT NULL AS batch_id, NULL AS item_id, 'row level security is not forced on ' || n.nspname || '.' || c.relname AS detail
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
WHERE n.nspname IN ('orchestrator', 'registration') AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity);

-- name: api_role
-- The API's role, if row level security does not apply to it.
SELECT NULL AS batch_id, NULL AS item_id, 'row level security does not apply to the API''s role' AS detail
FROM pg_roles r WHERE r.rolname = 'bulkreg_api'
  AND (r.rolsuper OR r.rolbypassrls OR EXISTS (
       SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relowner = r.oid AND n.nspname IN ('orchestrator', 'registration')));

-- name: api_policy
-- A table without a policy that limits the API to the organizations of its transaction, or to the one session that it names.
SELECT NULL AS batch_id, NULL AS item_id, n.nspname || '.' || c.relname
       || coalesce(': the policy ' || p.polname || ' does not limit the API to the organizations of its transaction',
                   ' has no policy for the API') AS detail
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
JOIN pg_roles r ON r.rolname = 'bulkreg_api'
LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polpermissive AND p.polroles && ARRAY[0, r.oid]
WHERE n.nspname IN ('orchestrator', 'registration') AND c.relkind = 'r'
  AND coalesce(pg_get_expr(p.polqual, c.oid), '') <> CASE n.nspname || '.' || c.relname
      WHEN 'orchestrator.console_session'
      THEN '(session_hash = decode(current_setting(''bulkreg.console_session''::text, true), ''hex''::text))'
      ELSE '(organization_id = ANY (orchestrator.visible_organizations()))' END;

-- name: api_grants
-- A table that the API must not change, but has the right to.
SELECT NULL AS batch_id, NULL AS item_id, 'the API''s role may change ' || t.name AS detail
FROM unnest(ARRAY['orchestrator.outcome', 'registration.activity', 'registration.audit']) AS t (name)
WHERE has_table_privilege('bulkreg_api', t.name, 'UPDATE, DELETE, TRUNCATE');

-- 10. Notes appear in none of our events and in no error. (Logs, metrics and traces are not in the database: tests check them.)

-- name: notes_in_outbox
-- An event that has a field `notes`.
SELECT batch_id, NULL AS item_id, 'an event in the outbox has a field named notes' AS detail
FROM orchestrator.outbox WHERE position('"notes"'::bytea IN value) > 0;

-- name: notes_in_error
-- An error of the present attempt that quotes the attempt's notes.
SELECT batch_id, item_id, 'the error quotes the notes' AS detail FROM orchestrator.batch_item
WHERE error IS NOT NULL AND length(notes) >= 8 AND strpos(error ->> 'message', notes) > 0;

-- name: notes_in_history
-- An error of an earlier attempt that quotes that attempt's notes.
SELECT batch_id, NULL AS item_id, 'the error of position ' || position || ', attempt ' || attempt || ' quotes the notes' AS detail
FROM orchestrator.item_history
WHERE length(submitted ->> 'notes') >= 8 AND strpos(error ->> 'message', submitted ->> 'notes') > 0;

-- name: erased_notes_are_back
-- Notes of an item or its activity that were erased. A later attempt may have got new notes.
SELECT e.batch_id, e.item_id, 'the notes were erased at ' || e.erased_at || ', but are there again' AS detail
FROM registration.notes_erasure e
LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (e.batch_id, e.position, e.attempt) AND i.notes IS NOT NULL
LEFT JOIN orchestrator.item_history h
       ON (h.batch_id, h.position) = (e.batch_id, e.position) AND h.attempt <= e.attempt AND h.submitted ->> 'notes' IS NOT NULL
LEFT JOIN registration.activity a ON a.item_id = e.item_id AND a.notes IS NOT NULL
      AND NOT EXISTS (SELECT FROM orchestrator.batch_item l WHERE (l.batch_id, l.position) = (e.batch_id, e.position) AND l.attempt > e.attempt)
WHERE coalesce(i.batch_id, h.batch_id, a.batch_id) IS NOT NULL;

-- name: notes_erasures_can_be_changed
-- A role with the right to change which notes were erased, or a missing trigger.
SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || r.name || ' may change which notes were erased' AS detail
FROM unnest(ARRAY['bulkreg_worker', 'bulkreg_api']) AS r (name)
WHERE has_table_privilege(r.name, 'registration.notes_erasure', 'UPDATE, DELETE, TRUNCATE')
UNION ALL
SELECT NULL, NULL, 'no trigger refuses changes of the erased notes'
WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('registration.notes_erasure')
                  AND tgname = 'notes_erasures_are_append_only' AND tgenabled <> 'D');

-- 11. While a period is closed, no activity in it is registered or revoked.

-- name: changed_in_closed_period
-- A registration or revocation whose audit row was written after its period was closed, and before it was reopened. Audit ids and not times are
-- compared, because a clock can be set back: a closing waits for every running registration, so later audit rows have a higher id.
SELECT u.batch_id, a.item_id, 'the activity of ' || a.activity_date || ' was ' || u.action || ' at ' || u.at
       || ', but the period was closed through ' || p.closed_through || ' at ' || p.changed_at AS detail
FROM registration.period_change p
JOIN registration.audit u ON u.organization_id = p.organization_id AND u.audit_id > p.last_audit_id
JOIN registration.activity a ON a.activity_id = u.activity_id AND a.activity_date <= p.closed_through
LEFT JOIN registration.period_change later ON (later.organization_id, later.number) = (p.organization_id, p.number + 1)
WHERE later.last_audit_id IS NULL OR u.audit_id <= later.last_audit_id;

-- name: period_differs_from_history
-- An organization whose closed period is not what its newest change says, or a change that does not follow from the one before.
SELECT NULL AS batch_id, NULL AS item_id, 'the closed period of ' || organization_id || ' differs from its history' AS detail
FROM registration.organization o
FULL JOIN (SELECT DISTINCT ON (organization_id) * FROM registration.period_change ORDER BY organization_id, number DESC) AS p
     USING (organization_id)
WHERE o.closed_through IS DISTINCT FROM p.closed_through
UNION ALL
SELECT NULL, NULL, 'change ' || number || ' of the closed period of ' || organization_id || ' does not follow from the change before'
FROM (SELECT *, lag(closed_through) OVER w AS before, row_number() OVER w AS place FROM registration.period_change
      WINDOW w AS (PARTITION BY organization_id ORDER BY number)) AS c
WHERE previously IS DISTINCT FROM before OR number <> place;

-- name: period_history_can_be_changed
-- A role with the right to change the history of closed periods, or a missing trigger.
SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || r.name || ' may change the history of closed periods' AS detail
FROM unnest(ARRAY['bulkreg_worker', 'bulkreg_api']) AS r (name)
WHERE has_table_privilege(r.name, 'registration.period_change', 'UPDATE, DELETE, TRUNCATE')
UNION ALL
SELECT NULL, NULL, 'no trigger refuses changes of the history of closed periods'
WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('registration.period_change')
                  AND tgname = 'period_changes_are_append_only' AND tgenabled <> 'D');
