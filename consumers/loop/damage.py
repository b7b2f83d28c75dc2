"""Batches of records that the client can't read: Kafka's copy is damaged, or decompresses to more than the client takes.

The client reports such a batch and does not get past it. With a wrong checksum it even loses its place: it goes on in the middle of the
batch, finds nonsense there, and starts again at the beginning of the partition. So the reader is told where to read at each report: at the
same place a few times, in case the damage was on the way, and then behind each of the batch's records in turn. How many these are is not
known, because Kafka returns the whole batch for each of its offsets. It takes a millisecond for each.
"""

from confluent_kafka import KafkaError

DAMAGE = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
"""What the client reports."""

TRIES = 5


class DamagedBatch:
    """One of them, and where to read on."""

    __slots__ = ("_reports", "first", "next_offset")

    def __init__(self, first: int) -> None:
        self.first = self.next_offset = first
        self._reports = 0

    def reported(self) -> None:
        """The client can't read what is at `next_offset`."""
        self._reports += 1
        if self.is_given_up:
            self.next_offset += 1

    @property
    def is_given_up(self) -> bool:
        """Whether it was tried often enough: its records count as lost."""
        return self._reports > TRIES
