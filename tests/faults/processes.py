"""Runs the product's roles as a process of its own, for records that may end a process, and reads what they left on the topics."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine

from orchestrator.batches.model import ItemFilter, StatusView
from orchestrator.process.settings import Settings
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.envelope import Topic
from tests.support.kafka import Seen, committed_offsets, reading
from tests.support.ports import free_port
from tests.support.process import environment, started
from tests.support.waiting import PATIENCE_S

ROLES = ("api", "relay", "splitter", "registration", "aggregator")


@contextlib.contextmanager
def running_roles(settings: Settings, folder: Path) -> Iterator[int]:
    """Runs `bulkreg run` with the flow's roles at the finest log level; yields the API's port."""
    port = free_port()
    variables = environment(settings) | {
        "BULKREG_JWT_HS256_KEY": "k" * 32,
        "BULKREG_API_PORT": str(port),
        "BULKREG_LOG_LEVEL": "DEBUG",
        "BULKREG_LOG_DIRECTORY": str(folder),
    }
    with (folder / "output").open("wb") as file:
        command = [sys.executable, "-m", "cli", "run", *ROLES]
        with started(command, variables, stdout=file.fileno(), stderr=subprocess.STDOUT) as process:
            yield port
            process.terminate()
            process.wait(PATIENCE_S)


def ends(settings: Settings, topic: Topic) -> dict[int, int]:
    """The ends of the partitions that have a record."""
    name = topic.on_cluster(settings.topic_prefix)
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "test-ends"})
    try:
        partitions = consumer.list_topics(name, timeout=PATIENCE_S).topics[name].partitions
        found = {p: consumer.get_watermark_offsets(TopicPartition(name, p), timeout=PATIENCE_S) for p in partitions}
    finally:
        consumer.close()
    return {partition: high for partition, (_, high) in found.items() if high}


def are_at_their_ends(settings: Settings) -> bool:
    flow = (
        ("splitter", Topic.BATCHES),
        ("registration", Topic.COMMANDS),
        ("registration", Topic.COMMANDS_BULK),
        ("aggregator", Topic.RESULTS),
    )
    return all(committed_offsets(settings, role, topic) == ends(settings, topic) for role, topic in flow)


def whole(settings: Settings, topic: Topic) -> list[Seen]:
    with reading(settings, topic) as reader:
        return reader.wait_for(sum(ends(settings, topic).values()))


def shown(engine: Engine, batch_id: UUID) -> StatusView:
    with engine.begin() as connection:
        status = PostgresActivityRepository(connection).status(batch_id, ItemFilter())
    assert status is not None
    return status
