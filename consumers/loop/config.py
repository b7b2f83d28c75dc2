"""The consumers' librdkafka configuration, with a reason for each value."""

from consumers.loop.handler import NOTIFIER
from orchestrator.process.kafka_settings import ClientConfig, connection_config
from orchestrator.process.settings import Settings
from orchestrator.storage.consumer_groups import FIRST_GENERATION


def group_id(prefix: str, role: str, generation: int) -> str:
    """Returns the name of a role's consumer group in Kafka. Each generation has a name of its own."""
    return f"{prefix}.{role}" if generation == FIRST_GENERATION else f"{prefix}.{role}.{generation}"


def consumer_config(settings: Settings, role: str, generation: int = FIRST_GENERATION) -> ClientConfig:
    """Returns the properties of a member of the role's group. Raises UnsafeKafkaError."""
    return connection_config(settings) | {
        "client.id": f"bulkreg-{role}",
        "group.id": group_id(settings.topic_prefix, role, generation),
        # KIP-848: the broker assigns partitions. Members join in 0.1 s and keep their partitions while others come and go.
        "group.protocol": "consumer",
        # The loop commits offsets itself, after the effect is durable and its events are acknowledged.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # The default, latest, would skip what was written before the group's first commit, and to partitions that are added later.
        "auto.offset.reset": "earliest",
        "max.poll.interval.ms": settings.max_poll_interval_ms,
        # Read records of open transactions at once (decision 20). The default, read_committed, would hide everything behind an open
        # transaction of another producer until it ends, for up to 15 minutes.
        "isolation.level": "read_uncommitted",
        # Report the end of a partition: its last offsets may be markers of transactions, which are never delivered as records.
        "enable.partition.eof": True,
        # Detect records that the disk or the network has changed.
        "check.crcs": True,
        # Also the most that a batch compressed with zstd may become in this process. A larger one counts as damaged (`damage.py`).
        "receive.message.max.bytes": 64 * 1024 * 1024,
        "allow.auto.create.topics": False,
        # Prefetched ahead of the lanes: a few micro-batches. A pause discards what was prefetched of the partition.
        "queued.max.messages.kbytes": 4_096,
        # How long to wait when that queue is full. The default of a second would leave the lanes empty.
        "fetch.queue.backoff.ms": 10,
        # How long the broker holds a fetch that finds nothing. A resumed partition joins only the next fetch.
        "fetch.wait.max.ms": 250,
        # The statistics say whether a broker is in contact (`LoopHealth`).
        "statistics.interval.ms": 5_000,
    }


def gathering_config(role: str) -> ClientConfig:
    """Returns the properties by which the broker gathers records for a role before it replies to a fetch: none for a role that people wait for.

    Webhooks may come half a second later. So a busy topic costs the notifier two micro-batches a second, not one for each batch that ends.
    """
    return {"fetch.min.bytes": 1024 * 1024, "fetch.wait.max.ms": 500} if role == NOTIFIER else {}
