"""What other producers may write to the batches topic during all the faults. None of it is a batch."""

import contextlib
from collections.abc import Iterator
from uuid import uuid4

from confluent_kafka import KafkaException, Producer

from schemas.envelope import Topic
from tests.chaos.cluster import Cluster
from tests.support.raw_producer import Compression, RawRecord, RefusedByBrokerError, produce

WAITS_S = 5.0

POISON = (
    RawRecord(b"{}", [(b"\xff", b"x"), (b"ce_id", b"1")]),
    RawRecord(None, key=None),
    RawRecord(b"\x00\xff", [(b"content-type", b"application/cloudevents+json")]),
)
TOO_LARGE = RawRecord(b"n" * 5_000_000)
"""More than the topic takes once it is unpacked."""


@contextlib.contextmanager
def raw_poison(cluster: Cluster) -> Iterator[bool]:
    """Records that no client library would write, as a batch in each partition, compressed to almost nothing. The broker refuses one."""
    servers, topic = cluster.settings.kafka_bootstrap_servers, _topic(cluster)
    try:
        for partition in range(cluster.settings.topic_partitions):
            produce(servers, topic, partition, POISON, compression=Compression.ZSTD)
            with contextlib.suppress(RefusedByBrokerError):
                produce(servers, topic, partition, [TOO_LARGE], compression=Compression.ZSTD)
    except (OSError, KafkaException, RefusedByBrokerError, AssertionError):
        yield False  # The broker is away.
    else:
        yield True


@contextlib.contextmanager
def open_transaction(cluster: Cluster) -> Iterator[bool]:
    """An open transaction in each partition. At the end its producer aborts it, or the broker does when the producer is gone."""
    servers = cluster.settings.kafka_bootstrap_servers
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"stranger-{uuid4()}", "log_level": 0})
    try:
        producer.init_transactions(WAITS_S)
        producer.begin_transaction()
        for partition in range(cluster.settings.topic_partitions):
            producer.produce(_topic(cluster), b"{}", partition=partition)
        is_open = producer.flush(WAITS_S) == 0
    except KafkaException:
        is_open = False
    yield is_open
    with contextlib.suppress(KafkaException):
        producer.abort_transaction(WAITS_S)


def _topic(cluster: Cluster) -> str:
    return Topic.BATCHES.on_cluster(cluster.settings.topic_prefix)
