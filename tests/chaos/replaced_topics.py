"""Topics that are deleted while everybody works, and made anew.

Only those of the commands: what was lost with them is sent again, and the judge needs no events of them. What the other topics
hold is what the judge and `bulkreg replay` compare the tables with.
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
    """Deletes it, and makes it anew in the end. The broker may be away: then nothing is deleted."""
    settings = cluster.settings
    name = topic.on_cluster(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    try:
        admin.delete_topics([name], request_timeout=DELETED_WITHIN_S)[name].result()
        eventually(lambda: name not in admin.list_topics(timeout=DELETED_WITHIN_S).topics)
    except KafkaException:
        was_deleted = False  # as far as is known: a request that was not answered may have been carried out
    else:
        was_deleted = True
    yield was_deleted
    eventually(lambda: _is_there(settings), within_s=THERE_AGAIN_WITHIN_S, what=f"the topic {name} made anew")


def _is_there(settings: Settings) -> bool:
    try:
        create_topics(settings)
    except KafkaException:  # the broker is away, or still deletes it
        return False
    return True
