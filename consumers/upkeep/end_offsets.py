"""Asks the broker where the topics begin and end. The sweeper compares the consumers' progress with these offsets."""

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # the public name is not typed as exported

from consumers.loop.topic_ids import topic_ids
from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.settings import Settings
from orchestrator.storage.sweeping import Queue, Queues
from schemas.envelope import Topic

_TIMEOUT_S = 10.0


class BrokerEndOffsets:
    """Implements the sweeper's `EndOffsets`. One request for all partitions.

    The ends are those of the log (high watermarks), even while transactions are open: the sweeper waits also for records in those.
    """

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "sweeper"))
        self._prefix = settings.topic_prefix

    def __call__(self, topics: Sequence[Topic]) -> Queues:
        """Returns every partition of those topics that exist. Raises KafkaException when the broker does not respond, or a topic was
        replaced meanwhile."""
        by_name = {topic.on_cluster(self._prefix): topic for topic in topics}
        ids = self._ids(topics)
        metadata = self._admin.list_topics(timeout=_TIMEOUT_S).topics
        partitions = [
            TopicPartition(name, number)
            for name, topic in by_name.items()
            if topic in ids and name in metadata
            for number in metadata[name].partitions
        ]
        if not partitions:
            return {}
        first = self._ask(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        last = self._ask(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        if ids != self._ids(topics):
            # Offsets are requested by topic name, so they may belong to either incarnation.
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_ID, "a topic was replaced while its ends were asked for"))
        return {
            (by_name[name], number): Queue(first[name, number], end, ids[by_name[name]]) for (name, number), end in last.items()
        }

    def _ids(self, topics: Sequence[Topic]) -> Mapping[Topic, str]:
        return topic_ids(self._admin, topics, prefix=self._prefix, timeout_s=_TIMEOUT_S)

    def _ask(self, partitions: Sequence[TopicPartition], which: OffsetSpec) -> dict[tuple[str, int], int]:
        asked = self._admin.list_offsets(dict.fromkeys(partitions, which), request_timeout=_TIMEOUT_S)
        return {(partition.topic, partition.partition): answer.result().offset for partition, answer in asked.items()}
