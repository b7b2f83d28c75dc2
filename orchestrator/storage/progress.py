"""Statements on the table `consumer_progress`: the offset up to which a topic's consumers have durably handled a partition."""

from collections.abc import Mapping

from sqlalchemy import Connection

from orchestrator.storage.prepared import Prepared
from schemas.envelope import Topic

# Last in its transaction and sorted, so that whoever waits here (a consumer that has lost the partition unawares) holds no lock that
# this transaction still wants. Never goes back: such a consumer may be the last to commit.
_ADVANCE = Prepared("""
    INSERT INTO orchestrator.consumer_progress (topic, partition, next_offset, updated_at)
    SELECT topic, partition, next_offset, clock_timestamp()
    FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:next_offsets AS bigint[]))
         AS handled (topic, partition, next_offset)
    ORDER BY topic, partition
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset, updated_at = excluded.updated_at
    WHERE consumer_progress.next_offset < excluded.next_offset
""")


def advance_progress(connection: Connection, next_offsets: Mapping[tuple[Topic, int], int]) -> None:
    """Writes down the next offset of partitions, as in Kafka, in the transaction that handles what lies before it."""
    if next_offsets:
        _ADVANCE.count(
            connection,
            {
                "topics": [topic.value for topic, _ in next_offsets],
                "partitions": [partition for _, partition in next_offsets],
                "next_offsets": list(next_offsets.values()),
            },
        )
