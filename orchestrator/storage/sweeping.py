"""Statements of the sweeper: what should have moved and has not."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, text

from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage import arrays
from orchestrator.storage.progress import UNKNOWN_ID
from schemas.envelope import Topic


class Queue(NamedTuple):
    """A partition as the broker describes it: the oldest offset that it still holds, the next one, and the id of its topic."""

    first: int
    next_offset: int
    topic_id: str = UNKNOWN_ID


Queues = Mapping[tuple[Topic, int], Queue]
"""By topic and partition: all that exist, also those without a record."""


class PassedMarks(NamedTuple):
    """The marks that nothing is waited for any more. Behind `gone` ones lay records that are not there any more: nobody handled them."""

    handled: list[int]
    gone: list[int]

    @property
    def all(self) -> list[int]:
        """Both."""
        return self.handled + self.gone


# One sweeper sweeps; the others of a deployment find it busy and go back to sleep.
_SWEEP_LOCK = text("SELECT pg_try_advisory_xact_lock(:space, :which)")
_LOCK_SPACE, _LOCK_WHICH = 0x73776570, 1

# With items to decide: running, or cancelled while an external service owed answers. Both have a partial index.
_UNFINISHED = "(b.status = 'processing' OR b.status = 'cancelled' AND b.completed_at IS NULL)"

# Rows that an item may follow from; a refused one leads to nothing.
_IN_OUTBOX = """
    SELECT FROM orchestrator.outbox x
    WHERE x.batch_id = {batch} AND x.topic IN ('batches', 'commands', 'commands-bulk') AND x.held_for IS DISTINCT FROM 'refused'
"""

# By the item itself: a batch changes with each edit of its label, and with each retry of its other items.
_QUIET = f"""
    {_UNFINISHED} AND i.attempt_at < clock_timestamp() - :quiet
    AND NOT EXISTS ({_IN_OUTBOX.format(batch="b.batch_id")})
"""

# Folding sends nothing, so it needs no patience beyond the quiet time.
_DECIDED_NOT_FOLDED = text(f"""
    SELECT i.batch_id::text, i.position, i.attempt
    FROM orchestrator.batch b
    JOIN orchestrator.batch_item i ON i.batch_id = b.batch_id AND i.status = 'pending'
    JOIN orchestrator.outcome o ON (o.batch_id, o.position, o.attempt) = (i.batch_id, i.position, i.attempt)
    WHERE {_UNFINISHED} AND o.created_at < clock_timestamp() - :quiet AND NOT b.batch_id = ANY (CAST(:aside AS uuid[]))
    ORDER BY i.batch_id LIMIT :limit
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

_AWAY = "away"
"""No topic's id."""

_NEW_MARK = text("""
    INSERT INTO orchestrator.sweep_mark (offsets, taken_at) VALUES ('[]', clock_timestamp()) RETURNING mark_id
""")
_SET_MARK = text("""
    UPDATE orchestrator.sweep_mark m SET offsets = CAST(:offsets AS jsonb) WHERE m.mark_id = :mark_id
""")
_WAITED_FOR = text("SELECT EXISTS (SELECT FROM orchestrator.sweep_watch WHERE mark_id = :mark_id)")

# A mark is passed when nothing before it is waited for on any partition: it has been handled that far, or what lay there is gone, with its
# topic (another id, or, where a broker has none, an end before the mark) or with time. A topic that does not exist is waited for.
_PASSED = text(f"""
    SELECT m.mark_id, coalesce(bool_or(NOT o.is_handled), false) AS is_gone
    FROM orchestrator.sweep_mark m
    LEFT JOIN LATERAL (
        SELECT coalesce(p.next_offset >= o.next_offset
                        AND (p.topic_id = o.topic_id AND o.topic_id <> '{UNKNOWN_ID}'
                             -- Without an id, progress beyond the end describes an earlier incarnation.
                             OR '{UNKNOWN_ID}' IN (p.topic_id, o.topic_id) AND p.next_offset <= n.next_offset), false) AS is_handled,
               coalesce(n.first_offset >= o.next_offset OR n.next_offset < o.next_offset
                        OR n.topic_id <> o.topic_id AND '{UNKNOWN_ID}' NOT IN (n.topic_id, o.topic_id), false) AS is_gone
        FROM (SELECT topic, partition, next_offset, coalesce(topic_id, '{UNKNOWN_ID}') AS topic_id
              FROM jsonb_to_recordset(m.offsets) AS e (topic text, partition integer, next_offset bigint, topic_id text)) AS o
        LEFT JOIN orchestrator.consumer_progress p ON (p.topic, p.partition) = (o.topic, o.partition)
        LEFT JOIN jsonb_to_recordset(CAST(:queues AS jsonb)) AS n (
            topic text, partition integer, first_offset bigint, next_offset bigint, topic_id text
        ) ON (n.topic, n.partition) = (o.topic, o.partition)
        WHERE o.topic = ANY (:topics)
    ) AS o ON true
    GROUP BY m.mark_id
    HAVING coalesce(bool_and(o.is_handled OR o.is_gone), true)
""")

_TO_REGISTRATION = text("""
    UPDATE orchestrator.sweep_watch SET stage = 'registration', mark_id = :mark_id
    WHERE stage = 'splitter' AND mark_id = ANY (:passed)
""")

# What was sent again is in the outbox first; the mark that it waits behind is taken when it has left.
_MARK_SENT = text(f"""
    UPDATE orchestrator.sweep_watch w SET mark_id = :mark_id
    WHERE w.stage = 'registration' AND w.mark_id IS NULL
      AND NOT EXISTS ({_IN_OUTBOX.format(batch="w.batch_id")})
""")

_LOST = text("""
    SELECT w.batch_id::text, w.position, w.attempt,
           w.resends >= :max_resends AND b.cancelled_at IS NULL AND NOT w.mark_id = ANY (:gone) AS is_hopeless
    FROM orchestrator.sweep_watch w JOIN orchestrator.batch b ON b.batch_id = w.batch_id
    WHERE w.stage = 'registration' AND w.mark_id = ANY (:passed) AND w.next_at <= clock_timestamp()
      AND NOT w.batch_id = ANY (CAST(:aside AS uuid[]))
    ORDER BY w.batch_id, w.position LIMIT :limit
""")

# What was lost with its topic was never tried: sending it again is no evidence against the item.
_SENT_AGAIN = text("""
    UPDATE orchestrator.sweep_watch w
    SET resends = CASE WHEN w.mark_id = ANY (:gone) THEN w.resends ELSE least(w.resends + 1, :max_resends) END, mark_id = NULL,
        next_at = clock_timestamp() + :pause * power(2, w.resends)
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
    WHERE status = 'pending' AND submitted_at < clock_timestamp() - :patience AND NOT batch_id = ANY (CAST(:aside AS uuid[]))
    ORDER BY batch_id LIMIT :limit
""")


def try_lock(connection: Connection) -> bool:
    """Whether this transaction is the one that sweeps."""
    return bool(connection.execute(_SWEEP_LOCK, {"space": _LOCK_SPACE, "which": _LOCK_WHICH}).scalar_one())


def decided_not_folded(connection: Connection, *, quiet: timedelta, aside: Sequence[str], limit: int) -> list[OutcomeKey]:
    """Outcomes whose results got lost: decided for so long, and not folded. Without those of the batches `aside`."""
    rows = connection.execute(_DECIDED_NOT_FOLDED, {"quiet": quiet, "aside": list(aside), "limit": limit})
    return [OutcomeKey(row.batch_id, row.position, row.attempt) for row in rows]


def new_mark(connection: Connection) -> int:
    """A mark to wait behind. Where it is, `set_mark` says, in the same transaction."""
    return int(connection.execute(_NEW_MARK).scalar_one())


def is_waited_for(connection: Connection, mark_id: int) -> bool:
    """Whether anything waits behind the mark."""
    return bool(connection.execute(_WAITED_FOR, {"mark_id": mark_id}).scalar_one())


def set_mark(connection: Connection, mark_id: int, topics: Sequence[Topic], queues: Queues) -> None:
    """Remembers where these topics end, asked after it was seen that what waits behind the mark is not in the outbox."""
    # Nothing of an empty partition is waited for: its consumer may never have had anything to note progress about.
    rows = [
        {"topic": topic, "partition": partition, "next_offset": queue.next_offset, "topic_id": queue.topic_id}
        for (topic, partition), queue in queues.items()
        if queue.next_offset > queue.first
    ]
    # A topic that is away will be another one when it is there: the mark is gone then, and is not passed before.
    there = {topic for topic, _ in queues}
    rows += [{"topic": topic, "partition": 0, "next_offset": 1, "topic_id": _AWAY} for topic in topics if topic not in there]
    connection.execute(_SET_MARK, {"mark_id": mark_id, "offsets": orjson.dumps(rows).decode()})


def watch_quiet_items(connection: Connection, mark_id: int, *, quiet: timedelta, limit: int) -> int:
    """Begins to watch pending items of quiet batches that nobody has decided; answers how many are new."""
    return connection.execute(_WATCH, {"mark_id": mark_id, "quiet": quiet, "limit": limit}).rowcount


def forget_moved(connection: Connection) -> None:
    """Stops watching what has moved."""
    connection.execute(_FORGET_MOVED)
    connection.execute(_FORGET_MARKS)


def passed_marks(connection: Connection, topics: Sequence[Topic], queues: Queues) -> PassedMarks:
    """The marks that the consumers of these topics have passed. `queues` were asked for before."""
    now = [
        {"topic": topic, "partition": partition, "first_offset": q.first, "next_offset": q.next_offset, "topic_id": q.topic_id}
        for (topic, partition), q in queues.items()
    ]
    passed = PassedMarks([], [])
    for row in connection.execute(_PASSED, {"topics": list(topics), "queues": orjson.dumps(now).decode()}):
        (passed.gone if row.is_gone else passed.handled).append(row.mark_id)
    return passed


def advance(connection: Connection, mark_id: int, *, passed_by_splitter: Sequence[int]) -> None:
    """Gives a new mark to what now waits for the registration: behind the splitter, or sent again and published."""
    connection.execute(_TO_REGISTRATION, {"mark_id": mark_id, "passed": list(passed_by_splitter)})
    connection.execute(_MARK_SENT, {"mark_id": mark_id})


class LostCommand(NamedTuple):
    """An item that the registration has passed without an outcome. `is_hopeless`: it was sent again too often."""

    key: OutcomeKey
    is_hopeless: bool

    @property
    def batch_id(self) -> str:
        """The item's batch."""
        return self.key.batch_id


def lost_commands(
    connection: Connection, passed: PassedMarks, *, max_resends: int, aside: Sequence[str], limit: int
) -> list[LostCommand]:
    """Items that the registration has passed without an outcome, without those of the batches `aside`.

    What a cancel left unresolved is never hopeless, but asked for again until the external service answers: any other end could be untrue.
    """
    parameters = {
        "passed": passed.all, "gone": passed.gone, "max_resends": max_resends, "aside": list(aside), "limit": limit,
    }  # fmt: skip
    rows = connection.execute(_LOST, parameters)
    return [LostCommand(OutcomeKey(row.batch_id, row.position, row.attempt), row.is_hopeless) for row in rows]


def sizes_of_requests(connection: Connection, keys: Sequence[OutcomeKey]) -> dict[OutcomeKey, int]:
    """How many items the submission or the retry had that began these attempts; without those that are no item's last."""
    rows = connection.execute(
        _SIZES_OF_REQUESTS,
        arrays.attempts(keys),
    )
    return {OutcomeKey(row.batch_id, row.position, row.attempt): row.items for row in rows}


def note_resent(
    connection: Connection, keys: Sequence[OutcomeKey], *, gone: Sequence[int], pause: timedelta, max_resends: int
) -> None:
    """Counts a resend of these items, up to the most, but for those behind marks that are gone; the next comes after a pause that
    doubles with the count."""
    connection.execute(
        _SENT_AGAIN,
        {
            "pause": pause,
            "gone": list(gone),
            "max_resends": max_resends,
            **arrays.attempts(keys),
        },
    )


class Overdue(NamedTuple):
    """An upstream batch whose parts have not all come in time."""

    batch_id: str


def unfinished_collections(connection: Connection, *, patience: timedelta, aside: Sequence[str], limit: int) -> list[Overdue]:
    """Upstream batches whose parts have not all come in time, without the batches `aside`."""
    rows = connection.execute(_UNFINISHED_COLLECTIONS, {"patience": patience, "aside": list(aside), "limit": limit})
    return [Overdue(batch_id) for batch_id in rows.scalars()]
