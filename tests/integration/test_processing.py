"""One micro-batch in the database and on to the topics, without a loop: what of it is done, what waits, what is put aside."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from consumers.loop import processing
from consumers.loop.decoding import Entry, damaged, decode
from consumers.loop.handler import Handled, Preparation, Record, RefusedError
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.processing import NextOffsets, Processor
from consumers.loop.raw_record import RawRecord
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import TransientError
from orchestrator.storage.progress import Position, advance_progress
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import EventData
from tests.support.log_lines import logged
from tests.support.publishing import SettledAtOnce
from tests.support.toy import BATCH_ID, ToyHandler, command, make_toy_table, toy_positions

PLACE = PartitionOffsets(Topic.COMMANDS, "prefix.commands.v1", 0)
NEXT = {(Topic.COMMANDS, 0): Position(40, "incarnation")}


@pytest.fixture(autouse=True)
def _toy_table(settings: Settings) -> None:
    make_toy_table(settings)


def database_error(code: str) -> DBAPIError:
    return DBAPIError("SELECT", None, type("Coded", (psycopg2.DatabaseError,), {"pgcode": code})("refused"))


PASSING, LOCKED, LASTING, OF_A_RECORD = (database_error(code) for code in ("57P01", "55P03", "57014", "23514"))
RIVAL = TransientError("a rival was first")


class Troubled(ToyHandler):
    """Meets an error when it handles some positions, and another one when it gives them up; each so many times, or always."""

    def __init__(
        self, troubles: dict[int, Exception], *, times: int = 1_000, last: Exception | None = None, refused: Sequence[int] = ()
    ) -> None:
        super().__init__(refused=frozenset(refused))
        self.troubles = troubles
        self.times = times
        self.last = last
        self.last_times = 1_000

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        handled = super().handle(connection, records)
        for position in self.handled[-1]:
            if position in self.troubles and self.times:
                self.times -= 1
                raise self.troubles[position]
        return handled

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        self.given_up.append(record.data.position)  # type: ignore[attr-defined]
        connection.execute(text("INSERT INTO toy VALUES (1000)"))
        if self.last is not None and self.last_times:
            self.last_times -= 1
            raise self.last
        return Handled([command(2_000)], [(0, RefusedError("given_up", "as asked"))])


class Topics(SettledAtOnce):
    def __init__(self) -> None:
        self.events: list[OutgoingEvent] = []

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        self.events += events

    def of(self, topic: Topic) -> list[bytes]:
        return [event.value for event in self.events if event.topic is topic]


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def processor_of(engine: Engine, topics: Topics, stopping: threading.Event) -> Callable[..., Processor]:
    def make(handler: ToyHandler, preparation: Preparation | None = None) -> Processor:
        return Processor(handler, engine, topics, lambda _: None, stopping, preparation)

    return make


def entry(position: int, *, written_ms: int = 0) -> Entry:
    event = command(position)
    raw = RawRecord("prefix.commands.v1", 0, position, written_ms, b"key", event.value, event.headers)
    return decode(raw, PLACE, ToyHandler())


def entries(*positions: int) -> list[Entry]:
    return [entry(position) for position in positions]


def progress(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT topic, partition, next_offset, topic_id FROM orchestrator.consumer_progress"))
        return [tuple(row) for row in found]


DONE = [("commands", 0, 40, "incarnation")]


def test_a_micro_batch_is_one_transaction_with_its_progress(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = ToyHandler()
    processed = processor_of(handler).process(entries(1, 2, 3), NEXT)
    assert processed.pending.is_done
    assert not processed.failures
    assert (handler.handled, toy_positions(engine), progress(engine)) == ([[1, 2, 3]], [1, 2, 3], DONE)
    assert len(topics.of(Topic.RESULTS)) == 3


def test_progress_without_records_is_written_down_and_asks_no_handler(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    handler = ToyHandler()
    processor_of(handler).note_progress(NEXT)
    assert (handler.handled, progress(engine)) == ([], DONE)


@pytest.mark.parametrize("error", [OF_A_RECORD, KeyError("a bug")], ids=["data", "bug"])
def test_progress_without_records_that_can_not_be_written_down_is_no_records_fault(
    processor_of: Callable[..., Processor], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def advance(*_: object) -> None:
        raise error

    monkeypatch.setattr(processing, "advance_progress", advance)
    with pytest.raises(type(error)):
        processor_of(ToyHandler()).note_progress(NEXT)


def test_progress_without_records_is_written_down_when_what_was_missing_is_there(
    engine: Engine, processor_of: Callable[..., Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [LASTING]

    def advance(connection: Connection, positions: NextOffsets) -> None:
        if failures:
            raise failures.pop()
        advance_progress(connection, positions)

    monkeypatch.setattr(processing, "advance_progress", advance)
    assert not processor_of(ToyHandler()).note_progress(NEXT).failures
    assert progress(engine) == DONE


def test_letters_are_of_the_records_that_were_refused_wherever_they_stand(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler counts those that it was given; of the others there is one before and one between them."""
    unreadable = [damaged(PLACE, 50), damaged(PLACE, 51)]
    mixed = [unreadable[0], entry(1), unreadable[1], entry(2), entry(3)]
    handled = metrics.RECORDS.labels("toy")._value
    letters = {reason: metrics.DEAD_LETTERS.labels("toy", reason)._value for reason in ("damaged", "toy_refused")}
    before = handled.get(), {reason: value.get() for reason, value in letters.items()}
    processor_of(Troubled({}, refused=[2])).process(mixed, NEXT)
    assert sorted(event.key for event in topics.events if event.topic is Topic.DEAD_LETTER) == [
        "prefix.commands.v1/0/2",
        "prefix.commands.v1/0/50",
        "prefix.commands.v1/0/51",
    ]
    assert len(topics.of(Topic.RESULTS)) == 2
    assert toy_positions(engine) == [1, 2, 3]
    assert handled.get() == before[0] + 5
    assert {reason: value.get() for reason, value in letters.items()} == {
        "damaged": before[1]["damaged"] + 2,
        "toy_refused": before[1]["toy_refused"] + 1,
    }
    refused = [line for line in logged(caplog, Action.DEAD_LETTERED) if line["reason"] == "toy_refused"]
    assert [(line["role"], line["topic"], line["partition"], line["offset"]) for line in refused] == [("toy", "commands", 0, 2)]


def test_nothing_but_unreadable_records_moves_the_progress_all_the_same(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = ToyHandler()
    processor_of(handler).process([damaged(PLACE, 5)], NEXT)
    assert (handler.handled, progress(engine), len(topics.of(Topic.DEAD_LETTER))) == ([], DONE, 1)


def test_the_age_is_that_of_the_first_record_in_seconds(processor_of: Callable[..., Processor]) -> None:
    now_ms = int(time.time() * 1000)
    processor_of(ToyHandler()).process([entry(1, written_ms=now_ms - 3_600_000), entry(2, written_ms=now_ms)], {})
    assert 3_600 <= metrics.RECORD_AGE_SECONDS.labels("toy")._value.get() < 3_660


@pytest.mark.parametrize("position", [1, 2, 3, 4, 5])
def test_the_guilty_record_is_given_up_and_the_others_are_handled_without_it(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics, position: int
) -> None:
    handler = Troubled({position: OF_A_RECORD})
    processed = processor_of(handler).process(entries(1, 2, 3, 4, 5), NEXT)
    assert not processed.failures
    assert handler.given_up == [position]
    assert toy_positions(engine) == sorted({1, 2, 3, 4, 5, 1_000} - {position})
    assert progress(engine) == DONE
    assert len(topics.of(Topic.RESULTS)) == 4
    assert topics.of(Topic.COMMANDS) == [command(2_000).value], "what giving up produces is sent"
    assert [event.key for event in topics.events if event.topic is Topic.DEAD_LETTER] == [f"prefix.commands.v1/0/{position}"]


def test_the_log_line_of_a_record_that_fails_can_be_filtered_by_each_field(
    processor_of: Callable[..., Processor], caplog: pytest.LogCaptureFixture
) -> None:
    """It says which record, and nothing of what is in it."""
    processor_of(Troubled({3: KeyError("the notes of somebody")})).process(entries(1, 2, 3, 4), NEXT)
    place = {"role": "toy", "batch": str(BATCH_ID), "topic": "commands", "partition": 0, "offset": 3}
    [failed] = logged(caplog, Action.RECORD_FAILED)
    [letter] = logged(caplog, Action.DEAD_LETTERED)
    assert failed.items() >= {"action": "record_failed", "level": "error", **place}.items()
    assert letter.items() >= {"action": "dead_lettered", "level": "warning", "reason": "given_up", **place}.items()
    assert str(failed["error"]).startswith("KeyError at ")
    assert "somebody" not in caplog.text


def test_a_record_that_the_handler_refuses_by_raising_is_not_given_up(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = Troubled({2: RefusedError("no_such_batch", "as asked")})
    processor_of(handler).process(entries(1, 2, 3), NEXT)
    assert (handler.given_up, toy_positions(engine), progress(engine)) == ([], [1, 3], DONE)
    [letter] = topics.of(Topic.DEAD_LETTER)
    assert b"no_such_batch" in letter


def test_what_passes_is_tried_again_as_a_whole(engine: Engine, processor_of: Callable[..., Processor]) -> None:
    handler = Troubled({2: PASSING}, times=2)
    assert not processor_of(handler).process(entries(1, 2), NEXT).failures
    assert handler.handled == [[1, 2]] * 3
    assert (toy_positions(engine), progress(engine)) == ([1, 2], DONE)


@pytest.mark.parametrize("error", [LOCKED, RIVAL], ids=["locked", "rival"])
@pytest.mark.parametrize(("times", "is_done"), [(2, True), (3, False)])
def test_a_lock_or_a_rival_is_tried_a_few_times_and_then_waits_its_turn(
    engine: Engine, processor_of: Callable[..., Processor], error: Exception, times: int, is_done: bool
) -> None:
    processor = processor_of(handler := Troubled({2: error}, times=times))
    for _ in range(2):
        handler.times = times
        processed = processor.process(entries(1, 2), NEXT)
        assert bool(processed.failures) is not is_done
    assert handler.handled == [[1, 2]] * (2 * (times + is_done)), "each micro-batch has its tries"
    assert progress(engine) == (DONE if is_done else [])


def test_what_may_last_is_nobodys_fault_and_nothing_of_it_stays(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handled = metrics.RECORDS.labels("toy")._value
    before = handled.get()
    handler = Troubled({2: LASTING})
    mixed = [damaged(PLACE, 50), *entries(1, 2, 3)]
    [failure] = processor_of(handler).process(mixed, NEXT).failures
    assert (list(failure.entries), failure.error) == (mixed[1:], LASTING)
    assert handler.handled == [[1, 2, 3]], "it may take long each time"
    assert (handler.given_up, toy_positions(engine), progress(engine)) == ([], [], [])
    assert len(topics.of(Topic.DEAD_LETTER)) == 1, "what is unreadable is put aside whatever the others meet"
    assert handled.get() == before + 1


def test_of_a_micro_batch_that_is_divided_one_part_may_wait(engine: Engine, processor_of: Callable[..., Processor]) -> None:
    """The progress waits with it: it is of the whole."""
    handler = Troubled({2: OF_A_RECORD, 3: LASTING})
    [failure] = processor_of(handler).process(entries(1, 2, 3, 4), NEXT).failures
    assert [each.offset for each in failure.entries] == [3, 4]
    assert (handler.given_up, toy_positions(engine), progress(engine)) == ([2], [1, 1_000], [])


@pytest.mark.parametrize(
    ("positions", "last_chance", "is_given_up"),
    [
        ([2], "Coded 57014", True),
        ([2], "Coded 42501", False),
        ([2], None, False),
        ([1, 2], "Coded 57014", False),
    ],
    ids=["in the same way", "in another way", "before its time", "not alone"],
)
def test_the_last_chance_is_of_one_record_that_fails_in_the_same_way(
    processor_of: Callable[..., Processor], positions: Sequence[int], last_chance: str | None, is_given_up: bool
) -> None:
    handler = Troubled({2: LASTING})
    processor = processor_of(handler)
    failures = processor.process(entries(*positions), NEXT, last_chance=last_chance).failures
    assert (bool(failures), handler.given_up) == (not is_given_up, [2] if is_given_up else [])
    assert processor.process(entries(2), NEXT).failures, "it was the last chance of that micro-batch only"


@pytest.mark.parametrize(
    ("last", "last_chance", "fails"),
    [
        (LASTING, None, True),
        (LASTING, "Coded 42501", True),
        (OF_A_RECORD, None, False),
        (KeyError("a bug"), None, False),
    ],
    ids=["may last", "may last otherwise", "its own fault", "a bug"],
)
def test_a_record_that_can_not_even_be_given_up(
    engine: Engine,
    processor_of: Callable[..., Processor],
    topics: Topics,
    last: Exception,
    last_chance: str | None,
    fails: bool,
) -> None:
    failures = processor_of(Troubled({2: OF_A_RECORD}, last=last)).process(entries(2), NEXT, last_chance=last_chance).failures
    assert [failure.error for failure in failures] == [last] * fails
    assert (len(topics.of(Topic.DEAD_LETTER)), progress(engine)) == ((0, []) if fails else (1, DONE))
    assert toy_positions(engine) == [], "nothing of what giving up did has stayed"


def test_a_record_that_fails_in_the_way_of_its_last_chance_is_put_aside(
    processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = Troubled({2: LASTING}, last=LASTING)
    assert not processor_of(handler).process(entries(2), NEXT, last_chance="Coded 57014").failures
    [letter] = topics.of(Topic.DEAD_LETTER)
    assert b'"internal_error"' in letter
    assert b'"Coded 57014"' in letter


def test_giving_up_is_tried_again_when_the_database_was_away(engine: Engine, processor_of: Callable[..., Processor]) -> None:
    handler = Troubled({2: OF_A_RECORD}, last=PASSING)
    handler.last_times = 1
    assert not processor_of(handler).process(entries(1, 2), NEXT).failures
    assert (handler.given_up, toy_positions(engine)) == ([2, 2], [1, 1_000])


def test_who_is_to_stop_tries_nothing_again(
    engine: Engine, processor_of: Callable[..., Processor], stopping: threading.Event
) -> None:
    stopping.set()
    handler = Troubled({2: LOCKED})
    with pytest.raises(DBAPIError):
        processor_of(handler).process(entries(1, 2), NEXT)
    assert (handler.handled, progress(engine)) == ([[1, 2]], [])


def test_who_is_to_stop_gives_up_what_no_other_try_could_help(
    engine: Engine, processor_of: Callable[..., Processor], stopping: threading.Event
) -> None:
    stopping.set()
    handler = Troubled({2: OF_A_RECORD})
    assert not processor_of(handler).process(entries(1, 2), NEXT).failures
    assert (handler.given_up, toy_positions(engine), progress(engine)) == ([2], [1, 1_000], DONE)


class Preparing:
    """Notes what it is given, and whether a transaction was open."""

    def __init__(self, engine: Engine, error: Exception | None = None) -> None:
        self.given: list[list[int]] = []
        self.open: list[int] = []
        self._engine = engine
        self._error = error

    def prepare(self, records: Sequence[Record[EventData]], stopping: threading.Event) -> None:
        self.given.append([record.offset for record in records])
        self.open.append(self._engine.pool.checkedout())  # type: ignore[attr-defined]
        if self._error is not None:
            raise self._error


def test_a_preparation_comes_first_outside_of_any_transaction_and_sees_what_is_readable(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    preparing = Preparing(engine)
    processor = processor_of(ToyHandler(), preparing)
    processor.process([damaged(PLACE, 50), *entries(1, 2)], NEXT)
    processor.process([damaged(PLACE, 50)], NEXT)
    processor.note_progress(NEXT)
    assert (preparing.given, preparing.open) == ([[1, 2]], [0])


def test_what_a_preparation_raises_is_judged_as_what_the_handler_raises(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    handler = ToyHandler()
    processor = processor_of(handler, Preparing(engine, LASTING))
    [failure] = processor.process(entries(1), NEXT).failures
    assert (failure.error, handler.handled) == (LASTING, [])
