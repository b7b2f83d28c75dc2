"""The checks in SQL: each finds the rows that breach one invariant, and answers batch_id, item_id and a detail that quotes no notes.

What is merely in flight is no breach: an outcome that is not folded yet, an item that waits. All run in one snapshot, read only, on
whole tables at a time, so that millions of rows take minutes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One way in which an invariant can be breached."""

    invariant: int
    name: str
    sql: str


# Registered through an external service: its activity is the service's, and its answer is in the dispatch row.
_REGISTERED_OUTSIDE = """EXISTS (SELECT FROM orchestrator.dispatch d
                                 WHERE (d.batch_id, d.position) = (i.batch_id, i.position) AND d.state = 'registered')"""

# What is being purged has its tombstone already, and loses its rows a chunk at a time.
_NOT_PURGED = "NOT EXISTS (SELECT FROM orchestrator.tombstone t WHERE t.batch_id = {table}.batch_id)"

CHECKS: tuple[Check, ...] = (
    # 1. One activity per successful item, no activity for any other, none naming a batch that has no such item.
    Check(
        1,
        "success_without_activity",
        f"""
        SELECT i.batch_id, i.item_id, 'the item succeeded, and its activity does not exist' AS detail
        FROM orchestrator.batch_item i LEFT JOIN registration.activity a ON a.item_id = i.item_id
        WHERE i.status = 'success' AND a.activity_id IS DISTINCT FROM i.activity_id AND NOT {_REGISTERED_OUTSIDE}
        """,
    ),
    Check(
        1,
        "success_differs_from_answer",
        """
        SELECT i.batch_id, i.item_id, 'the item is ' || i.status || ', and the external service said ' || d.state AS detail
        FROM orchestrator.dispatch d JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
        WHERE i.status = 'success' AND d.state = 'registered' AND d.activity_id <> i.activity_id
           OR i.status = 'cancelled' AND d.state IN ('asked', 'registered')
        """,
    ),
    Check(
        1,
        "registered_inside_and_asked_outside",
        """
        SELECT i.batch_id, i.item_id, 'the activity exists, and the external service has one, too, or may have' AS detail
        FROM orchestrator.dispatch d JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (d.batch_id, d.position)
        JOIN registration.activity a ON a.item_id = i.item_id
        WHERE d.state IN ('asked', 'registered')
        """,
    ),
    Check(
        1,
        "activity_without_item",
        f"""
        SELECT a.batch_id, a.item_id, 'the activity names an item that its batch does not have' AS detail
        FROM registration.activity a
        LEFT JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
        WHERE i.item_id IS NULL AND {_NOT_PURGED.format(table="a")}
        """,
    ),
    Check(
        1,
        "activity_without_success",
        """
        SELECT a.batch_id, a.item_id, 'the activity exists, and its item has no successful outcome' AS detail
        FROM registration.activity a
        JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
        LEFT JOIN orchestrator.outcome o
               ON (o.batch_id, o.position) = (i.batch_id, i.position) AND o.outcome = 'success' AND o.activity_id = a.activity_id
        WHERE o.batch_id IS NULL
        """,
    ),
    Check(
        1,
        "two_activities_of_an_item",
        """
        SELECT (array_agg(batch_id))[1] AS batch_id, item_id, count(*) || ' activities name the item' AS detail
        FROM registration.activity GROUP BY item_id HAVING count(*) > 1
        """,
    ),
    Check(
        1,
        "activity_differs_from_item",
        """
        SELECT a.batch_id, a.item_id, 'the activity has other values than its item' AS detail
        FROM registration.activity a
        JOIN orchestrator.batch_item i ON i.item_id = a.item_id AND i.batch_id = a.batch_id
        JOIN orchestrator.batch b ON b.batch_id = i.batch_id
        WHERE i.status = 'success' AND (a.attributed_to, a.registered_by, a.activity_type, a.activity_date, a.duration_minutes, a.notes)
              IS DISTINCT FROM (i.mentor_id, b.coordinator_id, i.activity_type, i.activity_date, i.duration_minutes, i.notes)
        """,
    ),
    Check(
        1,
        "activity_without_audit",
        """
        SELECT a.batch_id, a.item_id, count(u.activity_id) || ' audit rows for the activity' AS detail
        FROM registration.activity a
        LEFT JOIN registration.audit u ON u.activity_id = a.activity_id AND u.action = 'registered' AND u.batch_id = a.batch_id
        GROUP BY a.activity_id, a.batch_id, a.item_id HAVING count(u.activity_id) <> 1
        """,
    ),
    # 2. At most one outcome per (item, attempt); no attempt above the item's own.
    Check(
        2,
        "two_outcomes_of_an_attempt",
        """
        SELECT batch_id, NULL AS item_id, 'position ' || position || ' has ' || count(*) || ' outcomes of attempt ' || attempt AS detail
        FROM orchestrator.outcome GROUP BY batch_id, position, attempt HAVING count(*) > 1
        """,
    ),
    Check(
        2,
        "outcome_of_a_later_attempt",
        """
        SELECT o.batch_id, i.item_id, 'an outcome of attempt ' || o.attempt || ', and the item is at ' || i.attempt AS detail
        FROM orchestrator.outcome o JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
        WHERE o.attempt > i.attempt
        """,
    ),
    Check(
        2,
        "outcome_without_item",
        """
        SELECT o.batch_id, NULL AS item_id, 'an outcome of position ' || o.position || ', which the batch does not have' AS detail
        FROM orchestrator.outcome o LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
        WHERE i.batch_id IS NULL
        """,
    ),
    Check(
        2,
        "attempt_after_success",
        """
        SELECT o.batch_id, i.item_id, 'attempt ' || o.attempt || ' succeeded or was cancelled, and there is a later one' AS detail
        FROM orchestrator.outcome o JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
        WHERE o.outcome <> 'failed' AND o.attempt < i.attempt
        """,
    ),
    # 3. Batch counts equal the count of its items' states. (The status is checked beside the state machine, in Python.)
    Check(
        3,
        "counts_differ_from_items",
        f"""
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
          -- An upstream batch whose parts have not all come has no items yet; one that was cancelled then never gets any.
          AND NOT (i.batch_id IS NULL AND b.parts > 1 AND b.completed = 0 AND b.failed = 0
                   AND (b.status, b.total_items) IN (('pending', b.pending), ('cancelled', b.cancelled)))
          AND {_NOT_PURGED.format(table="b")}
        """,
    ),
    Check(
        3,
        "positions_not_contiguous",
        f"""
        SELECT batch_id, NULL AS item_id, 'the positions are not 0 to ' || count - 1 AS detail
        FROM (SELECT batch_id, min(position), max(position), count(*) FROM orchestrator.batch_item GROUP BY batch_id) AS i
        WHERE (min <> 0 OR max <> count - 1) AND {_NOT_PURGED.format(table="i")}
        """,
    ),
    Check(
        3,
        "item_without_batch",
        """
        SELECT i.batch_id, i.item_id, 'the item has no batch' AS detail
        FROM orchestrator.batch_item i LEFT JOIN orchestrator.batch b ON b.batch_id = i.batch_id WHERE b.batch_id IS NULL
        """,
    ),
    # 4. A terminal item or batch never changes again except through retry, cancel or delete: it is what its outcome says.
    Check(
        4,
        "item_differs_from_outcome",
        """
        SELECT i.batch_id, i.item_id, 'the item is ' || i.status || ', and the outcome of its attempt ' || coalesce(o.outcome, 'missing')
               || CASE WHEN o.outcome = i.status THEN ', with another activity or error' ELSE '' END AS detail
        FROM orchestrator.batch_item i
        LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
        WHERE i.status <> 'pending' AND (i.status, i.activity_id, i.error) IS DISTINCT FROM (o.outcome, o.activity_id, o.error)
        """,
    ),
    Check(
        4,
        "pending_item_with_an_answer",
        """
        SELECT batch_id, item_id, 'the item is pending, and has an activity or an error' AS detail
        FROM orchestrator.batch_item WHERE status = 'pending' AND (activity_id IS NOT NULL OR error IS NOT NULL)
        """,
    ),
    Check(
        4,
        "history_not_contiguous",
        """
        SELECT i.batch_id, i.item_id, 'the item is at attempt ' || i.attempt || ', and its history has ' || count(h.attempt) AS detail
        FROM orchestrator.batch_item i
        LEFT JOIN orchestrator.item_history h ON (h.batch_id, h.position) = (i.batch_id, i.position) AND h.attempt < i.attempt
        GROUP BY i.batch_id, i.position, i.item_id, i.attempt HAVING count(h.attempt) <> i.attempt - 1
        """,
    ),
    Check(
        4,
        "completion_time",
        """
        SELECT batch_id, NULL AS item_id, 'the batch is ' || status || CASE WHEN completed_at IS NULL THEN ' without' ELSE ' with' END
               || ' a completion time' AS detail
        FROM orchestrator.batch
        WHERE (status IN ('completed', 'partial', 'failed') OR status = 'cancelled' AND pending = 0) <> (completed_at IS NOT NULL)
        """,
    ),
    Check(
        4,
        "deleted_while_running",
        """
        SELECT batch_id, NULL AS item_id, 'the batch is deleted and not finished' AS detail
        FROM orchestrator.batch WHERE deleted_at IS NOT NULL AND completed_at IS NULL
        """,
    ),
    # 5. Every accepted batch ends terminal: what is decided is folded, what is lost is sent again a few times and then answered.
    Check(
        5,
        "decided_and_not_folded",
        """
        SELECT i.batch_id, i.item_id, 'decided at ' || o.created_at || ' and not folded since' AS detail
        FROM orchestrator.batch b
        JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
        JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
        WHERE o.created_at < now() - :stuck_after
        """,
    ),
    Check(
        5,
        "given_up_and_not_answered",
        """
        SELECT w.batch_id, i.item_id, 'sent again ' || w.resends || ' times' AS detail
        FROM orchestrator.sweep_watch w JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (w.batch_id, w.position)
        WHERE w.resends > :max_resends AND i.status = 'pending' AND i.attempt = w.attempt
        """,
    ),
    Check(
        5,
        "waiting_and_not_watched",
        """
        SELECT i.batch_id, i.item_id, 'waits since ' || i.attempt_at || ', nothing of its batch is about to be published, and no sweeper'
               || ' watches it: does one run, and does the broker answer it?' AS detail
        FROM orchestrator.batch b
        JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
        LEFT JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
        LEFT JOIN orchestrator.sweep_watch w ON (w.batch_id, w.position, w.attempt) = (i.batch_id, i.position, i.attempt)
        WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL)
          AND i.attempt_at < now() - :stuck_after AND o.batch_id IS NULL AND w.batch_id IS NULL
          AND NOT EXISTS (SELECT FROM orchestrator.outbox x WHERE x.batch_id = b.batch_id)
        """,
    ),
    Check(
        5,
        "parts_overdue",
        """
        SELECT batch_id, NULL AS item_id, 'waits for parts since ' || submitted_at AS detail
        FROM orchestrator.batch WHERE status = 'pending' AND submitted_at < now() - :parts_patience - :stuck_after
        """,
    ),
    Check(
        5,
        "event_waits",
        """
        SELECT batch_id, NULL AS item_id, 'an event for the topic ' || topic || ' waits in the outbox since ' || created_at
               || coalesce('; it is set aside since ' || held_at || ', because ' || held_for || ' takes no events: ' || held_why
                           || '; it goes out by itself when that works again', '; does a relay run, and does the topic exist?') AS detail
        FROM (SELECT DISTINCT ON (batch_id, topic) * FROM orchestrator.outbox
              WHERE created_at < now() - :trouble_after AND held_for IS DISTINCT FROM 'refused'
              ORDER BY batch_id, topic, outbox_id) AS oldest
        """,
    ),
    # It does not go out by itself, however long it is waited for.
    Check(
        5,
        "event_refused",
        """
        SELECT batch_id, NULL AS item_id, 'Kafka refuses an event for the topic ' || topic || ' as it is, since ' || held_at || ': ' || held_why
               || '; put the topic right, then restart the relays' AS detail
        FROM (SELECT DISTINCT ON (batch_id, topic) * FROM orchestrator.outbox WHERE held_for = 'refused'
              ORDER BY batch_id, topic, outbox_id) AS oldest
        """,
    ),
    Check(
        5,
        "queue_stands",
        """
        SELECT NULL AS batch_id, NULL AS item_id, topic || '/' || partition || ' stands at ' || handled || ' since ' || stands_since
               || ', and ends at ' || next_offset || ': does its consumer run, and does a transaction hide what comes next?' AS detail
        FROM orchestrator.queue_end WHERE stands_since < now() - :trouble_after AND seen_at > now() - :trouble_after
        """,
    ),
    Check(
        5,
        "role_restarts",
        """
        SELECT NULL AS batch_id, NULL AS item_id, 'the role ' || role || ' began ' || count(*) || ' times on ' || host || ', the last time at '
               || max(started_at) || ': its log says why it ends' AS detail
        FROM orchestrator.role_start WHERE started_at > now() - :restarts_within GROUP BY role, host HAVING count(*) > :max_restarts
        """,
    ),
    Check(
        5,
        "nothing_decided",
        """
        SELECT b.batch_id, NULL AS item_id, b.pending || ' items wait, and nothing of the batch was decided since ' || moved.at AS detail
        FROM orchestrator.batch b
        JOIN (SELECT batch_id, max(attempt_at) AS at FROM orchestrator.batch_item WHERE status = 'pending' GROUP BY batch_id) AS i
          ON i.batch_id = b.batch_id
        LEFT JOIN (SELECT batch_id, max(created_at) AS at FROM orchestrator.outcome GROUP BY batch_id) AS o ON o.batch_id = b.batch_id
        CROSS JOIN LATERAL (SELECT greatest(i.at, o.at) AS at) AS moved
        WHERE (b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL) AND moved.at < now() - :batch_stuck_after
        """,
    ),
    # 6. No two live unflagged activities share organization, mentor, type and date; no flagged one without an unflagged one.
    Check(
        6,
        "two_unflagged",
        """
        SELECT (array_agg(batch_id))[1] AS batch_id, (array_agg(item_id))[1] AS item_id,
               count(*) || ' live unflagged activities of one mentor, type and date' AS detail
        FROM registration.activity WHERE NOT overrides_duplicate AND revoked_at IS NULL
        GROUP BY organization_id, attributed_to, activity_type, activity_date HAVING count(*) > 1
        """,
    ),
    Check(
        6,
        "flagged_alone",
        """
        SELECT f.batch_id, f.item_id, 'flagged as a duplicate, and there is no other' AS detail
        FROM registration.activity f
        LEFT JOIN registration.activity u
               ON (u.organization_id, u.attributed_to, u.activity_type, u.activity_date)
                  = (f.organization_id, f.attributed_to, f.activity_type, f.activity_date)
              AND NOT u.overrides_duplicate AND u.revoked_at IS NULL
        WHERE f.overrides_duplicate AND f.revoked_at IS NULL AND u.activity_id IS NULL
        """,
    ),
    # 7. After a cancel has returned, no outcome of that batch is newer than it, but for requests that were on their way already.
    Check(
        7,
        "outcome_after_cancel",
        """
        SELECT o.batch_id, i.item_id, 'decided at ' || o.created_at || ', after the cancel at ' || b.cancelled_at AS detail
        FROM orchestrator.batch b
        JOIN orchestrator.outcome o ON o.batch_id = b.batch_id AND o.created_at > b.cancelled_at
        LEFT JOIN orchestrator.batch_item i ON (i.batch_id, i.position) = (o.batch_id, o.position)
        WHERE b.cancelled_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM orchestrator.dispatch d
                          WHERE (d.batch_id, d.position) = (o.batch_id, o.position) AND d.dispatched_at <= b.cancelled_at)
        """,
    ),
    # 8. Replaying changes nothing: what was purged stays away. (What else a repetition could do is what 1, 2 and 4 look for; what is
    # on the topics is compared by `bulkreg replay`.)
    Check(
        8,
        "purged_and_alive",
        """
        SELECT b.batch_id, NULL AS item_id, 'the batch was purged at ' || t.purged_at || ', and is there' AS detail
        FROM orchestrator.tombstone t JOIN orchestrator.batch b ON b.batch_id = t.batch_id
        WHERE b.deleted_at IS NULL OR b.deleted_at > t.purged_at
        """,
    ),
    Check(
        8,
        "registered_after_purge",
        """
        SELECT a.batch_id, a.item_id, 'registered at ' || a.created_at || ', and the batch was purged at ' || t.purged_at AS detail
        FROM orchestrator.tombstone t JOIN registration.activity a ON a.batch_id = t.batch_id WHERE a.created_at > t.purged_at
        """,
    ),
    # 9. No row of one organization is reachable with another's token: rows of a batch agree on whose they are, and the policies stand.
    *(
        Check(
            9,
            f"organization_of_{table.partition('.')[2]}",
            f"""
            SELECT x.batch_id, NULL AS item_id, 'a row of {table} belongs to another organization than its batch' AS detail
            FROM {table} x JOIN orchestrator.batch b ON b.batch_id = x.batch_id WHERE x.organization_id <> b.organization_id
            """,
        )
        for table in (
            "orchestrator.batch_item",
            "orchestrator.outcome",
            "orchestrator.item_history",
            "orchestrator.batch_part",
            "orchestrator.batch_edit",
            "orchestrator.outbox",
            "orchestrator.dispatch",
            "orchestrator.idempotency_key",
            "orchestrator.sweep_watch",
            "registration.activity",
            "registration.audit",
        )
    ),
    Check(
        9,
        "organization_of_purged",
        """
        SELECT a.batch_id, a.item_id, 'the activity belongs to another organization than its batch did' AS detail
        FROM orchestrator.tombstone t JOIN registration.activity a ON a.batch_id = t.batch_id
        WHERE a.organization_id <> t.organization_id
        """,
    ),
    Check(
        9,
        "row_level_security",
        """
        SELECT NULL AS batch_id, NULL AS item_id, 'row level security is not forced on ' || n.nspname || '.' || c.relname AS detail
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
        WHERE n.nspname IN ('orchestrator', 'registration') AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
        """,
    ),
    Check(
        9,
        "api_role",
        """
        SELECT NULL AS batch_id, NULL AS item_id, 'the API''s role passes by row level security' AS detail
        FROM pg_roles r WHERE r.rolname = 'bulkreg_api'
          AND (r.rolsuper OR r.rolbypassrls OR EXISTS (
               SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relowner = r.oid AND n.nspname IN ('orchestrator', 'registration')))
        """,
    ),
    Check(
        9,
        "api_policy",
        """
        SELECT NULL AS batch_id, NULL AS item_id, coalesce('the policy ' || p.polname, 'no policy') || ' lets the API see rows of '
               || n.nspname || '.' || c.relname AS detail
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
        JOIN pg_roles r ON r.rolname = 'bulkreg_api'
        LEFT JOIN pg_policy p ON p.polrelid = c.oid AND p.polpermissive AND p.polroles && ARRAY[0, r.oid]
        WHERE n.nspname IN ('orchestrator', 'registration') AND c.relkind = 'r'
          AND coalesce(pg_get_expr(p.polqual, c.oid), '') <> '(organization_id = ANY (orchestrator.visible_organizations()))'
        """,
    ),
    Check(
        9,
        "api_grants",
        """
        SELECT NULL AS batch_id, NULL AS item_id, 'the API''s role may change ' || t.name AS detail
        FROM unnest(ARRAY['orchestrator.outcome', 'registration.activity', 'registration.audit']) AS t (name)
        WHERE has_table_privilege('bulkreg_api', t.name, 'UPDATE, DELETE, TRUNCATE')
        """,
    ),
    # 10. Notes appear in no event of ours and in no error. (Logs, metrics and traces are not in the database: tests look there.)
    Check(
        10,
        "notes_in_outbox",
        """
        SELECT batch_id, NULL AS item_id, 'an event in the outbox has a field notes' AS detail
        FROM orchestrator.outbox WHERE position('"notes"'::bytea IN value) > 0
        """,
    ),
    # Of the present attempt and of those that are over: each beside the notes that it was made with.
    Check(
        10,
        "notes_in_error",
        """
        SELECT batch_id, item_id, 'the error quotes the notes' AS detail FROM orchestrator.batch_item
        WHERE error IS NOT NULL AND length(notes) >= 8 AND strpos(error ->> 'message', notes) > 0
        """,
    ),
    Check(
        10,
        "notes_in_history",
        """
        SELECT batch_id, NULL AS item_id, 'the error of position ' || position || ', attempt ' || attempt || ' quotes the notes' AS detail
        FROM orchestrator.item_history
        WHERE length(submitted ->> 'notes') >= 8 AND strpos(error ->> 'message', submitted ->> 'notes') > 0
        """,
    ),
)
