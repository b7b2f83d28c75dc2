"""Where the batch behind a damaged one begins. No call of the client tells, and its reports don't tell either (`damage.py`).

Kafka returns the whole batch for each of its offsets. A client that has read nothing yet and is given an offset says first what it found there:
the damage and the offset at which that batch begins, a record, or the end of the partition. So a new client asks at each offset, and the
last offset of the batch is found by doubling the distance and then by halving it: some 20 ms for each question, and 20 questions for
a batch of 1,000 records.
"""

import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

from consumers.loop.config import consumer_config
from consumers.loop.damage import DAMAGE
from orchestrator.process.kafka_settings import kafka_logger
from orchestrator.process.settings import Settings

_TIMEOUT_S = 5.0
# What a client says that was given an offset behind a damaged batch, besides a record.
_BEHIND = frozenset({KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET}) | DAMAGE


class BatchProbe:
    """Asks the broker over connections of its own, which it does not keep: damage is rare."""

    def __init__(self, settings: Settings, client: str) -> None:
        """Raises UnsafeKafkaError."""
        self._config = consumer_config(settings, client) | {
            # Assigned, never subscribed: the group exists in name only.
            "group.protocol": "classic",
            # An offset behind the end is told, not replaced.
            "auto.offset.reset": "error",
        }
        self._logger = kafka_logger(settings, client)

    def next_batch(self, topic: str, partition: int, batch_offset: int) -> int | None:
        """The offset at which the batch behind the damaged one at `batch_offset` begins; None when the broker does not respond."""
        inside, behind, step = batch_offset, None, 1
        while behind is None or behind - inside > 1:
            asked = inside + step if behind is None else (inside + behind) // 2
            is_inside = self._is_inside(TopicPartition(topic, partition, asked), batch_offset)
            if is_inside is None:
                return None
            if is_inside:
                inside, step = asked, 2 * step
            else:
                behind = asked
        return behind

    def _is_inside(self, place: TopicPartition, batch_offset: int) -> bool | None:
        """Whether the place is in the damaged batch that begins at this offset; None when the broker does not say so in time."""
        consumer = Consumer(self._config, logger=self._logger)
        try:
            consumer.assign([place])
            until = time.monotonic() + _TIMEOUT_S
            while (left_s := until - time.monotonic()) > 0:
                message = consumer.poll(left_s)
                if message is None:
                    continue
                error = message.error()
                if error is None or error.code() in _BEHIND:
                    return error is not None and error.code() in DAMAGE and message.offset() == batch_offset
        finally:
            consumer.close()
        return None
