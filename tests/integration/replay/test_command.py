"""`bulkreg replay` on real topics, and how the topics are read."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine, text
from typer.testing import Result

from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.batches.operations import delete_batch
from orchestrator.process.settings import Settings
from orchestrator.replay.rebuild import TOPICS
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.verification.verify import verify
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from tests.support import command_line
from tests.support.audit import tampering
from tests.support.kafka import committed_offsets, reading, write_raw
from tests.support.pipeline import ADMIN, ORGANIZATION, item, mentors
from tests.support.replaying import RecordingPipeline, projection
from tests.support.waiting import PATIENCE_S


def replay(settings: Settings, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Runs the command as a deployment does. Returns its exit code and its document."""
    ran = bulkreg(settings, *arguments, "--json")
    assert ran.stdout, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return ran.exit_code, document


def bulkreg(settings: Settings, *arguments: str) -> Result:
    return command_line.bulkreg(settings, "replay", *arguments)


def everything_read(reader: TopicReader, spans: Sequence[Span]) -> list[tuple[Topic, bytes | None]]:
    return [(topic, raw.value) for chunk in reader.read(spans) for topic, raw in chunk]


def event(value: bytes, *, key: str = "key", topic: Topic = Topic.RESULTS) -> OutgoingEvent:
    return OutgoingEvent(topic, key, (("content-type", b"application/json"),), value)


def test_a_destroyed_projection_is_shown_and_promoted_from_real_topics(
    pipeline: RecordingPipeline, publisher: EventProducer, owner: Engine, settings: Settings
) -> None:
    batch_id = pipeline.submit([*mentors(3), item("nobody")], label="Monday group")
    deleted = pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, deleted)
    pipeline.drain()
    publisher.publish([event for _, event in pipeline.written])
    before = projection(owner)
    code, document = replay(settings)
    assert (code, document["differences"], document["not_covered"]) == (0, [], [])
    assert document["read"] == {"records": 11, "unreadable": 0, "batches": 2, "items": 6}
    with owner.begin() as connection:
        connection.execute(text("TRUNCATE orchestrator.batch, orchestrator.batch_item"))

    code, document = replay(settings)
    assert code == 1
    assert {each["batch_id"] for each in document["differences"]} == {str(batch_id), str(deleted)}
    missing = [each for each in document["differences"] if each["batch_id"] == str(batch_id) and each["item_id"] is None]
    assert missing == [
        {"batch_id": str(batch_id), "item_id": None, "field": "batch", "live": None, "rebuilt": "partial", "promoted": False}
    ]
    assert document["counts"] == document["remaining"] == {"batch": 2, "item": 6}
    shown = bulkreg(settings, "--batch", str(batch_id))
    assert shown.exit_code == 1
    assert "the topics say" in shown.stdout
    assert "Differences: 1 batch, 4 item." in shown.stdout

    code, document = replay(settings, "--promote", "--batch", str(deleted))
    assert code == 0
    assert all(each["promoted"] for each in document["differences"])
    assert document["promotion"] == {str(deleted): "merged"}
    code, document = replay(settings, "--promote")
    assert (code, document["remaining"]) == (0, {})
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []
    code, document = replay(settings)
    assert (code, document["differences"]) == (0, [])


def test_reading_from_a_time_or_a_record(
    pipeline: RecordingPipeline, publisher: EventProducer, owner: Engine, settings: Settings
) -> None:
    first = pipeline.submit(mentors(2))
    pipeline.drain()
    publisher.publish([event for _, event in pipeline.written])
    pipeline.take(*Topic)
    already = len(pipeline.written)
    with reading(settings, Topic.LIFECYCLE) as topic:
        topic.wait_for(1)
    between = datetime.now(UTC)
    second = pipeline.submit(mentors(2, first=3))
    pipeline.drain()
    for _, event in pipeline.written[already:]:
        publisher.publish([event])  # One after the other, as the flow does: no result is written before its batch.
    code, document = replay(settings, "--from", between.isoformat())
    assert (code, document["read"]["records"], document["not_covered"]) == (0, 4, [str(first)])
    with reading(settings, Topic.BATCHES) as topic:
        [submitted] = [seen for seen in topic.wait_for(2) if seen.key == str(second)]
    for name in ("batches", Topic.BATCHES.on_cluster(settings.topic_prefix)):
        code, document = replay(settings, "--from", f"{name}/{submitted.partition}@{submitted.offset}")
        assert (code, document["read"]["records"], document["not_covered"]) == (0, 4, [str(first)])
    code, document = replay(settings, "--from", datetime.now(UTC).isoformat())
    assert (code, document["read"]["records"], len(document["not_covered"])) == (0, 0, 2)


NONSENSE = [
    (["--from", "yesterday"], "neither a time"),
    (["--from", "nothing/0@1"], "neither a time"),
    (["--from", "batches/0@17"], "holds no record 0@17"),
    (["--from", "batches/99@0"], "holds no record 99@0"),
    (["--batch", "x"], "not a batch id"),
]


def test_invalid_options_are_refused(settings: Settings, topics: None) -> None:
    for arguments, said in NONSENSE:
        ran = bulkreg(settings, *arguments)
        assert said in ran.stderr
        assert ran.exit_code == 2


def test_an_unavailable_server_is_named(settings: Settings) -> None:
    no_topics = bulkreg(settings)
    assert no_topics.exit_code == 3
    assert settings.kafka_bootstrap_servers in no_topics.stderr


def test_a_role_without_the_right_is_told_what_it_lacks(settings: Settings, owner: Engine, topics: None) -> None:
    with owner.begin() as connection:
        connection.execute(text(f'REVOKE TEMPORARY ON DATABASE "{owner.url.database}" FROM PUBLIC'))
    ran = bulkreg(settings)
    assert ran.exit_code == 3
    assert f"GRANT TEMPORARY ON DATABASE {owner.url.database} TO bulkreg_worker" in ran.stderr


def test_reader_reads_to_the_end_at_its_start_and_moves_no_group(
    settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    publisher.publish([event(b"%d" % number, key=f"k{number}") for number in range(100)])
    with engine.begin() as connection:
        advance_progress(connection, {(Topic.RESULTS, 0): Position(1)})
    with TopicReader(settings) as reader:
        spans = reader.spans([Topic.RESULTS, Topic.LIFECYCLE])
        assert sum(span.offsets for span in spans) == 100
        publisher.publish([event(b"later", key=f"k{number}") for number in range(100)])
        read = everything_read(reader, spans)
        assert sorted(int(value or b"") for _, value in read) == list(range(100))
        assert everything_read(reader, spans) == read or len(read) == 100, "a second reader must begin at the beginning"
        assert everything_read(reader, reader.spans([Topic.DEAD_LETTER])) == []
    assert committed_offsets(settings, "reader", Topic.RESULTS) == {}


def test_reader_ends_where_the_last_offsets_hold_no_record(settings: Settings, topics: None) -> None:
    """A transaction's marker takes an offset."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": settings.topic_prefix})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(Topic.RESULTS.on_cluster(settings.topic_prefix), b"kept", partition=0)
    producer.commit_transaction(10)
    write_raw(settings, Topic.RESULTS, [(b"other", {})], partition=1)
    with TopicReader(settings) as reader:
        spans = reader.spans([Topic.RESULTS])
        assert {span.partition: span.offsets for span in spans if span.offsets} == {0: 2, 1: 1}
        assert sorted(value or b"" for _, value in everything_read(reader, spans)) == [b"kept", b"other"]


# --- A database that was restored from an older copy ---------------------------------------------------------------------------


def commit(settings: Settings, role: str, topic: Topic) -> None:
    """The role's group has reached the end of the topic."""
    name = topic.on_cluster(settings.topic_prefix)
    group = {"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": f"{settings.topic_prefix}.{role}"}
    consumer = Consumer(group)
    try:
        ends = [
            TopicPartition(
                name, partition, consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=PATIENCE_S)[1]
            )
            for partition in consumer.list_topics(name, timeout=PATIENCE_S).topics[name].partitions
        ]
        consumer.commit(offsets=ends, asynchronous=False)
    finally:
        consumer.close()


TABLES = ("outcome", "batch_part", "batch_item", "item_history", "batch")


def forget(owner: Engine, *batch_ids: UUID) -> None:
    """Resets the database to before these batches: it knows nothing of them, and its progress is older than their records."""
    with owner.begin() as connection:
        for table in TABLES:
            connection.execute(text(f"DELETE FROM orchestrator.{table} WHERE batch_id = ANY (:ids)"), {"ids": list(batch_ids)})
        for table in ("audit", "activity"):
            forgotten = tampering(f"DELETE FROM registration.{table} WHERE batch_id = ANY (:ids)")
            connection.execute(text(forgotten), {"ids": list(batch_ids)})
        connection.execute(text("DELETE FROM orchestrator.consumer_progress"))
    with owner.begin() as connection:
        advance_progress(connection, {(topic, n): Position(0) for topic in (Topic.BATCHES, Topic.RESULTS) for n in range(3)})


def test_row_52_batch_that_a_restored_database_does_not_know_is_a_difference(
    pipeline: RecordingPipeline, publisher: EventProducer, owner: Engine, settings: Settings
) -> None:
    kept = pipeline.submit(mentors(2))
    forgotten = pipeline.submit([*mentors(2, first=3), item("nobody")])
    removed = pipeline.submit(mentors(1, first=10))
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, removed)
    pipeline.drain()
    publisher.publish([event for _, event in pipeline.written])
    forget(owner, forgotten, removed)

    code, document = replay(settings, "--batch", str(forgotten))
    assert (code, document["in_motion"]) == (0, [str(forgotten)]), "the consumers have not reached it yet"
    assert "The tables are what the topics say" not in bulkreg(settings, "--batch", str(forgotten)).stdout

    commit(settings, "splitter", Topic.BATCHES)
    commit(settings, "aggregator", Topic.RESULTS)
    for arguments in ((), ("--batch", str(forgotten)), ("--promote",)):
        code, document = replay(settings, *arguments)
        assert (code, document["in_motion"]) == (1, []), arguments
        found = {each["batch_id"] for each in document["differences"] if each["field"] == "batch"}
        assert found == ({str(forgotten)} if "--batch" in arguments else {str(forgotten), str(removed)})
        assert document["remaining"]["batch"] == len(found)
    assert set(document["promotion"].values()) == {"not confirmed by the database"}
    assert "Differences: " in bulkreg(settings).stdout
    code, document = replay(settings, "--batch", str(kept))
    assert (code, document["differences"]) == (0, [])

    # The groups are set back. The consumers read the topics again, and register what was forgotten.
    pipeline.forget_what_was_published()
    pipeline.queues[Topic.BATCHES] += [event for _, event in pipeline.written if event.topic is Topic.BATCHES]
    pipeline.drain()
    assert pipeline.status(forgotten).batch.counts.completed == 2
    assert verify(pipeline.engine, settings).breaches == []
    assert replay(settings, "--batch", str(kept))[0] == 0


def test_row_52_results_that_a_restored_database_has_not_folded_are_a_difference_and_promoted(
    pipeline: RecordingPipeline, publisher: EventProducer, owner: Engine, settings: Settings
) -> None:
    """The outcomes were restored, but not folded."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    publisher.publish([event for _, event in pipeline.written])
    with owner.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL"))
        connection.execute(
            text("UPDATE orchestrator.batch SET status = 'processing', pending = 2, completed = 0, completed_at = NULL")
        )
    with owner.begin() as connection:
        advance_progress(connection, {(topic, n): Position(0) for topic in (Topic.BATCHES, Topic.RESULTS) for n in range(3)})
    assert replay(settings)[0] == 0, "the batch is still in motion"
    commit(settings, "splitter", Topic.BATCHES)
    commit(settings, "aggregator", Topic.RESULTS)
    code, document = replay(settings, "--batch", str(batch_id), "--promote")
    assert (code, document["promotion"]) == (0, {str(batch_id): "merged"})


def test_row_52_lost_batch_whose_beginning_the_topics_no_longer_hold_is_a_difference(
    pipeline: RecordingPipeline, publisher: EventProducer, owner: Engine, settings: Settings
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    publisher.publish([event for _, event in pipeline.written if event.topic is not Topic.BATCHES])
    code, document = replay(settings)
    assert (code, document["not_covered"]) == (0, [str(batch_id)]), "the batch still exists"
    forget(owner, batch_id)
    commit(settings, "aggregator", Topic.RESULTS)
    code, document = replay(settings)
    assert (code, document["not_covered"], document["counts"]) == (1, [str(batch_id)], {"batch": 1})
    with owner.begin() as connection:
        connection.execute(
            text("INSERT INTO orchestrator.tombstone VALUES (:b, :org, '', now())"), {"b": batch_id, "org": ORGANIZATION}
        )
    code, document = replay(settings)
    assert (code, document["differences"]) == (0, []), "a purged batch is no difference"


def test_an_unknown_batch_is_named(settings: Settings, publisher: EventProducer) -> None:
    publisher.publish([event(b"{}", key=f"k{number}", topic=topic) for topic in TOPICS for number in range(30)])
    ran = bulkreg(settings, "--batch", str(uuid4()))
    assert ran.exit_code == 2
    assert "or never existed" in ran.stderr


def test_no_transaction_waits_while_kafka_is_asked_how_far_the_groups_are(
    pipeline: RecordingPipeline, topics: None, owner: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that is starting takes longer than the database lets a transaction be idle."""
    states: list[str] = []
    committed = TopicReader.committed

    def observed(self: TopicReader, *arguments: Any) -> dict[int, int]:
        with owner.connect() as connection:
            query = "SELECT state FROM pg_stat_activity WHERE application_name = 'bulkreg' AND datname = current_database()"
            states.append(connection.execute(text(query)).scalar_one())
        return committed(self, *arguments)

    monkeypatch.setattr(TopicReader, "committed", observed)
    assert replay(settings)[0] == 0
    assert states == ["idle"] * 2
