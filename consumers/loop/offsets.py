"""Decides which offset of a partition may be committed: the end of the contiguous prefix of done records."""

from collections import deque
from collections.abc import Collection

from orchestrator.storage.progress import UNKNOWN_ID
from schemas.envelope import Topic


class _Prefix:
    """How far all records have come to one stage (handled, or done)."""

    __slots__ = ("_done", "_outstanding", "next_offset")

    def __init__(self) -> None:
        self.next_offset: int | None = None
        self._outstanding: deque[int] = deque()
        self._done: set[int] = set()

    def __len__(self) -> int:
        return len(self._outstanding)

    @property
    def up_to(self) -> int:
        return self._outstanding[-1] + 1 if self._outstanding else self.next_offset or 0

    def expect(self, offset: int) -> None:
        if offset >= self.up_to:
            self._outstanding.append(offset)

    def ends_at(self, end: int) -> None:
        if end > self.up_to:
            # The last offset before the end counts as a done record.
            self.expect(end - 1)
            self.done([end - 1])

    def done(self, offsets: Collection[int]) -> None:
        outstanding, done = self._outstanding, self._done
        done.update(offsets)
        last = None
        while outstanding and outstanding[0] in done:
            last = outstanding.popleft()
            done.remove(last)
        if last is not None:
            self.next_offset = last + 1
        if not outstanding:
            done.clear()

    def next_offset_after(self, offsets: Collection[int]) -> int | None:
        prefix = self.next_offset
        for offset in self._outstanding:
            if offset not in self._done and offset not in offsets:
                break
            prefix = offset + 1
        return prefix


class PartitionOffsets:
    """The offsets of one partition during one assignment. A new assignment creates a new object, so that records still under way from the
    last assignment are not counted. `cluster_topic` is the topic's name in Kafka, `topic_id` the incarnation that was assigned.

    Lanes overtake each other, so records are done out of order, and committing the highest offset would lose earlier ones. A record is
    handled when its effect is in the database, and done when the events that it led to are acknowledged as well.
    """

    __slots__ = ("_done", "_handled", "cluster_topic", "partition", "topic", "topic_id")

    def __init__(self, topic: Topic, cluster_topic: str, partition: int, topic_id: str = UNKNOWN_ID) -> None:
        self.topic = topic
        self.cluster_topic = cluster_topic
        self.partition = partition
        self.topic_id = topic_id
        self._handled = _Prefix()
        self._done = _Prefix()

    @property
    def name(self) -> str:
        """As people and logs see it."""
        return f"{self.topic.value}/{self.partition}"

    @property
    def next_offset(self) -> int | None:
        """The offset to commit: the one after the prefix of done records. None: nothing is done yet."""
        return self._done.next_offset

    @property
    def undone(self) -> int:
        """How many records have been polled since that offset."""
        return len(self._done)

    @property
    def polled_up_to(self) -> int:
        """The offset after the last that was polled; 0 when none was."""
        return self._handled.up_to

    def polled(self, offset: int) -> None:
        """Notes a polled record. Offsets rise, with gaps where the log has no record. A record that is polled again, because the client
        went back, is counted once."""
        self._handled.expect(offset)
        self._done.expect(offset)

    def ends_at(self, end: int) -> None:
        """Notes that the partition ends before `end`. Offsets not polled by now hold no record, but for example a transaction's marker."""
        self._handled.ends_at(end)
        self._done.ends_at(end)

    def handled(self, offsets: Collection[int]) -> None:
        """Notes that the effects of the records at these offsets are durable."""
        self._handled.done(offsets)

    def done(self, offsets: Collection[int]) -> None:
        """Notes that the records at these offsets need not be delivered again."""
        self._done.done(offsets)

    def next_handled_after(self, offsets: Collection[int]) -> int | None:
        """Returns the offset after the prefix of handled records, once the records at `offsets` are handled too."""
        return self._handled.next_offset_after(offsets)
