"""Which offset of a partition may be committed: the end of the contiguous prefix of what is done."""

from collections import deque
from collections.abc import Collection

from orchestrator.storage.progress import UNKNOWN_ID
from schemas.envelope import Topic


class _Prefix:
    """How far everything has come to one point."""

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
        outstanding = self._outstanding
        if not outstanding or offset > outstanding[-1] or offset not in outstanding:
            outstanding.append(offset)

    def ends_at(self, end: int) -> None:
        if end > self.up_to:
            # The last offset before the end counts as a record that is done.
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
    """The offsets of one partition, for one assignment: an assignment anew is another object, so what is still under way from the
    last can't be taken for its own. `cluster_topic` is the topic's name in Kafka, `topic_id` says which incarnation of it was assigned.

    Lanes overtake each other, so records are done out of order; a commit of the highest would lose those before it. A record is handled
    when its effect is in the database, and done when what came of it is acknowledged as well.
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
    def next_offset(self) -> int | None:
        """What to commit: the offset after the last of the prefix that is done. None: nothing is done yet."""
        return self._done.next_offset

    @property
    def undone(self) -> int:
        """How many records have come since that offset."""
        return len(self._done)

    @property
    def polled_up_to(self) -> int:
        """The offset behind the last that was polled; 0 when nothing was."""
        return self._handled.up_to

    def polled(self, offset: int) -> None:
        """A record has come; offsets rise, with gaps where the log has none. One that comes again, because the client has gone back, is
        waited for once."""
        self._handled.expect(offset)
        self._done.expect(offset)

    def ends_at(self, end: int) -> None:
        """The partition ends before `end`, and what has not been polled by now is no record: a transaction's mark, for example."""
        self._handled.ends_at(end)
        self._done.ends_at(end)

    def handled(self, offsets: Collection[int]) -> None:
        """The effects of the records at these offsets are durable."""
        self._handled.done(offsets)

    def done(self, offsets: Collection[int]) -> None:
        """The records at these offsets need never come again."""
        self._done.done(offsets)

    def next_handled_after(self, offsets: Collection[int]) -> int | None:
        """The offset after the last of the prefix that will be handled when these are, too."""
        return self._handled.next_offset_after(offsets)
