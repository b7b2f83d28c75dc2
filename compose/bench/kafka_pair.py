"""A bare producer and a bare consumer on the same Kafka: how many messages per second the transport alone carries.

The messages are commands with their keys and headers, written as safely as the product writes (idempotent, acknowledged by all) and read by
another process, which does not decode them. `python -m compose.bench.kafka_pair` is the consumer.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from compose.bench.target import ACTIVITY_TYPE, COORDINATOR, ORGANIZATION
from consumers.loop.config import consumer_config
from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.settings import Settings
from producers.config import producer_config
from schemas.envelope import OutgoingEvent
from schemas.event_builders import ItemEventHeaders, register_activity
from schemas.events import REGISTER_ACTIVITY
from schemas.ids import DerivedIds, new_batch_id

_SET = 500
_TIMEOUT_S = 30.0


class ConsumerEndedError(Exception):
    """The bare consumer ended before it had read all messages. It wrote the reason to standard error."""


@contextmanager
def bare_pair(settings: Settings) -> Iterator[Callable[[int], float]]:
    """Yields a function that sends a number of messages and returns how many per second arrived. Removes its topic afterwards.

    Raises KafkaException, UnsafeKafkaError; the function raises ConsumerEndedError.
    """
    topic = f"{settings.topic_prefix}.bench-{uuid4().hex}"
    logger = kafka_logger(settings, "bench")  # by default the client writes to standard error
    admin = AdminClient(connection_config(settings), logger=logger)
    new = NewTopic(topic, settings.topic_partitions, replication_factor=settings.topic_replication_factor)
    admin.create_topics([new], operation_timeout=_TIMEOUT_S)[topic].result()
    producer = Producer(producer_config(settings), logger=logger)
    where = {"servers": settings.kafka_bootstrap_servers, "topic": topic, "partitions": settings.topic_partitions}
    consumer = subprocess.Popen(
        [sys.executable, "-m", "compose.bench.kafka_pair"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert consumer.stdin is not None
    assert consumer.stdout is not None
    requests, answers = consumer.stdin, consumer.stdout

    def tell(line: str) -> None:
        requests.write(f"{line}\n")
        requests.flush()

    def measure(messages: int) -> float:
        tell(str(messages))
        began = time.perf_counter()
        for number in range(messages):
            event = _COMMANDS[number % len(_COMMANDS)]
            while True:
                try:
                    producer.produce(topic, event.value, event.key, headers=list(event.headers))
                    break
                except BufferError:
                    producer.poll(_TIMEOUT_S)
        producer.flush()
        if answers.readline() != f"{messages}\n":
            raise ConsumerEndedError("the bare consumer ended; what it wrote above says why")
        return messages / (time.perf_counter() - began)

    try:
        tell(orjson.dumps(where).decode())
        yield measure
    finally:
        consumer.kill()
        consumer.communicate()
        producer.close()
        admin.delete_topics([topic], operation_timeout=_TIMEOUT_S)[topic].result()


def _commands() -> list[OutgoingEvent]:
    batch_id, now = new_batch_id(), datetime.now(UTC)
    ids, headers = DerivedIds(batch_id), ItemEventHeaders(uuid4().hex)
    return [
        register_activity(
            {
                "batch_id": str(batch_id),
                "item_id": str(ids.item_id(position)),
                "position": position,
                "attempt": 1,
                "organization_id": ORGANIZATION,
                "coordinator_id": COORDINATOR,
                "mentor_id": f"mentor-{position}",
                "activity_type": ACTIVITY_TYPE,
                "activity_date": now.date().isoformat(),
                "duration_minutes": 60,
                "override_duplicates": False,
            },
            headers.of(REGISTER_ACTIVITY, ids.item_id(position), 1, now),
            bulk=False,
        )
        for position in range(_SET)
    ]


_COMMANDS = _commands()


def main() -> None:
    """Reads the place from the first line, and from each further line a number of messages. Waits for them and writes the number."""
    where = orjson.loads(sys.stdin.readline())
    settings = Settings(kafka_bootstrap_servers=where["servers"])
    # It counts messages, and a report of a partition's end is not one.
    config = consumer_config(settings, "bench") | {"enable.partition.eof": False}
    consumer = Consumer(config, logger=kafka_logger(settings, "bench"))
    partitions = range(where["partitions"])
    consumer.assign([TopicPartition(where["topic"], number, OFFSET_BEGINNING) for number in partitions])
    for line in sys.stdin:
        left = wanted = int(line)
        while left > 0:
            messages = consumer.consume(min(_SET, left), timeout=_TIMEOUT_S)
            for message in messages:
                if (error := message.error()) is not None:
                    raise RuntimeError(str(error))
            if not messages:
                raise TimeoutError(f"{left} of {wanted} messages have not come in {_TIMEOUT_S:g} s")
            left -= len(messages)
        sys.stdout.write(f"{wanted}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
