"""The micro-batches that are handled, and whose events are not all acknowledged. Their offsets are not committed."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from consumers.loop.deliveries import Pending
from consumers.loop.offsets import PartitionOffsets

# A healthy broker acknowledges within a second. An event that is later than this only holds up offsets.
LATE_ACKNOWLEDGEMENT_S = 60.0


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    offsets: Mapping[PartitionOffsets, Collection[int]]
    pending: Pending
    since: float


class Unacknowledged:
    """The micro-batches of one loop, oldest first. Only the thread that polls uses it."""

    def __init__(self) -> None:
        self._batches: list[_MicroBatch] = []

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, offsets: Mapping[PartitionOffsets, Collection[int]], pending: Pending) -> None:
        """Adds a micro-batch with the offsets of its records."""
        self._batches.append(_MicroBatch(offsets, pending, time.monotonic()))

    def note_acknowledged(self) -> None:
        """Marks the records as done whose events are acknowledged by now."""
        for batch in self._batches:
            if batch.pending.is_done:
                for partition, offsets in batch.offsets.items():
                    partition.done(offsets)
        self._batches = [batch for batch in self._batches if not batch.pending.is_done]

    @property
    def complaint(self) -> str | None:
        """The message about an acknowledgement that is late."""
        oldest_s = time.monotonic() - min((batch.since for batch in self._batches), default=float("inf"))
        return (
            f"what it has produced is not acknowledged for {oldest_s:.0f} s: is a topic missing or forbidden?"
            if oldest_s > LATE_ACKNOWLEDGEMENT_S
            else None
        )
