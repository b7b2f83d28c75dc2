"""Reads topics from a point in the past to their present end, outside any consumer group."""

from collections.abc import Callable, Iterator, Sequence
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

_TIMEOUT_S = 10.0
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

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
            low, high = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
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
        low, high = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
        if since is not None:
            asked = TopicPartition(place.topic, partition, max(0, int(since.timestamp() * 1000)))
            [found] = self._consumer.offsets_for_times([asked], timeout=_TIMEOUT_S)
            low = high if found.offset == OFFSET_END else max(low, found.offset)
        return Span(topic, partition, low, high)

    def read(self, spans: Sequence[Span]) -> Iterator[list[tuple[Topic, RawRecord]]]:
        """Yields the records of the spans in chunks, each partition's in order. Raises KafkaException on a broken connection."""
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
        while left:
            chunk = []
            sought: set[tuple[str, int]] = set()
            for message in self._consumer.consume(_CHUNK, timeout=0.2):
                place = (message.topic() or "", message.partition() or 0)
                error = message.error()
                if place in sought:
                    continue  # it comes again, from where it was sought
                offset = message.offset() or 0
                if error is not None:
                    if error.code() in DAMAGE:
                        sought.add(place)
                        next_offset, given_up = damage[place].reported(offset, read_up_to[place])
                        self._consumer.seek(TopicPartition(*place, next_offset))
                        if given_up is not None:
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
            if chunk:
                yield chunk

    def _damage(self, topic: str, partition: int) -> PartitionDamage:
        return PartitionDamage(lambda batch_offset: self._probe.next_batch(topic, partition, batch_offset))
