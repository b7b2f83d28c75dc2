"""Topics that are read outside a group: from a requested place to their end, and past batches that the client can't read."""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, Message, TopicPartition
from tenacity import wait_none

from consumers.reading import topic_reader
from consumers.reading.topic_reader import LeaderSilentError, ReadingStoppedError, Span, TopicReader
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.support.log_lines import logged

TOPIC = Topic.BATCHES
NAME = TOPIC.on_cluster("test")


class Log:
    """A partition: which offsets have a record, and the first and the last record of each unreadable batch."""

    def __init__(
        self, records: Sequence[int], *, low: int = 0, high: int | None = None, damaged: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.batch_of = {offset: batch for batch in damaged for offset in range(batch[0], batch[1] + 1)}
        self.records = sorted({*records, *self.batch_of})
        self.low = low
        self.high = self.records[-1] + 1 if high is None else high


class Client:
    """Stands in for the library's consumer. At damage it loses its place, and begins again at the beginning of the partition."""

    def __init__(self, logs: Mapping[int, Log]) -> None:
        self.logs = logs
        self.sought: list[tuple[int, int]] = []
        self.asked_for_times: list[int] = []
        self.at_time = 0
        self.is_closed = False
        self.failure: KafkaError | None = None
        self.damage = KafkaError._BAD_MSG
        self._next: dict[int, int] = {}

    def list_topics(self, name: str, timeout: float) -> Any:
        assert timeout > 0
        known = SimpleNamespace(partitions=dict.fromkeys(self.logs), error=None)
        missing = SimpleNamespace(partitions={}, error=KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        return SimpleNamespace(topics={name: known if name == NAME else missing})

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        log = self.logs[place.partition]
        return log.low, log.high

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        self.asked_for_times += [place.offset for place in places]
        return [TopicPartition(place.topic, place.partition, self.at_time) for place in places]

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._next = {place.partition: place.offset for place in places}

    def seek(self, place: TopicPartition) -> None:
        self.sought.append((place.partition, place.offset))
        self._next[place.partition] = place.offset

    def consume(self, _count: int, timeout: float) -> list[Message]:
        assert timeout < 1
        assert len(self.sought) < 100, "the reader does not get past the damage"
        if self.failure is not None:
            return [Message(topic=NAME, partition=0, offset=0, error=self.failure)]
        return [message for partition in self._next for message in self._of(partition)]

    def _of(self, partition: int) -> list[Message]:
        log, found = self.logs[partition], []
        for offset in log.records:
            if offset < self._next[partition]:
                continue
            if offset in log.batch_of:
                found.append(failing(self.damage, partition, log.batch_of[offset][0]))
                # What comes next is from anywhere.
                return found + [written(partition, each) for each in log.records if each not in log.batch_of]
            found.append(written(partition, offset))
            self._next[partition] = offset + 1
        return [*found, failing(KafkaError._PARTITION_EOF, partition, log.high)]

    def next_batch(self, topic: str, partition: int, batch_offset: int) -> int:
        assert topic == NAME
        return self.logs[partition].batch_of[batch_offset][1] + 1

    def close(self) -> None:
        self.is_closed = True


def written(partition: int, offset: int) -> Message:
    return Message(
        topic=NAME, partition=partition, offset=offset, value=b"%d" % offset, timestamp=(1, 1_774_515_600_000 + offset)
    )


def failing(code: int, partition: int, offset: int) -> Message:
    return Message(topic=NAME, partition=partition, offset=offset, error=KafkaError(code))


Reading = Callable[..., tuple[TopicReader, Client]]


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    """A reader of these partitions, and its client."""

    def begin(**logs: Log) -> tuple[TopicReader, Client]:
        client = Client({int(name.removeprefix("p")): log for name, log in logs.items()})
        monkeypatch.setattr(topic_reader, "Consumer", lambda *_, **__: client)
        monkeypatch.setattr(topic_reader, "BatchProbe", lambda *_: client)
        return TopicReader(Settings(topic_prefix="test")), client

    return begin


def everything(reader: TopicReader, *spans: Span) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for chunk in reader.read(spans or reader.spans([TOPIC])):
        for topic, raw in chunk:
            assert topic is TOPIC
            assert raw.value == b"%d" % raw.offset
            found.setdefault(raw.partition, []).append(raw.offset)
    return found


# --- What is read -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "end", "expected"), [(0, 5, [0, 1, 2, 3, 4]), (2, 4, [2, 3]), (2, 3, [2]), (2, 2, []), (3, 2, [])]
)
def test_a_span_is_read_from_its_first_offset_to_before_its_end(
    reading: Reading, first: int, end: int, expected: list[int]
) -> None:
    reader, _ = reading(p0=Log(range(8)), p1=Log(range(8)))
    span = Span(TOPIC, 0, first, end)
    assert span.offsets == len(expected)
    assert everything(reader, span) == ({0: expected} if expected else {})


def test_a_finished_partition_does_not_delay_others(reading: Reading) -> None:
    """The last offsets of one partition hold no record, but a transaction's marker."""
    reader, _ = reading(p0=Log([0, 1], high=4), p1=Log(range(6)), p2=Log([3], low=3))
    assert everything(reader) == {0: [0, 1], 1: [0, 1, 2, 3, 4, 5], 2: [3]}


def test_an_error_other_than_damage_is_raised(reading: Reading) -> None:
    reader, client = reading(p0=Log([0]))
    client.failure = KafkaError(KafkaError._ALL_BROKERS_DOWN)
    with pytest.raises(KafkaException):
        everything(reader)


def test_a_missing_topic_is_reported(reading: Reading) -> None:
    reader, _ = reading(p0=Log([0]))
    with pytest.raises(KafkaException):
        reader.spans([Topic.RESULTS])


def test_the_connection_is_closed_at_the_end(reading: Reading) -> None:
    reader, client = reading(p0=Log([0]))
    with reader:
        assert not client.is_closed
    assert client.is_closed


def test_a_client_that_never_closes_does_not_stop_the_reader(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, client = reading(p0=Log([0]))
    monkeypatch.setattr(topic_reader, "_CLOSE_S", 0.01)
    monkeypatch.setattr(client, "close", threading.Event().wait)
    with reader:
        assert everything(reader) == {0: [0]}


# --- Silence ---------------------------------------------------------------------------------------------------------------------


class Clock:
    """The time that the reader sees."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(topic_reader, "time", clock)
    return clock


def responding(client: Client, monkeypatch: pytest.MonkeyPatch, clock: Clock, responses: Iterator[list[Message]]) -> list[float]:
    """The client gives these responses, each after its timeout. Returns the times of its calls."""
    asked: list[float] = []

    def consume(_count: int, timeout: float) -> list[Message]:
        assert len(asked) < 100_000, "the reader waits without a limit"
        asked.append(clock.now)
        clock.now += timeout
        return next(responses)

    monkeypatch.setattr(client, "consume", consume)
    return asked


def test_a_silent_partition_ends_the_reading_although_others_are_busy(
    reading: Reading, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    reader, client = reading(p0=Log([0]), p1=Log([0]), p2=Log([0]))
    # What is written to the first one goes on after its end.
    busy = ([written(0, offset)] for offset in itertools.count())
    asked = responding(client, monkeypatch, clock, busy)
    found: list[int] = []
    with pytest.raises(LeaderSilentError) as raised:
        found += [raw.offset for chunk in reader.read(reader.spans([TOPIC])) for _, raw in chunk]
    said = raised.value.args[0].str()
    assert said.startswith(f"nothing came from {NAME}/1, {NAME}/2 for 60 s; check that each partition has a leader"), said
    assert asked[-1] == pytest.approx(topic_reader.STALL_S, abs=1)


def test_row_81_a_slow_reading_goes_on_as_long_as_something_comes(
    reading: Reading, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    reader, client = reading(p0=Log(range(5)), p1=Log([0, 1, 2]))

    def slow() -> Iterator[list[Message]]:
        for message in (written(0, 0), written(1, 0), written(0, 1), failing(KafkaError._PARTITION_EOF, 1, 3), written(0, 4)):
            yield from ([] for _ in range(295))  # 59 s
            yield [message]

    responding(client, monkeypatch, clock, slow())
    found: list[tuple[int, int]] = []
    for chunk in reader.read(reader.spans([TOPIC])):
        found += [(raw.partition, raw.offset) for _, raw in chunk]
        clock.now += 3_600  # the caller's own work
    assert found == [(0, 0), (1, 0), (0, 1), (0, 4)]


def test_a_process_that_stood_still_itself_goes_on(reading: Reading, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    reader, client = reading(p0=Log([0]))

    def stopped() -> Iterator[list[Message]]:
        clock.now += 3_600
        yield []
        yield [written(0, 0)]

    responding(client, monkeypatch, clock, stopped())
    assert everything(reader) == {0: [0]}


def test_damage_that_nothing_gets_past_ends_the_reading(reading: Reading, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    reader, client = reading(p0=Log([0, 1]))
    monkeypatch.setattr(client, "next_batch", lambda *_: None)
    responding(client, monkeypatch, clock, itertools.repeat([failing(KafkaError._BAD_MSG, 0, 1)]))
    monkeypatch.setattr(client, "seek", lambda _: None)
    with pytest.raises(LeaderSilentError):
        everything(reader)


def test_a_leader_that_does_not_tell_where_a_partition_ends_is_named(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, client = reading(p0=Log([0]))

    def silent(*_: object, **__: object) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(client, "get_watermark_offsets", silent)
    for ask in (lambda: reader.spans([TOPIC]), lambda: reader.record_at(TOPIC, 0, 0)):
        with pytest.raises(LeaderSilentError) as raised:
            ask()
        assert f"{NAME}/0 for 10 s" in raised.value.args[0].str()


def test_a_reading_that_is_told_to_stop_ends(monkeypatch: pytest.MonkeyPatch, reading: Reading) -> None:
    _, client = reading(p0=Log([0]), p1=Log([], high=7))
    monkeypatch.setattr(client, "consume", lambda *_, **__: [written(0, 0)])
    stopping = threading.Event()
    reader = TopicReader(Settings(topic_prefix="test"), is_stopping=stopping.is_set)
    chunks = reader.read(reader.spans([TOPIC]))
    assert [raw.offset for _, raw in next(chunks)] == [0]
    stopping.set()
    with pytest.raises(ReadingStoppedError):
        next(chunks)


# --- Damage -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION])
def test_damaged_batches_are_skipped_and_each_is_reported_once(
    reading: Reading, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    reader, client = reading(p0=Log([0, 1, 4, 6, 7], damaged=[(2, 3), (5, 5)]), p1=Log([0, 2], damaged=[(1, 1)]))
    client.damage = code
    assert everything(reader) == {0: [0, 1, 4, 6, 7], 1: [0, 2]}
    lines = logged(caplog, Action.DAMAGED_BATCH)
    assert sorted((line["topic"], line["partition"], line["offset"], line["next_offset"]) for line in lines) == [
        ("batches", 0, 2, 4),
        ("batches", 0, 5, 6),
        ("batches", 1, 1, 2),
    ]
    # It is tried five times in its place, in case the damage was in transit, and then skipped.
    assert [offset for partition, offset in client.sought if partition == 0] == [2] * 5 + [4] + [5] * 5 + [6]
    assert [offset for partition, offset in client.sought if partition == 1] == [1] * 5 + [2]


# --- From when --------------------------------------------------------------------------------------------------------------------


def test_reading_begins_with_the_first_record_of_that_time(reading: Reading) -> None:
    reader, client = reading(p0=Log(range(3, 9), low=3))
    since = datetime(2026, 3, 26, 9, 0, 0, 500_000, tzinfo=UTC)
    for at_time, first in ((5, 5), (3, 3), (OFFSET_END, 9)):
        client.at_time = at_time
        assert reader.spans([TOPIC], since=since) == [Span(TOPIC, 0, first, 9)]
    assert set(client.asked_for_times) == {1_774_515_600_500}
    assert reader.spans([TOPIC]) == [Span(TOPIC, 0, 3, 9)]


def test_a_time_before_kafkas_first_means_the_first(reading: Reading) -> None:
    reader, client = reading(p0=Log(range(3)))
    reader.spans([TOPIC], since=datetime(1960, 1, 1, tzinfo=UTC))
    assert client.asked_for_times == [0]


@pytest.mark.parametrize(
    ("partition", "offset", "found"),
    [(0, 3, True), (0, 6, True), (0, 2, False), (0, 7, False), (0, 5, False), (1, 3, False)],
    ids=["the first", "the last", "gone", "not yet written", "compacted", "no such partition"],
)
def test_one_record_is_found_at_its_place(reading: Reading, partition: int, offset: int, found: bool) -> None:
    reader, _ = reading(p0=Log([3, 4, 6], low=3))
    raw = reader.record_at(TOPIC, partition, offset)
    assert (raw is not None and (raw.partition, raw.offset) == (partition, offset)) is found
    if found or offset == 5:
        written_at = reader.time_of(TOPIC, partition, offset)
        assert written_at == datetime(2026, 3, 26, 9, 0, 0, 1_000 * (6 if offset == 5 else offset), tzinfo=UTC)
    else:
        with pytest.raises(LookupError, match=rf"test\.batches\.v1 holds no record {partition}@{offset}"):
            reader.time_of(TOPIC, partition, offset)


# --- How far a group is -----------------------------------------------------------------------------------------------------------


class Group:
    """The client in a role's group. Its first calls fail."""

    def __init__(self, *failures: KafkaError) -> None:
        self.failures = list(failures)
        self.calls = 0
        self.is_closed = False

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        self.calls += 1
        if self.failures:
            raise KafkaException(self.failures.pop(0))
        offsets = {0: 0, 1: 7, 2: -1001}
        return [TopicPartition(place.topic, place.partition, offsets[place.partition]) for place in places]

    def close(self) -> None:
        self.is_closed = True


def asked_of(group: Group, reader: TopicReader, monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    monkeypatch.setattr(topic_reader, "Consumer", lambda *_, **__: group)
    monkeypatch.setattr(topic_reader, "wait_fixed", lambda _: wait_none())
    try:
        return reader.committed("splitter", TOPIC)
    finally:
        assert group.is_closed


STARTING = [
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TIMED_OUT,
]


def test_a_group_that_is_being_created_is_asked_again(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, _ = reading(p0=Log([0]), p1=Log([0]), p2=Log([0]))
    group = Group(*map(KafkaError, STARTING))
    assert asked_of(group, reader, monkeypatch) == {0: 0, 1: 7}, "a partition without a commit must be left out"
    assert group.calls == 5


def test_a_group_that_may_not_be_read_is_asked_once(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, _ = reading(p0=Log([0]))
    group = Group(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    with pytest.raises(KafkaException):
        asked_of(group, reader, monkeypatch)
    assert group.calls == 1


def test_a_group_that_never_responds_is_given_up(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, _ = reading(p0=Log([0]))
    monkeypatch.setattr(topic_reader, "_TIMEOUT_S", 0.01)
    with pytest.raises(KafkaException):
        asked_of(Group(*[KafkaError(KafkaError._TIMED_OUT)] * 1_000_000), reader, monkeypatch)
