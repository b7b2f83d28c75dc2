"""Batches of records that the client can't read: Kafka's copy is damaged, or decompresses to more than the client takes.

The client reports such a batch by the offset at which the batch begins, and does not get past it. With a wrong checksum it even loses its
place: it goes on in the middle of the batch, finds nonsense there, and starts again at the beginning of the partition. It does this even after
a seek, and then reports the same batch once more. A report therefore says nothing about the last seek.

So the reader tries the batch a few times, in case the damage happened on the way. Then another client finds out where the next batch
begins (`batch_probe.py`), and the reader seeks there on each later report of the same batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError

DAMAGE = frozenset({KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION})
"""The errors that the client reports for a damaged batch."""

TRIES = 5


@dataclass(slots=True)
class DamagedBatch:
    """A damaged batch that the client has reported."""

    first: int
    """The first of its offsets that was not read before."""
    next_batch: int | None = None
    """Where the next batch begins; None until this batch is given up. Its records then count as lost."""
    reports: int = 0


class PartitionDamage:
    """The damaged batches of one partition, and where its reader continues after a report."""

    def __init__(self, next_batch: Callable[[int], int | None]) -> None:
        """`next_batch` takes the offset of a batch and returns that of the batch behind it; None if it can't find out now."""
        self._next_batch = next_batch
        self._batches: dict[int, DamagedBatch] = {}

    def reported(self, batch_offset: int, read_up_to: int) -> tuple[int, DamagedBatch | None]:
        """Records a report about the batch that begins at `batch_offset`. `read_up_to` is the offset behind the last record read.

        Returns the offset at which to continue, and the batch if this report makes the reader give it up.
        """
        batch = self._batches.setdefault(batch_offset, DamagedBatch(max(batch_offset, read_up_to)))
        given_up = None
        if batch.next_batch is None:
            batch.reports += 1
            if batch.reports > TRIES and (found := self._next_batch(batch_offset)) is not None:
                batch.next_batch = found
                given_up = batch
        return max(batch.first if batch.next_batch is None else batch.next_batch, read_up_to), given_up
