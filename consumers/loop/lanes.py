"""The queues between polling and handling, and the choice of the next micro-batch."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from consumers.loop.decoding import Entry
from consumers.loop.handler import Lane
from consumers.loop.offsets import PartitionOffsets
from orchestrator.process.settings import Settings


@dataclass(frozen=True, kw_only=True)
class LanePolicy:
    """The limits of the queues, and of the micro-batches taken from them."""

    max_batch_records: int
    max_batch_bytes: int = 160 * 1024
    """Counts the records' values, which say how much work there is. A micro-batch of commands fits (300 bytes each, and headers of the same
    size). Of a large batch's parts (63 KB) two fit, a thousand commands: between them the splitter serves other batches."""
    bulk_share: float
    max_lane_records: int = 3_000
    """Half of it is more work than the time in which a resumed partition's records arrive (`fetch.wait.max.ms`)."""
    max_lane_bytes: int = 2 * 1024 * 1024
    """Counts whole records, with their headers: it bounds memory. A decoded record takes ten to twenty times its bytes."""

    @classmethod
    def of(cls, settings: Settings) -> "LanePolicy":
        """Returns the policy that the settings ask for."""
        return cls(max_batch_records=settings.max_batch_records, bulk_share=settings.bulk_lane_share)


class _Queue:
    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.bytes = 0


class Lanes:
    """One queue for each lane. A micro-batch comes from one lane. In a mixed one, the few records of small batches would wait for the
    many beside them.

    While both lanes have work they take turns, and the bulk lane gets its share of a micro-batch. While one is idle, the other gets whole
    micro-batches.
    """

    def __init__(self, policy: LanePolicy) -> None:
        self._policy = policy
        self._queues = {lane: _Queue() for lane in Lane}
        self._last = Lane.BULK

    def put(self, entry: Entry) -> None:
        """Appends an entry, even to a full lane, because a polled record can't be returned to Kafka."""
        queue = self._queues[entry.lane]
        queue.entries.append(entry)
        queue.bytes += entry.bytes

    def take(self) -> list[Entry]:
        """Returns the next micro-batch, empty when there is no work. It keeps the limits of count and bytes, but has at least one
        record."""
        waiting = [lane for lane in Lane if self._queues[lane].entries]
        if not waiting:
            return []
        share = 1.0
        lane = waiting[0]
        if len(waiting) == 2:
            lane = Lane.BULK if self._last is Lane.SMALL else Lane.SMALL
            share = self._policy.bulk_share if lane is Lane.BULK else 1.0 - self._policy.bulk_share
        self._last = lane
        return self._take(self._queues[lane], self._policy.max_batch_records * share, self._policy.max_batch_bytes * share)

    @staticmethod
    def _take(queue: _Queue, max_records: float, max_bytes: float) -> list[Entry]:
        entries = queue.entries
        taken: list[Entry] = []
        size = 0
        while entries and (not taken or len(taken) + 1 <= max_records):
            size += entries[0].value_bytes
            if taken and size > max_bytes:
                break
            taken.append(entries.popleft())
        queue.bytes -= sum([entry.bytes for entry in taken])
        return taken

    def is_full(self, lane: Lane) -> bool:
        """Whether the consumer should pause the partitions that feed the lane."""
        return self._fills(lane, 1.0)

    def has_room(self, lane: Lane) -> bool:
        """Whether paused partitions may resume. True only at half full or less, because each pause discards prefetched records."""
        return not self._fills(lane, 0.5)

    def _fills(self, lane: Lane, share: float) -> bool:
        queue = self._queues[lane]
        return len(queue.entries) >= self._policy.max_lane_records * share or queue.bytes >= self._policy.max_lane_bytes * share

    def drop(self, partitions: Collection[PartitionOffsets]) -> None:
        """Drops the records of partitions that another member owns now."""
        for queue in self._queues.values():
            queue.entries = deque(entry for entry in queue.entries if entry.partition not in partitions)
            queue.bytes = sum(entry.bytes for entry in queue.entries)

    def __bool__(self) -> bool:
        return any(queue.entries for queue in self._queues.values())
