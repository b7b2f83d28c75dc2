"""Step 5 of the loop: asks the group's coordinator to commit offsets, one request at a time, and takes its reply."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

from consumers.loop.client_errors import ExpelledError, is_expelled, is_fatal
from consumers.loop.commit_pace import CommitPace
from consumers.loop.offsets import PartitionOffsets
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action

# Ten times as long as the client itself waits for a coordinator.
REPLY_AFTER_S = 100.0


@dataclass(slots=True)
class _Request:
    """A request to the coordinator to commit offsets."""

    offsets: Mapping[PartitionOffsets, int]
    since: float
    served_since: float
    """Since when the client waits for the reply while the coordinator responds to others."""
    reply: Sequence[KafkaError] | None = None
    """The errors of the reply. None: there is no reply yet."""


class OffsetCommits:
    """The commits of one loop. Only the thread that polls uses it."""

    def __init__(
        self,
        role: str,
        assigned: Mapping[tuple[str, int], PartitionOffsets],
        *,
        pace: CommitPace,
        is_served: Callable[[], bool],
        on_committed: Callable[[], None],
    ) -> None:
        """`assigned` are the loop's partitions at each moment. `is_served` returns whether the coordinator responds to another client. Each
        confirmed commit calls `on_committed`."""
        self._role = role
        self._assigned = assigned
        self._pace = pace
        self._is_served = is_served
        self._on_committed = on_committed
        self._committed: dict[PartitionOffsets, int] = {}
        self._request: _Request | None = None

    def joined(self) -> None:
        """Notes that a new client has joined the group. It gets no reply to a request of the client before."""
        self._request = None

    @property
    def is_waiting(self) -> bool:
        """Whether a request has no reply yet."""
        return self._request is not None

    @property
    def due_in_s(self) -> float | None:
        """Seconds until the next commit. None: no offset has moved, or a request has no reply yet."""
        return max(0.0, self._pace.due_in_s) if self._request is None and self._moved() else None

    def commit_if_due(self, consumer: Consumer) -> None:
        """Commits at the pace. Raises ExpelledError."""
        self.judge_reply()
        if self._pace.due_in_s <= 0:
            self.commit(consumer)

    def commit(self, consumer: Consumer) -> None:
        """Asks the coordinator to commit the offsets that have moved, one request at a time. After a failure the next request includes them;
        until then a crash leads to redelivery.

        Raises ExpelledError.
        """
        self.judge_reply()
        if self._request is not None:
            return
        moved = self._moved()
        if not moved:
            return
        self._pace.committed()
        now = time.monotonic()
        self._request = _Request(moved, now, now)
        try:
            consumer.commit(offsets=[kafka_position(*each) for each in moved.items()], asynchronous=True)
        except KafkaException as exception:
            self._request.reply = [exception.args[0]]
        self.judge_reply()

    def judge_reply(self) -> None:
        """Notes the offsets that the coordinator has committed, if its reply has come. Raises ExpelledError."""
        request = self._request
        if request is None:
            return
        if request.reply is None:
            self._wait_for_reply(request)
            return
        self._request = None
        for error in request.reply:
            if is_expelled(error) or is_fatal(error):
                raise ExpelledError(str(error))
            log_action(Action.COMMIT_FAILED, role=self._role, error=str(error))
        if not request.reply:
            owned = set(self._assigned.values())
            self._committed |= {partition: offset for partition, offset in request.offsets.items() if partition in owned}
            self._on_committed()

    def on_reply(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """Keeps the coordinator's reply for `judge_reply`. librdkafka calls it inside poll and consume, where nothing may raise."""
        if self._request is not None:
            metrics.STEP_SECONDS.labels(self._role, "commit").observe(time.monotonic() - self._request.since)
            self._request.reply = [each for each in (error, *(partition.error for partition in partitions)) if each is not None]

    def revoked(self, partitions: Collection[PartitionOffsets]) -> None:
        """Forgets partitions that another member owns now."""
        for partition in partitions:
            self._committed.pop(partition, None)

    def _moved(self) -> dict[PartitionOffsets, int]:
        """Returns the offsets that have moved since they were committed."""
        return {
            partition: partition.next_offset
            for partition in self._assigned.values()
            if partition.next_offset is not None and partition.next_offset != self._committed.get(partition)
        }

    def _wait_for_reply(self, request: _Request) -> None:
        """Raises ExpelledError if no reply comes although the coordinator responds to another client.

        Then this client has lost track of its group: it is no member any more, and does not say so (row 77 of docs/faults.md). While the
        coordinator is unreachable, the loop reads on.
        """
        now = time.monotonic()
        if not self._is_served():
            request.served_since = now
        elif now - request.served_since >= REPLY_AFTER_S:
            raise ExpelledError(
                f"no reply to a commit of offsets for {REPLY_AFTER_S:g} s, although the coordinator responds to others"
            )


def kafka_position(partition: PartitionOffsets, offset: int = OFFSET_INVALID) -> TopicPartition:
    """Returns a position with the topic's id as metadata, because Kafka stores committed offsets by topic name only."""
    return TopicPartition(partition.cluster_topic, partition.partition, offset, partition.topic_id)
