"""Statements that observe the product: which queues do not move, which roles restart again and again, how long the outbox has waited."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.storage.outbox import SLOTS
from orchestrator.storage.statements import read_statements
from orchestrator.storage.sweeping import Queues
from schemas.envelope import Topic

_SQL = read_statements("orchestrator/storage/sql/observing.sql")

_NOTE_QUEUES = _SQL["note_queues"].text()
_FORGET_QUEUES = _SQL["forget_queues"].text()
_STANDING = _SQL["standing"].text()
_STANDING_PARTITIONS = _SQL["standing_partitions"].text()
_NOTE_STARTS = _SQL["note_starts"].text()
_FORGET_STARTS = _SQL["forget_starts"].text()
_STARTS = _SQL["starts"].text()
_OLDEST_OUTBOX_ROW = _SQL["oldest_outbox_row"].text()
_FIGURES = _SQL["figures"].text()
_NOTE_VERIFICATION = _SQL["note_verification"].text()

RESTARTS_WITHIN = timedelta(minutes=10)
"""The period in which the starts of a role are counted."""
_STARTS_KEPT = timedelta(days=1)


class QueueState(NamedTuple):
    """How many records of a topic wait, and the longest time for which one of its partitions has not moved."""

    waiting: int
    stands_s: float


class Figures(NamedTuple):
    """The state of the whole product. Times are in seconds; None where `bulkreg verify` was never complete."""

    outbox_rows: int
    outbox_oldest_s: float
    backlog_items: int
    oldest_unfinished_s: float
    commit_wait_s: float
    verify_breaches: int | None
    verify_completed_at: float | None


def read_figures(connection: Connection) -> Figures:
    """Reads the figures in one statement."""
    row = connection.execute(_FIGURES, {"slots": [*range(-SLOTS, SLOTS)]}).one()
    return Figures(
        int(row.outbox_rows),
        float(row.outbox_oldest_s),
        int(row.backlog_items),
        float(row.oldest_unfinished_s),
        float(row.commit_wait_s),
        row.verify_breaches,
        None if row.verify_completed_at is None else float(row.verify_completed_at),
    )


def note_verification(connection: Connection, *, breaches: int) -> None:
    """Stores that a verification is complete now, and how many breaches it found. Replaces the result of the one before."""
    connection.execute(_NOTE_VERIFICATION, {"breaches": breaches})


def note_queues(connection: Connection, queues: Queues) -> dict[Topic, QueueState]:
    """Stores where the queues end and how far their consumers are, compared with the last time. Returns the state of each topic."""
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


def standing_partitions(connection: Connection, topics: Sequence[Topic], *, trouble_after: timedelta) -> list[tuple[Topic, int]]:
    """Returns the partitions that have been behind for so long without moving. Those that no sweeper has looked at in that time are left out."""
    rows = connection.execute(_STANDING_PARTITIONS, {"topics": [topic.value for topic in topics], "trouble_after": trouble_after})
    return [(Topic(row.topic), row.partition) for row in rows]


def note_starts(connection: Connection, roles: Sequence[str], *, host: str) -> dict[str, int]:
    """Records that these roles start on this host. Returns the starts of each within `RESTARTS_WITHIN`, including this one."""
    connection.execute(_FORGET_STARTS, {"kept": _STARTS_KEPT})
    connection.execute(_NOTE_STARTS, {"roles": list(roles), "host": host})
    rows = connection.execute(_STARTS, {"roles": list(roles), "host": host, "within": RESTARTS_WITHIN})
    return {row.role: row.starts for row in rows}


def oldest_outbox_row_s(connection: Connection, slots: Collection[int]) -> float:
    """How long the oldest row of these slots has waited, in seconds, including held rows; 0 if the slots are empty."""
    shadows = [-1 - slot for slot in slots]
    return float(connection.execute(_OLDEST_OUTBOX_ROW, {"slots": [*slots, *shadows]}).scalar_one() or 0)
