"""Tracks silent partitions: assigned ones from which neither a record nor their end has come since the assignment.

The client reports the end of each partition that it reads. So the client does not read a partition that stays silent. No other member of
the group reads it either.
"""

import time
from collections.abc import Callable, Collection, Sequence

from consumers.loop.offsets import PartitionOffsets

# A working client reports within a second. A killed broker is back sooner than this.
SILENT_AFTER_S = 30.0
# A partition without a leader is silent, too, and a new client does not help. So the time doubles, up to this.
SILENT_AFTER_MAX_S = 600.0


class Silence:
    """The silent partitions of one loop. Only the thread that polls uses it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[PartitionOffsets, float] = {}
        self._renewals = 0

    def __bool__(self) -> bool:
        """Whether any partition is silent."""
        return bool(self._since)

    @property
    def partitions(self) -> Sequence[PartitionOffsets]:
        """The silent partitions."""
        return list(self._since)

    def assigned(self, partition: PartitionOffsets) -> None:
        """Notes that the partition is silent from now on."""
        self._since[partition] = self._clock()

    def heard(self, partitions: Collection[PartitionOffsets]) -> None:
        """Notes that a record or the end of each partition has come."""
        for partition in partitions:
            self._since.pop(partition, None)
        if not self._since:
            self._renewals = 0

    def revoked(self, partitions: Collection[PartitionOffsets]) -> None:
        """Forgets the partitions."""
        for partition in partitions:
            self._since.pop(partition, None)

    def without_contact(self) -> None:
        """Notes that no broker responds. The time until now does not count."""
        self._since = dict.fromkeys(self._since, self._clock())

    @property
    def is_too_long(self) -> bool:
        """Whether a partition has been silent for so long that the client has to be replaced."""
        patience_s = min(SILENT_AFTER_MAX_S, SILENT_AFTER_S * 2 ** min(self._renewals, 10))
        return bool(self._since) and self._clock() - min(self._since.values()) >= patience_s

    def renewed(self) -> None:
        """Notes that the client was replaced because of silent partitions."""
        self._renewals += 1

    @property
    def complaint(self) -> str | None:
        """The message about partitions that are silent although the client was replaced, if there are any."""
        if not self._since or not self._renewals:
            return None
        names = ", ".join(partition.name for partition in self._since)
        return f"nothing comes from {names}, also with a new Kafka client; check that each partition has a leader"
