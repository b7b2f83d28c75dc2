"""The producer's librdkafka configuration, each value with its reason (reliability.md, settings)."""

from orchestrator.kafka_settings import ClientConfig, connection_config
from orchestrator.settings import Settings

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""The largest event that we write is a part of 500 items whose every text has 100 characters that JSON writes as six bytes: 1.3 MB."""

MAX_DEAD_LETTER_BYTES = 2 * MAX_MESSAGE_BYTES
"""A dead letter holds a record of any topic as base64, a third longer, and where it came from."""

FLUSH_LINGER_MS = 50


def producer_config(settings: Settings) -> ClientConfig:
    """The properties of an idempotent producer. Raises UnsafeKafkaError."""
    return connection_config(settings) | {
        "client.id": "bulkreg-producer",
        # Retries inside the client neither repeat nor reorder. What it can't settle in the delivery time is published again under the
        # same event id, so at least once (and recognisable) is what holds.
        "enable.idempotence": True,
        "acks": "all",
        # How long a broker may be away before the caller is told "unknown" and starts over.
        "delivery.timeout.ms": 120_000,
        # `publish` flushes, which sends at once whatever lingers. So this is not a delay, it keeps the first events of a set from being
        # sent alone while the others are still being queued.
        "linger.ms": FLUSH_LINGER_MS,
        # JSON of one kind shrinks to a fifth, for less CPU than the bytes cost on their way.
        "compression.type": "lz4",
        # The Java clients' choice of partition for a key; librdkafka's own default is another (CRC32). Upstream services share keys.
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_DEAD_LETTER_BYTES,
        # Room for some micro-batches. More would only hide that the broker is slower than we are; `publish` waits when it is full.
        "queue.buffering.max.messages": 50_000,
        "queue.buffering.max.kbytes": 65_536,
    }
