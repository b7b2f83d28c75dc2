"""Statements on the table `consumer_progress`: the offset up to which a topic's consumers have durably handled a partition.

An offset is only valid within one incarnation of the topic (docs/decisions/0024-incarnations.md), so the topic's id is stored with it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.storage.statements import read_statements
from schemas.envelope import Topic

UNKNOWN_ID = ""
"""The id of a topic whose broker has no topic ids. It matches any incarnation."""


class Position(NamedTuple):
    """The next offset of a partition, as in Kafka, and the id of its topic."""

    next_offset: int
    topic_id: str = UNKNOWN_ID


_SQL = read_statements("orchestrator/storage/sql/progress.sql")

_ADVANCE = _SQL["advance"].prepared()
_READ = _SQL["read"].text()


def advance_progress(connection: Connection, positions: Mapping[tuple[Topic, int], Position]) -> None:
    """Stores the positions of partitions, in the transaction that handles the records before them."""
    if positions:
        _ADVANCE.later(
            connection,
            {
                "topics": [topic.value for topic, _ in positions],
                "partitions": [partition for _, partition in positions],
                "next_offsets": [position.next_offset for position in positions.values()],
                "topic_ids": [position.topic_id for position in positions.values()],
            },
        )


def read_progress(connection: Connection, topics: Sequence[Topic]) -> Mapping[tuple[Topic, int], Position]:
    """Returns the stored positions of the partitions of these topics."""
    rows = connection.execute(_READ, {"topics": [topic.value for topic in topics]})
    return {(Topic(row.topic), row.partition): Position(row.next_offset, row.topic_id) for row in rows}
