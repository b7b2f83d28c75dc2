"""The topics: partitions, retention, sizes. They are created explicitly, never by a client that uses a topic's name."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from orchestrator.process.actions import Action, log_action
from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.settings import Settings
from schemas.envelope import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES, Topic

TIMEOUT_S = 30.0

MISSING = ("it does not exist",)
"""The difference that is reported for a missing topic."""


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """How a topic should be."""

    topic: Topic
    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicReport:
    """The result of `create_topics`: whether it created the topic, and otherwise what differs from the plan, in words. It changes no
    difference: more partitions would move keys, and an operator may have chosen the value on purpose."""

    name: str
    created: bool
    differences: Sequence[str] = ()


def planned_topics(settings: Settings) -> list[TopicPlan]:
    """Returns the plans of the six topics."""
    return [_plan(topic, settings) for topic in Topic]


def _plan(topic: Topic, settings: Settings) -> TopicPlan:
    replicas = settings.topic_replication_factor
    is_dead_letter = topic is Topic.DEAD_LETTER
    # The only topic that others write to. The broker unpacks what they compress and counts that, so it refuses a record of 70 MB that was
    # sent as 70 KB, which would otherwise take twice its size in each process that reads it (docs/decisions/0019-foreign-records.md).
    compression = {"compression.type": "uncompressed"} if topic is Topic.BATCHES else {}
    return TopicPlan(
        topic=topic,
        name=topic.on_cluster(settings.topic_prefix),
        # Dead letters are read by people, in the order in which they came, so there is no work to share.
        partitions=1 if is_dead_letter else settings.topic_partitions,
        replication_factor=replicas,
        config={
            "cleanup.policy": "delete",
            # How far back a replay can reach.
            "retention.ms": str(settings.topic_retention_hours * 3_600_000),
            # The broker's clock. With a sender's wrong clock, records would be deleted at once or never, and a replay that begins at a time
            # would miss them.
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(MAX_DEAD_LETTER_BYTES if is_dead_letter else MAX_MESSAGE_BYTES),
            # With three brokers, an acknowledged record survives the loss of one, and one may be down.
            "min.insync.replicas": str(max(1, replicas - 1)),
            "unclean.leader.election.enable": "false",
            **compression,
        },
    )


def inspect_topics(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> list[TopicReport]:
    """Returns how the topics differ from the plan, as `create_topics` does, but creates none. Raises the same errors."""
    admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "admin"))
    known = admin.list_topics(timeout=timeout_s).topics
    plans = planned_topics(settings)
    existing = [plan for plan in plans if plan.name in known]
    differences = _differences(admin, existing) if existing else {}
    return [TopicReport(plan.name, False, differences.get(plan.name, MISSING)) for plan in plans]


def retentions(settings: Settings, topics: Collection[Topic], *, timeout_s: float = TIMEOUT_S) -> dict[str, timedelta | None]:
    """Returns how long each of the topics keeps records, by its name on the cluster; None: for ever. Missing topics are left out.

    Raises the same errors as `create_topics`.
    """
    admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "admin"))
    known = admin.list_topics(timeout=timeout_s).topics
    names = [name for topic in topics if (name := topic.on_cluster(settings.topic_prefix)) in known]
    kept: dict[str, timedelta | None] = {}
    for name, config in _configs(admin, names).items():
        retention_ms = int(config["retention.ms"].value)
        deletes = "delete" in config["cleanup.policy"].value
        kept[name] = timedelta(milliseconds=retention_ms) if deletes and retention_ms >= 0 else None
    return kept


def lacking_brokers(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> Mapping[int, int]:
    """Returns the brokers that lack an up-to-date copy of partitions of our topics, by their id, and of how many partitions each.

    Such a broker is down, cut off, or still fetching what it has missed. Raises KafkaException if the cluster does not respond.
    """
    admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "admin"))
    known = admin.list_topics(timeout=timeout_s).topics
    ours = [known[plan.name] for plan in planned_topics(settings) if plan.name in known]
    partitions = [partition for topic in ours for partition in topic.partitions.values()]
    return Counter(broker for partition in partitions for broker in set(partition.replicas) - set(partition.isrs))


def create_topics(settings: Settings) -> list[TopicReport]:
    """Creates missing topics and reports on all. It may be repeated, and may run twice at once.

    Raises UnsafeKafkaError, and KafkaException when the cluster does not respond or refuses.
    """
    admin = AdminClient(connection_config(settings), logger=kafka_logger(settings, "admin"))
    plans = planned_topics(settings)
    created: set[str] = set()
    differences: dict[str, list[str]] = {}
    # A broker learns of a topic a moment after the controller has created or deleted it, and another process may have done so just now.
    again = Retrying(
        retry=retry_if_exception(_is_not_known), wait=wait_fixed(0.1), stop=stop_after_delay(TIMEOUT_S), reraise=True
    )
    for attempt in again:
        with attempt:
            known = admin.list_topics(timeout=TIMEOUT_S).topics
            if missing := [plan for plan in plans if plan.name not in known and plan.name not in created]:
                created |= _create(admin, missing)
            existing = [plan for plan in plans if plan.name not in created]
            differences = _differences(admin, existing) if existing else {}
    return [TopicReport(plan.name, plan.name in created, differences.get(plan.name, ())) for plan in plans]


def _create(admin: AdminClient, plans: Sequence[TopicPlan]) -> set[str]:
    """Returns the names of the topics that this call created, without those that another process created meanwhile."""
    new = [
        NewTopic(plan.name, plan.partitions, replication_factor=plan.replication_factor, config=dict(plan.config))
        for plan in plans
    ]
    made = set()
    for name, future in admin.create_topics(new, operation_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            made.add(name)
            log_action(Action.TOPIC_CREATED, role=None, cluster_topic=name)
    return made


def _is_not_known(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def _differences(admin: AdminClient, plans: Sequence[TopicPlan]) -> dict[str, list[str]]:
    topics = admin.list_topics(timeout=TIMEOUT_S).topics
    configs = _configs(admin, [plan.name for plan in plans])
    found: dict[str, list[str]] = {}
    for plan in plans:
        if plan.name not in topics:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        partitions = topics[plan.name].partitions
        replicas = min((len(partition.replicas) for partition in partitions.values()), default=0)
        actual = {"partitions": str(len(partitions)), "replication factor": str(replicas)}
        actual |= {name: entry.value for name, entry in configs[plan.name].items()}
        wanted = {"partitions": str(plan.partitions), "replication factor": str(plan.replication_factor), **plan.config}
        found[plan.name] = [
            f"{name} is {actual.get(name)}, planned {value}" for name, value in wanted.items() if actual.get(name) != value
        ]
    return found


def _configs(admin: AdminClient, names: Sequence[str]) -> Mapping[str, Any]:
    if not names:
        return {}
    asked = admin.describe_configs([ConfigResource("topic", name) for name in names], request_timeout=TIMEOUT_S)
    return {resource.name: future.result() for resource, future in asked.items()}
