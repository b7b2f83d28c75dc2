"""The dead-letter topic as a list: which records count as letters, which letters were redriven, and which records are read again."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest

from consumers.loop.dead_letters import dead_letter
from consumers.loop.decoding import Entry
from consumers.loop.handler import Lane, RefusedError
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from consumers.reading import dead_letter_log
from consumers.reading.dead_letter_log import PutAside, read_dead_letters, read_originals
from consumers.reading.topic_reader import Span
from orchestrator.process.settings import Settings
from schemas.envelope import OutgoingEvent, Topic
from schemas.event_builders import dead_letter_redriven
from tests.support.toy import command

SETTINGS = Settings(topic_prefix="test")
COMMANDS = Topic.COMMANDS.on_cluster("test")
MOMENT_MS = 1_774_515_600_123
AT = "2026-03-26T10:00:00Z"


def letter(offset: int, topic: str = COMMANDS, value: bytes | None = b"nonsense") -> OutgoingEvent:
    record = RawRecord(topic, 3, offset, MOMENT_MS, b"key", value, command(5).headers)
    place = PartitionOffsets(Topic.COMMANDS, topic, 3)
    return dead_letter(Entry(record, place, offset, record.bytes, Lane.SMALL, None, None), RefusedError("not_json", "it is none"))


def redriven(letter_id: UUID, hour: int = 10) -> OutgoingEvent:
    return dead_letter_redriven(dead_letter_id=letter_id, time=datetime(2026, 3, 26, hour, tzinfo=UTC), trace_id="ab" * 16)


def id_of(event: OutgoingEvent) -> UUID:
    return UUID(dict(event.headers)["ce_id"].decode())


def with_data(event: OutgoingEvent, **changes: object) -> OutgoingEvent:
    return event._replace(value=orjson.dumps(orjson.loads(event.value) | changes))


class Reader:
    """Reads the records that the test has written."""

    written: Sequence[OutgoingEvent] = ()
    originals: Sequence[RawRecord] = ()

    def __init__(self, settings: Settings) -> None:
        assert settings is SETTINGS

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        """Has nothing to close."""

    def spans(self, topics: Sequence[Topic]) -> Sequence[Span]:
        assert topics == [Topic.DEAD_LETTER]
        return [Span(Topic.DEAD_LETTER, 0, 0, len(self.written))]

    def read(self, _spans: Sequence[Span]) -> Iterator[list[tuple[Topic, RawRecord]]]:
        for offset, event in enumerate(self.written):
            headers = tuple((name, value) for name, value in event.headers)
            raw = RawRecord("test.dead-letter.v1", 0, offset, MOMENT_MS + offset, event.key.encode(), event.value, headers)
            yield [(Topic.DEAD_LETTER, raw)]

    def record_at(self, topic: Topic, partition: int, offset: int) -> RawRecord | None:
        places = {(each.cluster_topic, each.partition, each.offset): each for each in self.originals}
        return places.get((topic.on_cluster("test"), partition, offset))


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_log, "TopicReader", Reader)


def read(monkeypatch: pytest.MonkeyPatch, *written: OutgoingEvent) -> list[PutAside]:
    monkeypatch.setattr(Reader, "written", written)
    return read_dead_letters(SETTINGS)


def test_letters_are_listed_in_the_order_of_the_topic_with_the_time_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    bulk = Topic.COMMANDS_BULK.on_cluster("test")
    first, second, third = read(monkeypatch, letter(7), letter(2), letter(1, bulk))
    assert [(each.topic, each.letter.offset) for each in (first, second, third)] == [
        (Topic.COMMANDS, 7),
        (Topic.COMMANDS, 2),
        (Topic.COMMANDS_BULK, 1),
    ]
    assert (first.id, first.put_aside_at, first.redriven_at) == (id_of(letter(7)), "2026-03-26T09:00:00.123000Z", None)
    assert second.put_aside_at == "2026-03-26T09:00:00.124000Z"


def test_a_letter_that_was_written_twice_is_listed_once_with_its_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, letter(7), letter(8), letter(7))
    assert [(each.letter.offset, each.put_aside_at[-8:]) for each in found] == [(7, ".123000Z"), (8, ".124000Z")]


def test_a_redriven_letter_has_the_time_of_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, letter(7), letter(8), redriven(id_of(letter(8))))
    assert [each.redriven_at for each in found] == [None, "2026-03-26T10:00:00.000000Z"]


def test_a_letter_that_was_redriven_again_has_the_time_of_the_last_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = read(monkeypatch, letter(7), redriven(id_of(letter(7))), redriven(id_of(letter(7)), hour=11))
    assert found.redriven_at == "2026-03-26T11:00:00.000000Z"


def test_a_mark_whose_letter_has_expired_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(monkeypatch, redriven(id_of(letter(1))), letter(7))
    assert [(each.letter.offset, each.redriven_at) for each in found] == [(7, None)]


@pytest.mark.parametrize(
    "foreign",
    [
        OutgoingEvent(Topic.DEAD_LETTER, "k", (), b"{}"),
        letter(1)._replace(value=b"nonsense"),
        command(1),
        letter(1, "somebody.elses.v1"),
        with_data(letter(1), value="a_b"),
        with_data(letter(1), key="a"),
        with_data(letter(1), offset="x"),
    ],
    ids=["no event", "no JSON", "another event", "of no topic of ours", "a value", "a key", "an offset"],
)
def test_a_record_that_is_no_letter_of_ours_is_skipped(monkeypatch: pytest.MonkeyPatch, foreign: OutgoingEvent) -> None:
    assert [each.letter.offset for each in read(monkeypatch, letter(7), foreign, letter(8))] == [7, 8]


def test_a_letter_without_a_value_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = read(monkeypatch, letter(7, value=None))
    assert (found.value, found.key) == (None, b"key")


def test_the_original_records_that_still_exist_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = read(monkeypatch, letter(7), letter(8), letter(9))
    record = RawRecord(COMMANDS, 3, 8, MOMENT_MS, b"key", b"whole", ())
    monkeypatch.setattr(Reader, "originals", [record, record._replace(partition=2, offset=9)])
    assert read_originals(SETTINGS, letters) == {letters[1].id: record}


def test_attributes_of_an_event_that_its_value_repeats_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender may put the whole CloudEvent into the value, which the product never does."""
    attributes = {
        "specversion": "1.0",
        "id": "1",
        "source": "/them",
        "type": "t",
        "subject": "s",
        "time": AT,
        "datacontenttype": "application/json",
        "traceparent": "00-1",
    }
    [found] = read(monkeypatch, letter(7, value=orjson.dumps(attributes | {"comment": "private"})))
    assert found.shown_value() == attributes | {"comment": "(hidden)"}
