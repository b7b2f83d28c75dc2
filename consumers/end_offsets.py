"""Where the topics end, asked from the broker: what the sweeper compares the consumers' progress with."""

from collections.abc import Sequence

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # the public name is not typed as exported

from orchestrator.kafka_settings import connection_config, kafka_logger
from orchestrator.settings import Settings
from orchestrator.storage.sweeping import Offsets
from schemas.envelope import Topic

_TIMEOUT_S = 10.0


class BrokerEndOffsets:
    """Implements the sweeper's `EndOffsets`. One request for all partitions."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "sweeper"))
        self._prefix = settings.topic_prefix

    def __call__(self, topics: Sequence[Topic]) -> Offsets:
        """The next offset of every partition that holds a record. Raises KafkaException when the broker does not answer."""
        by_name = {topic.on_cluster(self._prefix): topic for topic in topics}
        metadata = self._admin.list_topics(timeout=_TIMEOUT_S).topics
        partitions = [
            TopicPartition(name, number) for name in by_name if name in metadata for number in metadata[name].partitions
        ]
        first = self._ask(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        last = self._ask(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        # Nothing of an empty partition is waited for: its consumer may never have had anything to note progress about.
        return {(by_name[name], number): end for (name, number), end in last.items() if end > first[name, number]}

    def _ask(self, partitions: Sequence[TopicPartition], which: OffsetSpec) -> dict[tuple[str, int], int]:
        asked = self._admin.list_offsets(dict.fromkeys(partitions, which), request_timeout=_TIMEOUT_S)
        return {(partition.topic, partition.partition): answer.result().offset for partition, answer in asked.items()}
