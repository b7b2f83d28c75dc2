"""Topics that are deleted and created again while everybody works.

Only the topics of the commands: lost commands are sent again, and the judge needs none of these events. With the other topics, the judge
and `bulkreg replay` compare the tables.
"""

import contextlib
from collections.abc import Iterator

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from orchestrator.process.settings import Settings
from producers.topics import create_topics
from schemas.envelope import Topic
from tests.chaos.cluster import Cluster
from tests.support.waiting import eventually

DELETED_WITHIN_S = 30.0
THERE_AGAIN_WITHIN_S = 60.0


@contextlib.contextmanager
def deleted(topic: Topic, cluster: Cluster) -> Iterator[bool]:
    """Deletes the topic, and creates it again at the end. If the broker is away, nothing is deleted."""
    settings = cluster.settings
    name = topic.on_cluster(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    try:
        admin.delete_topics([name], request_timeout=DELETED_WITHIN_S)[name].result()
        eventually(lambda: name not in admin.list_topics(timeout=DELETED_WITHIN_S).topics)
    except KafkaException:
        was_deleted = False  # As far as is known. A request without a response may have been carried out.
    else:
        was_deleted = True
    yield was_deleted
    eventually(lambda: _is_there(settings), within_s=THERE_AGAIN_WITHIN_S, what=f"the topic {name} after its creation")


def _is_there(settings: Settings) -> bool:
    try:
        create_topics(settings)
    except KafkaException:  # The broker is away, or still deletes it.
        return False
    return True
