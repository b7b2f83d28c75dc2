"""Which offset of a partition may be committed: the end of the contiguous prefix of what is done."""

from collections import deque
from collections.abc import Collection

from orchestrator.storage.progress import UNKNOWN_ID
from schemas.envelope import Topic


class PartitionOffsets:
    """The offsets of one partition, for one assignment: an assignment anew is another object, so what is still under way from the
    last can't be taken for its own. `cluster_topic` is the topic's name in Kafka, `topic_id` says which incarnation of it was assigned.

    Lanes overtake each other, so records are done out of order; a commit of the highest would lose those before it.
    """

    __slots__ = ("_done", "_outstanding", "cluster_topic", "next_offset", "partition", "topic", "topic_id")

    def __init__(self, topic: Topic, cluster_topic: str, partition: int, topic_id: str = UNKNOWN_ID) -> None:
        self.topic = topic
        self.cluster_topic = cluster_topic
        self.partition = partition
        self.topic_id = topic_id
        self.next_offset: int | None = None
        """What to commit: the offset after the last of the prefix. None: nothing is done yet."""
        self._outstanding: deque[int] = deque()
        self._done: set[int] = set()

    def polled(self, offset: int) -> None:
        """A record has come; offsets rise, with gaps where the log has none."""
        self._outstanding.append(offset)

    def done(self, offsets: Collection[int]) -> None:
        """The records at these offsets need never come again."""
        self._done.update(offsets)
        while self._outstanding and self._outstanding[0] in self._done:
            offset = self._outstanding.popleft()
            self._done.remove(offset)
            self.next_offset = offset + 1

    def next_offset_after(self, offsets: Collection[int]) -> int | None:
        """What `next_offset` will be when these are done, too."""
        prefix = self.next_offset
        for offset in self._outstanding:
            if offset not in self._done and offset not in offsets:
                break
            prefix = offset + 1
        return prefix
