"""The consumers' librdkafka configuration, each value with its reason."""

from orchestrator.process.kafka_settings import ClientConfig, connection_config
from orchestrator.process.settings import Settings


def consumer_config(settings: Settings, role: str) -> ClientConfig:
    """The properties of a member of the role's group. Raises UnsafeKafkaError."""
    return connection_config(settings) | {
        "client.id": f"bulkreg-{role}",
        "group.id": f"{settings.topic_prefix}.{role}",
        # KIP-848: the broker assigns, members join in 0.1 s and keep what stays theirs while others come and go.
        "group.protocol": "consumer",
        # Offsets move when the effect is durable and its events are acknowledged, and at no other time.
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # The default, latest, would skip what was written before the group's first commit, and to partitions that are added.
        "auto.offset.reset": "earliest",
        "max.poll.interval.ms": settings.max_poll_interval_ms,
        # A transaction of somebody else's must hold up nobody, so what is in one is read at once (decision 20). The default,
        # read_committed, would hide everything behind it until it ends, for up to 15 minutes.
        "isolation.level": "read_uncommitted",
        # The end of a partition is told: its last offsets may be a transaction's marks, which are never delivered as records.
        "enable.partition.eof": True,
        # What the disk or the network has changed must not be taken for what was sent.
        "check.crcs": True,
        # Also the most that a batch compressed with zstd may become in this process. More counts as damage (`damage.py`).
        "receive.message.max.bytes": 64 * 1024 * 1024,
        "allow.auto.create.topics": False,
        # Prefetched ahead of the lanes: some micro-batches. What is prefetched of a partition that is paused is fetched again.
        "queued.max.messages.kbytes": 4_096,
        # How long to wait when that is full: the default of a second would leave the lanes empty.
        "fetch.queue.backoff.ms": 10,
        # How long the broker holds a fetch that finds nothing. A partition that is resumed joins only the next one.
        "fetch.wait.max.ms": 250,
        # Says whether a broker is in contact (`LoopHealth`).
        "statistics.interval.ms": 5_000,
    }
