-- The checks of the invariants (docs/invariants.md): each finds the rows that breach one, and returns batch_id, item_id and a
-- detail that quotes no notes. They rely on no index, which a restore may have lost, and read whole tables with hash joins in one
-- read-only snapshot (verify.py): they lock nothing that anybody waits for.

-- 1. One activity per successful item, no activity for any other, none that names a batch without such an item.

-- name: success_without_activity
-- A successful item whose activity does not exist or is another one. Registered through an external service, the activity is the
-- service's, and its answer is in the dispatch row.
SELECT i.batch_id, i.item_id, 'the item succeeded, and its activity does not exist' AS detail
FROM orchestrator.batch_item i LEFT JOIN registration.activity a ON a.item_id = i.item_id
WHERE i.status = 'success' AND a.activity_id IS DISTINCT FROM i.activity_id
  AND NOT EXISTS (SELECT FROM orchestrator.dispatch d
                  WHERE (d.batch_id, d.position) = (i.batch_id, i.position) AND d.state = 'registered');

-- name: success_differs_from_answer
-- A successful item with another activity than the external service named, or a cancelled one that the service has registered or
-- may have.
SELECT i.batch_id, i.item_id, 'the item is ' || i.status || ', and the external service said ' || d.state AS detail
FROM orchestrator.dispatch d JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
WHERE i.status = 'success' AND d.state = 'registered' AND d.activity_id <> i.activity_id
   OR i.status = 'cancelled' AND d.state IN ('asked', 'registered');

-- name: registered_inside_and_asked_outside
-- An activity of ours for an item that an external service was asked for as well.
SELECT i.batch_id, i.item_id, 'the activity exists, and the external service has one, too, or may have' AS detail
FROM orchestrator.dispatch d JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
JOIN registration.activity a ON a.item_id = i.item_id
WHERE d.state IN ('asked', 'registered');

-- name: activity_without_item
-- An activity that names an item its batch does not have. What is being purged has its tombstone already, and loses its rows a
-- chunk at a time.
SELECT a.batch_id, a.item_id, 'the activity names an item that its batch does not have' AS detail
FROM registration.activity a
LEFT JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
WHERE i.item_id IS NULL AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = a.batch_id);

-- name: activity_without_success
-- An activity whose item has no successful outcome with that activity.
SELECT a.batch_id, a.item_id, 'the activity exists, and its item has no successful outcome' AS detail
FROM registration.activity a
JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
LEFT JOIN orchestrator.outcome o
       ON (o.batch_id, o.position) = (i.batch_id, i.position) AND o.outcome = 'success' AND o.activity_id = a.activity_id
WHERE o.batch_id IS NULL;

-- name: two_activities_of_an_item
-- Two activities that name one item.
SELECT (array_agg(batch_id))[1] AS batch_id, item_id, count(*) || ' activities name the item' AS detail
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
SELECT a.batch_id, a.item_id, count(u.activity_id) || ' audit rows for the activity' AS detail
FROM registration.activity a
LEFT JOIN registration.audit u ON u.activity_id = a.activity_id AND u.action = 'registered' AND u.batch_id = a.batch_id
GROUP BY a.activity_id, a.batch_id, a.item_id HAVING count(u.activity_id) <> 1;

-- name: revocation_without_audit
-- An activity whose revocation is not what one audit row says, or an audit row of a revocation whose activity is alive.
SELECT a.batch_id, a.item_id, count(u.activity_id) || ' audit rows tell its revocation, and it is '
       || CASE WHEN a.revoked_at IS NULL THEN 'alive' ELSE 'revoked' END AS detail
FROM registration.activity a
LEFT JOIN registration.audit u ON u.activity_id = a.activity_id AND u.action = 'revoked' AND u.batch_id = a.batch_id
      AND (a.revoked_at IS NULL
           OR (u.at, u.submitted_by, u.reason) IS NOT DISTINCT FROM (a.revoked_at, a.revoked_by, a.revocation_reason))
GROUP BY a.activity_id, a.batch_id, a.item_id, a.revoked_at
HAVING count(u.activity_id) <> CAST(a.revoked_at IS NOT NULL AS integer);

-- name: audit_of_no_activity
-- An audit row about an activity that does not exist.
SELECT u.batch_id, NULL AS item_id, 'an audit row, ' || u.action || ', is about no activity' AS detail
FROM registration.audit u LEFT JOIN registration.activity a ON a.activity_id = u.activity_id WHERE a.activity_id IS NULL;

-- name: revocation_differs_from_activity
-- An item that says something else of its revocation than its activity does.
SELECT i.batch_id, i.item_id, 'the item is ' || i.status || CASE WHEN i.revoked_at IS NULL THEN '' ELSE ' and revoked' END
       || ', and its activity says otherwise' AS detail
FROM orchestrator.batch_item i LEFT JOIN registration.activity a ON a.item_id = i.item_id AND i.status = 'success'
WHERE (i.revoked_at, i.revoked_by, i.revocation_reason) IS DISTINCT FROM (a.revoked_at, a.revoked_by, a.revocation_reason);

-- 2. At most one outcome per (item, attempt); no attempt above the item's own.

-- name: two_outcomes_of_an_attempt
-- Two outcomes of one attempt; the primary key may be missing after a restore.
SELECT batch_id, NULL AS item_id, 'position ' || position || ' has ' || count(*) || ' outcomes of attempt ' || attempt AS detail
FROM orchestrator.outcome GROUP BY batch_id, position, attempt HAVING count(*) > 1;

-- name: outcome_of_a_later_attempt
-- An outcome of an attempt above the item's own.
SELECT o.batch_id, i.item_id, 'an outcome of attempt ' || o.attempt || ', and the item is at ' || i.attempt AS detail
FROM orchestrator.outcome o JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE o.attempt > i.attempt;

-- name: outcome_without_item
-- An outcome of a position that the batch does not have.
SELECT o.batch_id, NULL AS item_id, 'an outcome of position ' || o.position || ', which the batch does not have' AS detail
FROM orchestrator.outcome o LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE i.batch_id IS NULL;

-- name: attempt_after_success
-- An outcome that allows no retry, and a later attempt.
SELECT o.batch_id, i.item_id, 'attempt ' || o.attempt || ' succeeded or was cancelled, and there is a later one' AS detail
FROM orchestrator.outcome o JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE o.outcome <> 'failed' AND o.attempt < i.attempt;

-- 3. Batch counts equal the count of its items' states. (The status is checked beside the state machine, in Python.)

-- name: counts_differ_from_items
-- A batch whose counts are not those of its items' states. An upstream batch whose parts have not all come has no items yet; one
-- that was cancelled then never gets any.
SELECT b.batch_id, NULL AS item_id, 'the counts are not those of the items' AS detail
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
-- A batch whose number of revoked items is not that of its items. One that is being purged keeps the number that it had.
SELECT b.batch_id, NULL AS item_id, 'revoked is ' || b.revoked || ', and ' || coalesce(i.revoked, 0) || ' items are' AS detail
FROM orchestrator.batch b
LEFT JOIN (SELECT batch_id, count(revoked_at) AS revoked FROM orchestrator.batch_item GROUP BY batch_id) i ON i.batch_id = b.batch_id
WHERE b.revoked <> coalesce(i.revoked, 0)
  AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = b.batch_id);

-- name: positions_not_contiguous
-- A batch whose positions do not count up from 0.
SELECT batch_id, NULL AS item_id, 'the positions are not 0 to ' || count - 1 AS detail
FROM (SELECT batch_id, min(position), max(position), count(*) FROM orchestrator.batch_item GROUP BY batch_id) AS i
WHERE (min <> 0 OR max <> count - 1) AND NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = i.batch_id);

-- name: item_without_batch
-- An item of a batch that does not exist.
SELECT i.batch_id, i.item_id, 'the item has no batch' AS detail
FROM orchestrator.batch_item i LEFT JOIN orchestrator.batch b ON b.batch_id = i.batch_id WHERE b.batch_id IS NULL;

-- 4. A terminal item or batch never changes again except through retry, cancel or delete: it is what its outcome says.

-- name: item_differs_from_outcome
-- A finished item that differs from the outcome of its attempt.
SELECT i.batch_id, i.item_id, 'the item is ' || i.status || ', and the outcome of its attempt ' || coalesce(o.outcome, 'missing')
       || CASE WHEN o.outcome = i.status THEN ', with another activity or error' ELSE '' END AS detail
FROM orchestrator.batch_item i
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
WHERE i.status <> 'pending' AND (i.status, i.activity_id, i.error) IS DISTINCT FROM (o.outcome, o.activity_id, o.error);

-- name: pending_item_with_an_answer
-- A pending item with an activity or an error.
SELECT batch_id, item_id, 'the item is pending, and has an activity or an error' AS detail
FROM orchestrator.batch_item WHERE status = 'pending' AND (activity_id IS NOT NULL OR error IS NOT NULL);

-- name: history_not_contiguous
-- An item whose history does not have every attempt before the present one.
SELECT i.batch_id, i.item_id, 'the item is at attempt ' || i.attempt || ', and its history has ' || count(h.attempt) AS detail
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
SELECT batch_id, NULL AS item_id, 'the batch is deleted and not finished' AS detail
FROM orchestrator.batch WHERE deleted_at IS NOT NULL AND completed_at IS NULL;

-- 5. Every accepted batch ends terminal: what is decided is folded, what is lost is sent again a few times and then answered.

-- name: decided_and_not_folded
-- parameters: stuck_after interval
-- A pending item whose attempt was decided some time ago.
SELECT i.batch_id, i.item_id, 'decided at ' || o.created_at || ' and not folded since' AS detail
FROM orchestrator.batch b
JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
WHERE o.created_at < now() - :stuck_after;

-- name: given_up_and_not_answered
-- parameters: max_resends integer
-- A pending item that was sent again too often, and that nobody gave up.
SELECT w.batch_id, i.item_id, 'sent again ' || w.resends || ' times' AS detail
FROM orchestrator.sweep_watch w JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (w.batch_id, w.position)
WHERE w.resends > :max_resends AND i.status = 'pending' AND i.attempt = w.attempt;

-- name: waiting_and_not_watched
-- parameters: stuck_after interval
-- A pending item that waits too long, and that no sweeper watches.
SELECT i.batch_id, i.item_id, 'waits since ' || i.attempt_at || ', nothing of its batch is about to be published, and no sweeper'
       || ' watches it: does one run, and does the broker answer it?' AS detail
FROM orchestrator.batch b
JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
LEFT JOIN orchestrator.sweep_watch w ON (w.batch_id, w.position, w.attempt) = (i.batch_id, i.position, i.attempt)
WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL)
  AND i.attempt_at < now() - :stuck_after AND o.batch_id IS NULL AND w.batch_id IS NULL
  AND NOT EXISTS (SELECT FROM orchestrator.outbox x WHERE x.batch_id = b.batch_id);

-- name: parts_overdue
-- parameters: parts_patience interval, stuck_after interval
-- An upstream batch that waits for its parts for too long.
SELECT batch_id, NULL AS item_id, 'waits for parts since ' || submitted_at AS detail
FROM orchestrator.batch WHERE status = 'pending' AND submitted_at < now() - :parts_patience - :stuck_after;

-- name: event_waits
-- parameters: trouble_after interval
-- The oldest event of each batch and topic that waits in the outbox for too long.
SELECT batch_id, NULL AS item_id, 'an event for the topic ' || topic || ' waits in the outbox since ' || created_at
       || coalesce('; it is set aside since ' || held_at || ', because ' || held_for || ' takes no events: ' || held_why
                   || '; it goes out by itself when that works again', '; does a relay run, and does the topic exist?') AS detail
FROM (SELECT DISTINCT ON (batch_id, topic) * FROM orchestrator.outbox
      WHERE created_at < now() - :trouble_after AND held_for IS DISTINCT FROM 'refused'
      ORDER BY batch_id, topic, outbox_id) AS oldest;

-- name: event_refused
-- The oldest event of each batch and topic that Kafka refuses. It does not go out by itself, however long it waits.
SELECT batch_id, NULL AS item_id, 'Kafka refuses an event for the topic ' || topic || ' as it is, since ' || held_at || ': ' || held_why
       || '; put the topic right, then restart the relays' AS detail
FROM (SELECT DISTINCT ON (batch_id, topic) * FROM orchestrator.outbox WHERE held_for = 'refused'
      ORDER BY batch_id, topic, outbox_id) AS oldest;

-- name: queue_stands
-- parameters: trouble_after interval
-- A partition whose consumer does not move, though records follow.
SELECT NULL AS batch_id, NULL AS item_id, topic || '/' || partition || ' stands at ' || handled || ' since ' || stands_since
       || ', and ends at ' || next_offset || ': does its consumer run, and does a transaction hide what comes next?' AS detail
FROM orchestrator.queue_end WHERE stands_since < now() - :trouble_after AND seen_at > now() - :trouble_after;

-- name: role_restarts
-- parameters: restarts_within interval, max_restarts integer
-- A role that began too often within the last while.
SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || role || ' began ' || count(*) || ' times on ' || host || ', the last time at '
       || max(started_at) || ': its log says why it ends' AS detail
FROM orchestrator.role_start WHERE started_at > now() - :restarts_within GROUP BY role, host HAVING count(*) > :max_restarts;

-- name: nothing_decided
-- parameters: batch_stuck_after interval
-- A running batch of which nothing was decided for too long.
SELECT b.batch_id, NULL AS item_id, b.pending || ' items wait, and nothing of the batch was decided since ' || moved.at AS detail
FROM orchestrator.batch b
JOIN (SELECT batch_id, max(attempt_at) AS at FROM orchestrator.batch_item WHERE status = 'pending' GROUP BY batch_id) AS i
  ON i.batch_id = b.batch_id
LEFT JOIN (SELECT batch_id, max(created_at) AS at FROM orchestrator.outcome GROUP BY batch_id) AS o ON o.batch_id = b.batch_id
CROSS JOIN LATERAL (SELECT greatest(i.at, o.at) AS at) AS moved
WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL) AND moved.at < now() - :batch_stuck_after;

-- 6. No two live unflagged activities share organization, mentor, type and date; no flagged one without an unflagged one.

-- name: two_unflagged
-- Two live unflagged activities of one mentor, type and date; the unique index may be missing after a restore.
SELECT (array_agg(batch_id))[1] AS batch_id, (array_agg(item_id))[1] AS item_id,
       count(*) || ' live unflagged activities of one mentor, type and date' AS detail
FROM registration.activity WHERE NOT overrides_duplicate AND revoked_at IS NULL
GROUP BY organization_id, attributed_to, activity_type, activity_date HAVING count(*) > 1;

-- name: flagged_alone
-- An activity that is flagged as a duplicate of none.
SELECT f.batch_id, f.item_id, 'flagged as a duplicate, and there is no other' AS detail
FROM registration.activity f
LEFT JOIN registration.activity u
       ON (u.organization_id, u.attributed_to, u.activity_type, u.activity_date)
          = (f.organization_id, f.attributed_to, f.activity_type, f.activity_date)
      AND NOT u.overrides_duplicate AND u.revoked_at IS NULL
WHERE f.overrides_duplicate AND f.revoked_at IS NULL AND u.activity_id IS NULL;

-- 7. After a cancel has returned, no outcome of that batch is newer than it, but for requests that were on their way already.

-- name: outcome_after_cancel
-- An outcome that is newer than the cancel of its batch, and for which no request was on its way.
SELECT o.batch_id, i.item_id, 'decided at ' || o.created_at || ', after the cancel at ' || b.cancelled_at AS detail
FROM orchestrator.batch b
JOIN orchestrator.outcome o ON o.batch_id = b.batch_id AND o.created_at > b.cancelled_at
LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
WHERE b.cancelled_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM orchestrator.dispatch d
                  WHERE (d.batch_id, d.position) = (o.batch_id, o.position) AND d.dispatched_at <= b.cancelled_at);

-- 8. Replaying changes nothing: what was purged stays away. (What else a repetition could do is what 1, 2 and 4 look for; what is
-- on the topics is compared by `bulkreg replay`.)

-- name: purged_and_alive
-- A batch that was purged and is there.
SELECT b.batch_id, NULL AS item_id, 'the batch was purged at ' || t.purged_at || ', and is there' AS detail
FROM orchestrator.tombstone t JOIN orchestrator.batch b ON b.batch_id = t.batch_id
WHERE b.deleted_at IS NULL OR b.deleted_at > t.purged_at;

-- name: registered_after_purge
-- An activity that was registered after the purge of its batch.
SELECT a.batch_id, a.item_id, 'registered at ' || a.created_at || ', and the batch was purged at ' || t.purged_at AS detail
FROM orchestrator.tombstone t JOIN registration.activity a ON a.batch_id = t.batch_id WHERE a.created_at > t.purged_at;

-- 9. No row of one organization is reachable with another's token: rows of a batch agree on whose they are (checks.py), and the
-- policies stand.

-- name: organization_of_purged
-- An activity of another organization than its purged batch had.
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
-- The API's role, if row level security does not hold for it.
SELECT NULL AS batch_id, NULL AS item_id, 'the API''s role passes by row level security' AS detail
FROM pg_roles r WHERE r.rolname = 'bulkreg_api'
  AND (r.rolsuper OR r.rolbypassrls OR EXISTS (
       SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relowner = r.oid AND n.nspname IN ('orchestrator', 'registration')));

-- name: api_policy
-- A policy that lets the API see more than the organizations of its transaction.
SELECT NULL AS batch_id, NULL AS item_id, coalesce('the policy ' || p.polname, 'no policy') || ' lets the API see rows of '
       || n.nspname || '.' || c.relname AS detail
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
JOIN pg_roles r ON r.rolname = 'bulkreg_api'
LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polpermissive AND p.polroles && ARRAY[0, r.oid]
WHERE n.nspname IN ('orchestrator', 'registration') AND c.relkind = 'r'
  AND coalesce(pg_get_expr(p.polqual, c.oid), '') <> '(organization_id = ANY (orchestrator.visible_organizations()))';

-- name: api_grants
-- A right of the API to change what it must not change.
SELECT NULL AS batch_id, NULL AS item_id, 'the API''s role may change ' || t.name AS detail
FROM unnest(ARRAY['orchestrator.outcome', 'registration.activity', 'registration.audit']) AS t (name)
WHERE has_table_privilege('bulkreg_api', t.name, 'UPDATE, DELETE, TRUNCATE');

-- 10. Notes appear in no event of ours and in no error. (Logs, metrics and traces are not in the database: tests look there.)

-- name: notes_in_outbox
-- An event that has a field `notes`.
SELECT batch_id, NULL AS item_id, 'an event in the outbox has a field notes' AS detail
FROM orchestrator.outbox WHERE position('"notes"'::bytea IN value) > 0;

-- name: notes_in_error
-- An error of the present attempt that quotes the notes it was made with.
SELECT batch_id, item_id, 'the error quotes the notes' AS detail FROM orchestrator.batch_item
WHERE error IS NOT NULL AND length(notes) >= 8 AND strpos(error ->> 'message', notes) > 0;

-- name: notes_in_history
-- An error of an earlier attempt that quotes the notes it was made with.
SELECT batch_id, NULL AS item_id, 'the error of position ' || position || ', attempt ' || attempt || ' quotes the notes' AS detail
FROM orchestrator.item_history
WHERE length(submitted ->> 'notes') >= 8 AND strpos(error ->> 'message', submitted ->> 'notes') > 0;
