"""Finds where the batch behind a damaged one begins. Neither a call of the client nor its reports say this (`damage.py`).

Kafka returns the whole batch for each of its offsets. A new client that is assigned an offset first reports what it found there:
the damage and the offset at which that batch begins, a record, or the end of the partition. So the probe asks with a new client for each offset.
It finds the last offset of the batch by doubling the distance and then halving it. A question takes some 20 ms, and a batch of 1,000 records
takes 20 questions.
"""

import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

from consumers.loop.closing import close_within
from consumers.loop.config import consumer_config
from consumers.loop.damage import DAMAGE
from orchestrator.process.kafka_settings import kafka_logger
from orchestrator.process.settings import Settings

_TIMEOUT_S = 5.0
# A close takes some 10 ms.
_CLOSE_S = 2.0
# What a client reports, if not a record, when its offset is behind a damaged batch.
_BEHIND = frozenset({KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET}) | DAMAGE


class BatchProbe:
    """Asks the broker over its own connections. It does not keep them, because damage is rare."""

    def __init__(self, settings: Settings, client: str) -> None:
        """Raises UnsafeKafkaError."""
        self._config = consumer_config(settings, client) | {
            # The client is assigned, never subscribed, so the group exists in name only.
            "group.protocol": "classic",
            # The client reports an offset behind the end instead of replacing it.
            "auto.offset.reset": "error",
        }
        self._logger = kafka_logger(settings, client)

    def next_batch(self, topic: str, partition: int, batch_offset: int) -> int | None:
        """Returns the offset of the batch behind the damaged one at `batch_offset`; None if the broker does not respond."""
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
        """Whether the place is in the damaged batch that begins at this offset; None if the broker does not respond in time."""
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
            close_within(consumer, _CLOSE_S)
        return None
