"""Batches of records that the client can't read: Kafka's copy is damaged, or decompresses to more than the client accepts.

The client reports such a batch and does not get past it. After a wrong checksum it even loses its place: it continues in the middle of
the batch, finds nonsense there, and starts again at the beginning of the partition. So at each report the reader seeks explicitly: to the
same place a few times, in case the damage happened in transit, and then past each of the batch's records in turn. Their number is unknown,
because Kafka returns the whole batch for each of its offsets. Each step takes a millisecond.
"""

from confluent_kafka import KafkaError

DAMAGE = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
"""The errors with which the client reports such a batch."""

TRIES = 5


class DamagedBatch:
    """A batch that the client can't read, and where to read on."""

    __slots__ = ("_reports", "first", "next_offset")

    def __init__(self, first: int) -> None:
        self.first = self.next_offset = first
        self._reports = 0

    def reported(self) -> None:
        """Notes that the client could not read what is at `next_offset`."""
        self._reports += 1
        if self.is_given_up:
            self.next_offset += 1

    @property
    def is_given_up(self) -> bool:
        """Whether it was tried often enough. Its records then count as lost."""
        return self._reports > TRIES
