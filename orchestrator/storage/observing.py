"""Statements about how the product is doing: which queues stand, which roles begin again and again, how long the outbox has waited."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from orchestrator.storage.sweeping import Queues
from schemas.envelope import Topic

# A queue stands since it was first seen behind and not moving. Progress of another incarnation is none.
_NOTE_QUEUES = text("""
    INSERT INTO orchestrator.queue_end AS q (topic, partition, topic_id, next_offset, handled, stands_since, seen_at)
    SELECT n.topic, n.partition, n.topic_id, n.next_offset, seen.handled,
           CASE WHEN seen.handled < n.next_offset THEN clock_timestamp() END, clock_timestamp()
    FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:topic_ids AS text[]), CAST(:firsts AS bigint[]),
                CAST(:next_offsets AS bigint[])) AS n (topic, partition, topic_id, first_offset, next_offset)
    LEFT JOIN orchestrator.consumer_progress p
           ON (p.topic, p.partition) = (n.topic, n.partition) AND (p.topic_id = n.topic_id OR '' IN (p.topic_id, n.topic_id))
    CROSS JOIN LATERAL (SELECT greatest(n.first_offset, coalesce(p.next_offset, 0)) AS handled) AS seen
    ORDER BY n.topic, n.partition
    ON CONFLICT (topic, partition) DO UPDATE
    SET topic_id = excluded.topic_id, next_offset = excluded.next_offset, handled = excluded.handled, seen_at = excluded.seen_at,
        stands_since = CASE WHEN excluded.stands_since IS NULL THEN NULL
                            WHEN q.topic_id = excluded.topic_id AND q.handled = excluded.handled THEN coalesce(q.stands_since, excluded.seen_at)
                            ELSE excluded.seen_at END
""")
_FORGET_QUEUES = text("""
    DELETE FROM orchestrator.queue_end q
    WHERE NOT EXISTS (SELECT FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[])) AS n (topic, partition)
                      WHERE (n.topic, n.partition) = (q.topic, q.partition))
""")
_STANDING = text("""
    SELECT topic, sum(greatest(0, next_offset - handled)) AS waiting,
           coalesce(extract(epoch FROM max(clock_timestamp() - stands_since)), 0) AS stands_s
    FROM orchestrator.queue_end GROUP BY topic
""")

_NOTE_STARTS = text("""
    INSERT INTO orchestrator.role_start (role, host, started_at)
    SELECT role, :host, clock_timestamp() FROM unnest(CAST(:roles AS text[])) AS r (role)
""")
_FORGET_STARTS = text("DELETE FROM orchestrator.role_start WHERE started_at < clock_timestamp() - :kept")
_STARTS = text("""
    SELECT role, count(*) AS starts FROM orchestrator.role_start
    WHERE host = :host AND role = ANY (:roles) AND started_at > clock_timestamp() - :within GROUP BY role
""")

# The first of each slot by the index: the ages of all rows of a backlog would be read for nothing.
_OLDEST_OUTBOX_ROW = text("""
    SELECT extract(epoch FROM max(clock_timestamp() - row.created_at))
    FROM unnest(CAST(:slots AS smallint[])) AS owned (slot)
    CROSS JOIN LATERAL (SELECT created_at FROM orchestrator.outbox o WHERE o.slot = owned.slot ORDER BY outbox_id LIMIT 1) AS row
""")

RESTARTS_WITHIN = timedelta(minutes=10)
"""Over how long the starts of a role are counted."""
_STARTS_KEPT = timedelta(days=1)


class QueueState(NamedTuple):
    """How many records of a topic wait, and for how long the partition that has stood the longest has not moved."""

    waiting: int
    stands_s: float


def note_queues(connection: Connection, queues: Queues) -> dict[Topic, QueueState]:
    """Compares where queues end with how far their consumers are, and with what was seen the last time. Returns how each topic is."""
    parameters = {
        "topics": [topic.value for topic, _ in queues],
        "partitions": [partition for _, partition in queues],
        "topic_ids": [queue.topic_id for queue in queues.values()],
        "firsts": [queue.first for queue in queues.values()],
        "next_offsets": [queue.next_offset for queue in queues.values()],
    }
    connection.execute(_NOTE_QUEUES, parameters)
    connection.execute(_FORGET_QUEUES, {name: parameters[name] for name in ("topics", "partitions")})
    return {Topic(row.topic): QueueState(int(row.waiting), float(row.stands_s)) for row in connection.execute(_STANDING)}


def note_starts(connection: Connection, roles: Sequence[str], *, host: str) -> dict[str, int]:
    """Notes that these roles begin on this host. Returns how often each of them did within `RESTARTS_WITHIN`, this time included."""
    connection.execute(_FORGET_STARTS, {"kept": _STARTS_KEPT})
    connection.execute(_NOTE_STARTS, {"roles": list(roles), "host": host})
    rows = connection.execute(_STARTS, {"roles": list(roles), "host": host, "within": RESTARTS_WITHIN})
    return {row.role: row.starts for row in rows}


def oldest_outbox_row_s(connection: Connection, slots: Collection[int]) -> float:
    """Seconds that the oldest row of these slots has waited, also when it is held; 0 when they are empty."""
    shadows = [-1 - slot for slot in slots]
    return float(connection.execute(_OLDEST_OUTBOX_ROW, {"slots": [*slots, *shadows]}).scalar_one() or 0)
