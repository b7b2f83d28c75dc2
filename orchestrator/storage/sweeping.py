"""Statements of the sweeper: find items that should have moved but have not."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, text

from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage import arrays
from orchestrator.storage.progress import UNKNOWN_ID
from orchestrator.storage.statements import read_statements
from schemas.envelope import Topic


class Queue(NamedTuple):
    """A partition as the broker describes it: the oldest offset that it still has, the next offset, and the id of its topic."""

    first: int
    next_offset: int
    topic_id: str = UNKNOWN_ID


Queues = Mapping[tuple[Topic, int], Queue]
"""All existing partitions, including empty ones, by topic and partition number."""


class PassedMarks(NamedTuple):
    """The marks that have been passed. Before a `gone` mark there were records that no longer exist and that nobody handled."""

    handled: list[int]
    gone: list[int]

    @property
    def all(self) -> list[int]:
        """Both."""
        return self.handled + self.gone


_SQL = read_statements("orchestrator/storage/sql/sweeping.sql")

_SWEEP_LOCK = _SQL["sweep_lock"].text()
_LOCK_SPACE, _LOCK_WHICH = 0x73776570, 1

_DECIDED_NOT_FOLDED = _SQL["decided_not_folded"].text()
_WATCH = _SQL["watch"].text()
_FORGET_MOVED = _SQL["forget_moved"].text()
_FORGET_MARKS = _SQL["forget_marks"].text()

_AWAY = "away"
"""An id that no topic has."""

_NEW_MARK = _SQL["new_mark"].text()
_SET_MARK = _SQL["set_mark"].text()
_WAITED_FOR = _SQL["waited_for"].text()

# A mark is passed when, on every partition, the records before it have been handled or are gone. They are gone with their topic (it has another
# id, or, if the broker has no ids, its end is before the mark) or by retention. A mark on a topic that does not exist is not passed.
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

_TO_REGISTRATION = _SQL["to_registration"].text()
_MARK_SENT = _SQL["mark_sent"].text()
_LOST = _SQL["lost"].text()
_SENT_AGAIN = _SQL["sent_again"].text()
_SIZES_OF_REQUESTS = _SQL["sizes_of_requests"].text()
_UNFINISHED_COLLECTIONS = _SQL["unfinished_collections"].text()


def try_lock(connection: Connection) -> bool:
    """Tries to take the sweeper's lock. Returns whether this transaction is the one that sweeps."""
    return bool(connection.execute(_SWEEP_LOCK, {"space": _LOCK_SPACE, "which": _LOCK_WHICH}).scalar_one())


class DecidedItem(NamedTuple):
    """A pending item whose attempt is decided. `is_lost`: no result on the topic announces the outcome."""

    key: OutcomeKey
    is_lost: bool

    @property
    def batch_id(self) -> str:
        """The item's batch."""
        return self.key.batch_id


def decided_not_folded(connection: Connection, *, quiet: timedelta, aside: Sequence[str], limit: int) -> list[DecidedItem]:
    """Items that were decided some time ago and are still pending. Leaves out those of the batches in `aside`."""
    rows = connection.execute(_DECIDED_NOT_FOLDED, {"quiet": quiet, "aside": list(aside), "limit": limit})
    return [DecidedItem(OutcomeKey(row.batch_id, row.position, row.attempt), row.is_lost) for row in rows]


def new_mark(connection: Connection) -> int:
    """Creates a mark to wait for. `set_mark` sets its offsets in the same transaction."""
    return int(connection.execute(_NEW_MARK).scalar_one())


def is_waited_for(connection: Connection, mark_id: int) -> bool:
    """Whether any item waits for the mark."""
    return bool(connection.execute(_WAITED_FOR, {"mark_id": mark_id}).scalar_one())


def set_mark(connection: Connection, mark_id: int, topics: Sequence[Topic], queues: Queues) -> None:
    """Stores where these topics end. The ends must be read after checking that the items that wait for the mark have no events in the outbox."""
    # Empty partitions are left out, because their consumer may never have had any progress to store.
    rows = [
        {"topic": topic, "partition": partition, "next_offset": queue.next_offset, "topic_id": queue.topic_id}
        for (topic, partition), queue in queues.items()
        if queue.next_offset > queue.first
    ]
    # A missing topic will have another id once it exists. Then the mark is gone; until then it is not passed.
    there = {topic for topic, _ in queues}
    rows += [{"topic": topic, "partition": 0, "next_offset": 1, "topic_id": _AWAY} for topic in topics if topic not in there]
    connection.execute(_SET_MARK, {"mark_id": mark_id, "offsets": orjson.dumps(rows).decode()})


def watch_quiet_items(connection: Connection, mark_id: int, *, quiet: timedelta, limit: int) -> int:
    """Begins to watch undecided pending items that have been quiet for a while. Returns how many are new."""
    return connection.execute(_WATCH, {"mark_id": mark_id, "quiet": quiet, "limit": limit}).rowcount


def forget_moved(connection: Connection) -> None:
    """Stops watching items that have moved, and deletes the marks that no item waits for."""
    connection.execute(_FORGET_MOVED)
    connection.execute(_FORGET_MARKS)


def passed_marks(connection: Connection, topics: Sequence[Topic], queues: Queues) -> PassedMarks:
    """The marks that the consumers of these topics have passed. `queues` must have been read before."""
    now = [
        {"topic": topic, "partition": partition, "first_offset": q.first, "next_offset": q.next_offset, "topic_id": q.topic_id}
        for (topic, partition), q in queues.items()
    ]
    passed = PassedMarks([], [])
    for row in connection.execute(_PASSED, {"topics": list(topics), "queues": orjson.dumps(now).decode()}):
        (passed.gone if row.is_gone else passed.handled).append(row.mark_id)
    return passed


def advance(connection: Connection, mark_id: int, *, passed_by_splitter: Sequence[int]) -> None:
    """Gives a new mark to the items that now wait for the registration: the splitter has passed them, or they were sent again and published."""
    connection.execute(_TO_REGISTRATION, {"mark_id": mark_id, "passed": list(passed_by_splitter)})
    connection.execute(_MARK_SENT, {"mark_id": mark_id})


class LostCommand(NamedTuple):
    """An item that the registration has passed without an outcome. It `is_hopeless` if it was sent again too often."""

    key: OutcomeKey
    is_hopeless: bool

    @property
    def batch_id(self) -> str:
        """The item's batch."""
        return self.key.batch_id


def lost_commands(
    connection: Connection, passed: PassedMarks, *, max_resends: int, aside: Sequence[str], limit: int
) -> list[LostCommand]:
    """Items that the registration has passed without an outcome. Leaves out the batches in `aside`.

    An item that a cancel left unresolved is never hopeless. It is sent again until the external service responds, because any other outcome
    could be wrong.
    """
    parameters = {
        "passed": passed.all, "gone": passed.gone, "max_resends": max_resends, "aside": list(aside), "limit": limit,
    }  # fmt: skip
    rows = connection.execute(_LOST, parameters)
    return [LostCommand(OutcomeKey(row.batch_id, row.position, row.attempt), row.is_hopeless) for row in rows]


def sizes_of_requests(connection: Connection, keys: Sequence[OutcomeKey]) -> dict[OutcomeKey, int]:
    """The number of items in the submission or the retry that began each of these attempts. Leaves out attempts that are not an item's last."""
    rows = connection.execute(_SIZES_OF_REQUESTS, arrays.attempts(keys))
    return {OutcomeKey(row.batch_id, row.position, row.attempt): row.items for row in rows}


def note_resent(
    connection: Connection, keys: Sequence[OutcomeKey], *, gone: Sequence[int], pause: timedelta, max_resends: int
) -> None:
    """Counts a resend of these items, up to `max_resends`; items that waited for a mark that is `gone` are not counted. The next resend comes
    after a pause that doubles with the count."""
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
    """An upstream batch whose parts have not all arrived in time."""

    batch_id: str


def unfinished_collections(connection: Connection, *, patience: timedelta, aside: Sequence[str], limit: int) -> list[Overdue]:
    """Upstream batches whose parts have not all arrived in time. Leaves out the batches in `aside`."""
    rows = connection.execute(_UNFINISHED_COLLECTIONS, {"patience": patience, "aside": list(aside), "limit": limit})
    return [Overdue(batch_id) for batch_id in rows.scalars()]
