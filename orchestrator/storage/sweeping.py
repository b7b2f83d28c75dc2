"""Statements of the sweeper: what should have moved and has not."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from orchestrator.repository import OutcomeKey
from orchestrator.storage import arrays
from schemas.envelope import Topic

Offsets = Mapping[tuple[Topic, int], int]
"""By topic and partition: the next offset."""

# One sweeper sweeps; the others of a deployment find it busy and go back to sleep.
_SWEEP_LOCK = text("SELECT pg_try_advisory_xact_lock(:space, :which)")
_LOCK_SPACE, _LOCK_WHICH = 0x73776570, 1

# With items to decide: running, or cancelled while an external service owed answers. Both have a partial index.
_UNFINISHED = "(b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL)"

_QUIET = f"""
    {_UNFINISHED} AND b.changed_at < clock_timestamp() - :quiet
    AND NOT EXISTS (SELECT FROM orchestrator.outbox x WHERE x.batch_id = b.batch_id)
"""

# Folding sends nothing, so it needs no patience beyond the quiet time.
_DECIDED_NOT_FOLDED = text(f"""
    SELECT i.batch_id::text, i.position, i.attempt
    FROM orchestrator.batch b
    JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
    JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
    WHERE {_UNFINISHED} AND b.changed_at < clock_timestamp() - :quiet AND o.created_at < clock_timestamp() - :quiet
    LIMIT :limit
""")

_WATCH = text(f"""
    INSERT INTO orchestrator.sweep_watch (batch_id, position, attempt, organization_id, stage, mark_id, next_at)
    SELECT i.batch_id, i.position, i.attempt, i.organization_id, 'splitter', :mark_id, clock_timestamp()
    FROM orchestrator.batch b
    JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
    WHERE {_QUIET}
      AND NOT EXISTS (SELECT FROM orchestrator.outcome o
                      WHERE (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt))
      -- Or the limit would be used up by those that are watched already.
      AND NOT EXISTS (SELECT FROM orchestrator.sweep_watch w
                      WHERE (w.batch_id, w.position, w.attempt) = (i.batch_id, i.position, i.attempt))
    LIMIT :limit
    ON CONFLICT DO NOTHING
""")

_FORGET_MOVED = text("""
    DELETE FROM orchestrator.sweep_watch w
    WHERE NOT EXISTS (SELECT FROM orchestrator.batch_item i
                      WHERE (i.batch_id, i.position, i.attempt) = (w.batch_id, w.position, w.attempt) AND i.status = 'pending')
       OR EXISTS (SELECT FROM orchestrator.outcome o
                  WHERE (o.batch_id, o.position, o.attempt) = (w.batch_id, w.position, w.attempt))
""")
_FORGET_MARKS = text("""
    DELETE FROM orchestrator.sweep_mark m WHERE NOT EXISTS (SELECT FROM orchestrator.sweep_watch w WHERE w.mark_id = m.mark_id)
""")

_NEW_MARK = text("""
    INSERT INTO orchestrator.sweep_mark (offsets, taken_at) VALUES (CAST(:offsets AS jsonb), clock_timestamp()) RETURNING mark_id
""")

# A mark is passed when every partition that had anything in it has been handled that far.
_PASSED = text("""
    SELECT m.mark_id FROM orchestrator.sweep_mark m
    WHERE NOT EXISTS (
        SELECT FROM jsonb_to_recordset(m.offsets) AS o (topic text, partition integer, next_offset bigint)
        LEFT JOIN orchestrator.consumer_progress p ON (p.topic, p.partition) = (o.topic, o.partition)
        WHERE o.topic = ANY (:topics) AND coalesce(p.next_offset, 0) < o.next_offset
    )
""")

_TO_REGISTRATION = text("""
    UPDATE orchestrator.sweep_watch SET stage = 'registration', mark_id = :mark_id
    WHERE stage = 'splitter' AND mark_id = ANY (:passed)
""")

# What was sent again is in the outbox first; the mark that it waits behind is taken when it has left.
_MARK_SENT = text("""
    UPDATE orchestrator.sweep_watch w SET mark_id = :mark_id
    WHERE w.stage = 'registration' AND w.mark_id IS NULL
      AND NOT EXISTS (SELECT FROM orchestrator.outbox x WHERE x.batch_id = w.batch_id)
""")

_LOST = text("""
    SELECT w.batch_id::text, w.position, w.attempt, w.resends >= :max_resends AND b.cancelled_at IS NULL AS is_hopeless
    FROM orchestrator.sweep_watch w JOIN orchestrator.batch b ON b.batch_id = w.batch_id
    WHERE w.stage = 'registration' AND w.mark_id = ANY (:passed) AND w.next_at <= clock_timestamp()
    ORDER BY w.batch_id, w.position LIMIT :limit
""")

_SENT_AGAIN = text("""
    UPDATE orchestrator.sweep_watch w
    SET resends = least(w.resends + 1, :max_resends), mark_id = NULL, next_at = clock_timestamp() + :pause * power(2, w.resends)
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
         AS n (batch_id, position, attempt)
    WHERE (w.batch_id, w.position, w.attempt) = (n.batch_id, n.position, n.attempt)
""")

# A retry is known by its time, which the items that it took carry as well. The batch's lock let no other one have the same.
_SIZES_OF_REQUESTS = text("""
    WITH named AS (
        SELECT * FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:positions AS integer[]), CAST(:attempts AS integer[]))
                      AS n (batch_id, position, attempt)
    ), retries AS (
        SELECT h.batch_id, h.retried_at, count(*) AS items FROM orchestrator.item_history h
        WHERE h.batch_id IN (SELECT n.batch_id FROM named n WHERE n.attempt > 1) GROUP BY 1, 2
    )
    SELECT n.batch_id::text, n.position, n.attempt, CASE WHEN n.attempt = 1 THEN b.total_items ELSE r.items END AS items
    FROM named n
    JOIN orchestrator.batch b ON b.batch_id = n.batch_id
    JOIN orchestrator.batch_item i ON (i.batch_id, i.position, i.attempt) = (n.batch_id, n.position, n.attempt)
    LEFT JOIN retries r ON (r.batch_id, r.retried_at) = (i.batch_id, i.attempt_at)
    WHERE n.attempt = 1 OR r.items IS NOT NULL
""")

_UNFINISHED_COLLECTIONS = text("""
    SELECT batch_id::text FROM orchestrator.batch
    WHERE status = 'pending' AND submitted_at < clock_timestamp() - :patience ORDER BY batch_id LIMIT :limit
""")


def try_lock(connection: Connection) -> bool:
    """Whether this transaction is the one that sweeps."""
    return bool(connection.execute(_SWEEP_LOCK, {"space": _LOCK_SPACE, "which": _LOCK_WHICH}).scalar_one())


def decided_not_folded(connection: Connection, *, quiet: timedelta, limit: int) -> list[OutcomeKey]:
    """Outcomes whose results got lost: decided, and the batch has been quiet since."""
    rows = connection.execute(_DECIDED_NOT_FOLDED, {"quiet": quiet, "limit": limit})
    return [OutcomeKey(row.batch_id, row.position, row.attempt) for row in rows]


def new_mark(connection: Connection, offsets: Offsets) -> int:
    """Remembers where the topics end now."""
    rows = [{"topic": topic, "partition": partition, "next_offset": end} for (topic, partition), end in offsets.items()]
    return int(connection.execute(_NEW_MARK, {"offsets": orjson.dumps(rows).decode()}).scalar_one())


def watch_quiet_items(connection: Connection, mark_id: int, *, quiet: timedelta, limit: int) -> int:
    """Begins to watch pending items of quiet batches that nobody has decided; answers how many are new."""
    return connection.execute(_WATCH, {"mark_id": mark_id, "quiet": quiet, "limit": limit}).rowcount


def forget_moved(connection: Connection) -> None:
    """Stops watching what has moved."""
    connection.execute(_FORGET_MOVED)
    connection.execute(_FORGET_MARKS)


def passed_marks(connection: Connection, topics: Sequence[Topic]) -> list[int]:
    """The marks that the consumers of these topics have passed."""
    return list(connection.execute(_PASSED, {"topics": list(topics)}).scalars())


def advance(connection: Connection, mark_id: int, *, passed_by_splitter: Sequence[int]) -> None:
    """Gives a new mark to what now waits for the registration: behind the splitter, or sent again and published."""
    connection.execute(_TO_REGISTRATION, {"mark_id": mark_id, "passed": list(passed_by_splitter)})
    connection.execute(_MARK_SENT, {"mark_id": mark_id})


def lost_commands(
    connection: Connection, passed: Sequence[int], *, max_resends: int, limit: int
) -> tuple[list[OutcomeKey], list[OutcomeKey]]:
    """Items that the registration has passed without an outcome: those to send again, and those sent again too often.

    What a cancel left unresolved is asked for again until the external service answers: any other end could be untrue.
    """
    again: list[OutcomeKey] = []
    hopeless: list[OutcomeKey] = []
    for row in connection.execute(_LOST, {"passed": list(passed), "max_resends": max_resends, "limit": limit}):
        (hopeless if row.is_hopeless else again).append(OutcomeKey(row.batch_id, row.position, row.attempt))
    return again, hopeless


def sizes_of_requests(connection: Connection, keys: Sequence[OutcomeKey]) -> dict[OutcomeKey, int]:
    """How many items the submission or the retry had that began these attempts; without those that are no item's last."""
    rows = connection.execute(
        _SIZES_OF_REQUESTS,
        {
            "batch_ids": arrays.plain([key.batch_id for key in keys]),
            "positions": arrays.plain([key.position for key in keys]),
            "attempts": arrays.plain([key.attempt for key in keys]),
        },
    )
    return {OutcomeKey(row.batch_id, row.position, row.attempt): row.items for row in rows}


def note_resent(connection: Connection, keys: Sequence[OutcomeKey], *, pause: timedelta, max_resends: int) -> None:
    """Counts a resend of these items, up to the most; the next comes after a pause that doubles with the count."""
    connection.execute(
        _SENT_AGAIN,
        {
            "pause": pause,
            "max_resends": max_resends,
            "batch_ids": arrays.plain([key.batch_id for key in keys]),
            "positions": arrays.plain([key.position for key in keys]),
            "attempts": arrays.plain([key.attempt for key in keys]),
        },
    )


def unfinished_collections(connection: Connection, *, patience: timedelta, limit: int) -> list[UUID]:
    """Upstream batches whose parts have not all come in time."""
    rows = connection.execute(_UNFINISHED_COLLECTIONS, {"patience": patience, "limit": limit})
    return [UUID(batch_id) for batch_id in rows.scalars()]
