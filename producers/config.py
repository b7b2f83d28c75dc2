"""The producer's librdkafka configuration, each value with its reason."""

from orchestrator.process.kafka_settings import ClientConfig, connection_config
from orchestrator.process.settings import Settings
from schemas.envelope import MAX_DEAD_LETTER_BYTES

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
