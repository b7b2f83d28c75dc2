"""Whether the product has come to rest: nothing runs, nothing waits in the outbox, on a topic, or for a log of receipts."""

import psycopg2
from confluent_kafka import KafkaException
from sqlalchemy import NullPool, create_engine

from consumers.upkeep.end_offsets import BrokerEndOffsets
from consumers.upkeep.groups import Groups
from orchestrator.process.settings import Settings
from orchestrator.storage.consumer_groups import read_generation
from schemas.envelope import Topic
from tests.support.kafka import committed_offsets

CONSUMED = {
    "splitter": (Topic.BATCHES,),
    "registration": (Topic.COMMANDS, Topic.COMMANDS_BULK),
    "aggregator": (Topic.RESULTS,),
    "notifier": (Topic.LIFECYCLE,),
}

_UNFINISHED = """
    SELECT (SELECT count(*) FROM orchestrator.batch WHERE status IN ('pending', 'processing')), (SELECT count(*) FROM orchestrator.outbox),
           (SELECT count(*) FROM registration.audit WHERE audit_id > (SELECT appended_through FROM orchestrator.receipt_cursor)),
           (SELECT count(*) FROM orchestrator.receipt_log l WHERE size > signed_size AND NOT EXISTS (
               SELECT FROM orchestrator.receipt_published p
               WHERE (p.organization_id, p.log) = (l.organization_id, l.log) AND state <> 'agrees'))
"""
"""A log that contradicts a published checkpoint is not signed, and is not waited for."""


class Rest:
    """Asks PostgreSQL and Kafka directly, not through the proxy."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.owner_url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._engine = create_engine(settings.owner_url, poolclass=NullPool)
        self._ends = BrokerEndOffsets(settings)
        self._groups = Groups(settings, timeout_s=5.0)

    def missing(self) -> str:
        """What is not at rest yet, in words. Empty if everything is."""
        try:
            connection = psycopg2.connect(self._url, connect_timeout=5)
        except psycopg2.OperationalError:
            return "the database is away"
        with connection, connection.cursor() as cursor:
            cursor.execute(_UNFINISHED)
            [(running, unsent, unlogged, unsigned)] = cursor.fetchall()
        connection.close()
        if running or unsent:
            return f"{running} batches run, {unsent} events wait in the outbox"
        if unlogged or unsigned:
            return f"{unlogged} audit rows are in no log of receipts, {unsigned} logs have grown since they were signed"
        return self.queued()

    def refused(self) -> str:
        """Which groups no coordinator serves, or have partitions that nobody reads (rows 66 and 79 of docs/faults.md), in words. Empty if
        there is none, or no broker responds."""
        try:
            groups = list(self._groups.all(self._engine))
        except KafkaException:
            return ""
        return ", ".join(f"{group.name}: {group.trouble}" for group in groups if group.trouble)

    def queued(self) -> str:
        """How many records wait for which consumer, in words. Empty if none does."""
        waiting = {topic: self._waiting(role, topic) for role, topics in CONSUMED.items() for topic in topics}
        return ", ".join(f"{records} records wait on {topic}" for topic, records in waiting.items() if records)

    def _waiting(self, role: str, topic: Topic) -> int:
        committed = committed_offsets(self._settings, role, topic, self._generation(role))
        ends = self._ends([topic])
        # A consumer may have committed for an earlier incarnation of the topic. An offset beyond the end does not count.
        return sum(max(0, queue.next_offset - committed.get(partition, queue.first)) for (_, partition), queue in ends.items())

    def _generation(self, role: str) -> int:
        """Returns the generation of the role's group: the operator may have renewed it."""
        with self._engine.connect() as connection:
            return read_generation(connection, role)
