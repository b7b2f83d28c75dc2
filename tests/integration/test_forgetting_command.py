"""`bulkreg directory forget`, and a search of the real topics before and after their retention."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine, text
from typer.testing import Result

from consumers.reading.topic_reader import TopicReader
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import retry_failed_items
from orchestrator.directory import known_people
from orchestrator.directory.forgetting_requests import ForgettingRequests
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from producers.producer import EventProducer
from schemas.envelope import Topic
from tests.support import command_line
from tests.support.pipeline import ADMIN, DAY, ORGANIZATION, item
from tests.support.replaying import RecordingPipeline, recording
from tests.support.revoking import revoke
from tests.support.upstream import submitted, upstream_item

PERSON, NOTE = "mentor-7", "he broke his hip"
ABSENT = "mentor-8-who-is-in-no-table"
KEY = "k" * 32


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RecordingPipeline]:
    with recording(settings, engine) as pipeline:
        yield pipeline


def bulkreg(settings: Settings, *arguments: str, key: str | None = KEY) -> Result:
    return command_line.bulkreg(settings, *arguments, "--json", BULKREG_FORGETTING_KEY=key)


def document(ran: Result) -> dict[str, Any]:
    assert ran.exit_code == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def naming(settings: Settings) -> set[Topic]:
    """The topics of which a record names the person, or has the note."""
    with TopicReader(settings) as reader:
        read = [(topic, raw) for chunk in reader.read(reader.spans(list(Topic))) for topic, raw in chunk]
    words = (PERSON.encode(), NOTE.encode())
    return {topic for topic, raw in read if any(word in part for word in words for part in _parts(raw))}


def _parts(raw: Any) -> Sequence[bytes]:
    return [raw.value or b"", raw.key or b"", *(value or b"" for _, value in raw.headers)]


def end_retention(settings: Settings) -> None:
    """Removes every record, as the topics' retention does."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    known = admin.list_topics(timeout=30).topics
    names = [topic.on_cluster(settings.topic_prefix) for topic in Topic]
    ends = [TopicPartition(name, partition, -1) for name in names for partition in known[name].partitions]
    for future in admin.delete_records(ends).values():
        future.result()


def test_a_person_is_forgotten_by_command_and_no_topic_names_them_after_its_retention(
    pipeline: RecordingPipeline, publisher: EventProducer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item(PERSON, notes=NOTE), item(PERSON, day=DAY - timedelta(days=1), kind="unknown")]
    batch_id = pipeline.submit(items, label=f"with {PERSON}")
    pipeline.queues[Topic.BATCHES].append(submitted(uuid4(), [upstream_item(0, PERSON, activity_date="2026-02-03", notes=NOTE)]))
    pipeline.drain()
    before = [event for _, event in pipeline.written]
    publisher.publish(before)
    forget = ("directory", "forget", "--org", ORGANIZATION, "--mentor", PERSON)

    keyless = bulkreg(settings, *forget, key=None)
    assert (keyless.exit_code, "BULKREG_FORGETTING_KEY" in keyless.output) == (2, True)
    mistyped = bulkreg(settings, *forget[:-1], "with")
    assert (mistyped.exit_code, "Check the spelling" in mistyped.output) == (2, True)
    with monkeypatch.context() as large:
        large.setattr(known_people, "AT_ONCE_BYTES", -1)
        sought = bulkreg(settings, *forget[:-1], "with")
    assert (sought.exit_code, "Check the spelling" in sought.output) == (2, True)
    assert document(bulkreg(settings, *forget[:-1], ABSENT, "--also-unknown"))["changed_rows"] == 0
    ran = bulkreg(settings, *forget)
    done = document(ran)
    assert done["pseudonym"].startswith("forgotten-")
    assert PERSON not in ran.output
    again = document(bulkreg(settings, *forget))
    assert (again["pseudonym"], again["changed_rows"]) == (done["pseudonym"], 0)

    (tmp_path / "mentors.csv").write_text(
        f"organization_id,mentor_id,name,chapter_id,active_from,active_until\n{ORGANIZATION},{PERSON},Per,chapter-1,,\n{ORGANIZATION},{ABSENT},Kari,chapter-1,,\n"
    )
    refused = bulkreg(settings, "directory", "import", str(tmp_path), key="x" * 32)
    assert (refused.exit_code, "another key" in refused.output) == (2, True)
    imported = bulkreg(settings, "directory", "import", str(tmp_path))
    assert document(imported)["forgotten"] == [{"organization_id": ORGANIZATION, "id": each} for each in (PERSON, ABSENT)]
    assert f"{PERSON} was forgotten and is left out" in imported.stderr

    assert document(bulkreg(settings, "replay"))["differences"] == []
    assert bulkreg(settings, "replay", key=None).exit_code == 2
    # The longest time that an erasure takes is the topics' retention.
    assert naming(settings) >= {Topic.BATCHES, Topic.COMMANDS}
    end_retention(settings)
    assert naming(settings) == set()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    revoke(pipeline, batch_id, actor=ADMIN)
    pipeline.drain()
    later = [event for _, event in pipeline.written if event not in before]
    assert {event.topic for event in later} >= {Topic.BATCHES, Topic.COMMANDS, Topic.RESULTS, Topic.LIFECYCLE}
    publisher.publish(later)
    assert naming(settings) == set()


def test_the_command_reports_its_own_request_also_if_another_fails(pipeline: RecordingPipeline, settings: Settings) -> None:
    failing = transact(pipeline.engine, lambda connection: ForgettingRequests(connection).ask(ADMIN, "mentor-1"))
    with pipeline.engine.begin() as connection:
        wrong = """UPDATE registration.forgetting SET place = '{"table": "no.such_table"}', pseudonym = 'p'"""
        connection.execute(text(wrong))
    forget = ("directory", "forget", "--org", ORGANIZATION, "--mentor")
    ran = bulkreg(settings, *forget, PERSON)
    assert document(ran)["done_at"] is not None
    assert str(failing.forgetting_id) in ran.stderr
    own = bulkreg(settings, *forget, "mentor-1")
    assert (own.exit_code != 0, isinstance(own.exception, KeyError)) == (True, True)
