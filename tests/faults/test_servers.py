"""Rows 4 to 6, 10, 34, 39, 61, 62, 67 and 81 of the fault catalogue: servers that are killed, full, frozen, damaged or missing."""

import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from compose.embedded.infrastructure import Infrastructure
from consumers.loop import silence
from consumers.loop.handler import Handled, Record
from consumers.loop.topic_ids import BrokerTopicIds
from consumers.notary import notary as notary_loop
from consumers.notary.notary import Notary
from consumers.notary.published import every_published_checkpoint
from consumers.reading import topic_reader
from consumers.reading.topic_reader import LeaderSilentError, TopicReader
from consumers.registration import RegistrationHandler
from orchestrator.batches.model import Role
from orchestrator.batches.publishing import Delivery, DeliveryError
from orchestrator.process.actions import Action
from orchestrator.process.health import Health
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.migrate import upgrade
from producers.producer import EventProducer
from schemas.envelope import Topic
from schemas.events import EventData
from schemas.paths import API_PATH
from tests.faults.interruptions import interrupted_readings
from tests.faults.processes import are_at_their_ends
from tests.faults.roles import (
    assert_exactly_once,
    count,
    expanded,
    running_flow,
    running_relay,
    running_role,
    wait_until_completed,
)
from tests.support.api_server import KEY, running_api
from tests.support.crashes import kill, restart
from tests.support.databases import fresh_database
from tests.support.kafka import altered, committed_offsets, made_topics, reading, replace_topic
from tests.support.log_lines import logged
from tests.support.pipeline import COORDINATOR, Pipeline, mentors, standard_directory
from tests.support.raw_producer import Compression, RawRecord, crc32c, produce
from tests.support.receipts import KEY as SIGNING_KEY
from tests.support.receipts import checkpoints, in_thread, leaves, signing
from tests.support.revoking import revoke
from tests.support.second_broker import NODE as SECOND_NODE
from tests.support.second_broker import second_broker
from tests.support.stack import Stack
from tests.support.toy import command
from tests.support.upstream import submitted as submitted_upstream
from tests.support.upstream import upstream_item
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

ITEMS = 20
MAX_POLL_INTERVAL_MS = 3_000

# In a batch of records: where the part under its checksum begins, and where its records begin.
CHECKED_AT, PAYLOAD_AT = 21, 61


@pytest.fixture(scope="module")
def own_postgres(infrastructure: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """A PostgreSQL that a test may damage."""
    home = tmp_path_factory.mktemp("own-postgres")
    own = Infrastructure(home, kafka_bootstrap_servers=infrastructure.kafka_bootstrap_servers)
    with own:
        yield own


@pytest.fixture
def settings(own_postgres: Infrastructure) -> Iterator[Settings]:
    """Settings of a deployment on it."""
    endpoints = own_postgres.endpoints
    with fresh_database(endpoints.postgres_url) as url:
        settings = Settings(
            database_url=url, kafka_bootstrap_servers=endpoints.kafka_bootstrap_servers, topic_prefix=f"test-{uuid4().hex}"
        )
        upgrade(settings)
        yield settings


class CountingRegistration(RegistrationHandler):
    """The registration service, with a count of its calls."""

    def __init__(self) -> None:
        super().__init__(InProcessRegistrationService(EARLIEST_YEAR))
        self.tries = 0

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        self.tries += 1
        return super().handle(connection, records)


def submitted(pipeline: Pipeline, number: int) -> UUID:
    """Submits a batch and repeats until the database accepts it, like a client whose API returns 503."""

    def accepted() -> UUID | None:
        try:
            return pipeline.submit(mentors(ITEMS, first=1 + ITEMS * number))
        except DBAPIError:
            return None

    found = eventually(accepted)
    assert found is not None
    return found


def test_row_67_synchronous_standby_lost(settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits wait until the standby is back. Reads go on, and everybody is told in time."""
    monkeypatch.setattr("orchestrator.storage.database._COMMIT_WAITS_TOO_LONG_S", 0.1)
    standard_directory(engine)
    server_wide = create_engine(settings.owner_url, isolation_level="AUTOCOMMIT")

    def wait_for_standby(name: str) -> None:
        with server_wide.connect() as connection:
            connection.execute(text(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'"))
            connection.execute(text("SELECT pg_reload_conf()"))

    body = {
        "mentor_ids": ["mentor-1"],
        "activity": {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60},
    }
    key = {"Idempotency-Key": "once"}
    limits = {"jwt_hs256_key": SecretStr(KEY), "request_deadline_ms": 1_000, "api_database_connections": 1}
    with running_api(settings.model_copy(update=limits)) as server, server.client(Role.COORDINATOR, sub=COORDINATOR) as client:
        try:
            wait_for_standby("gone")
            answer = client.post(API_PATH, json=body, headers=key)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert client.get(API_PATH).json()["data"] == []
            ready = httpx.get(f"{server.url}/readyz")
            assert (ready.status_code, ready.json()["checks"]["database"]["ok"]) == (503, False)
            assert "a synchronous standby" in ready.json()["checks"]["database"]["detail"]
        finally:
            wait_for_standby("")
        eventually(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        assert client.post(API_PATH, json=body, headers=key).status_code == 202
        assert len(client.get(API_PATH).json()["data"]) == 1
    server_wide.dispose()


@pytest.mark.usefixtures("topics")
def test_row_4_database_killed_repeatedly(
    own_postgres: Infrastructure, settings: Settings, engine: Engine, pipeline: Pipeline
) -> None:
    with running_flow(settings):
        batches = []
        for number in range(2):
            batches.append(submitted(pipeline, number))
            kill(own_postgres, "postgres")
            restart(own_postgres, "postgres")
        batches.append(submitted(pipeline, 2))
        engine.dispose()
        wait_until_completed(engine, batches)
    assert_exactly_once(engine, settings, activities=3 * ITEMS)


@pytest.mark.usefixtures("topics")
def test_row_5_disk_full(
    own_postgres: Infrastructure, settings: Settings, engine: Engine, pipeline: Pipeline, publisher: EventProducer
) -> None:
    """The first page of the activities is written to /dev/full. That is a real ENOSPC, and needs none of the rights that a small disk
    would."""
    batch_id = pipeline.submit(mentors(ITEMS))
    commands = expanded(pipeline, batch_id)
    with engine.connect() as connection:
        path = connection.execute(text("SELECT pg_relation_filepath('registration.activity')")).scalar_one()
    file = own_postgres.home.path / "postgres" / str(path)
    aside = file.with_name("aside")
    file.rename(aside)
    file.symlink_to("/dev/full")
    role = CountingRegistration()
    with running_role(settings, role), reading(settings, Topic.RESULTS) as results:
        publisher.publish(commands)
        eventually(lambda: role.tries >= 3)
        assert not results.read()
        free(file, aside, settings)
        found = results.wait_for(ITEMS)
    assert len({result.id for result in found}) == len(found)
    assert_exactly_once(engine, settings, activities=ITEMS)


def free(file: Path, aside: Path, settings: Settings) -> None:
    """Frees the disk."""
    file.unlink()
    aside.rename(file)
    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        # Makes every session open the file again. A session that failed keeps /dev/full open.
        connection.execute(text("ALTER TABLE registration.activity SET (fillfactor = 100)"))
    owner.dispose()


@pytest.mark.usefixtures("topics")
def test_row_6_database_frozen_for_longer_than_a_consumer_may_be_silent(
    own_postgres: Infrastructure, settings: Settings, engine: Engine, pipeline: Pipeline, publisher: EventProducer
) -> None:
    settings = settings.model_copy(update={"max_poll_interval_ms": MAX_POLL_INTERVAL_MS})
    commands = expanded(pipeline, pipeline.submit(mentors(ITEMS)))
    role = CountingRegistration()
    with running_role(settings, role) as loop, reading(settings, Topic.RESULTS) as results:
        eventually(lambda: loop.health.broker_contact)
        server = psutil.Process(own_postgres.pids["postgres"])
        frozen = [server, *server.children(recursive=True)]
        for process in frozen:
            process.suspend()
        turns = loop.turns
        publisher.publish(commands)
        eventually(lambda: loop.health.loop_age_s > 1.5 * MAX_POLL_INTERVAL_MS / 1000)
        turns = loop.turns - turns
        for process in frozen:
            process.resume()
        results.wait_for(ITEMS)
    # It went on polling, at growing intervals, or it would have been expelled. It tried once, not in a loop.
    assert turns < 100
    assert role.tries <= 2
    assert_exactly_once(engine, settings, activities=ITEMS)


@pytest.fixture(scope="module")
def own_kafka(infrastructure: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """A Kafka that a test may damage."""
    own = Infrastructure(tmp_path_factory.mktemp("own-kafka"), postgres_url=infrastructure.postgres_url)
    with own:
        yield own


@pytest.fixture
def on_own_kafka(infrastructure: Stack, template_database: str, own_kafka: Infrastructure) -> Iterator[Settings]:
    """Settings of a deployment on it, with the standard directory."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(
            database_url=url,
            kafka_bootstrap_servers=own_kafka.endpoints.kafka_bootstrap_servers,
            topic_prefix=f"test-{uuid4().hex}",
            relay_poll_ms=50,
        )
        with made_topics(settings):
            yield settings


@pytest.fixture
def its_pipeline(on_own_kafka: Settings) -> Iterator[Pipeline]:
    """The flow in that deployment."""
    engine = create_database_engine(on_own_kafka.worker_url, on_own_kafka, connections=4, application_name="test")
    standard_directory(engine)
    pipeline = Pipeline(on_own_kafka, engine)
    yield pipeline
    pipeline.close()
    engine.dispose()


class ImpatientProducer(EventProducer):
    """Gives up early, and records the error that it got."""

    def __init__(self, settings: Settings, *, timeout_ms: int = 500) -> None:
        super().__init__(settings, {"delivery.timeout.ms": timeout_ms})
        self.unknown: list[str] = []

    def _failed(self, delivery: Delivery, index: int, error: KafkaError) -> None:
        self.unknown.append(str(error))
        super()._failed(delivery, index, error)


def test_row_10_delivery_timeout_in_the_producer(
    own_kafka: Infrastructure, on_own_kafka: Settings, its_pipeline: Pipeline
) -> None:
    """The broker is frozen after it has received the event, and writes it after the producer has given up."""
    producer = ImpatientProducer(on_own_kafka)
    with running_relay(on_own_kafka, producer), reading(on_own_kafka, Topic.BATCHES) as topic:
        its_pipeline.submit(mentors(1))
        eventually(lambda: count(its_pipeline.engine, "orchestrator.outbox") == 0)
        producer.unknown.clear()
        broker = psutil.Process(own_kafka.pids["kafka"])
        broker.suspend()
        try:
            batch_id = its_pipeline.submit(mentors(1, first=2))
            eventually(lambda: producer.unknown)
            assert count(its_pipeline.engine, "orchestrator.outbox") == 1
        finally:
            broker.resume()
        eventually(lambda: count(its_pipeline.engine, "orchestrator.outbox") == 0)
        eventually(lambda: sum(seen.key == str(batch_id) for seen in topic.read()) > 1)
    producer.close()
    assert len({(seen.id, seen.value) for seen in topic.records if seen.key == str(batch_id)}) == 1


def test_row_34_broker_killed_and_restarted(own_kafka: Infrastructure, on_own_kafka: Settings, its_pipeline: Pipeline) -> None:
    with running_flow(on_own_kafka):
        batches = [submitted(its_pipeline, 0)]
        wait_until_completed(its_pipeline.engine, batches)
        batches.append(submitted(its_pipeline, 1))
        kill(own_kafka, "kafka")
        batches.append(submitted(its_pipeline, 2))
        restart(own_kafka, "kafka")
        batches.append(submitted(its_pipeline, 3))
        wait_until_completed(its_pipeline.engine, batches)
    assert_exactly_once(its_pipeline.engine, on_own_kafka, activities=4 * ITEMS)


def unknown_ids(*_: object, **__: object) -> Mapping[Topic, str]:
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.parametrize("are_ids_told", [True, False], ids=["ids are told", "ids are not told"])
def test_row_61_topics_recreated_after_the_broker_was_restarted(
    own_kafka: Infrastructure,
    on_own_kafka: Settings,
    its_pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    are_ids_told: bool,
) -> None:
    """The client refuses a leader whose epoch is lower than the last one it knew, and each start of the broker raises the epochs."""
    monkeypatch.setattr(silence, "SILENT_AFTER_S", silence.SILENT_AFTER_MAX_S if are_ids_told else 2.0)
    if not are_ids_told:
        monkeypatch.setattr(BrokerTopicIds, "__call__", unknown_ids)
    settings = on_own_kafka.model_copy(update={"bulk_threshold_items": ITEMS - 1})
    with running_flow(settings):
        batches = [submitted(its_pipeline, 0)]
        wait_until_completed(its_pipeline.engine, batches)
        kill(own_kafka, "kafka")
        restart(own_kafka, "kafka")
        batches += [submitted(its_pipeline, 1), its_pipeline.submit(mentors(1, first=1 + 2 * ITEMS))]
        wait_until_completed(its_pipeline.engine, batches)
        if not are_ids_told:
            # Without ids, an offset that is committed late for the old topic counts for the new one, whose first records are then skipped.
            eventually(lambda: are_at_their_ends(settings))
        for topic in (Topic.BATCHES, Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.RESULTS):
            replace_topic(settings, topic)
        batches += [submitted(its_pipeline, 3), its_pipeline.submit(mentors(1, first=2 + 2 * ITEMS))]
        wait_until_completed(its_pipeline.engine, batches)
    assert_exactly_once(its_pipeline.engine, settings, activities=3 * ITEMS + 2)


def placed(settings: Settings, topic: Topic, node: int) -> None:
    """Deletes the topic and creates it again, on this broker only."""
    name = topic.on_cluster(settings.topic_prefix)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.delete_topics([name])[name].result()

    def is_made() -> bool:
        try:
            admin.create_topics([NewTopic(name, 3, replica_assignment=[[node]] * 3)])[name].result()
        except KafkaException:  # The broker is still deleting it.
            return False
        return True

    eventually(is_made)


def test_row_62_producer_whose_topic_was_recreated_on_another_broker(
    own_kafka: Infrastructure, on_own_kafka: Settings, tmp_path: Path
) -> None:
    """The client still asks the broker that led the topic before, and that broker had a higher epoch because it was restarted."""
    with second_broker(own_kafka, tmp_path / "second") as second:
        placed(on_own_kafka, Topic.COMMANDS, SECOND_NODE)
        producer = ImpatientProducer(on_own_kafka, timeout_ms=2_000)
        producer.publish([command(0)])
        second.kill()
        second.start()
        producer.publish([command(1)])
        # Now the client asks who leads the topic.
        assert producer.place(command(1)).startswith("commands/")
        placed(on_own_kafka, Topic.COMMANDS, 1)

        def is_published() -> bool:
            try:
                producer.publish([command(2)])
            except DeliveryError:
                return False
            return True

        eventually(is_published)
        producer.close()
    with reading(on_own_kafka, Topic.COMMANDS) as topic:
        assert [seen.data["position"] for seen in topic.wait_for(1)] == [2]


def spoil(own_kafka: Infrastructure, topic: str, partition: int, offset: int, *, is_checked: bool) -> None:
    """Damages the batch at an offset on the broker's disk: its checksum, or the compressed content under a right checksum."""
    [log] = own_kafka.home.path.rglob(f"{topic}-{partition}/*.log")
    with log.open("r+b") as file:
        raw = bytearray(file.read())
        start = 0
        while (head := struct.unpack_from(">qi", raw, start))[0] != offset:
            start += 12 + head[1]
        end = start + 12 + head[1]
        raw[end - 1] ^= 0xFF
        if not is_checked:
            raw[PAYLOAD_AT + start] ^= 0xFF
            struct.pack_into(">I", raw, start + CHECKED_AT - 4, crc32c(bytes(raw[start + CHECKED_AT : end])))
        file.seek(0)
        file.write(raw)


def test_row_39_batch_that_is_damaged_on_the_brokers_disk(
    own_kafka: Infrastructure, on_own_kafka: Settings, its_pipeline: Pipeline
) -> None:
    """The client can't get past it by itself. The product does: the records behind it are handled, and a replay skips it, too."""
    topic = Topic.BATCHES.on_cluster(on_own_kafka.topic_prefix)
    batches = [submitted_upstream(uuid4(), [upstream_item(0, f"mentor-{number}")]) for number in range(1, 12)]
    records = [RawRecord(event.value, [(name.encode(), value) for name, value in event.headers]) for event in batches]
    sets = [records[:1], records[1:4], records[4:5], records[5:8], records[8:9], records[9:10], records[10:]]
    # One in three, and one directly behind it.
    damaged = (1, 4, 9)
    # What the broker keeps compressed is damaged in its compressed content, too.
    altered(on_own_kafka, Topic.BATCHES, "compression.type", "producer")
    for each in sets:
        produce(on_own_kafka.kafka_bootstrap_servers, topic, 1, each, compression=Compression.LZ4)
    for offset, is_checked in zip(damaged, (True, False, True), strict=True):
        spoil(own_kafka, topic, 1, offset, is_checked=is_checked)
    whole = [UUID(batches[number].key) for number in (0, 5, 6, 7, 8, 10)]
    with running_flow(on_own_kafka), reading(on_own_kafka, Topic.DEAD_LETTER) as letters:
        wait_until_completed(its_pipeline.engine, [*whole, submitted(its_pipeline, 1)])
        # The API's batch may be on that partition, too.
        eventually(lambda: committed_offsets(on_own_kafka, "splitter", Topic.BATCHES).get(1, 0) >= len(batches))
        found = letters.wait_for(len(damaged))
    assert [(each.data["offset"], each.data["reason"], each.data["value"]) for each in found] == [
        (offset, "damaged", None) for offset in damaged
    ]
    with TopicReader(on_own_kafka) as reader:
        spans = [span for span in reader.spans([Topic.BATCHES]) if span.partition == 1]
        assert [raw.offset for chunk in reader.read(spans) for _, raw in chunk][:6] == [0, 5, 6, 7, 8, 10]


def test_row_81_a_leader_falls_silent_in_the_middle_of_reading(
    own_kafka: Infrastructure,
    on_own_kafka: Settings,
    its_pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The notary says so and goes on appending, and ends when it is told to. A command ends, too."""
    engine, settings = its_pipeline.engine, signing(on_own_kafka)
    with running_flow(settings):
        wait_until_completed(engine, [batch := its_pipeline.submit(mentors(2))])
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
    for module, name in ((topic_reader, "STALL_S"), (notary_loop, "_STALL_S"), (notary_loop, "_MAX_PAUSE_S")):
        monkeypatch.setattr(module, name, 0.5)
    with in_thread(Notary(settings, engine)) as running:
        with interrupted_readings(own_kafka, monkeypatch):
            told = eventually(lambda: running.health.failing, what="what is wrong")
            assert f"nothing came from {Topic.LIFECYCLE.on_cluster(settings.topic_prefix)}/" in str(told)
            assert running.health.check(max_loop_age_s=PATIENCE_S) == Health(False, told)
            revoke(its_pipeline, batch)
            eventually(lambda: len(leaves(engine)) == 4, what="what is revoked meanwhile in the log")
            assert checkpoints(engine) == []
            assert "check that each partition has a leader" in str(logged(caplog, Action.NOTARY_FAILED)[0]["error"])
        eventually(lambda: running.health.check(max_loop_age_s=PATIENCE_S).ok)
        eventually(lambda: [each.checkpoint.size for each in checkpoints(engine)] == [4])
    monkeypatch.setattr(notary_loop, "_STALL_S", HELD_S)
    with running_relay(settings):
        eventually(lambda: count(engine, "orchestrator.outbox") == 0, what="something that the notary has not read")
    notary = Notary(settings, engine)
    with interrupted_readings(own_kafka, monkeypatch) as has_stopped:
        with pytest.raises(LeaderSilentError):
            every_published_checkpoint(settings, [SIGNING_KEY.verifier])
        has_stopped.clear()
        thread = threading.Thread(target=notary.run)
        thread.start()
        assert has_stopped.wait(PATIENCE_S)
        notary.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it must end when it is told to"
