"""Reads topics from outside, and writes to them what no producer of ours would write."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from confluent_kafka.admin._listoffsets import OffsetSpec  # the public name is not typed as exported

from consumers.loop.config import group_id
from consumers.loop.raw_record import RawRecord, take_apart
from orchestrator.process.settings import Settings
from orchestrator.storage.consumer_groups import FIRST_GENERATION
from producers.topics import create_topics, planned_topics
from schemas.envelope import Topic
from tests.support.waiting import PATIENCE_S, eventually

_READY = "test-ready-"


@dataclass(frozen=True)
class Seen:
    """A record on a topic."""

    partition: int
    offset: int
    key: str
    headers: dict[str, bytes]
    value: bytes

    @property
    def id(self) -> str:
        return self.headers["ce_id"].decode()

    @property
    def data(self) -> dict[str, object]:
        document: dict[str, object] = orjson.loads(self.value)
        return document


def _seen(raw: RawRecord) -> Seen:
    headers = {name: value for name, value in raw.headers if value is not None}
    return Seen(raw.partition, raw.offset, (raw.key or b"").decode(errors="replace"), headers, raw.value or b"")


@contextlib.contextmanager
def made_topics(settings: Settings) -> Iterator[None]:
    """Creates the six topics, and deletes them afterwards: a broker with thousands of topics is slow."""
    create_topics(settings)
    eventually(lambda: _can_be_read(settings), what="leaders of all partitions")
    yield
    _delete(settings)


class ReadyTopics:
    """The six topics of a prefix, for one test each. The next are made, and the last are deleted, while a test runs."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._settings = Settings(kafka_bootstrap_servers=bootstrap_servers)
        self._threads = ThreadPoolExecutor(1)
        self._next = self._make()
        self._deleted: list[Future[None]] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        """A prefix whose topics nobody has used."""
        settings, made = self._next
        self._next = self._make()
        made.result()
        try:
            yield settings.topic_prefix
        finally:
            self._delete(settings)

    def have(self, settings: Settings) -> bool:
        """Whether the topics of these settings are among them. Raises AssertionError when those are other than the settings plan."""
        if not settings.topic_prefix.startswith(_READY):
            return False
        usual = self._settings.model_copy(update={"topic_prefix": settings.topic_prefix})
        assert planned_topics(settings) == planned_topics(usual), "a test with other topics makes them itself"
        return True

    def close(self) -> None:
        """Deletes what no test has asked for. Raises what kept topics from being made or deleted."""
        settings, made = self._next
        made.result()
        self._delete(settings)
        for deleted in self._deleted:
            deleted.result()
        self._threads.shutdown()

    def _make(self) -> tuple[Settings, Future[None]]:
        settings = self._settings.model_copy(update={"topic_prefix": f"{_READY}{uuid4().hex}"})
        return settings, self._threads.submit(_create, settings)

    def _delete(self, settings: Settings) -> None:
        self._deleted.append(self._threads.submit(_delete, settings))


def _create(settings: Settings) -> None:
    # Not with `create_topics`: a test that reads the log would find what that says.
    new = [NewTopic(plan.name, plan.partitions, 1, config=dict(plan.config)) for plan in planned_topics(settings)]
    admin = _admin(settings)  # kept: a client that is gone takes its requests with it
    for future in admin.create_topics(new).values():
        future.result()
    eventually(lambda: _can_be_read(settings), what="leaders of all partitions")


def _delete(settings: Settings) -> None:
    admin = _admin(settings)
    for future in admin.delete_topics([plan.name for plan in planned_topics(settings)]).values():
        future.result()


def delete_topics(bootstrap_servers: str, prefix: str) -> None:
    """Deletes every topic of a prefix."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    names = [name for name in admin.list_topics(timeout=PATIENCE_S).topics if name.startswith(f"{prefix}.")]
    for future in admin.delete_topics(names).values() if names else ():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # its test has deleted it
                raise


def replace_topic(settings: Settings, topic: Topic) -> None:
    """Deletes it and makes it anew, at once."""
    name = topic.on_cluster(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.delete_topics([name])[name].result()

    def is_made() -> bool:
        try:
            return any(report.name == name and report.created for report in create_topics(settings))
        except KafkaException:  # the broker is still deleting it
            return False

    eventually(is_made)


def _admin(settings: Settings) -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})


def _can_be_read(settings: Settings) -> bool:
    """A new topic may be known before its partitions have a leader that knows of it."""
    places = {
        TopicPartition(plan.name, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for plan in planned_topics(settings)
        for partition in range(plan.partitions)
    }
    # A client of its own each time: one that has asked too early remembers for a while that there is no such topic.
    admin = _admin(settings)
    # Errors are asked for and not raised: a raised one would hold this frame, and with it the client and its threads.
    errors = [future.exception() for future in admin.list_offsets(places, request_timeout=PATIENCE_S).values()]
    for error in errors:
        if error is not None and not isinstance(error, KafkaException):
            raise error
    return all(error is None for error in errors)


class TopicReader:
    """Reads a topic from its beginning, and at each call further."""

    def __init__(self, settings: Settings, topic: Topic) -> None:
        self.records: list[Seen] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka_bootstrap_servers,
                "group.id": "test-reader",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        name = topic.on_cluster(settings.topic_prefix)
        partitions = self._consumer.list_topics(name, timeout=PATIENCE_S).topics[name].partitions
        self._consumer.assign([TopicPartition(name, partition, 0) for partition in partitions])

    def read(self) -> list[Seen]:
        """Returns everything that has been written and could be fetched by now, in order for each partition."""
        self.records += self._fetched()
        return self.records

    def each(self, count: int, *, within_s: float) -> Iterator[Seen]:
        """Yields so many records and keeps none. Raises AssertionError when a record does not come within that time after the one
        before."""
        while count > 0:
            fetched = eventually(self._fetched, within_s=within_s, what=f"{count} more records")
            count -= len(fetched)
            yield from fetched

    def _fetched(self) -> list[Seen]:
        messages = self._consumer.consume(10_000, timeout=0.05)
        for message in messages:
            assert message.error() is None, message.error()
        return [_seen(take_apart(message)) for message in messages]

    def wait_for(self, count: int, *, within_s: float = PATIENCE_S) -> list[Seen]:
        """Waits for at least that many records. Does not wait when the number is 0."""
        if not count:
            return self.read()
        return eventually(lambda: self.read() if len(self.read()) >= count else [], within_s=within_s, what=f"{count} records")

    def close(self) -> None:
        self._consumer.close()


@contextlib.contextmanager
def reading(settings: Settings, topic: Topic) -> Iterator[TopicReader]:
    reader = TopicReader(settings, topic)
    try:
        yield reader
    finally:
        reader.close()


def write_raw(
    settings: Settings, topic: Topic, records: Sequence[tuple[bytes | None, dict[str, bytes]]], *, partition: int
) -> None:
    """Writes values and headers unchanged to one partition."""
    # Idempotent. Otherwise a retry to a new partition would change the order.
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "linger.ms": 0, "enable.idempotence": True})
    for value, headers in records:
        producer.produce(
            topic.on_cluster(settings.topic_prefix), value, b"key", partition=partition, headers=list(headers.items())
        )
    assert producer.flush(PATIENCE_S) == 0


def altered(settings: Settings, topic: Topic, name: str, value: str) -> None:
    """Changes a setting of a topic, as an operator could."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic.on_cluster(settings.topic_prefix), incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


def committed_offsets(settings: Settings, role: str, topic: Topic, generation: int = FIRST_GENERATION) -> dict[int, int]:
    """Returns the next offset that the role's group has committed, for each partition with a commit."""
    name = topic.on_cluster(settings.topic_prefix)
    group = group_id(settings.topic_prefix, role, generation)
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    try:
        partitions = consumer.list_topics(name, timeout=PATIENCE_S).topics[name].partitions
        found = consumer.committed([TopicPartition(name, partition) for partition in partitions], timeout=PATIENCE_S)
    finally:
        consumer.close()
    return {position.partition: position.offset for position in found if position.offset >= 0}
