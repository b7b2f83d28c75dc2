"""The incarnation of a topic: its id in Kafka, which changes when the topic is deleted and recreated."""

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import UNKNOWN_ID
from schemas.envelope import Topic

# The id that a broker returns when it has no ids (before Kafka 2.8).
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"


def topic_ids(admin: AdminClient, topics: Sequence[Topic], *, prefix: str, timeout_s: float) -> Mapping[Topic, str]:
    """Returns the ids of the topics that exist. Raises KafkaException when the broker does not respond."""
    names = {topic.on_cluster(prefix): topic for topic in topics}
    found: dict[Topic, str] = {}
    for name, future in admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s).items():
        error = future.exception()
        if error is None:
            topic_id = str(future.result().topic_id)
            found[names[name]] = UNKNOWN_ID if topic_id == _NO_ID else topic_id
        elif not isinstance(error, KafkaException):
            raise error
        elif error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            # A new error. The future's own would keep this frame, and so the client with its threads, until cycles are collected.
            raise KafkaException(*error.args)
    return found


class BrokerTopicIds:
    """Asks the broker over a connection that it closes again, because a consumer asks only when it is assigned partitions, which is
    rare."""

    def __init__(self, settings: Settings, client: str) -> None:
        """Raises UnsafeKafkaError."""
        self._config = connection_config(settings)
        self._logger = kafka_logger(settings, client)
        self._prefix = settings.topic_prefix

    def __call__(self, topics: Sequence[Topic], *, timeout_s: float) -> Mapping[Topic, str]:
        """Returns the same as `topic_ids`."""
        return topic_ids(AdminClient(self._config, logger=self._logger), topics, prefix=self._prefix, timeout_s=timeout_s)
