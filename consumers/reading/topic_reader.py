"""Reads topics from a point in the past to their present end, outside any consumer group."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from consumers.loop.batch_probe import BatchProbe
from consumers.loop.closing import close_within
from consumers.loop.config import consumer_config
from consumers.loop.damage import DAMAGE, PartitionDamage
from consumers.loop.raw_record import PlacedValue, RawRecord, take_apart, take_value
from orchestrator.process.actions import Action, log_action
from orchestrator.process.kafka_settings import kafka_logger
from orchestrator.process.settings import Settings
from orchestrator.storage.consumer_groups import FIRST_GENERATION
from schemas.envelope import Topic

Taken = TypeVar("Taken")
Asked = TypeVar("Asked")

STALL_S = 60.0
"""A reading ends with LeaderSilentError when nothing comes for this long from the partitions that are left. After half of it the client takes
a broker that does not respond for dead (`socket.timeout.ms`) and looks for the partition's present leader, so a failover ends no reading."""

_TIMEOUT_S = 10.0
_POLL_S = 0.2
# A wait that took longer counts as this long: the process may have stood still itself.
_MOST_OF_A_WAIT_S = 5.0
# A close takes some ms, unless the client has met damage (`closing.py`).
_CLOSE_S = 10.0
# Large enough that the cost of a Python call does not matter, small enough that progress is visible.
_CHUNK = 1_000


# A cluster creates the topic of the groups' offsets at the first request for it.
_STARTING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._TIMED_OUT,
    }
)


class LeaderSilentError(KafkaException):
    """Brokers respond, but nothing comes from a partition. The error's text names it, and says what to do."""

    def __init__(self, places: Collection[tuple[str, int]], waited_s: float) -> None:
        names = ", ".join(f"{topic}/{partition}" for topic, partition in sorted(places))
        advice = "check that each partition has a leader, and that the leader responds; then try again"
        # Not a timeout: that may also mean that no broker responds.
        super().__init__(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, f"nothing came from {names} for {waited_s:g} s; {advice}"))


class ReadingStoppedError(Exception):
    """The caller has asked a reading to end before its end."""


def _is_coordinator_starting(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _STARTING


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a partition to read: from the first offset to before the end."""

    topic: Topic
    partition: int
    first: int
    end: int

    @property
    def offsets(self) -> int:
        """How many offsets that is. It holds at most as many records."""
        return max(0, self.end - self.first)


class TopicReader:
    """Reads topics and moves no group's offsets. A context manager, for one thread."""

    def __init__(
        self, settings: Settings, *, stall_s: float | None = None, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """`stall_s`: instead of STALL_S. Once `is_stopping` is true, `read` raises ReadingStoppedError."""
        self._settings = settings
        self._stall_s = STALL_S if stall_s is None else stall_s
        self._is_stopping = is_stopping
        self._prefix = settings.topic_prefix
        config = consumer_config(settings, "reader") | {
            # Partitions are assigned, never subscribed to, so the group has no members.
            "group.protocol": "classic",
            # A response is unpacked whole, a prefetched record takes several times its bytes, and a process keeps the memory that it once
            # had. So 400,000 records of 250 bytes cost 25 to 30 MB and 1.2 to 2.1 s. With the default of 1 MiB, and 64 MiB prefetched,
            # they cost 490 MB and 3.1 s.
            "fetch.message.max.bytes": 65_536,
            "queued.max.messages.kbytes": 1_024,
        }
        self._consumer = Consumer(config, logger=kafka_logger(settings, "reader"))
        self._probe = BatchProbe(settings, "reader")

    def __enter__(self) -> "TopicReader":
        return self

    def __exit__(self, *_exception: object) -> None:
        close_within(self._consumer, _CLOSE_S)

    def spans(self, topics: Sequence[Topic], *, since: datetime | None = None) -> list[Span]:
        """Returns what there is to read. Raises KafkaException when the broker does not respond, or has no such topic."""
        return [self._span(topic, partition, since) for topic in topics for partition in self._partitions(topic)]

    def time_of(self, topic: Topic, partition: int, offset: int) -> datetime:
        """Returns when a record was written. Raises LookupError when the topic does not hold it, KafkaException as `spans` does."""
        # Take the first record at or after the offset: the offset itself may be a transaction's marker, or compacted away.
        if (raw := self._first_from(topic, partition, offset)) is None:
            raise LookupError(f"{topic.on_cluster(self._prefix)} holds no record {partition}@{offset}")
        return datetime.fromtimestamp(raw.timestamp_ms / 1000, UTC)

    def record_at(self, topic: Topic, partition: int, offset: int) -> RawRecord | None:
        """Returns the record at a place. None: the topic does not hold it. Raises KafkaException as `spans` does."""
        raw = self._first_from(topic, partition, offset)
        return raw if raw is not None and raw.offset == offset else None

    def _first_from(self, topic: Topic, partition: int, offset: int) -> RawRecord | None:
        place = TopicPartition(topic.on_cluster(self._prefix), partition, offset)
        if partition in self._partitions(topic):
            low, high = self._of_leader(place, lambda: self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S))
            if low <= offset < high:
                for chunk in self.read([Span(topic, partition, offset, high)]):
                    return chunk[0][1]
        return None

    def committed(self, role: str, topic: Topic, generation: int = FIRST_GENERATION) -> dict[int, int]:
        """Returns the next offset that the role's group of that generation has committed, by partition. Raises KafkaException."""
        name = topic.on_cluster(self._prefix)
        places = [TopicPartition(name, partition) for partition in self._partitions(topic)]
        # It uses the role's group id but subscribes to nothing, so it never joins the group.
        asking = Consumer(consumer_config(self._settings, role, generation), logger=kafka_logger(self._settings, "reader"))
        retrying = Retrying(
            retry=retry_if_exception(_is_coordinator_starting),
            wait=wait_fixed(0.2),
            stop=stop_after_delay(_TIMEOUT_S),
            reraise=True,
        )
        try:
            committed = retrying(asking.committed, places, timeout=_TIMEOUT_S)
        finally:
            close_within(asking, _CLOSE_S)
        return {place.partition: place.offset for place in committed if place.offset >= 0}

    def _partitions(self, topic: Topic) -> list[int]:
        name = topic.on_cluster(self._prefix)
        metadata = self._consumer.list_topics(name, timeout=_TIMEOUT_S).topics[name]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        return sorted(metadata.partitions)

    def _span(self, topic: Topic, partition: int, since: datetime | None) -> Span:
        place = TopicPartition(topic.on_cluster(self._prefix), partition)
        low, high = self._of_leader(place, lambda: self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S))
        if since is not None:
            asked = TopicPartition(place.topic, partition, max(0, int(since.timestamp() * 1000)))
            [found] = self._of_leader(place, lambda: self._consumer.offsets_for_times([asked], timeout=_TIMEOUT_S))
            low = high if found.offset == OFFSET_END else max(low, found.offset)
        return Span(topic, partition, low, high)

    def _of_leader(self, place: TopicPartition, ask: Callable[[], Asked]) -> Asked:
        """Asks the partition's leader. Raises KafkaException: LeaderSilentError if it does not respond in time."""
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() != KafkaError._TIMED_OUT:
                raise
            raise LeaderSilentError({(place.topic, place.partition)}, _TIMEOUT_S) from error

    def read(self, spans: Sequence[Span]) -> Iterator[list[tuple[Topic, RawRecord]]]:
        """Yields the records of the spans in chunks, each partition's in order. Raises KafkaException on a broken connection,
        LeaderSilentError when nothing comes for too long, and ReadingStoppedError."""
        return self._read(spans, lambda topic, message: (topic, take_apart(message)))

    def read_values(self, spans: Sequence[Span]) -> Iterator[list[PlacedValue]]:
        """The same without keys and headers, at a fraction of the cost. All spans have the same topic."""
        return self._read(spans, lambda _topic, message: take_value(message))

    def _read(self, spans: Sequence[Span], take: Callable[[Topic, Message], Taken]) -> Iterator[list[Taken]]:
        topics = {span.topic.on_cluster(self._prefix): span.topic for span in spans}
        left = {(span.topic.on_cluster(self._prefix), span.partition): span.end for span in spans if span.offsets}
        self._consumer.assign(
            [TopicPartition(s.topic.on_cluster(self._prefix), s.partition, s.first) for s in spans if s.offsets]
        )
        damage = {place: self._damage(*place) for place in left}
        read_up_to = {(span.topic.on_cluster(self._prefix), span.partition): span.first for span in spans if span.offsets}
        silent_s = 0.0
        while left:
            if self._is_stopping():
                raise ReadingStoppedError
            chunk = []
            sought: set[tuple[str, int]] = set()
            began_s = time.monotonic()
            is_heard = False
            for message in self._consumer.consume(_CHUNK, timeout=_POLL_S):
                place = (message.topic() or "", message.partition() or 0)
                error = message.error()
                # What comes from partitions that were read to their end is no progress, nor is another report of the same damage.
                is_heard = is_heard or (place in left and (error is None or error.code() == KafkaError._PARTITION_EOF))
                if place in sought:
                    continue  # it comes again, from where it was sought
                offset = message.offset() or 0
                if error is not None:
                    if error.code() in DAMAGE:
                        sought.add(place)
                        next_offset, given_up = damage[place].reported(offset, read_up_to[place])
                        self._consumer.seek(TopicPartition(*place, next_offset))
                        if given_up is not None:
                            is_heard = True
                            log_action(
                                Action.DAMAGED_BATCH,
                                role=None,
                                topic=topics[place[0]].value,
                                partition=place[1],
                                offset=given_up.first,
                                next_offset=next_offset,
                            )
                        continue
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    # The last offsets may hold no record (a transaction's mark): the end of the partition ends it all the same.
                    left.pop(place, None)
                # After damage the client may begin again at the beginning: what has been read is not read again.
                elif (end := left.get(place)) is not None and offset >= read_up_to[place]:
                    read_up_to[place] = offset + 1
                    if offset < end:
                        chunk.append(take(topics[place[0]], message))
                    if offset + 1 >= end:
                        del left[place]
            silent_s = 0.0 if is_heard else silent_s + min(time.monotonic() - began_s, _MOST_OF_A_WAIT_S)
            if silent_s >= self._stall_s:
                raise LeaderSilentError(left, self._stall_s)
            if chunk:
                yield chunk

    def _damage(self, topic: str, partition: int) -> PartitionDamage:
        return PartitionDamage(lambda batch_offset: self._probe.next_batch(topic, partition, batch_offset))
