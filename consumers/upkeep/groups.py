"""The roles' consumer groups, for an operator: how they are, and a new group for a role (decision 43).

A role needs a new group when no coordinator serves its group, when the coordinator gives partitions to nobody, or when the role has to read
again what its group has passed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # the public name is not typed as exported
from sqlalchemy import Connection, Engine

from consumers.loop.config import group_id
from consumers.loop.coordinator import UNSERVED
from consumers.loop.runtime import MAX_UNDONE_RECORDS
from consumers.upkeep.end_offsets import BrokerEndOffsets
from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.settings import Settings
from orchestrator.storage.consumer_groups import note_generation, read_generation
from orchestrator.storage.database import transact
from orchestrator.storage.progress import UNKNOWN_ID, Position, read_progress
from orchestrator.storage.sweeping import Queues
from schemas.envelope import Topic

TOPICS: Mapping[str, Sequence[Topic]] = {
    "splitter": (Topic.BATCHES,),
    "registration": (Topic.COMMANDS, Topic.COMMANDS_BULK),
    "aggregator": (Topic.RESULTS,),
    "notifier": (Topic.LIFECYCLE,),
}
"""The topics of each role that has a consumer group."""

# What is handled in the database may not be published yet. A loop has at most this many such records. Transactions leave gaps between
# the offsets, one for each record at most.
_MARGIN = 2 * MAX_UNDONE_RECORDS

# A coordinator that moves to another broker refuses for some seconds.
_TRIES = 3
_BETWEEN_TRIES_S = 2.0

# Each candidate is on another partition of Kafka's topic of offsets.
_MOST_CANDIDATES = 10
_GENERATIONS_AHEAD = 1_000

_OFFSETS_TOPIC = "__consumer_offsets"

# The state of a group whose members have all partitions that the coordinator wants them to have.
_STABLE = "stable"


class NoGroupServedError(Exception):
    """Kafka serves no group that a role could have."""


@dataclass(frozen=True, slots=True)
class Group:
    """A role's consumer group. `state` is Kafka's, or the name of the coordinator's refusal if it does not serve the group."""

    role: str
    name: str
    is_served: bool
    state: str
    members: int
    unread: Sequence[str]
    """The partitions, such as `batches/0`, that none of the members is given, although the group is stable."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with the group, so that the role needs a new one."""
        if not self.is_served:
            return f"Kafka's coordinator does not serve it ({self.state}), so the role {self.role} handles nothing"
        if self.unread:
            return (
                f"Kafka's coordinator gives {', '.join(self.unread)} to none of its {self.members} members, so nobody reads them"
            )
        return None


@dataclass(frozen=True, slots=True)
class QueuedGroup(Group):
    """A group, and how many records its role has not handled yet."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """The group that a role has after `renew`."""

    role: str
    name: str
    renewed: bool
    """False: its group is served and reads all partitions, so it was kept."""


class Described(NamedTuple):
    """What the coordinator says about a group. `assigned` are the partitions of the members, by the topic's name in Kafka."""

    refusal: str | None
    state: str
    members: int
    assigned: frozenset[tuple[str, int]]


class Groups:
    """Asks Kafka about the groups."""

    def __init__(self, settings: Settings, *, timeout_s: float) -> None:
        """Raises UnsafeKafkaError."""
        self._settings = settings
        self._timeout_s = timeout_s
        self._admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "groups"))
        self._ends = BrokerEndOffsets(settings)

    def name(self, connection: Connection, role: str) -> str:
        """Returns the name of the role's present group."""
        return self._name(role, read_generation(connection, role))

    def all(self, engine: Engine) -> Iterator[Group]:
        """Returns the group of each role. Raises KafkaException."""
        # Kafka may take longer than the database lets a transaction wait. So it is asked when the connection is closed.
        with engine.connect() as connection:
            names = {role: self.name(connection, role) for role in TOPICS}
        for role, name in names.items():
            yield self._group(role, name)

    def all_queued(self, engine: Engine) -> Iterator[QueuedGroup]:
        """Returns the group of each role, with the records that wait. Raises KafkaException, also when a partition has no leader."""
        with engine.connect() as connection:
            progress = {role: read_progress(connection, topics) for role, topics in TOPICS.items()}
        # First the question that needs no coordinator: it raises if no broker responds.
        waiting = {role: _waiting(self._ends(topics), progress[role]) for role, topics in TOPICS.items()}
        for group in self.all(engine):
            yield QueuedGroup(
                group.role, group.name, group.is_served, group.state, group.members, group.unread, waiting[group.role]
            )

    def queues(self, role: str) -> Queues:
        """Returns where the partitions of the role's topics begin and end. Raises KafkaException."""
        return self._ends(TOPICS[role])

    def committed(self, name: str, topics: Sequence[Topic]) -> Mapping[tuple[Topic, int], Position]:
        """Returns the offsets that the group has committed. Raises KafkaException."""
        places = list(self._ends(topics))
        asked = [TopicPartition(topic.on_cluster(self._settings.topic_prefix), partition) for topic, partition in places]
        # It subscribes to nothing, so it never joins the group. An admin client's own question ends the process (SIGSEGV in librdkafka 2.16)
        # when the coordinator refuses the group.
        client = Consumer(
            connection_config(self._settings) | {"group.id": name, "enable.auto.commit": False},
            logger=kafka_logger(self._settings, "groups"),
        )
        try:
            found = client.committed(asked, timeout=self._timeout_s)
        finally:
            client.close()
        return {
            place: Position(committed.offset, committed.metadata or UNKNOWN_ID)
            for place, committed in zip(places, found, strict=True)
            if committed.offset >= 0
        }

    def renew(self, engine: Engine, role: str, *, since: datetime | None = None) -> Renewal:
        """Gives the role a new group, unless its present one is served and reads all partitions. With `since` the role gets one in any case,
        which also reads again what was written since then.

        The new group has its offsets before its name is stored. If the process ends between the two, no role has joined the new group, and
        the next call does the same again. Raises KafkaException, and NoGroupServedError when no group is served.
        """
        with engine.connect() as connection:
            present = read_generation(connection, role)
            progress = read_progress(connection, TOPICS[role])
        # First the question that needs no coordinator: it raises if no broker responds.
        starts = self._starts(role, progress, since)
        if since is None and self._group(role, self._name(role, present)).trouble is None:
            return Renewal(role, self._name(role, present), renewed=False)
        for generation in self._candidates(role, present):
            name = self._name(role, generation)
            if self._is_seeded(name, starts):
                transact(engine, partial(note_generation, role=role, generation=generation))
                return Renewal(role, name, renewed=True)
        raise NoGroupServedError(
            f"Kafka serves no group of the role {role}, whatever its name: check the brokers and the topic {_OFFSETS_TOPIC}"
        )

    def _name(self, role: str, generation: int) -> str:
        return group_id(self._settings.topic_prefix, role, generation)

    def _group(self, role: str, name: str) -> Group:
        """Raises KafkaException."""
        for tries_left in reversed(range(_TRIES)):
            found = self._described(name)
            unread = self._unread(role, found)
            if not unread or not tries_left:
                break
            # A partition that is new, or changes its member, may be nobody's for a moment.
            time.sleep(_BETWEEN_TRIES_S)
        return Group(role, name, found.refusal is None, found.refusal or found.state, found.members, unread)

    def _unread(self, role: str, found: Described) -> Sequence[str]:
        if found.state != _STABLE or not found.members:
            return ()
        topics = self._admin.list_topics(timeout=self._timeout_s).topics
        names = {topic.value: topic.on_cluster(self._settings.topic_prefix) for topic in TOPICS[role]}
        return [
            f"{topic}/{partition}"
            for topic, name in names.items()
            if name in topics
            for partition in sorted(topics[name].partitions)
            if (name, partition) not in found.assigned
        ]

    def _described(self, name: str) -> Described:
        """Returns what the coordinator says, or that it refuses the group again and again. Raises KafkaException for any other error."""
        for tries_left in reversed(range(_TRIES)):
            [future] = self._admin.describe_consumer_groups([name], request_timeout=self._timeout_s).values()
            try:
                found = future.result()
            except KafkaException as exception:
                error = exception.args[0]
                if error.code() not in UNSERVED:
                    raise
                if not tries_left:
                    return Described(error.name(), "", 0, frozenset())
                # A coordinator that still loads its groups refuses, too, but only for a moment.
                time.sleep(_BETWEEN_TRIES_S)
            else:
                break
        assigned = frozenset(
            (each.topic, each.partition) for member in found.members for each in member.assignment.topic_partitions
        )
        return Described(None, found.state.name.lower(), len(found.members), assigned)

    def _starts(self, role: str, progress: Mapping[tuple[Topic, int], Position], since: datetime | None) -> list[TopicPartition]:
        """Returns where the new group begins to read: before everything that may not be published yet, and before everything that was
        written since `since`. Other partitions, and those of a recreated topic, are read from their beginning."""
        queues = self._ends(TOPICS[role])
        written = {} if since is None else self._first_since(queues, since)
        return [
            TopicPartition(
                place[0].on_cluster(self._settings.topic_prefix),
                place[1],
                min(
                    queue.next_offset,
                    max(queue.first, min(position.next_offset - _MARGIN, written.get(place, queue.next_offset))),
                ),
                queue.topic_id,
            )
            for place, queue in queues.items()
            if (position := progress.get(place)) is not None and position.topic_id == queue.topic_id
        ]

    def _first_since(self, queues: Queues, since: datetime) -> dict[tuple[Topic, int], int]:
        """Returns the offset of the first record that is not older. Partitions without one are left out. Raises KafkaException."""
        spec = OffsetSpec.for_timestamp(int(since.timestamp() * 1000))
        places = {TopicPartition(place[0].on_cluster(self._settings.topic_prefix), place[1]): place for place in queues}
        asked = self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=self._timeout_s)
        offsets = {places[place]: answer.result().offset for place, answer in asked.items()}
        return {place: offset for place, offset in offsets.items() if offset >= 0}

    def _candidates(self, role: str, present: int) -> Iterator[int]:
        """Returns later generations, one for each partition of the topic of offsets, without the partition of the present one."""
        partitions = len(self._admin.list_topics(_OFFSETS_TOPIC, timeout=self._timeout_s).topics[_OFFSETS_TOPIC].partitions)
        tried = {offsets_partition(self._name(role, present), partitions)} if partitions else set()
        for generation in range(present + 1, present + _GENERATIONS_AHEAD):
            partition = offsets_partition(self._name(role, generation), partitions) if partitions else generation
            if partition not in tried:
                tried.add(partition)
                yield generation
            if len(tried) > _MOST_CANDIDATES:
                return

    def _is_seeded(self, name: str, starts: Sequence[TopicPartition]) -> bool:
        """Stores the offsets in the group. Returns False when no coordinator serves it, or it has members. Raises KafkaException."""
        found = self._described(name)
        # After a restore of the database, roles may still be in a group of a generation that the database has forgotten.
        if found.refusal is not None or found.members:
            return False
        if not starts:
            return True
        wanted = ConsumerGroupTopicPartitions(name, list(starts))
        [future] = self._admin.alter_consumer_group_offsets([wanted], request_timeout=self._timeout_s).values()
        try:
            errors = [place.error for place in future.result().topic_partitions if place.error is not None]
        except KafkaException as exception:
            errors = [exception.args[0]]
        other = [error for error in errors if error.code() not in UNSERVED]
        if other:
            raise KafkaException(other[0])
        return not errors


def _waiting(queues: Queues, progress: Mapping[tuple[Topic, int], Position]) -> int:
    waiting = 0
    for place, queue in queues.items():
        position = progress.get(place)
        handled = position.next_offset if position is not None and position.topic_id == queue.topic_id else queue.first
        waiting += max(0, queue.next_offset - max(queue.first, handled))
    return waiting


def offsets_partition(name: str, partitions: int) -> int:
    """Returns the partition of Kafka's topic of offsets that a group belongs to: by the absolute value of Java's `hashCode` of its name."""
    code = 0
    for character in name:  # ASCII, like the names of topics
        code = (31 * code + ord(character)) % 2**32
    return min(code, 2**32 - code) % 2**31 % partitions
