"""`bulkreg up --cluster`: three brokers, and a PostgreSQL primary with a synchronous standby."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from compose.embedded.home import Home
from tests.end_to_end.test_stack import bulkreg, current
from tests.support.waiting import PATIENCE_S, eventually

TOPIC = "copied"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The home of a running cluster."""
    place = Home(tmp_path)
    place.create()
    place.port("api")  # Not the usual port, which may be taken.
    del place  # This also ends the reservation of the port.
    started = bulkreg("up", "--detach", "--cluster", "--home", str(tmp_path))
    assert started.returncode == 0, started.stderr
    yield tmp_path
    bulkreg("down", "--home", str(tmp_path))


def test_up_cluster_keeps_everything_twice_and_goes_on_without_one_broker(home: Path) -> None:
    stack = current(home)
    assert {name for name in stack["pids"] if "-" in name} == {"kafka-1", "kafka-2", "kafka-3", "postgres-1", "postgres-2"}

    with psycopg2.connect(stack["postgres"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT application_name, sync_state FROM pg_stat_replication")
        assert cursor.fetchall() == [("postgres-2", "sync")]
    connection.close()

    admin = AdminClient({"bootstrap.servers": stack["kafka"], "log_level": 0})
    [created] = admin.create_topics([NewTopic(TOPIC, num_partitions=3)]).values()
    created.result()
    partitions = eventually(lambda: admin.list_topics(TOPIC, timeout=PATIENCE_S).topics[TOPIC].partitions)
    assert [len(partition.replicas) for partition in partitions.values()] == [3, 3, 3]

    os.kill(stack["pids"]["kafka-1"][0], signal.SIGKILL)
    producer = Producer({"bootstrap.servers": stack["kafka"], "acks": "all", "log_level": 0})
    for partition in partitions:
        producer.produce(TOPIC, b"kept", partition=partition)
    assert producer.flush(PATIENCE_S) == 0
    eventually(lambda: current(home)["pids"].get("kafka-1", stack["pids"]["kafka-1"]) != stack["pids"]["kafka-1"])
