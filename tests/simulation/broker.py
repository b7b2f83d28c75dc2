"""A broker in memory: logs by partition, consumer groups with committed offsets, and everything that Kafka may do to a client.

It keeps only the promises that Kafka makes: order within a partition, and no loss of an acknowledged record. Records come again, partitions
move with or without notice, and uncommitted offsets are forgotten. The caller decides what happens, and never a clock.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

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
"""Every record's timestamp. A redelivered record keeps it, and an example that is run again has the same ones."""

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
    """What a member gets in one turn: a number of records, from its partitions in an order that follows from the seed."""

    records: int
    seed: int


NOTHING = Fetch(0, 0)


class Broker:
    """The logs, and the committed offsets of each group."""

    def __init__(self, prefix: str, on_append: Callable[[OutgoingEvent], None]) -> None:
        """`on_append` is called with each stored record."""
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
        """The partition of its key."""
        return zlib.crc32(event.key.encode()) % PARTITIONS[event.topic]

    def late_copies_arrive(self) -> None:
        """Stores records that producers still held, and that nobody waits for any more."""
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
        """The ends, as the sweeper asks for them. Records that were lost at the end of a log don't count."""
        return {
            place: Queue(0, max((n + 1 for n in range(len(log)) if (*place, n) not in self.lost), default=0), place[0].value)
            for place, log in self.logs.items()
            if place[0] in topics
        }

    def topic_ids(self, topics: Sequence[Topic], *, timeout_s: float) -> Mapping[Topic, str]:
        """The topic ids, as a consumer asks for them. Topics are never replaced."""
        assert timeout_s > 0
        return {topic: topic.value for topic in topics}

    def give(self, place: Place, consumer: "SimulatedConsumer", *, announced: bool) -> None:
        """Makes a member the owner of a partition. The last owner is told so, or still believes that it is the owner."""
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
    """Stands in for `confluent_kafka.Consumer`, as far as the loop uses it."""

    def __init__(self, broker: Broker, group: str) -> None:
        self.group = group
        self.fetch = NOTHING
        self.refuses_commits = False
        self._is_fenced = False
        self._broker = broker
        self._positions: dict[Place, int] = {}
        self._ends_told: dict[Place, int] = {}
        self._paused: set[Place] = set()

    def subscribe(
        self,
        on_assign: Callable[[Consumer, list[TopicPartition]], None],
        on_revoke: Callable[[Consumer, list[TopicPartition]], None],
        on_commit: Callable[[KafkaError | None, list[TopicPartition]], None],
    ) -> None:
        """Keeps the callbacks."""
        self._on_commit = on_commit
        self._on_assign = on_assign
        self._on_revoke = on_revoke

    def assign(self, place: Place) -> None:
        """Takes over a partition, from the group's committed offset."""
        self._ends_told.pop(place, None)
        self._positions[place] = self._broker.committed[self.group, place]
        self._on_assign(cast("Consumer", self), [self._named(place)])

    def revoke(self, place: Place) -> None:
        """Gives up a partition."""
        self._positions.pop(place, None)
        self._paused.discard(place)
        self._on_revoke(cast("Consumer", self), [self._named(place)])

    @property
    def is_behind(self) -> bool:
        """Whether there is something to fetch."""
        return any(position < len(self._broker.logs[place]) for place, position in self._positions.items())

    def poll(self, timeout: float) -> Message | None:
        """One record, if the fetch has one left. Never waits."""
        self._join_again()
        return next(iter(self._records(1)), None)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        """The records of the fetch, and the ends that they have reached."""
        self._join_again()
        return self._records(num_messages) + self._ends()

    def _records(self, num_messages: int) -> list[Message]:
        """In order within each partition; the partitions alternate at random."""
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
        """Each end once, as a message."""
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
        """The group's committed offsets. The topic's id beside them is always the same."""
        assert timeout > 0
        return [
            TopicPartition(each.topic, each.partition, self._broker.committed[self.group, place], place[0].value)
            for each in partitions
            if (place := self._place(each))
        ]

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        """Commits the offsets of this member's partitions. A member that another has replaced joins again before it fetches."""
        assert asynchronous, "nobody waits for the coordinator"
        places = {self._place(partition): partition.offset for partition in offsets}
        if any(self._broker.owners.get((self.group, place)) is not self for place in places):
            self._is_fenced = True
            self._on_commit(KafkaError(KafkaError.UNKNOWN_MEMBER_ID), [])
        elif self.refuses_commits:
            self._on_commit(KafkaError(KafkaError._TIMED_OUT), [])
        else:
            for place, offset in places.items():
                self._broker.committed[self.group, place] = offset
            self._on_commit(None, list(offsets))

    def _join_again(self) -> None:
        """Loses all partitions and gets those that the group gives it, as a member does that the coordinator no longer knows."""
        if self._is_fenced:
            self._is_fenced = False
            for place in list(self._positions):
                self.revoke(place)
            for (group, place), owner in list(self._broker.owners.items()):
                if group == self.group and owner is self:
                    self.assign(place)

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
    """The broker goes away during a send, after it has acknowledged and stored this many records."""

    acknowledged: int
    stored: int
    is_silent: bool = False
    """Whether the sender hears nothing about the other records until the broker is back. Otherwise it is told that they are not
    acknowledged."""


class SimulatedPublisher:
    """Stands in for the producer of the relay and the loop."""

    def __init__(self, broker: Broker) -> None:
        self.outage: Outage | None = None
        """What happens to the next events."""
        self._broker = broker
        self._silent: list[tuple[Delivery, int, bool]] = []

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        """Appends the events one by one, in order. The process may die between any two."""
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
        """Brings nothing, unless the broker is back."""

    def come_back(self) -> None:
        """The broker stores and acknowledges the outstanding events."""
        silent, self._silent = self._silent, []
        for delivery, index, is_stored in silent:
            if not is_stored:
                point("produce")
                self._broker.append(delivery.events[index])
            delivery.settle(index)

    def abandon(self) -> None:
        """Events that were not called back arrive late."""
        self._broker.late += [delivery.events[index] for delivery, index, is_stored in self._silent if not is_stored]
        self._silent.clear()

    def place(self, event: OutgoingEvent) -> str:
        """Topic and partition."""
        return f"{event.topic.value}/{self._broker.partition_of(event)}"

    def is_reachable(self) -> bool:
        """Returns True."""
        return True
