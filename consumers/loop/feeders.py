"""The partitions that are paused because they have fed a full lane. Polling continues, so the member stays in the group."""

from collections.abc import Collection, Sequence

from confluent_kafka import Consumer

from consumers.loop.committing import kafka_position
from consumers.loop.decoding import Entry
from consumers.loop.handler import Lane
from consumers.loop.lanes import Lanes
from consumers.loop.offsets import PartitionOffsets


class PausedFeeders:
    """These partitions, each with the lane that it fed. Only the thread that polls uses it."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._paused: dict[PartitionOffsets, Lane] = {}

    def __len__(self) -> int:
        return len(self._paused)

    def pause(self, consumer: Consumer, entries: Sequence[Entry]) -> None:
        """Pauses the partitions whose entries have just filled a lane."""
        full = {lane for lane in Lane if self._lanes.is_full(lane)}
        if not full:
            return
        feeders = {entry.partition: entry.lane for entry in entries if entry.lane in full and entry.partition not in self._paused}
        if feeders:
            consumer.pause([kafka_position(partition) for partition in feeders])
            self._paused |= feeders

    def resume(self, consumer: Consumer) -> None:
        """Resumes the partitions whose lane has room again."""
        roomy = {lane for lane in set(self._paused.values()) if self._lanes.has_room(lane)}
        resumed = [partition for partition, lane in self._paused.items() if lane in roomy]
        if resumed:
            self._resume(consumer, resumed)

    def revoked(self, consumer: Consumer, partitions: Collection[PartitionOffsets]) -> None:
        """Resumes the partitions. One that is assigned again would otherwise still be paused."""
        self._resume(consumer, [partition for partition in self._paused if partition in partitions])

    def _resume(self, consumer: Consumer, partitions: Sequence[PartitionOffsets]) -> None:
        consumer.resume([kafka_position(partition) for partition in partitions])
        for partition in partitions:
            del self._paused[partition]
