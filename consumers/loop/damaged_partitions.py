"""Takes a loop past the batches of records that its client can't read (`damage.py`)."""

from collections.abc import Callable, Collection

from confluent_kafka import Consumer

from consumers.loop.committing import kafka_position
from consumers.loop.damage import PartitionDamage
from consumers.loop.decoding import Entry, damaged
from consumers.loop.offsets import PartitionOffsets
from orchestrator.process.actions import Action, log_action


class DamagedPartitions:
    """The damage in the partitions of one loop. Only the thread that polls uses it."""

    def __init__(self, role: str, next_batch: Callable[[str, int, int], int | None]) -> None:
        """`next_batch` takes a topic, a partition and the offset of a batch. It returns the offset of the batch behind it; None if it can't
        find out now."""
        self._role = role
        self._next_batch = next_batch
        self._damage: dict[PartitionOffsets, PartitionDamage] = {}

    def step_over(self, consumer: Consumer, partition: PartitionOffsets, batch_offset: int) -> list[Entry]:
        """Seeks what comes next after a batch that the client can't read. Returns what is put aside: once for the batch."""
        damage = self._damage.get(partition)
        if damage is None:
            damage = self._damage[partition] = PartitionDamage(
                lambda offset: self._next_batch(partition.cluster_topic, partition.partition, offset)
            )
        next_offset, given_up = damage.reported(batch_offset, partition.polled_up_to)
        consumer.seek(kafka_position(partition, next_offset))
        if given_up is None:
            return []
        log_action(
            Action.RECORDS_LOST,
            role=self._role,
            topic=partition.topic.value,
            partition=partition.partition,
            offset=given_up.first,
            next_offset=next_offset,
        )
        return [damaged(partition, given_up.first)]

    def revoked(self, partitions: Collection[PartitionOffsets]) -> None:
        """Forgets the partitions."""
        for partition in partitions:
            self._damage.pop(partition, None)
