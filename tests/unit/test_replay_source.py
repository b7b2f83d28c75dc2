"""The topics as a replay reads them: what each record becomes, and how far the groups of their consumers have come."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import Connection

from consumers.loop.handler import AGGREGATOR, SPLITTER
from consumers.loop.raw_record import PlacedValue, RawRecord
from consumers.reading import replay_source
from consumers.reading.replay_source import RecordPlace, ReplaySource
from consumers.reading.topic_reader import Span
from orchestrator.process.settings import Settings
from orchestrator.replay.rebuild import TOPICS, ReadRecord, Replay
from schemas.envelope import MAX_MESSAGE_BYTES, Topic

MOMENT = datetime(2026, 3, 26, 9, tzinfo=UTC)


def raw(offset: int, value: bytes | None = b"v", partition: int = 1) -> RawRecord:
    return RawRecord("t", partition, offset, 5, b"k", value, (("name", b"n"),))


class Reader:
    """The reader, controlled by the test."""

    def __init__(self, _settings: Settings) -> None:
        self.results: Sequence[Sequence[PlacedValue]] = ()
        self.chunks: Sequence[Sequence[tuple[Topic, RawRecord]]] = ()
        self.read_spans: list[Sequence[Span]] = []
        self.is_closed = False
        self.asked: object = None

    def __exit__(self, *_: object) -> None:
        self.is_closed = True

    def spans(self, topics: Sequence[Topic], *, since: datetime | None) -> Sequence[Span]:
        self.asked = (topics, since)
        return ()

    def time_of(self, topic: Topic, partition: int, offset: int) -> datetime:
        assert (topic, partition, offset) == (Topic.RESULTS, 2, 17)
        return MOMENT

    def committed(self, role: str, topic: Topic, generation: int) -> dict[int, int]:
        return {(SPLITTER, Topic.BATCHES, 1): {0: 4, 2: 0}, (AGGREGATOR, Topic.RESULTS, 3): {1: 9}}[role, topic, generation]

    def read_values(self, spans: Sequence[Span]) -> Iterator[Sequence[PlacedValue]]:
        self.read_spans.append(spans)
        yield from self.results

    def read(self, spans: Sequence[Span]) -> Iterator[Sequence[tuple[Topic, RawRecord]]]:
        self.read_spans.append(spans)
        yield from self.chunks


class Rebuilt:
    """What the replay is given, in order."""

    def __init__(self) -> None:
        self.given: list[object] = []

    def add_results(self, results: Sequence[PlacedValue]) -> None:
        self.given += results

    def add(self, records: Sequence[ReadRecord]) -> None:
        self.given += records


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> ReplaySource:
    monkeypatch.setattr(replay_source, "TopicReader", Reader)
    return ReplaySource(Settings())


def reader_of(source: ReplaySource) -> Reader:
    return cast("Reader", source._reader)


def test_everything_is_read_or_only_what_is_not_older_than_a_time_or_a_record(source: ReplaySource) -> None:
    earlier = MOMENT.replace(year=2025)
    for start, since in ((None, None), (earlier, earlier), (RecordPlace(Topic.RESULTS, 2, 17), MOMENT)):
        source.spans(start)
        assert reader_of(source).asked == (TOPICS, since)


def test_batches_and_results_are_handled_as_far_as_their_consumers_groups(
    source: ReplaySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group of the aggregator was renewed."""
    monkeypatch.setattr(replay_source, "read_generation", lambda _, role: {SPLITTER: 1, AGGREGATOR: 3}[role])
    connection = cast("Connection", SimpleNamespace(begin=nullcontext))
    assert source.handled(connection) == {(Topic.BATCHES, 0): 4, (Topic.BATCHES, 2): 0, (Topic.RESULTS, 1): 9}


def test_each_chunk_is_added_and_reported(source: ReplaySource) -> None:
    reader_of(source).results = [[(2, 7, 5, b"v"), (1, 8, 6, None)]]
    reader_of(source).chunks = [[(Topic.BATCHES, raw(0))], [(Topic.LIFECYCLE, raw(3, None))]]
    rebuilt, progress = Rebuilt(), list[int]()
    spans = [Span(topic, 0, 0, 9) for topic in TOPICS]
    assert source.read_into(cast("Replay", rebuilt), spans, progress.append) == 4
    assert reader_of(source).read_spans == [[spans[1]], [spans[0], spans[2]]]
    assert progress == [2, 1, 1]
    headers = (("name", b"n"),)
    assert rebuilt.given == [
        (2, 7, 5, b"v"),
        (1, 8, 6, None),
        ReadRecord(Topic.BATCHES, 1, 0, 5, headers, b"v"),
        ReadRecord(Topic.LIFECYCLE, 1, 3, 5, headers, None),
    ]


@pytest.mark.parametrize(("more", "is_read"), [(-1, True), (0, True), (1, False)])
def test_records_that_the_roles_did_not_read_are_unreadable(source: ReplaySource, more: int, is_read: bool) -> None:
    large = raw(0, bytes(MAX_MESSAGE_BYTES - raw(0, b"").bytes + more))
    reader_of(source).chunks = [[(Topic.BATCHES, large)]]
    rebuilt = Rebuilt()
    source.read_into(cast("Replay", rebuilt), [], lambda _: None)
    [record] = rebuilt.given
    assert isinstance(record, ReadRecord)
    assert record.value == (large.value if is_read else None)


def test_the_reader_is_closed_at_the_end(source: ReplaySource) -> None:
    with source:
        assert not reader_of(source).is_closed
    assert reader_of(source).is_closed
