"""Rows 36 to 38 of the fault catalogue: records of foreign producers. The tests build the records byte by byte, and the transactions belong
to another client.

The roles run once, as a process, because such a record may end it. Each test checks what they left behind.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaError, Producer
from pydantic import SecretStr
from sqlalchemy import Engine, text

from consumers.loop.dead_letters import KEPT_OF_LARGE_VALUE_BYTES
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES, Topic
from tests.faults.processes import are_at_their_ends, ends, running_roles, shown, whole
from tests.faults.roles import wait_until_completed
from tests.support.command_line import bulkreg
from tests.support.databases import fresh_database
from tests.support.kafka import Seen, altered, made_topics
from tests.support.pipeline import Pipeline, item, standard_directory
from tests.support.raw_producer import Compression, RawRecord, RefusedByBrokerError, produce
from tests.support.stack import Stack
from tests.support.upstream import binary_headers, structured, submitted, upstream_item
from tests.support.waiting import PATIENCE_S, eventually

PARTITION = 1
ACCEPTED = "accepted"

RawHeader = tuple[bytes, bytes | None]


def named(**changes: bytes | None) -> list[RawHeader]:
    """A submission's headers, some of them changed."""
    headers = dict(binary_headers(uuid4().hex)) | changes
    return [(name.encode(), value) for name, value in headers.items()]


def batch(mentor: int) -> RawRecord:
    """A batch of one mentor."""
    return RawRecord(submitted(uuid4(), [upstream_item(0, f"mentor-{mentor}")]).value, named())


def large(size: int) -> bytes:
    """A very large value."""
    return b'{"notes":"' + b"n" * size + b'"}'


@dataclass(frozen=True)
class Foreign:
    """A record and its expected outcome: its batch is accepted, or the record is put aside with this reason."""

    name: str
    record: RawRecord
    outcome: str
    compression: Compression = Compression.NONE

    @property
    def batch_id(self) -> UUID:
        data = json.loads(self.record.value or b"")
        return UUID(data.get("data", data)["batch_id"])


def with_headers(name: str, outcome: str, mentor: int, *added: RawHeader, **changes: bytes | None) -> Foreign:
    return Foreign(name, replace(batch(mentor), headers=[*named(**changes), *added]), outcome)


def _structured(mentor: int, *added: RawHeader, content_type: bytes = b"application/cloudevents+json") -> RawRecord:
    event = structured(submitted(uuid4(), [upstream_item(0, f"mentor-{mentor}")]))
    return RawRecord(event.value, [(b"content-type", content_type), *added])


BAD_NAME: RawHeader = (b"\xfftrace", b"x")

HEADERS = [
    with_headers("name is not UTF-8", "bad_headers", 1, BAD_NAME),
    with_headers("name is half a character", "bad_headers", 1, ("å".encode()[:1], b"x")),
    with_headers("name is a surrogate", "bad_headers", 1, (b"\xed\xa0\x80", b"x")),
    Foreign("structured, name is not UTF-8", _structured(1, BAD_NAME), "bad_headers"),
    Foreign("tombstone, name is not UTF-8", RawRecord(None, [BAD_NAME]), "bad_headers"),
    with_headers("empty name", ACCEPTED, 2, (b"", b"x")),
    with_headers("NUL in a name", ACCEPTED, 3, (b"x\0y", b"x")),
    with_headers("long name", ACCEPTED, 4, (b"n" * 100_000, b"x")),
    with_headers("same name twice", ACCEPTED, 5, (b"ce_id", b"the last")),
    with_headers("names in capitals", ACCEPTED, 6),
    with_headers("no value", ACCEPTED, 7, (b"x", None)),
    with_headers("empty value", ACCEPTED, 8, (b"x", b"")),
    with_headers("huge value", ACCEPTED, 9, (b"x", b"x" * 1_000_000)),
    with_headers("value is not UTF-8", ACCEPTED, 10, (b"x", b"\xff\x00")),
    with_headers("very many", ACCEPTED, 11, *((b"x%d" % n, b"x") for n in range(10_000))),
    with_headers("id has no value", "bad_envelope", 1, ce_id=None),
    with_headers("id is a surrogate", "bad_envelope", 1, ce_id=b"\xed\xa0\x80"),
    with_headers("id is an escape sequence", "bad_envelope", 1, ce_id=b"\x1b[2J"),
    with_headers("huge id", "bad_envelope", 1, ce_id=b"\x01" * 1_000_000),
    with_headers("traceparent is not UTF-8", "bad_envelope", 1, traceparent=b"\xff"),
    with_headers("traceparent is none", ACCEPTED, 12, traceparent=b"00-\x1b[2J-\n-01"),
    with_headers("time is none", ACCEPTED, 13, ce_time=b"\xff\x00"),
    with_headers("media type in capitals", ACCEPTED, 14, **{"content-type": b'Application/JSON; Charset="UTF-8"'}),
    with_headers("character set", "bad_envelope", 1, **{"content-type": b"application/json; charset=latin1"}),
    Foreign("structured, capitals", _structured(15, content_type=b"Application/CloudEvents+JSON;charset=UTF-8"), ACCEPTED),
    Foreign("batch mode", _structured(1, content_type=b"application/cloudevents-batch+json"), "bad_envelope"),
    Foreign("structured, no JSON", _structured(1, content_type=b"application/cloudevents+avro"), "bad_envelope"),
    Foreign("byte order mark", replace(batch(1), value=b"\xef\xbb\xbf{}"), "not_json"),
    Foreign("UTF-16", replace(batch(1), value='{"a":1}'.encode("utf-16")), "not_json"),
]
CAPITALS = next(each for each in HEADERS if each.name == "names in capitals")
HEADERS[HEADERS.index(CAPITALS)] = replace(
    CAPITALS,
    record=replace(CAPITALS.record, headers=[(name.upper(), value) for name, value in CAPITALS.record.headers]),
)

FRAMES = [
    Foreign("no key", replace(batch(20), key=None), ACCEPTED),
    Foreign("key is not UTF-8", replace(batch(21), key=b"\xff\x00"), ACCEPTED),
    Foreign("huge key", replace(batch(22), key=b"k" * 1_000_000), ACCEPTED),
    Foreign("nothing at all", RawRecord(None, key=None), "no_value"),
    *(
        Foreign(f"time {moment}", replace(batch(30 + number), timestamp_ms=moment), ACCEPTED)
        for number, moment in enumerate((-(2**63), -5, -1, 0, 2**62, 2**63 - 1))
    ),
    *(Foreign(codec.name, batch(40 + codec), ACCEPTED, codec) for codec in Compression),
    Foreign("null where a field is optional", RawRecord(
        submitted(uuid4(), [upstream_item(0, "mentor-50", notes=None, client_reference=None)], label=None, part=None, parts=None,
                  total_items=None, override_duplicates=None, submitted_by=None, channel=None).value, named()), ACCEPTED),
]  # fmt: skip

LARGE = [
    Foreign("3.8 MB, GZIP", RawRecord(large(3_800_000), named()), "too_large", Compression.GZIP),
    Foreign("3.8 MB, ZSTD", RawRecord(large(3_800_000), named()), "too_large", Compression.ZSTD),
    Foreign("25 MB", RawRecord(large(25_000_000), named()), "too_large", Compression.ZSTD),
    Foreign("75 MB", RawRecord(large(75_000_000), named()), "damaged", Compression.ZSTD),
    Foreign("key of 3 MB", replace(batch(1), key=b"k" * 3_000_000), "too_large", Compression.GZIP),
    Foreign("header of 3 MB", replace(batch(1), headers=named(ce_id=b"\x01" * 3_000_000)), "too_large", Compression.GZIP),
    Foreign("as much as is read", RawRecord(b"\x01" * (MAX_MESSAGE_BYTES - 3)), "bad_envelope", Compression.GZIP),
]

FOREIGN = [*HEADERS, *FRAMES, *LARGE]

# The same kinds on the topics that only the product writes to.
ELSEWHERE = {
    topic: [
        Foreign("name is not UTF-8", RawRecord(b"{}", [BAD_NAME]), "bad_headers"),
        Foreign("3.8 MB", RawRecord(large(3_800_000)), "too_large", Compression.GZIP),
    ]
    for topic in (Topic.COMMANDS, Topic.RESULTS, Topic.LIFECYCLE, Topic.DEAD_LETTER)
}


def forged_letter(**changes: object) -> RawRecord:
    """A dead letter that the product did not write."""
    letter = events.DeadLetter(topic="", partition=0, offset=0, reason="", detail="", headers={}, key=None, value=None)
    value = json.dumps(letter.model_dump() | changes).encode()
    return RawRecord(value, named(ce_type=events.DEAD_LETTER.encode(), ce_id=str(uuid4()).encode()))


@dataclass(frozen=True)
class Aftermath:
    """What the roles left behind."""

    settings: Settings
    engine: Engine
    letters: Mapping[tuple[str, object, object], Seen]
    behind: UUID
    http_beside_a_transaction: str
    """The status of a batch that was submitted over HTTP while a transaction was open."""
    in_open_transaction: UUID
    in_transaction: UUID
    progress: Mapping[tuple[str, int], int]
    ends: Mapping[tuple[str, int], int]
    replayed: Mapping[str, Any]
    """What a replay said, before any letter was redriven."""
    places: Mapping[str, bytes]


def letter_of(aftermath: Aftermath, topic: Topic, offset: int) -> Seen:
    return aftermath.letters[topic.on_cluster(aftermath.settings.topic_prefix), PARTITION, offset]


def write(settings: Settings, topic: Topic, records: Sequence[Foreign]) -> None:
    for foreign in records:
        name = topic.on_cluster(settings.topic_prefix)
        partition = 0 if topic is Topic.DEAD_LETTER else PARTITION  # It has one partition.
        produce(settings.kafka_bootstrap_servers, name, partition, [foreign.record], compression=foreign.compression)


def transactional(settings: Settings) -> Producer:
    """A producer of an upstream service that uses transactions."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "transactional.id": f"upstream-{uuid4()}",
            "transaction.timeout.ms": 600_000,  # Long enough that the broker aborts no transaction that a test still needs.
        }
    )
    producer.init_transactions(PATIENCE_S)
    return producer


def send_in_transaction(settings: Settings, producer: Producer, topic: Topic, partition: int, record: RawRecord) -> None:
    """Sends the record in a transaction, and leaves the transaction open."""
    headers = [(name.decode(), value or b"") for name, value in record.headers]
    producer.begin_transaction()
    producer.produce(topic.on_cluster(settings.topic_prefix), record.value, b"key", partition=partition, headers=list(headers))
    assert producer.flush(PATIENCE_S) == 0


def progress_of(engine: Engine) -> dict[tuple[str, int], int]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT topic, partition, next_offset FROM orchestrator.consumer_progress"))
        return {(topic, partition): next_offset for topic, partition, next_offset in rows}


def all_ends(settings: Settings) -> dict[tuple[str, int], int]:
    topics = (Topic.BATCHES, Topic.COMMANDS, Topic.RESULTS)
    return {(topic.value, partition): end for topic in topics for partition, end in ends(settings, topic).items()}


def command_line(settings: Settings, *arguments: str) -> tuple[int, str]:
    ran = bulkreg(settings, *arguments)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, ran.output


def document(settings: Settings, *arguments: str) -> dict[str, Any]:
    code, output = command_line(settings, *arguments, "--json")
    assert code == 0, output
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.fixture(scope="module")
def aftermath(infrastructure: Stack, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """Sends the corpus through the flow once, with a good batch behind it and transactions beside it."""
    folder = tmp_path_factory.mktemp("roles")
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(
            database_url=SecretStr(url),
            kafka_bootstrap_servers=infrastructure.kafka_bootstrap_servers,
            topic_prefix=f"test-{uuid4().hex}",
        )
        engine = create_database_engine(settings.worker_url, settings, connections=2, application_name="test")
        standard_directory(engine)
        pipeline = Pipeline(settings, engine)
        behind, open_, committed = (Foreign("", batch(60 + number), ACCEPTED) for number in range(3))
        with made_topics(settings):
            # An operator configured the topic to keep the senders' timestamps.
            altered(settings, Topic.BATCHES, "message.timestamp.type", "CreateTime")
            altered(settings, Topic.BATCHES, "message.timestamp.after.max.ms", str(2**63 - 1))
            # A topic that is older than the product's plan takes records that are large once they are unpacked.
            altered(settings, Topic.BATCHES, "compression.type", "producer")
            # Some of these timestamps are older than the retention time, and the broker might delete the records before the roles read
            # them.
            altered(settings, Topic.BATCHES, "retention.ms", "-1")
            write(settings, Topic.BATCHES, [*FOREIGN, behind])
            for topic, records in ELSEWHERE.items():
                write(settings, topic, records)
            batches = Topic.BATCHES.on_cluster(settings.topic_prefix)
            forged = [
                forged_letter(topic=batches, value="no base64!"),
                forged_letter(topic=batches, key="å"),
                replace(forged_letter(topic=batches), headers=named(ce_type=events.DEAD_LETTER.encode(), ce_id=b"no UUID")),
            ]
            write(settings, Topic.DEAD_LETTER, [Foreign("", record, "") for record in forged])
            endless = transactional(settings)
            partitions = range(settings.topic_partitions)
            send_in_transaction(settings, endless, Topic.BATCHES, 0, open_.record)
            for partition in partitions:
                # Every partition of the flow has an unfinished transaction. Its records name no batch, so they are put aside.
                for topic in (Topic.BATCHES, Topic.COMMANDS, Topic.RESULTS):
                    endless.produce(topic.on_cluster(settings.topic_prefix), b"{}", b"key", partition=partition)
            assert endless.flush(PATIENCE_S) == 0
            with running_roles(settings, folder):
                by_http = pipeline.submit([item("mentor-70"), item("mentor-71")])
                wait_until_completed(engine, [by_http])
                beside = shown(engine, by_http).batch.status
                wait_until_completed(engine, [open_.batch_id])
                endless.abort_transaction(PATIENCE_S)
                other = transactional(settings)
                send_in_transaction(settings, other, Topic.BATCHES, 2, committed.record)
                other.commit_transaction(PATIENCE_S)
                wait_until_completed(engine, [committed.batch_id])
                eventually(lambda: are_at_their_ends(settings))
                eventually(lambda: progress_of(engine) == all_ends(settings), what=f"{progress_of(engine)} {all_ends(settings)}")
            letters = [
                each for each in whole(settings, Topic.DEAD_LETTER) if each.headers.get("ce_source") == b"/bulk-registration"
            ]
            yield Aftermath(
                settings,
                engine,
                {(str(each.data["topic"]), each.data["partition"], each.data["offset"]): each for each in letters},
                behind.batch_id,
                beside,
                open_.batch_id,
                committed.batch_id,
                progress_of(engine),
                all_ends(settings),
                document(settings, "replay"),
                {"logs": b"".join(file.read_bytes() for file in folder.iterdir())},
            )
        pipeline.close()
        engine.dispose()


def test_row_36_a_foreign_record_is_accepted_or_put_aside(aftermath: Aftermath) -> None:
    for offset, foreign in enumerate(FOREIGN):
        if foreign.outcome == ACCEPTED:
            assert shown(aftermath.engine, foreign.batch_id).batch.status == "completed", foreign.name
        else:
            letter = letter_of(aftermath, Topic.BATCHES, offset)
            assert letter.data["reason"] == foreign.outcome, foreign.name
            if foreign.outcome not in ("too_large", "damaged") and len(foreign.record.value or b"") < MAX_MESSAGE_BYTES:
                assert letter.data["value"] == (
                    None if foreign.record.value is None else base64.b64encode(foreign.record.value).decode()
                ), foreign.name
    for topic in (Topic.COMMANDS, Topic.RESULTS):
        for offset, foreign in enumerate(ELSEWHERE[topic]):
            assert letter_of(aftermath, topic, offset).data["reason"] == foreign.outcome, foreign.name
    assert shown(aftermath.engine, aftermath.behind).batch.status == "completed"
    assert verify(aftermath.engine, aftermath.settings).breaches == []


def test_a_byte_order_mark_is_named_in_the_reason(aftermath: Aftermath) -> None:
    for name in ("byte order mark", "UTF-16"):
        [offset] = [offset for offset, foreign in enumerate(FOREIGN) if foreign.name == name]
        assert "byte order mark" in str(letter_of(aftermath, Topic.BATCHES, offset).data["detail"])


def test_control_characters_of_a_record_do_not_reach_a_terminal(aftermath: Aftermath) -> None:
    assert b"\x1b" not in aftermath.places["logs"]
    assert all(
        name.isprintable() and b"\x1b" not in value for each in aftermath.letters.values() for name, value in each.headers.items()
    )


def test_row_37_record_larger_than_its_topic_once_decompressed(aftermath: Aftermath) -> None:
    """Its dead letter fits, because it holds only the beginning of the record. The letter says so, and says where the record is."""
    for offset, foreign in enumerate(FOREIGN):
        if foreign.outcome == "too_large":
            letter = letter_of(aftermath, Topic.BATCHES, offset)
            value, key = foreign.record.value or b"", foreign.record.key or b""
            kept = base64.b64decode(str(letter.data["value"]))
            is_cut = len(value) > MAX_MESSAGE_BYTES
            assert kept == (value[:KEPT_OF_LARGE_VALUE_BYTES] if is_cut else value), foreign.name
            assert (letter.data["value_truncated"], letter.data["value_bytes"]) == (is_cut, len(value)), foreign.name
            assert letter.data["key_truncated"] == (len(key) > MAX_MESSAGE_BYTES), foreign.name
    assert max(len(each.value) for each in aftermath.letters.values()) < MAX_DEAD_LETTER_BYTES


def test_row_37_the_broker_refuses_it_for_a_topic_that_the_product_has_created(infrastructure: Stack) -> None:
    """So no process of ours unpacks it. The broker counts what it has unpacked, and takes other compressed records."""
    settings = Settings(kafka_bootstrap_servers=infrastructure.kafka_bootstrap_servers, topic_prefix=f"test-{uuid4().hex}")
    too_large = [foreign for foreign in LARGE if foreign.outcome in ("too_large", "damaged")]
    with made_topics(settings):
        for foreign in too_large:
            with pytest.raises(RefusedByBrokerError, match=str(KafkaError.MSG_SIZE_TOO_LARGE)):
                write(settings, Topic.BATCHES, [foreign])
            write(settings, Topic.BATCHES, [replace(foreign, record=batch(1))])
        assert len(whole(settings, Topic.BATCHES)) == len(too_large)


def test_row_38_transaction_of_another_client_holds_up_nobody(aftermath: Aftermath) -> None:
    """While it is open, other batches complete. After it has ended, its markers count as handled."""
    assert aftermath.http_beside_a_transaction == "completed"
    # The contract: a record counts when it is written, whether its transaction is committed or not.
    assert shown(aftermath.engine, aftermath.in_open_transaction).batch.status == "completed"
    assert shown(aftermath.engine, aftermath.in_transaction).batch.status == "completed"
    assert aftermath.progress == aftermath.ends


def test_replay_skips_foreign_records(aftermath: Aftermath) -> None:
    replayed = aftermath.replayed
    assert replayed["differences"] == []
    aside = [foreign for foreign in FOREIGN if foreign.outcome not in (ACCEPTED, "damaged")]  # The last kind is never delivered.
    of_transactions = 2 * aftermath.settings.topic_partitions
    elsewhere = len(ELSEWHERE[Topic.RESULTS]) + len(ELSEWHERE[Topic.LIFECYCLE])
    assert replayed["read"]["unreadable"] == len(aside) + of_transactions + elsewhere


def test_letters_are_listed_shown_and_redriven_or_refused_with_a_reason(aftermath: Aftermath) -> None:
    settings = aftermath.settings
    listed = document(settings, "dead-letters", "list")["dead_letters"]
    assert {each["id"] for each in listed} == {each.id for each in aftermath.letters.values()}
    for letter in {each["reason"]: each for each in listed}.values():
        assert command_line(settings, "dead-letters", "show", letter["id"])[0] == 0
    aside = [(offset, foreign.name) for offset, foreign in enumerate(FOREIGN) if foreign.outcome != ACCEPTED]
    ids = {name: letter_of(aftermath, Topic.BATCHES, offset).id for offset, name in aside}
    for name, said in (
        ("name is not UTF-8", "headers cannot be read"),
        ("nothing at all", "has no value"),
        ("75 MB", "has no value"),
        ("25 MB", "larger than its topic takes"),
    ):
        code, output = command_line(settings, "dead-letters", "redrive", ids[name])
        assert (code, said in output) == (2, True), output
    # The record is read from its topic again, because the letter does not hold it.
    assert document(settings, "dead-letters", "redrive", ids["3.8 MB, GZIP"])["redriven"] == [ids["3.8 MB, GZIP"]]
    redriven = document(settings, "dead-letters", "redrive", "all")
    assert set(redriven["left"]) >= {ids["name is not UTF-8"], ids["nothing at all"], ids["25 MB"]}
    assert len(redriven["redriven"]) + len(redriven["left"]) == len(listed) - 1
