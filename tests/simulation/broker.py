"""A broker in memory: logs by partition, consumer groups with committed offsets, and everything that Kafka may do to a client.

It keeps the promises that Kafka makes (order within a partition, nothing lost that was acknowledged) and no other: records come again,
partitions move with or without notice, what was not committed is forgotten. What it does is decided by the caller, never by a clock.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from orchestrator.batches.publishing import Delivery, Trouble
from orchestrator.storage.sweeping import Queue, Queues
from schemas.envelope import OutgoingEvent, Topic
from tests.simulation.interleaving import point

PARTITIONS = {
    Topic.BATCHES: 2,
    Topic.COMMANDS: 2,
    Topic.COMMANDS_BULK: 2,
    Topic.RESULTS: 2,
    Topic.LIFECYCLE: 1,
    Topic.DEAD_LETTER: 1,
}

WRITTEN_AT_MS = 1_774_500_000_000
"""Every record's timestamp: what is redelivered has that of the first time, and an example that is run again the same ones."""

Place = tuple[Topic, int]
"""A partition of a topic."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record in its log."""

    topic: Topic
    partition: int
    offset: int
    event: OutgoingEvent

    @property
    def place(self) -> tuple[Topic, int, int]:
        """Topic, partition, offset."""
        return (self.topic, self.partition, self.offset)


@dataclass(frozen=True, slots=True)
class Fetch:
    """What a member gets in one turn: so many records, from its partitions as the seed has it."""

    records: int
    seed: int


NOTHING = Fetch(0, 0)


class Broker:
    """The logs, and which group has committed what."""

    def __init__(self, prefix: str, on_append: Callable[[OutgoingEvent], None]) -> None:
        """`on_append` is told of each record that is stored."""
        self.prefix = prefix
        self.logs: dict[Place, list[OutgoingEvent]] = {(t, p): [] for t, count in PARTITIONS.items() for p in range(count)}
        self.late: list[OutgoingEvent] = []
        self.lost: set[tuple[Topic, int, int]] = set()
        self.committed: dict[tuple[str, Place], int] = defaultdict(int)
        self.owners: dict[tuple[str, Place], SimulatedConsumer] = {}
        self._on_append = on_append

    def append(self, event: OutgoingEvent) -> None:
        """Stores a record behind the others of its key."""
        self.logs[event.topic, self.partition_of(event)].append(event)
        self._on_append(event)

    @staticmethod
    def partition_of(event: OutgoingEvent) -> int:
        """Of its key."""
        return zlib.crc32(event.key.encode()) % PARTITIONS[event.topic]

    def late_copies_arrive(self) -> None:
        """What producers had in hand that nobody waits for any more."""
        late, self.late = self.late, []
        for event in late:
            self.append(event)

    def stored(self, topic: Topic) -> list[Stored]:
        """Every record of a topic."""
        return [
            Stored(topic, partition, offset, event)
            for partition in range(PARTITIONS[topic])
            for offset, event in enumerate(self.logs[topic, partition])
        ]

    def end_offsets(self, topics: Sequence[Topic]) -> Queues:
        """As the sweeper asks: what is lost at the end of a log is not there to be passed."""
        return {
            place: Queue(0, max((n + 1 for n in range(len(log)) if (*place, n) not in self.lost), default=0), place[0].value)
            for place, log in self.logs.items()
            if place[0] in topics
        }

    def topic_ids(self, topics: Sequence[Topic], *, timeout_s: float) -> Mapping[Topic, str]:
        """As a consumer asks: topics are never replaced."""
        assert timeout_s > 0
        return {topic: topic.value for topic in topics}

    def give(self, place: Place, consumer: "SimulatedConsumer", *, announced: bool) -> None:
        """Makes a member the owner of a partition; the last owner is told so, or goes on in the belief that it still is."""
        last = self.owners.get((consumer.group, place))
        if last is consumer:
            return
        self.owners[consumer.group, place] = consumer
        if last is not None and announced:
            last.revoke(place)
        consumer.assign(place)

    def leave(self, consumer: "SimulatedConsumer") -> None:
        """Forgets a member that has died."""
        for key in [key for key, owner in self.owners.items() if owner is consumer]:
            del self.owners[key]


class SimulatedConsumer:
    """What `confluent_kafka.Consumer` is to the loop, as far as the loop uses it."""

    def __init__(self, broker: Broker, group: str) -> None:
        self.group = group
        self.fetch = NOTHING
        self.refuses_commits = False
        self._broker = broker
        self._positions: dict[Place, int] = {}
        self._ends_told: dict[Place, int] = {}
        self._paused: set[Place] = set()

    def subscribe(
        self,
        on_assign: Callable[[Consumer, list[TopicPartition]], None],
        on_revoke: Callable[[Consumer, list[TopicPartition]], None],
    ) -> None:
        """Keeps the callbacks."""
        self._on_assign = on_assign
        self._on_revoke = on_revoke

    def assign(self, place: Place) -> None:
        """A partition is this member's now, from where the group has committed."""
        self._ends_told.pop(place, None)
        self._positions[place] = self._broker.committed[self.group, place]
        self._on_assign(cast("Consumer", self), [self._named(place)])

    def revoke(self, place: Place) -> None:
        """A partition is somebody else's now."""
        self._positions.pop(place, None)
        self._paused.discard(place)
        self._on_revoke(cast("Consumer", self), [self._named(place)])

    @property
    def is_behind(self) -> bool:
        """Whether there is something to fetch."""
        return any(position < len(self._broker.logs[place]) for place, position in self._positions.items())

    def poll(self, timeout: float) -> Message | None:
        """One record, if the fetch has one left. Never waits."""
        return next(iter(self._records(1)), None)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        """The records of the fetch, and the ends that they have reached."""
        return self._records(num_messages) + self._ends()

    def _records(self, num_messages: int) -> list[Message]:
        """In order within each partition, the partitions in any."""
        random = Random(self.fetch.seed)
        wanted = min(num_messages, self.fetch.records)
        messages: list[Message] = []
        while len(messages) < wanted and (places := self._with_records()):
            place = random.choice(places)
            offset = self._positions[place]
            self._positions[place] = offset + 1
            if (*place, offset) not in self._broker.lost:
                messages.append(self._message(place, offset))
        self.fetch = Fetch(self.fetch.records - len(messages), self.fetch.seed + 1)
        return messages

    def _ends(self) -> list[Message]:
        """Told once each, as messages."""
        reached = {
            place: end
            for place, end in sorted(self._positions.items())
            if place not in self._paused and end == len(self._broker.logs[place]) and self._ends_told.get(place) != end
        }
        self._ends_told |= reached
        end_of_partition = KafkaError(KafkaError._PARTITION_EOF)
        return [
            Message(topic=self._cluster_name(place[0]), partition=place[1], offset=end, error=end_of_partition)
            for place, end in reached.items()
        ]

    def _with_records(self) -> list[Place]:
        return [
            place
            for place, position in sorted(self._positions.items())
            if place not in self._paused and position < len(self._broker.logs[place])
        ]

    def _message(self, place: Place, offset: int) -> Message:
        event = self._broker.logs[place][offset]
        return Message(
            topic=self._cluster_name(place[0]),
            partition=place[1],
            offset=offset,
            key=event.key.encode(),
            value=event.value,
            headers=list(event.headers),
            timestamp=(1, WRITTEN_AT_MS),
        )

    def committed(self, partitions: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """What the group has committed; the topic's id beside it is always the same."""
        assert timeout > 0
        return [
            TopicPartition(each.topic, each.partition, self._broker.committed[self.group, place], place[0].value)
            for each in partitions
            if (place := self._place(each))
        ]

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> list[TopicPartition]:
        """Commits what this member owns. Raises what Kafka answers to one that the group has gone on without."""
        assert not asynchronous, "offsets are committed synchronously"
        places = {self._place(partition): partition.offset for partition in offsets}
        if any(self._broker.owners.get((self.group, place)) is not self for place in places):
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
        if self.refuses_commits:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for place, offset in places.items():
            self._broker.committed[self.group, place] = offset
        return list(offsets)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stops fetching."""
        self._paused |= {self._place(partition) for partition in partitions}

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetches again."""
        self._paused -= {self._place(partition) for partition in partitions}

    def _cluster_name(self, topic: Topic) -> str:
        return topic.on_cluster(self._broker.prefix)

    def _named(self, place: Place) -> TopicPartition:
        return TopicPartition(self._cluster_name(place[0]), place[1])

    def _place(self, partition: TopicPartition) -> Place:
        return next(t for t in PARTITIONS if self._cluster_name(t) == partition.topic), partition.partition


@dataclass(frozen=True, slots=True)
class Outage:
    """The broker goes away while something is sent: how many records it has acknowledged by then, and how many it has stored."""

    acknowledged: int
    stored: int
    is_silent: bool = False
    """Nothing is said about the others until the broker is back; else the sender is told that they are not acknowledged."""


class SimulatedPublisher:
    """What the producer is to relay and loop."""

    def __init__(self, broker: Broker) -> None:
        self.outage: Outage | None = None
        """What happens to what is sent next."""
        self._broker = broker
        self._silent: list[tuple[Delivery, int, bool]] = []

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        """Appends one by one, in order; the process may die between any two."""
        outage, self.outage = self.outage, None
        delivery = Delivery(events)
        for index, event in enumerate(events):
            is_stored = outage is None or index < outage.stored
            if is_stored:
                point("produce")
                self._broker.append(event)
            if outage is None or index < outage.acknowledged:
                delivery.settle(index)
            elif outage.is_silent:
                self._silent.append((delivery, index, is_stored))
            else:
                delivery.settle(index, Trouble("simulated"))
        return delivery

    def poll(self, timeout_s: float) -> None:
        """Nothing comes unless the broker is back."""

    def come_back(self) -> None:
        """The broker stores and acknowledges what it was sent."""
        silent, self._silent = self._silent, []
        for delivery, index, is_stored in silent:
            if not is_stored:
                point("produce")
                self._broker.append(delivery.events[index])
            delivery.settle(index)

    def abandon(self) -> None:
        """What could not be called back arrives when nobody expects it."""
        self._broker.late += [delivery.events[index] for delivery, index, is_stored in self._silent if not is_stored]
        self._silent.clear()

    def place(self, event: OutgoingEvent) -> str:
        """Topic and partition."""
        return f"{event.topic.value}/{self._broker.partition_of(event)}"

    def is_reachable(self) -> bool:
        """Always."""
        return True
