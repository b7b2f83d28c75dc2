"""Rows 23 to 25 of the fault catalogue through the product's own roles: poison is put aside, what comes behind it is done, and what
notes say is nowhere to be read."""

import base64
import contextlib
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine, create_engine, text

from consumers.dead_letter_log import read_dead_letters
from orchestrator.model import ItemFilter
from orchestrator.settings import Settings
from orchestrator.states import Counts
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import type_name
from tests.support.kafka import Seen, committed_offsets, reading, write_raw
from tests.support.pipeline import standard_directory
from tests.support.process import TIMEOUT_S, environment
from tests.support.upstream import binary_headers, structured, submitted, upstream_item, upstream_items
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("topics")

CANARY = "canary-7f3a-somebody's health"
SECRET = b"canary"
NOTED = upstream_item(0, notes=CANARY)

# Mentors whose rows the database refuses, with a message that quotes the notes, as a violated constraint's detail would.
REFUSED_ITEM, REFUSED_ACTIVITY = "mentor-13", "mentor-14"

ROLES = ("api", "relay", "splitter", "registration", "aggregator")
PARTITION = 1


@dataclass(frozen=True)
class Poison:
    """A record that must be put aside, and why; `is_answered`: with a `BatchRejected`."""

    name: str
    value: bytes | None
    headers: Mapping[str, bytes]
    reason: str
    is_answered: bool = False


def binary(event_type: str = events.BATCH_SUBMITTED, **headers: bytes) -> dict[str, bytes]:
    return {**dict(binary_headers(uuid4().hex)), "ce_type": event_type.encode(), **headers}


def noted(*items: object, **fields: Any) -> bytes:
    """A batch whose notes nobody may read."""
    return submitted(uuid4(), [NOTED, *items], **fields).value


def in_structured_mode(value: bytes, **attributes: object) -> bytes:
    event = structured(OutgoingEvent(Topic.BATCHES, "", binary_headers(uuid4().hex), value))
    return orjson.dumps(orjson.loads(event.value) | attributes)


STRUCTURED = {"content-type": b"application/cloudevents+json"}
GOOD = noted()

UNREADABLE = [
    Poison("nothing", None, binary(), "no_value"),
    Poison("no headers", GOOD, {}, "bad_envelope"),
    Poison("foreign header", GOOD, {"x-notes": CANARY.encode()}, "bad_envelope"),
    Poison("header is not UTF-8", GOOD, binary(ce_source=b"\xff"), "bad_envelope"),
    Poison("another specversion", GOOD, binary(ce_specversion=b"0.3"), "bad_envelope"),
    Poison("NUL in the source", GOOD, binary(ce_source=b"/services\x00"), "bad_envelope"),
    Poison("endless id", GOOD, binary(ce_id=b"1" * 1_001), "bad_envelope"),
    Poison("unknown type", GOOD, binary("no.bulk-registration.BatchInvented.v1"), "unknown_type"),
    Poison("unknown version", GOOD, binary("no.bulk-registration.BatchSubmitted.v2"), "unknown_type"),
    Poison("another topic's type", GOOD, binary(events.REGISTER_ACTIVITY), "unknown_type"),
    Poison("empty", b"", binary(), "not_json"),
    Poison("cut", GOOD[:-2], binary(), "not_json"),
    Poison("not UTF-8", GOOD.replace(b"mentor-1", b"\xff\x00"), binary(), "not_json"),
    Poison("byte order mark", b"\xef\xbb\xbf" + GOOD, binary(), "not_json"),
    Poison("NaN", GOOD.replace(b":60", b":NaN"), binary(), "not_json"),
    Poison("1e400", GOOD.replace(b":60", b":1e400"), binary(), "not_json"),
    Poison("endless number", GOOD.replace(b":60", b":" + b"6" * 5_000), binary(), "not_json"),
    Poison("key twice", GOOD.replace(b'"notes"', b'"notes":"","notes"'), binary(), "not_json"),
    Poison("deep", b'{"items":' * 50_000, binary(), "not_json"),
    Poison("no object", orjson.dumps([CANARY]), binary(), "invalid_data"),
    Poison("nobody's", orjson.dumps({"items": [NOTED]}), binary(), "invalid_data"),
    Poison("forged cancel", GOOD, binary(type_name(events.BatchCancelled)), "invalid_data"),
    Poison("structured, no JSON", GOOD[:-2], STRUCTURED, "not_json"),
    Poison("structured, no object", orjson.dumps([CANARY]), STRUCTURED, "bad_envelope"),
    Poison("structured, key twice", in_structured_mode(GOOD).replace(b'"notes"', b'"notes":"","notes"'), STRUCTURED, "not_json"),
    Poison("structured, deep", b'{"data":' * 50_000, STRUCTURED, "not_json"),
    Poison("structured, data as text", in_structured_mode(GOOD, data=GOOD.decode()), STRUCTURED, "bad_envelope"),
    Poison("structured, NUL in the id", in_structured_mode(GOOD, id="a\x00"), STRUCTURED, "bad_envelope"),
    Poison("structured, id is no text", in_structured_mode(GOOD, id={"notes": CANARY}), STRUCTURED, "bad_envelope"),
]

MALFORMED = [
    Poison("NUL", noted(upstream_item(1, notes=f"{CANARY}\x00")), binary(), "bad_characters", True),
    Poison("surrogate", noted().replace(b"canary", rb"canary\ud800"), binary(), "bad_characters", True),
    Poison(
        "structured, surrogate",
        in_structured_mode(noted()).replace(b"canary", rb"canary\ud800"),
        STRUCTURED,
        "bad_characters",
        True,
    ),
    Poison("long notes", noted(upstream_item(1, notes=CANARY * 1_000)), binary(), "too_long", True),
    Poison("notes are no text", noted(upstream_item(1, notes={"notes": CANARY})), binary(), "wrong_type", True),
    Poison("true is no number", noted(upstream_item(1, duration_minutes=True)), binary(), "wrong_type", True),
    Poison("beyond 32 bits", noted(upstream_item(1, duration_minutes=1 << 31)), binary(), "out_of_range", True),
    Poison("no date", noted(upstream_item(1, activity_date="2026-02-30")), binary(), "not_a_date", True),
    Poison("unknown coordinator", noted(coordinator_id="nobody"), binary(), "coordinator_unknown", True),
    Poison("too large", noted(*(upstream_item(n, notes="n" * 9_000) for n in range(1, 80))), binary(), "too_large", True),
]

REFUSED_BY_THE_DATABASE = Poison("refused item", noted(upstream_item(1, REFUSED_ITEM)), binary(), "internal_error")

COMMAND = orjson.dumps(
    {"batch_id": uuid4(), "item_id": uuid4(), "position": 0, "attempt": 1, "organization_id": "org", "activity_id": uuid4()}
)
OURS = {
    Topic.COMMANDS: [
        Poison("nothing", None, binary(events.REGISTER_ACTIVITY), "no_value"),
        Poison("not JSON", CANARY.encode(), binary(events.REGISTER_ACTIVITY), "invalid_data"),
        Poison("incomplete", COMMAND, binary(events.REGISTER_ACTIVITY), "invalid_data"),
        Poison("a batch", GOOD, binary(), "unknown_type"),
    ],
    Topic.RESULTS: [
        Poison("NUL", COMMAND.replace(b'"org"', rb'"\u0000"'), binary(events.SUCCEEDED), "invalid_data"),
        Poison("deep", b"[" * 100_000, binary(events.SUCCEEDED), "invalid_data"),
        Poison("forged", COMMAND, binary(events.SUCCEEDED), "no_such_outcome"),
    ],
}

POISON = {Topic.BATCHES: [*UNREADABLE, *MALFORMED, REFUSED_BY_THE_DATABASE], **OURS}

# Not poison: a command like any other, until its activity is to be inserted.
FAILED_COMMAND = (Topic.COMMANDS, "internal_error")


@pytest.fixture
def directory(settings: Settings, engine: Engine) -> None:
    """The standard directory, and tables that refuse two of its mentors."""
    standard_directory(engine)
    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(
            text("""CREATE FUNCTION orchestrator.refuse() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION USING MESSAGE = 'refused', DETAIL = 'Failing row contains ' || NEW.notes; END $$""")
        )
        for table, column, mentor in (
            ("orchestrator.batch_item", "mentor_id", REFUSED_ITEM),
            ("registration.activity", "attributed_to", REFUSED_ACTIVITY),
        ):
            connection.execute(
                text(f"""CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.{column} = '{mentor}')
                         EXECUTE FUNCTION orchestrator.refuse()""")
            )
    owner.dispose()


@contextlib.contextmanager
def running_roles(settings: Settings, folder: Path) -> Iterator[int]:
    """`bulkreg run` with the roles of the flow, with all the logs that there can be; the port of the API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = environment(settings) | {
        "BULKREG_JWT_HS256_KEY": "k" * 32,
        "BULKREG_API_PORT": str(port),
        "BULKREG_LOG_LEVEL": "DEBUG",
        "BULKREG_LOG_DIRECTORY": str(folder),
    }
    with (folder / "output").open("wb") as file:
        command = [sys.executable, "-m", "cli", "run", *ROLES]
        with subprocess.Popen(command, env=variables, stdout=file, stderr=file) as process:
            try:
                yield port
            finally:
                process.terminate()
                process.wait(TIMEOUT_S)


def ends(settings: Settings, topic: Topic) -> dict[int, int]:
    """Where the partitions end that have a record."""
    name = topic.on_cluster(settings.topic_prefix)
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "test-ends"})
    try:
        partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
        found = {p: consumer.get_watermark_offsets(TopicPartition(name, p), timeout=10) for p in partitions}
    finally:
        consumer.close()
    return {partition: high for partition, (_, high) in found.items() if high}


def is_at_its_end(settings: Settings, role: str, topic: Topic) -> bool:
    return committed_offsets(settings, role, topic) == ends(settings, topic)


def test_rows_23_to_25_poison_is_put_aside_and_what_comes_behind_it_is_done(
    settings: Settings, engine: Engine, directory: None, tmp_path: Path
) -> None:
    batch_id = uuid4()
    items = [NOTED, *upstream_items(2, 1), upstream_item(3, REFUSED_ACTIVITY, notes=CANARY)]
    good = submitted(batch_id, items)
    for topic, records in POISON.items():
        write_raw(settings, topic, [(each.value, dict(each.headers)) for each in records], partition=PARTITION)
    write_raw(settings, Topic.BATCHES, [(good.value, dict(good.headers))], partition=PARTITION)
    expected = Counter([(topic, each.reason) for topic, records in POISON.items() for each in records] + [FAILED_COMMAND])
    answers = sum(each.is_answered for each in POISON[Topic.BATCHES])
    with running_roles(settings, tmp_path) as port:
        with reading(settings, Topic.DEAD_LETTER) as dead_letters, reading(settings, Topic.LIFECYCLE) as lifecycle:
            letters = dead_letters.wait_for(expected.total(), within_s=60)
            answered = lifecycle.wait_for(answers + 1)
        for role, topic in (("splitter", Topic.BATCHES), ("registration", Topic.COMMANDS), ("aggregator", Topic.RESULTS)):
            eventually(partial(is_at_its_end, settings, role, topic))
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").content
    # Each poisonous one, with its origin and reason, and its bytes.
    topics = {topic.on_cluster(settings.topic_prefix): topic for topic in Topic}
    assert Counter((topics[str(letter.data["topic"])], letter.data["reason"]) for letter in letters) == expected
    by_origin = {(topics[str(each.data["topic"])], each.data["partition"], each.data["offset"]): each.data for each in letters}
    for topic, records in POISON.items():
        for offset, poison in enumerate(records):
            letter = by_origin[topic, PARTITION, offset]
            value = None if poison.value is None else base64.b64encode(poison.value).decode()
            assert (letter["reason"], letter["value"]) == (poison.reason, value), poison.name
    assert [each.headers["ce_type"].decode() for each in answered].count(events.BATCH_REJECTED) == answers
    # The good one, though the registration of one of its items fails: that item fails alone.
    with engine.begin() as connection:
        status = PostgresActivityRepository(connection).status(batch_id, ItemFilter())
    assert status is not None
    assert status.batch.counts == Counts(completed=3, failed=1)
    assert [item.error and item.error["code"] for item in status.items] == [None, None, None, "internal_error"]
    assert verify(engine, settings).breaches == []
    # The notes are where they belong, and nowhere else; though the roles did speak, of each record that they put aside.
    assert [item.values.notes for item in status.items] == [CANARY, None, None, CANARY]
    logs = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert logs.count(b"dead_lettered") == expected.total()
    seen: dict[str, bytes] = {
        "logs": logs,
        "metrics": metrics,
        "answers": repr(answered).encode(),
        "dead letters": repr([(each.key, each.headers, {**each.data, "value": None}) for each in letters]).encode(),
        "listing": repr([(each.letter.headers, each.shown_value()) for each in read_dead_letters(settings)]).encode(),
        **{topic.value: repr(ours(settings, topic)).encode() for topic in OURS},
    }
    assert {place for place, content in seen.items() if SECRET in content} == set()


def ours(settings: Settings, topic: Topic) -> list[Seen]:
    """What the roles have written to a topic, behind and beside the poison."""
    with reading(settings, topic) as reader:
        records = reader.wait_for(sum(ends(settings, topic).values()))
    return [each for each in records if each.partition != PARTITION or each.offset >= len(POISON[topic])]
