"""Finds assigned partitions whose topic is another one than before: it was deleted and created again, and has a new id and new offsets
(docs/decisions/0024-incarnations.md)."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from schemas.envelope import Topic


class KnownIncarnations:
    """The ids of the topics of which the present client was assigned partitions. `topics` are the loop's, by their names in Kafka."""

    def __init__(self, topics: Mapping[str, Topic]) -> None:
        self._topics = topics
        self._ids: dict[Topic, str] = {}

    def joined(self) -> None:
        """Notes that a new client joins the group now. It has read nothing yet."""
        self._ids.clear()

    def replaced(self, partitions: Sequence[TopicPartition], ids: Mapping[Topic, str]) -> Sequence[TopicPartition]:
        """Returns the partitions whose topic had another id when the present client was assigned partitions of it. Notes `ids`."""
        topics = {self._topics[partition.topic] for partition in partitions}
        replaced = {
            topic for topic in topics if (topic_id := ids.get(topic)) and self._ids.setdefault(topic, topic_id) != topic_id
        }
        return [partition for partition in partitions if self._topics[partition.topic] in replaced]

    def outdated(
        self, consumer: Consumer, partitions: Sequence[TopicPartition], ids: Mapping[Topic, str], *, timeout_s: float
    ) -> Sequence[TopicPartition]:
        """Returns the partitions for which the group has committed an offset of another incarnation. Raises KafkaException."""
        places = [TopicPartition(partition.topic, partition.partition) for partition in partitions]
        committed = {(each.topic, each.partition): each.metadata for each in consumer.committed(places, timeout=timeout_s)}
        return [
            partition
            for partition in partitions
            if (of := committed.get((partition.topic, partition.partition)))
            and (topic_id := ids.get(self._topics[partition.topic]))
            and of != topic_id
        ]
