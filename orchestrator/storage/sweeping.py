"""Statements of the sweeper: what should have moved and has not."""

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


_SQL = read_statements("orchestrator/storage/sql/sweeping.sql")

_SWEEP_LOCK = _SQL["sweep_lock"].text()
_LOCK_SPACE, _LOCK_WHICH = 0x73776570, 1

_DECIDED_NOT_FOLDED = _SQL["decided_not_folded"].text()
_WATCH = _SQL["watch"].text()
_FORGET_MOVED = _SQL["forget_moved"].text()
_FORGET_MARKS = _SQL["forget_marks"].text()

_AWAY = "away"
"""No topic's id."""

_NEW_MARK = _SQL["new_mark"].text()
_SET_MARK = _SQL["set_mark"].text()
_WAITED_FOR = _SQL["waited_for"].text()

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

_TO_REGISTRATION = _SQL["to_registration"].text()
_MARK_SENT = _SQL["mark_sent"].text()
_LOST = _SQL["lost"].text()
_SENT_AGAIN = _SQL["sent_again"].text()
_SIZES_OF_REQUESTS = _SQL["sizes_of_requests"].text()
_UNFINISHED_COLLECTIONS = _SQL["unfinished_collections"].text()


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
    rows = connection.execute(_SIZES_OF_REQUESTS, arrays.attempts(keys))
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
