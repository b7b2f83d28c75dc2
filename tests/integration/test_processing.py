"""One micro-batch in the database and on the topics, without a loop: what is done, what waits, and what is put aside."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg2
import pytest
from prometheus_client import REGISTRY
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
from tests.support.shown import shown
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
    """Raises an error for some positions, and another error when it gives them up. Each is raised a number of times, or always."""

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


def test_a_micro_batch_and_its_progress_are_one_transaction(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = ToyHandler()
    before = sizes_and_steps(handler.name)
    processed = processor_of(handler).process(entries(1, 2, 3), NEXT)
    assert processed.pending.is_done
    assert not processed.failures
    assert (handler.handled, toy_positions(engine), progress(engine)) == ([[1, 2, 3]], [1, 2, 3], DONE)
    assert len(topics.of(Topic.RESULTS)) == 3
    counted = [after - earlier for after, earlier in zip(sizes_and_steps(handler.name), before, strict=True)]
    assert counted == [1, 3, 1, 1]


def sizes_and_steps(role: str) -> list[float]:
    """How many micro-batches of how many records were counted, and how many were handled and produced."""
    names: list[tuple[str, dict[str, str]]] = [
        ("bulkreg_micro_batch_records_count", {}),
        ("bulkreg_micro_batch_records_sum", {}),
        ("bulkreg_micro_batch_step_seconds_count", {"step": "handle"}),
        ("bulkreg_micro_batch_step_seconds_count", {"step": "produce"}),
    ]
    found = (REGISTRY.get_sample_value(name, {"role": role, **labels}) for name, labels in names)
    return [value or 0 for value in found]


def test_metrics_count_what_is_committed_once_however_often_it_was_tried(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    counted: list[list[int]] = []

    class Counting(Troubled):
        def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
            handled = super().handle(connection, records)
            return replace(handled, count=lambda: counted.append(toy_positions(engine)))

    processor_of(Counting({2: PASSING}, times=2)).process(entries(1, 2), NEXT)
    assert counted == [[1, 2]]


def test_a_record_that_is_given_up_is_counted_as_well(processor_of: Callable[..., Processor]) -> None:
    counted: list[str] = []

    class Counting(ToyHandler):
        def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
            return replace(super().handle(connection, records), count=lambda: counted.append("handled"))

        def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
            return replace(super().give_up(connection, record, error), count=lambda: counted.append("given up"))

    processor_of(Counting(bugs=frozenset({2}))).process(entries(1, 2), NEXT)
    assert counted == ["handled", "given up"]


def test_progress_without_records_is_stored_without_the_handler(engine: Engine, processor_of: Callable[..., Processor]) -> None:
    handler = ToyHandler()
    processor_of(handler).note_progress(NEXT)
    assert (handler.handled, progress(engine)) == ([], DONE)


@pytest.mark.parametrize("error", [OF_A_RECORD, KeyError("a bug")], ids=["data", "bug"])
def test_progress_without_records_that_can_not_be_stored_is_no_records_fault(
    processor_of: Callable[..., Processor], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def advance(*_: object) -> None:
        raise error

    monkeypatch.setattr(processing, "advance_progress", advance)
    with pytest.raises(type(error)):
        processor_of(ToyHandler()).note_progress(NEXT)


def test_progress_without_records_is_stored_when_the_database_allows_it_again(
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


def test_progress_has_the_time_at_which_it_was_made_and_is_never_lost(engine: Engine) -> None:
    times: list[datetime] = []
    for offset in (40, 50, 45, 50):
        with engine.begin() as connection:
            advance_progress(connection, {(Topic.COMMANDS, 0): Position(offset, "incarnation")})
            [stored] = connection.execute(text("SELECT next_offset, updated_at FROM orchestrator.consumer_progress")).all()
            times.append(stored.updated_at)
    assert stored.next_offset == 50
    assert times[0] < times[1] == times[2] == times[3]


def test_dead_letters_are_of_the_refused_records_wherever_they_are(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler counts only the records that it was given. One of the others is before them and one is between them."""
    unreadable = [damaged(PLACE, 50), damaged(PLACE, 51)]
    mixed = [unreadable[0], entry(1), unreadable[1], entry(2), entry(3)]
    handled = metrics.RECORDS.labels("toy")
    letters = {reason: metrics.DEAD_LETTERS.labels("toy", reason) for reason in ("damaged", "toy_refused")}
    before = shown(handled), {reason: shown(value) for reason, value in letters.items()}
    processor_of(Troubled({}, refused=[2])).process(mixed, NEXT)
    assert sorted(event.key for event in topics.events if event.topic is Topic.DEAD_LETTER) == [
        "prefix.commands.v1/0/2",
        "prefix.commands.v1/0/50",
        "prefix.commands.v1/0/51",
    ]
    assert len(topics.of(Topic.RESULTS)) == 2
    assert toy_positions(engine) == [1, 2, 3]
    assert shown(handled) == before[0] + 5
    assert {reason: shown(value) for reason, value in letters.items()} == {
        "damaged": before[1]["damaged"] + 2,
        "toy_refused": before[1]["toy_refused"] + 1,
    }
    refused = [line for line in logged(caplog, Action.DEAD_LETTERED) if line["reason"] == "toy_refused"]
    assert [(line["role"], line["topic"], line["partition"], line["offset"]) for line in refused] == [("toy", "commands", 0, 2)]


def test_progress_advances_past_unreadable_records(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = ToyHandler()
    processor_of(handler).process([damaged(PLACE, 5)], NEXT)
    assert (handler.handled, progress(engine), len(topics.of(Topic.DEAD_LETTER))) == ([], DONE, 1)


def test_the_age_is_that_of_the_first_record_in_seconds(processor_of: Callable[..., Processor]) -> None:
    now_ms = int(time.time() * 1000)
    processor_of(ToyHandler()).process([entry(1, written_ms=now_ms - 3_600_000), entry(2, written_ms=now_ms)], {})
    assert 3_600 <= shown(metrics.RECORD_AGE_SECONDS.labels("toy")) < 3_660


@pytest.mark.parametrize("position", [1, 2, 3, 4, 5])
def test_the_guilty_record_is_given_up_and_the_others_are_handled(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics, position: int
) -> None:
    handler = Troubled({position: OF_A_RECORD})
    processed = processor_of(handler).process(entries(1, 2, 3, 4, 5), NEXT)
    assert not processed.failures
    assert handler.given_up == [position]
    assert toy_positions(engine) == sorted({1, 2, 3, 4, 5, 1_000} - {position})
    assert progress(engine) == DONE
    assert len(topics.of(Topic.RESULTS)) == 4
    assert topics.of(Topic.COMMANDS) == [command(2_000).value], "the events of giving up must be sent"
    assert [event.key for event in topics.events if event.topic is Topic.DEAD_LETTER] == [f"prefix.commands.v1/0/{position}"]


def test_the_log_line_of_a_failing_record_can_be_filtered_by_each_field(
    processor_of: Callable[..., Processor], caplog: pytest.LogCaptureFixture
) -> None:
    """It names the record, and quotes nothing of it."""
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


def test_a_passing_error_is_retried_with_the_whole_micro_batch(
    engine: Engine, processor_of: Callable[..., Processor], caplog: pytest.LogCaptureFixture
) -> None:
    handler = Troubled({2: PASSING}, times=2)
    assert not processor_of(handler).process(entries(1, 2), NEXT).failures
    assert handler.handled == [[1, 2]] * 3
    assert [line["attempt"] for line in logged(caplog, Action.MICRO_BATCH_RETRIED)] == [1, 2]
    assert (toy_positions(engine), progress(engine)) == ([1, 2], DONE)


def test_the_pauses_between_retries_double_up_to_a_limit(
    processor_of: Callable[..., Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(processing, "sleep_using_event", lambda _stopping: pauses.append)
    monkeypatch.setattr("tenacity.wait.random.uniform", lambda _shortest, longest: longest)
    processor_of(Troubled({1: PASSING}, times=10)).process(entries(1), NEXT)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0])


@pytest.mark.parametrize("error", [LOCKED, RIVAL], ids=["locked", "rival"])
@pytest.mark.parametrize(("times", "is_done"), [(2, True), (3, False)])
def test_a_lock_or_a_rival_is_retried_a_few_times_and_then_postponed(
    engine: Engine, processor_of: Callable[..., Processor], error: Exception, times: int, is_done: bool
) -> None:
    processor = processor_of(handler := Troubled({2: error}, times=times))
    for _ in range(2):
        handler.times = times
        processed = processor.process(entries(1, 2), NEXT)
        assert bool(processed.failures) is not is_done
    assert handler.handled == [[1, 2]] * (2 * (times + is_done)), "each micro-batch must have its own tries"
    assert progress(engine) == (DONE if is_done else [])


def test_a_lasting_error_is_no_records_fault_and_is_rolled_back(
    engine: Engine, processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handled = metrics.RECORDS.labels("toy")
    before = shown(handled)
    handler = Troubled({2: LASTING})
    mixed = [damaged(PLACE, 50), *entries(1, 2, 3)]
    [failure] = processor_of(handler).process(mixed, NEXT).failures
    assert (list(failure.entries), failure.error) == (mixed[1:], LASTING)
    assert handler.handled == [[1, 2, 3]], "it must not be retried, because each try may take long"
    assert (handler.given_up, toy_positions(engine), progress(engine)) == ([], [], [])
    assert len(topics.of(Topic.DEAD_LETTER)) == 1, "the unreadable record must be put aside although the others fail"
    assert shown(handled) == before + 1


def test_one_part_of_a_divided_micro_batch_may_wait(engine: Engine, processor_of: Callable[..., Processor]) -> None:
    """The progress waits with it, because it is the progress of the whole micro-batch."""
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
def test_only_a_single_record_that_fails_in_the_same_way_has_had_its_last_chance(
    processor_of: Callable[..., Processor], positions: Sequence[int], last_chance: str | None, is_given_up: bool
) -> None:
    handler = Troubled({2: LASTING})
    processor = processor_of(handler)
    failures = processor.process(entries(*positions), NEXT, last_chance=last_chance).failures
    assert (bool(failures), handler.given_up) == (not is_given_up, [2] if is_given_up else [])
    assert processor.process(entries(2), NEXT).failures, "the last chance must count for that micro-batch only"


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
def test_a_record_whose_giving_up_fails(
    engine: Engine,
    processor_of: Callable[..., Processor],
    topics: Topics,
    last: Exception,
    last_chance: str | None,
    fails: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = processor_of(Troubled({2: OF_A_RECORD}, last=last)).process(entries(2), NEXT, last_chance=last_chance).failures
    assert [failure.error for failure in failures] == [last] * fails
    assert (len(topics.of(Topic.DEAD_LETTER)), progress(engine)) == ((0, []) if fails else (1, DONE))
    assert toy_positions(engine) == [], "giving up must be rolled back"
    assert len(logged(caplog, Action.GIVE_UP_FAILED)) == (0 if fails else 1)


def test_a_record_whose_last_chance_fails_in_the_same_way_is_put_aside(
    processor_of: Callable[..., Processor], topics: Topics
) -> None:
    handler = Troubled({2: LASTING}, last=LASTING)
    assert not processor_of(handler).process(entries(2), NEXT, last_chance="Coded 57014").failures
    [letter] = topics.of(Topic.DEAD_LETTER)
    assert b'"internal_error"' in letter
    assert b'"Coded 57014"' in letter


def test_giving_up_is_retried_after_the_database_was_away(engine: Engine, processor_of: Callable[..., Processor]) -> None:
    handler = Troubled({2: OF_A_RECORD}, last=PASSING)
    handler.last_times = 1
    assert not processor_of(handler).process(entries(1, 2), NEXT).failures
    assert (handler.given_up, toy_positions(engine)) == ([2, 2], [1, 1_000])


def test_a_stopping_role_retries_nothing(
    engine: Engine, processor_of: Callable[..., Processor], stopping: threading.Event
) -> None:
    stopping.set()
    handler = Troubled({2: LOCKED})
    with pytest.raises(DBAPIError):
        processor_of(handler).process(entries(1, 2), NEXT)
    assert (handler.handled, progress(engine)) == ([[1, 2]], [])


def test_a_stopping_role_gives_up_a_record_that_no_retry_could_help(
    engine: Engine, processor_of: Callable[..., Processor], stopping: threading.Event
) -> None:
    stopping.set()
    handler = Troubled({2: OF_A_RECORD})
    assert not processor_of(handler).process(entries(1, 2), NEXT).failures
    assert (handler.given_up, toy_positions(engine), progress(engine)) == ([2], [1, 1_000], DONE)


class Preparing:
    """Records what it is given, and whether a transaction was open."""

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


def test_a_preparation_runs_before_the_transaction_and_gets_the_readable_records(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    preparing = Preparing(engine)
    processor = processor_of(ToyHandler(), preparing)
    processor.process([damaged(PLACE, 50), *entries(1, 2)], NEXT)
    processor.process([damaged(PLACE, 50)], NEXT)
    processor.note_progress(NEXT)
    assert (preparing.given, preparing.open) == ([[1, 2]], [0])


def test_metrics_tell_of_a_micro_batch_that_was_retried_and_divided(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    def counted() -> dict[str, float]:
        seconds = {
            step: REGISTRY.get_sample_value("bulkreg_micro_batch_step_seconds_count", {"role": "toy", "step": step}) or 0
            for step in ("prepare", "handle", "produce")
        }
        return seconds | {
            "divided": shown(metrics.BISECTIONS.labels("toy")),
            "retried": shown(metrics.RETRIES.labels("toy", "database")),
        }

    def added(handler: ToyHandler, *positions: int) -> dict[str, float]:
        before = counted()
        processor_of(handler, Preparing(engine)).process(entries(*positions), NEXT)
        return {name: count - before[name] for name, count in counted().items()}

    # Of four records, the halves are handled, and the single records of the second half.
    divided = {"prepare": 5, "handle": 1, "produce": 1, "divided": 2, "retried": 0}
    assert added(Troubled({3: OF_A_RECORD}), 1, 2, 3, 4) == divided
    assert added(Troubled({5: PASSING}, times=1), 5) == {"prepare": 2, "handle": 1, "produce": 1, "divided": 0, "retried": 1}


def test_an_error_of_a_preparation_is_handled_like_one_of_the_handler(
    engine: Engine, processor_of: Callable[..., Processor]
) -> None:
    handler = ToyHandler()
    processor = processor_of(handler, Preparing(engine, LASTING))
    [failure] = processor.process(entries(1), NEXT).failures
    assert (failure.error, handler.handled) == (LASTING, [])
