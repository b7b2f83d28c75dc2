"""The producer's librdkafka configuration, with a reason for each value."""

from orchestrator.process.kafka_settings import ClientConfig, connection_config
from orchestrator.process.settings import Settings
from schemas.envelope import MAX_DEAD_LETTER_BYTES

FLUSH_LINGER_MS = 50


def producer_config(settings: Settings) -> ClientConfig:
    """Returns the properties of an idempotent producer. Raises UnsafeKafkaError."""
    return connection_config(settings) | {
        "client.id": "bulkreg-producer",
        # Retries inside the client neither duplicate nor reorder. An event that the client can't settle within the delivery timeout is
        # published again under the same event id. So delivery is at least once, and duplicates are recognizable.
        "enable.idempotence": True,
        "acks": "all",
        # How long a broker may be unavailable before the caller gets "unknown" and starts over.
        "delivery.timeout.ms": 120_000,
        # `publish` flushes, which sends lingering events at once. So this causes no delay; it keeps the first events of a set from being
        # sent alone while the others are still being queued.
        "linger.ms": FLUSH_LINGER_MS,
        # Similar JSON shrinks to a fifth, and compressing it costs less CPU than sending the bytes.
        "compression.type": "lz4",
        # The partitioner of the Java clients. librdkafka's default is another (CRC32), and upstream services use the same keys.
        "partitioner": "murmur2_random",
        "message.max.bytes": MAX_DEAD_LETTER_BYTES,
        # Room for some micro-batches. A longer queue would only hide that the broker is slower than this process. `publish` waits when it
        # is full.
        "queue.buffering.max.messages": 50_000,
        "queue.buffering.max.kbytes": 65_536,
    }
