"""What reading a long topic costs in memory. The notary reads the topic lifecycle again and again, and a process keeps what it once had."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer

from consumers.reading.topic_reader import TopicReader
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.fuzz.budget import Child
from tests.support.waiting import PATIENCE_S

RECORDS = 100_000
MOST_BYTES = 40 * 1024 * 1024


@contextmanager
def reading(settings: Settings) -> Iterator[Callable[[Topic], int]]:
    """In the child: reads a topic from its beginning to its end, and returns the number of records."""
    with TopicReader(settings) as reader:
        yield lambda topic: sum(len(chunk) for chunk in reader.read(reader.spans([topic])))


@pytest.mark.usefixtures("topics")
def test_reading_a_long_topic_keeps_a_small_part_of_it_in_memory(settings: Settings) -> None:
    """Small records, compressed together: a response is unpacked whole, and a record that was fetched ahead takes several times its bytes."""
    writing = {"compression.type": "lz4", "linger.ms": 50, "queue.buffering.max.messages": 2 * RECORDS}
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, **writing})
    headers: dict[str, str | bytes | None] = {
        "ce_id": b"1",
        "ce_type": b"no.bulk-registration.BatchCompleted.v1",
        "ce_source": b"/x",
    }
    for number in range(RECORDS):
        producer.produce(Topic.LIFECYCLE.on_cluster(settings.topic_prefix), b"abcdefgh" * 30, str(number), headers=headers)
    assert producer.flush(PATIENCE_S) == 0
    with Child(reading, settings) as child:
        judged = child.run(Topic.LIFECYCLE, patience_s=PATIENCE_S)
        assert judged.answer == RECORDS, judged.wrong
        assert judged.used.bytes < MOST_BYTES, f"{judged.used.bytes >> 20} MB above the idle size"
