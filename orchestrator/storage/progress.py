"""Statements on the table `consumer_progress`: the offset up to which a topic's consumers have durably handled a partition.

An offset means something within one incarnation of the topic only (docs/decisions/0024-incarnations.md), so its id is written beside it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.storage.prepared import Prepared
from schemas.envelope import Topic

UNKNOWN_ID = ""
"""The id of a topic whose broker has none. It is taken for any incarnation."""


class Position(NamedTuple):
    """The next offset of a partition, as in Kafka, and the id of the topic that it is an offset of."""

    next_offset: int
    topic_id: str = UNKNOWN_ID


# Last in its transaction and sorted, so that whoever waits here (a consumer that has lost the partition unawares) holds no lock that
# this transaction still wants. Within an incarnation it never goes back: such a consumer may be the last to commit.
_ADVANCE = Prepared("""
    INSERT INTO orchestrator.consumer_progress (topic, partition, next_offset, topic_id, updated_at)
    SELECT topic, partition, next_offset, topic_id, clock_timestamp()
    FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:next_offsets AS bigint[]), CAST(:topic_ids AS text[]))
         AS handled (topic, partition, next_offset, topic_id)
    ORDER BY topic, partition
    ON CONFLICT (topic, partition) DO UPDATE
    SET next_offset = excluded.next_offset, topic_id = excluded.topic_id, updated_at = excluded.updated_at
    WHERE consumer_progress.topic_id <> excluded.topic_id OR consumer_progress.next_offset < excluded.next_offset
""")


def advance_progress(connection: Connection, positions: Mapping[tuple[Topic, int], Position]) -> None:
    """Writes down the positions of partitions, in the transaction that handles what lies before them."""
    if positions:
        _ADVANCE.count(
            connection,
            {
                "topics": [topic.value for topic, _ in positions],
                "partitions": [partition for _, partition in positions],
                "next_offsets": [position.next_offset for position in positions.values()],
                "topic_ids": [position.topic_id for position in positions.values()],
            },
        )
