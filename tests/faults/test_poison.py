"""Rows 23 to 25 of the fault catalogue, through the product's roles: poison is put aside, the records behind it are handled, and notes
appear nowhere. The roles run once, and each test checks what they left behind."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text

from consumers.reading.dead_letter_log import read_dead_letters
from orchestrator.batches.model import StatusView
from orchestrator.batches.states import Counts
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import type_name
from tests.faults.golden import golden
from tests.faults.processes import are_at_their_ends, running_roles, shown, whole
from tests.faults.roles import count
from tests.support.databases import fresh_database
from tests.support.kafka import Seen, made_topics, write_raw
from tests.support.pipeline import standard_directory
from tests.support.stack import Stack
from tests.support.upstream import binary_headers, structured, submitted, upstream_item, upstream_items
from tests.support.waiting import PATIENCE_S, eventually

CANARY = "canary-7f3a-somebody's health"
SECRET = b"canary"
NOTED = upstream_item(0, notes=CANARY)

# The event as its first version wrote it, with every optional field left out.
OLDEST_BATCH = UUID("01997f00-0000-7000-8000-000000000001")
OLDEST = OutgoingEvent(Topic.BATCHES, "", binary_headers("oldest"), orjson.dumps(golden("BatchSubmitted.v1.json")[0]))

# Mentors whose rows the database refuses. Its message quotes the notes, as the detail of a violated constraint would.
REFUSED_ITEM, REFUSED_ACTIVITY = "mentor-13", "mentor-14"

PARTITION = 1


@dataclass(frozen=True)
class Poison:
    """A record that must be put aside, and the reason. With `is_answered`, its sender gets a `BatchRejected`. `row` is the catalogue's."""

    row: int
    name: str
    value: bytes | None
    headers: Mapping[str, bytes]
    reason: str
    is_answered: bool = False


def binary(event_type: str = events.BATCH_SUBMITTED, **headers: bytes) -> dict[str, bytes]:
    return {**dict(binary_headers(uuid4().hex)), "ce_type": event_type.encode(), **headers}


def noted(*items: object, **fields: Any) -> bytes:
    """A batch with notes that must not be leaked."""
    return submitted(uuid4(), [NOTED, *items], **fields).value


def in_structured_mode(value: bytes, **attributes: object) -> bytes:
    event = structured(OutgoingEvent(Topic.BATCHES, "", binary_headers(uuid4().hex), value))
    return orjson.dumps(orjson.loads(event.value) | attributes)


STRUCTURED = {"content-type": b"application/cloudevents+json"}
GOOD = noted()

UNREADABLE = [
    Poison(23, "nothing", None, binary(), "no_value"),
    Poison(23, "no headers", GOOD, {}, "bad_envelope"),
    Poison(23, "foreign header", GOOD, {"x-notes": CANARY.encode()}, "bad_envelope"),
    Poison(23, "header is not UTF-8", GOOD, binary(ce_source=b"\xff"), "bad_envelope"),
    Poison(25, "another specversion", GOOD, binary(ce_specversion=b"0.3"), "bad_envelope"),
    Poison(23, "NUL in the source", GOOD, binary(ce_source=b"/services\x00"), "bad_envelope"),
    Poison(23, "endless id", GOOD, binary(ce_id=b"1" * 1_001), "bad_envelope"),
    Poison(25, "unknown type", GOOD, binary("no.bulk-registration.BatchInvented.v1"), "unknown_type"),
    Poison(25, "unknown version", GOOD, binary("no.bulk-registration.BatchSubmitted.v2"), "unknown_type"),
    Poison(25, "another topic's type", GOOD, binary(events.REGISTER_ACTIVITY), "unknown_type"),
    Poison(23, "empty", b"", binary(), "not_json"),
    Poison(23, "cut", GOOD[:-2], binary(), "not_json"),
    Poison(23, "not UTF-8", GOOD.replace(b"mentor-1", b"\xff\x00"), binary(), "not_json"),
    Poison(23, "byte order mark", b"\xef\xbb\xbf" + GOOD, binary(), "not_json"),
    Poison(24, "NaN", GOOD.replace(b":60", b":NaN"), binary(), "not_json"),
    Poison(24, "1e400", GOOD.replace(b":60", b":1e400"), binary(), "not_json"),
    Poison(24, "NaN where nobody looks", GOOD.replace(b"{", b'{"x":NaN,', 1), binary(), "not_json"),
    Poison(24, "1e400 where nobody looks", GOOD.replace(b"{", b'{"x":1e400,', 1), binary(), "not_json"),
    Poison(24, "endless number", GOOD.replace(b":60", b":" + b"6" * 5_000), binary(), "not_json"),
    Poison(24, "key twice", GOOD.replace(b'"notes"', b'"notes":"","notes"'), binary(), "not_json"),
    Poison(23, "deep", b'{"items":' * 50_000, binary(), "not_json"),
    Poison(23, "no object", orjson.dumps([CANARY]), binary(), "invalid_data"),
    Poison(23, "nobody's", orjson.dumps({"items": [NOTED]}), binary(), "invalid_data"),
    Poison(25, "forged cancel", GOOD, binary(type_name(events.BatchCancelled)), "invalid_data"),
    Poison(23, "structured, no JSON", GOOD[:-2], STRUCTURED, "not_json"),
    Poison(23, "structured, no object", orjson.dumps([CANARY]), STRUCTURED, "bad_envelope"),
    Poison(
        24, "structured, key twice", in_structured_mode(GOOD).replace(b'"notes"', b'"notes":"","notes"'), STRUCTURED, "not_json"
    ),
    Poison(23, "structured, deep", b'{"data":' * 50_000, STRUCTURED, "not_json"),
    Poison(23, "structured, data as text", in_structured_mode(GOOD, data=GOOD.decode()), STRUCTURED, "bad_envelope"),
    Poison(23, "structured, NUL in the id", in_structured_mode(GOOD, id="a\x00"), STRUCTURED, "bad_envelope"),
    Poison(23, "structured, id is no text", in_structured_mode(GOOD, id={"notes": CANARY}), STRUCTURED, "bad_envelope"),
]

MALFORMED = [
    Poison(23, "NUL", noted(upstream_item(1, notes=f"{CANARY}\x00")), binary(), "bad_characters", True),
    Poison(23, "surrogate", noted().replace(b"canary", rb"canary\ud800"), binary(), "bad_characters", True),
    Poison(
        23,
        "structured, surrogate",
        in_structured_mode(noted()).replace(b"canary", rb"canary\ud800"),
        STRUCTURED,
        "bad_characters",
        True,
    ),
    Poison(23, "long notes", noted(upstream_item(1, notes=CANARY * 1_000)), binary(), "too_long", True),
    Poison(23, "notes are no text", noted(upstream_item(1, notes={"notes": CANARY})), binary(), "wrong_type", True),
    Poison(24, "true is no number", noted(upstream_item(1, duration_minutes=True)), binary(), "wrong_type", True),
    Poison(24, "beyond 32 bits", noted(upstream_item(1, duration_minutes=1 << 31)), binary(), "out_of_range", True),
    Poison(23, "no date", noted(upstream_item(1, activity_date="2026-02-30")), binary(), "not_a_date", True),
    Poison(23, "unknown coordinator", noted(coordinator_id="nobody"), binary(), "coordinator_unknown", True),
    Poison(23, "too large", noted(*(upstream_item(n, notes="n" * 9_000) for n in range(1, 80))), binary(), "too_large", True),
]

REFUSED_BY_THE_DATABASE = Poison(23, "refused item", noted(upstream_item(1, REFUSED_ITEM)), binary(), "internal_error")

COMMAND = orjson.dumps(
    {"batch_id": uuid4(), "item_id": uuid4(), "position": 0, "attempt": 1, "organization_id": "org", "activity_id": uuid4()}
)
OURS = {
    Topic.COMMANDS: [
        Poison(23, "nothing", None, binary(events.REGISTER_ACTIVITY), "no_value"),
        Poison(23, "not JSON", CANARY.encode(), binary(events.REGISTER_ACTIVITY), "invalid_data"),
        Poison(23, "incomplete", COMMAND, binary(events.REGISTER_ACTIVITY), "invalid_data"),
        Poison(25, "a batch", GOOD, binary(), "unknown_type"),
    ],
    Topic.RESULTS: [
        Poison(23, "NUL", COMMAND.replace(b'"org"', rb'"\u0000"'), binary(events.SUCCEEDED), "invalid_data"),
        Poison(23, "deep", b"[" * 100_000, binary(events.SUCCEEDED), "invalid_data"),
        Poison(23, "forged", COMMAND, binary(events.SUCCEEDED), "no_such_outcome"),
    ],
}

POISON = {Topic.BATCHES: [*UNREADABLE, *MALFORMED, REFUSED_BY_THE_DATABASE], **OURS}

# This one is no poison: the command is handled like any other, until its activity is inserted.
FAILED_COMMAND = (Topic.COMMANDS, "internal_error")


@dataclass(frozen=True)
class Aftermath:
    """What the roles left behind."""

    letters: Mapping[tuple[Topic, object, object], Seen]
    """By the place of the record that was put aside."""
    answers: Sequence[Seen]
    good: StatusView
    oldest: StatusView
    breaches: Sequence[object]
    places: Mapping[str, bytes]
    """Everything that was logged."""


def prepare(settings: Settings, engine: Engine) -> None:
    """The standard directory, and constraints that refuse two of its mentors."""
    standard_directory(engine)
    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(
            text("""CREATE FUNCTION orchestrator.refuse() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = 'refused',
                       DETAIL = 'Failing row contains ' || NEW.notes; END $$""")
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


def ours(settings: Settings, topic: Topic) -> list[Seen]:
    """The good records that the roles wrote to a topic."""
    return [each for each in whole(settings, topic) if each.partition != PARTITION or each.offset >= len(POISON[topic])]


@pytest.fixture(scope="module")
def aftermath(infrastructure: Stack, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """Sends the corpus through the flow once, with good batches behind it."""
    folder = tmp_path_factory.mktemp("roles")
    batch_id = uuid4()
    items = [
        upstream_item(0, "mentor-50", notes=CANARY),
        *upstream_items(2, 50),
        upstream_item(3, REFUSED_ACTIVITY, notes=CANARY),
    ]
    good = submitted(batch_id, [each | {"position": position} for position, each in enumerate(items)])
    corpus = {topic: [(each.value, each.headers) for each in records] for topic, records in POISON.items()}
    corpus[Topic.BATCHES] += [(event.value, dict(event.headers)) for event in (good, OLDEST)]
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(
            database_url=SecretStr(url),
            kafka_bootstrap_servers=infrastructure.kafka_bootstrap_servers,
            topic_prefix=f"test-{uuid4().hex}",
        )
        engine = create_database_engine(settings.worker_url, settings, connections=2, application_name="test")
        prepare(settings, engine)
        with made_topics(settings):
            for topic, records in corpus.items():
                write_raw(settings, topic, [(value, dict(headers)) for value, headers in records], partition=PARTITION)
            with running_roles(settings, folder) as port:
                eventually(lambda: are_at_their_ends(settings))
                eventually(lambda: count(engine, "orchestrator.outbox") == 0)
                metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S).content
            letters, answers = whole(settings, Topic.DEAD_LETTER), whole(settings, Topic.LIFECYCLE)
            topics = {topic.on_cluster(settings.topic_prefix): topic for topic in Topic}
            yield Aftermath(
                {(topics[str(each.data["topic"])], each.data["partition"], each.data["offset"]): each for each in letters},
                answers,
                shown(engine, batch_id),
                shown(engine, OLDEST_BATCH),
                verify(engine, settings).breaches,
                {
                    "logs": b"".join(file.read_bytes() for file in folder.iterdir()),
                    "metrics": metrics,
                    "answers": repr(answers).encode(),
                    "dead letters": repr([(each.key, each.headers, {**each.data, "value": None}) for each in letters]).encode(),
                    "listing": repr([(each.letter.headers, each.shown_value()) for each in read_dead_letters(settings)]).encode(),
                    **{topic.value: repr(ours(settings, topic)).encode() for topic in OURS},
                },
            )
        engine.dispose()


# --- The tests --------------------------------------------------------------------------------------------------------------


def assert_put_aside(aftermath: Aftermath, row: int) -> None:
    """Checks that each poisonous record of the row was put aside with its place, its reason and its bytes."""
    for topic, records in POISON.items():
        for offset, poison in enumerate(records):
            if poison.row == row:
                letter = aftermath.letters[topic, PARTITION, offset].data
                value = None if poison.value is None else base64.b64encode(poison.value).decode()
                assert (letter["reason"], letter["value"]) == (poison.reason, value), poison.name


def test_row_23_poison_bytes_are_put_aside_and_the_partition_moves_on(aftermath: Aftermath) -> None:
    assert_put_aside(aftermath, 23)
    # The good batch behind them is handled. The registration of one of its items fails, and only that item does.
    assert aftermath.good.batch.counts == Counts(completed=3, failed=1)
    assert [item.error and item.error.code for item in aftermath.good.items] == [None, None, None, "internal_error"]
    assert aftermath.breaches == []


def test_row_24_values_that_json_does_not_have_are_refused(aftermath: Aftermath) -> None:
    assert_put_aside(aftermath, 24)


def test_row_25_unknown_version_is_put_aside_and_the_oldest_is_registered(aftermath: Aftermath) -> None:
    assert_put_aside(aftermath, 25)
    oldest = aftermath.oldest
    assert (oldest.batch.status, oldest.batch.counts, oldest.batch.label) == ("completed", Counts(completed=2), None)
    assert [(item.position, item.values.notes, item.values.override_duplicates) for item in oldest.items] == [
        (0, None, False),
        (1, None, False),
    ]


def test_nothing_else_is_put_aside_and_every_sender_is_told(aftermath: Aftermath) -> None:
    expected = Counter([(topic, each.reason) for topic, records in POISON.items() for each in records] + [FAILED_COMMAND])
    assert Counter((topic, letter.data["reason"]) for (topic, _, _), letter in aftermath.letters.items()) == expected
    rejections = sum(each.headers["ce_type"].decode() == events.BATCH_REJECTED for each in aftermath.answers)
    assert rejections == sum(each.is_answered for each in POISON[Topic.BATCHES])


def test_notes_are_only_where_they_belong(aftermath: Aftermath) -> None:
    """The roles did log each record that they put aside."""
    assert [item.values.notes for item in aftermath.good.items] == [CANARY, None, None, CANARY]
    lines = [orjson.loads(line) for line in aftermath.places["logs"].splitlines() if b"dead_lettered" in line]
    assert {line["role"] for line in lines} <= {"splitter", "registration", "aggregator"}
    assert Counter((line["topic"], line["partition"], line["offset"], line["reason"]) for line in lines) == Counter(
        (topic.value, partition, offset, letter.data["reason"])
        for (topic, partition, offset), letter in aftermath.letters.items()
    )
    assert {place for place, content in aftermath.places.items() if SECRET in content} == set()
