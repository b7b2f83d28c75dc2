"""`bulkreg dead-letters`: which letters are listed, which records are redriven, and when they are marked."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest
from typer.testing import CliRunner

from cli.main import app
from consumers.loop.dead_letters import dead_letter
from consumers.loop.decoding import Entry
from consumers.loop.handler import Lane, RefusedError
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from consumers.reading import dead_letter_log
from consumers.reading.dead_letter_log import PutAside
from orchestrator.batches.publishing import DeliveryError, Trouble
from orchestrator.process.settings import Settings
from producers import producer
from schemas.envelope import MAX_MESSAGE_BYTES, OutgoingEvent, Topic, open_envelope
from schemas.event_reader import read_event
from schemas.events import DEAD_LETTER_REDRIVEN, DeadLetter
from tests.support.toy import command

PLACE = PartitionOffsets(Topic.COMMANDS, "prefix.commands.v1", 3)


def put_aside(number: int, reason: str = "not_json", *, redriven: bool = False, value: bytes | None = None) -> PutAside:
    value = orjson.dumps({"position": number, "notes": "private"}) if value is None else value
    record = RawRecord("prefix.commands.v1", 3, number, 1_774_515_600_000, b"key", value, command(number).headers)
    entry = Entry(record, PLACE, number, record.bytes, Lane.SMALL, None, None)
    event = dead_letter(entry, RefusedError(reason, "it is none"))
    data = read_event(Topic.DEAD_LETTER, open_envelope(event.headers, event.value))
    assert isinstance(data, DeadLetter)
    at = f"2026-03-26T09:00:0{number}.000000Z"
    return PutAside(UUID(int=number), Topic.COMMANDS, at, data, "2026-03-26T10:00:00.000000Z" if redriven else None)


TOO_LARGE = put_aside(4, value=b"x" * (MAX_MESSAGE_BYTES + 1))
LETTERS = [put_aside(1), put_aside(2, "bad_envelope", redriven=True), put_aside(3), put_aside(5, "bad_envelope")]


class Kafka:
    """The dead-letter topic, and the events that were sent."""

    def __init__(self) -> None:
        self.letters: list[PutAside] = list(LETTERS)
        self.originals: dict[UUID, RawRecord] = {}
        self.asked_for: list[UUID] = []
        self.published: list[list[OutgoingEvent]] = []
        self.refuses_after: int | None = None
        self.is_closed = False

    def __call__(self, _settings: Settings) -> "Kafka":
        return self

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        if len(self.published) == self.refuses_after:
            raise DeliveryError({0: Trouble("the broker is away", is_permanent=False)})
        self.published.append(list(events))

    def close(self) -> None:
        self.is_closed = True

    def read_originals(self, _settings: Settings, letters: Sequence[PutAside]) -> dict[UUID, RawRecord]:
        self.asked_for += [letter.id for letter in letters]
        return self.originals

    @property
    def marked(self) -> list[UUID]:
        """The letters that the last published events mark as redriven."""
        assert {dict(event.headers)["ce_type"].decode() for event in self.published[-1]} <= {DEAD_LETTER_REDRIVEN}
        return [UUID(json.loads(event.value)["dead_letter_id"]) for event in self.published[-1]]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    kafka = Kafka()
    monkeypatch.setattr(dead_letter_log, "read_dead_letters", lambda _: kafka.letters)
    monkeypatch.setattr(dead_letter_log, "read_originals", kafka.read_originals)
    monkeypatch.setattr(producer, "EventProducer", kafka)
    return kafka


def bulkreg(*arguments: str) -> tuple[int, str, str]:
    environment = {"BULKREG_DATABASE_URL": "postgresql://nobody@127.0.0.1/none", "BULKREG_HOME": None}
    ran = CliRunner().invoke(app, ["dead-letters", *arguments], env=environment)
    return ran.exit_code, ran.stdout, ran.stderr


def document(*arguments: str) -> Any:
    code, stdout, stderr = bulkreg(*arguments, "--json")
    assert code == 0, stderr
    return json.loads(stdout)


def ids(*numbers: int) -> list[str]:
    return [str(UUID(int=number)) for number in numbers]


def test_waiting_letters_are_listed_and_all_on_request(kafka: Kafka) -> None:
    waiting = document("list")
    assert [each["id"] for each in waiting["dead_letters"]] == ids(1, 3, 5)
    assert waiting["by_reason"] == {"not_json": 2, "bad_envelope": 1}
    everything = document("list", "--all")
    assert [each["id"] for each in everything["dead_letters"]] == ids(1, 2, 3, 5)
    assert everything["by_reason"] == {"not_json": 2, "bad_envelope": 2}
    assert everything["dead_letters"][1] == {
        "id": ids(2)[0],
        "put_aside_at": "2026-03-26T09:00:02.000000Z",
        "topic": "prefix.commands.v1",
        "partition": 3,
        "offset": 2,
        "reason": "bad_envelope",
        "detail": "it is none",
        "redriven_at": "2026-03-26T10:00:00.000000Z",
    }
    code, shown, _ = bulkreg("list")
    assert code == 0
    assert [line.split() for line in shown.splitlines()][1] == [
        ids(1)[0],
        LETTERS[0].put_aside_at,
        "prefix.commands.v1/3@1",
        "not_json",
    ]
    assert shown.splitlines()[-1] == "2 not_json, 1 bad_envelope"
    kafka.letters = [LETTERS[1]]
    assert bulkreg("list")[1].splitlines()[-1] == "There are no dead letters."


def test_a_letter_is_shown_with_its_headers_and_without_notes(kafka: Kafka) -> None:
    shown = document("show", ids(3)[0])
    assert (shown["id"], shown["offset"], shown["value"]) == (ids(3)[0], 3, {"position": 3, "notes": "(hidden)"})
    assert shown["headers"]["content-type"] == "application/json"
    code, text, _ = bulkreg("show", ids(2)[0])
    assert (code, "redriven_at: 2026-03-26T10:00:00.000000Z" in text, "private" in text) == (0, True, False)
    for unknown in (ids(9)[0], "nonsense"):
        assert bulkreg("show", unknown)[0] == 2


def test_all_waiting_letters_are_redriven_and_then_marked(kafka: Kafka) -> None:
    assert document("redrive", "all") == {"redriven": ids(1, 3, 5), "left": {}}
    records, _ = kafka.published
    assert [(event.topic, json.loads(event.value)["position"]) for event in records] == [
        (Topic.COMMANDS, 1),
        (Topic.COMMANDS, 3),
        (Topic.COMMANDS, 5),
    ]
    assert kafka.marked == [UUID(int=number) for number in (1, 3, 5)]
    assert kafka.is_closed


def test_named_letters_are_redriven(kafka: Kafka) -> None:
    assert document("redrive", *ids(5, 1))["redriven"] == ids(5, 1)
    assert kafka.marked == [UUID(int=5), UUID(int=1)]
    for gone in (ids(2), ids(1, 9)):
        before = len(kafka.published)
        code, _, said = bulkreg("redrive", *gone)
        assert (code, "No dead letter with this id is waiting" in said, len(kafka.published)) == (2, True, before)


@pytest.mark.parametrize("published", [0, 1])
def test_letters_that_the_broker_refused_can_be_redriven_again(kafka: Kafka, published: int) -> None:
    """This holds for the records and for the marks. A letter that was marked without its record would be lost."""
    kafka.refuses_after = published
    code, _, said = bulkreg("redrive", "all")
    assert (code, "Repeat the command: 1 events were not acknowledged: the broker is away" in said) == (3, True)
    assert [len(each) for each in kafka.published] == [3] * published
    assert kafka.is_closed


def test_a_letter_that_can_not_be_redriven_stops_no_other_unless_it_was_named(kafka: Kafka) -> None:
    kafka.letters.append(TOO_LARGE)
    code, _, said = bulkreg("redrive", *ids(1, 4))
    assert (code, "only the beginning" in said, kafka.published) == (2, True, [])
    redriven = document("redrive", "all")
    assert redriven["redriven"] == ids(1, 3, 5)
    assert list(redriven["left"]) == ids(4)
    assert "only the beginning" in redriven["left"][ids(4)[0]]
    assert kafka.marked == [UUID(int=number) for number in (1, 3, 5)]


def test_only_a_large_record_is_read_again(kafka: Kafka) -> None:
    kafka.letters.append(TOO_LARGE)
    value = b"x" * (MAX_MESSAGE_BYTES + 1)
    kafka.originals = {TOO_LARGE.id: RawRecord("prefix.commands.v1", 3, 4, 1_774_515_600_000, b"key", value, ())}
    assert document("redrive", "all")["redriven"] == ids(1, 3, 5, 4)
    assert kafka.asked_for == [TOO_LARGE.id]
    assert kafka.published[0][-1].value == value
    document("redrive", ids(1)[0])
    assert kafka.asked_for == [TOO_LARGE.id], "a record that its letter holds completely must not be read again"
