"""The outbox relay on a real PostgreSQL and a real Kafka. Row numbers refer to the fault catalogue (docs/faults.md)."""

import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches.publishing import DeliveryError, Publisher, Trouble
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage import relay_wakeup
from orchestrator.storage.outbox import SLOTS, slot_of
from orchestrator.storage.prepared import run
from orchestrator.storage.relay_wakeup import RelayWaker
from orchestrator.storage.repository import PostgresActivityRepository
from producers import relay as relay_module
from producers.producer import EventProducer
from producers.relay import OutboxRelay
from schemas.envelope import OutgoingEvent, Topic
from tests.support.kafka import Seen, reading
from tests.support.log_lines import logged
from tests.support.outbox import event, insert, rows_left
from tests.support.process import in_process
from tests.support.publishing import SettledAtOnce
from tests.support.relay_wakeup import is_woken
from tests.support.relay_wakeup import relay as listening
from tests.support.waiting import PATIENCE_S, eventually


def numbers_by_batch(seen: Sequence[Seen]) -> dict[str, list[object]]:
    numbers = defaultdict(list)
    for record in seen:
        numbers[record.key].append(record.data["number"])
    return numbers


@contextlib.contextmanager
def running(settings: Settings, publisher: Publisher | None = None) -> Iterator[OutboxRelay]:
    producer = publisher or EventProducer(settings)
    relay = OutboxRelay(settings, producer)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join()
        if isinstance(producer, EventProducer):
            producer.close()


def relay_process() -> None:
    settings = Settings()
    OutboxRelay(settings, EventProducer(settings)).run()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"relay_poll_ms": 100})


def test_rows_are_published_unchanged_and_deleted(settings: Settings, engine: Engine, topics: None) -> None:
    batch_id = uuid4()
    events = [event(batch_id, number) for number in range(3)]
    insert(engine, batch_id, events)
    with running(settings), reading(settings, Topic.BATCHES) as topic:
        found = topic.wait_for(3)
        eventually(lambda: rows_left(engine) == 0)
    assert [(seen.key, seen.headers, seen.value) for seen in found] == [(e.key, dict(e.headers), e.value) for e in events]


# The relay polls only after hours.
NEVER_LOOKS = {"relay_poll_ms": 36_000_000, "relay_lease_ms": 36_000_000}


def test_waker_wakes_the_relay_long_before_the_poll(settings: Settings, engine: Engine, topics: None) -> None:
    settings = settings.model_copy(update=NEVER_LOOKS)
    with running(settings) as relay, reading(settings, Topic.BATCHES) as topic:
        eventually(lambda: len(relay.slots) == SLOTS)
        waker = RelayWaker(settings.worker_url, settings)
        for number in range(5):
            insert(engine, batch_id := uuid4(), [event(batch_id, number)])
            waker.wake()
            topic.wait_for(number + 1)
        waker.close()


def end(engine: Engine, batch_id: UUID, ended: OutgoingEvent) -> None:
    """Adds an event that nobody waits for, as a fold does."""
    with engine.begin() as connection:
        repository = PostgresActivityRepository(connection)
        repository.publish("org", batch_id, [ended])
        repository.wake_relays(hurried=False)


def test_an_event_that_nobody_waits_for_is_published_before_the_poll(settings: Settings, engine: Engine, topics: None) -> None:
    settings = settings.model_copy(update=NEVER_LOOKS)
    with running(settings) as relay:
        eventually(lambda: len(relay.slots) == SLOTS)
        end(engine, batch_id := uuid4(), event(batch_id, 0))
        eventually(lambda: rows_left(engine) == 0)


class Sets(SettledAtOnce):
    """Keeps the sets in which events are sent."""

    def __init__(self) -> None:
        self.sent: list[list[OutgoingEvent]] = []

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        self.sent.append(list(events))


def test_an_event_that_nobody_waits_for_is_published_with_the_next_submission(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "GATHER_S", 36_000.0)
    settings = settings.model_copy(update=NEVER_LOOKS)
    publisher = Sets()
    with running(settings, publisher) as relay:
        eventually(lambda: len(relay.slots) == SLOTS)
        end(engine, ended := uuid4(), first := event(ended, 0))
        insert(engine, submitted := uuid4(), [second := event(submitted, 0)])
        with engine.begin() as connection:
            PostgresActivityRepository(connection).wake_relays()
        eventually(lambda: rows_left(engine) == 0)
    assert publisher.sent == [[first, second]]


def test_waker_that_lost_its_session_uses_another(settings: Settings, engine: Engine, topics: None) -> None:
    settings = settings.model_copy(update=NEVER_LOOKS)
    wakers = text(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name = 'bulkreg waker' AND datname = current_database()"
    )
    with running(settings) as relay, reading(settings, Topic.BATCHES) as topic:
        eventually(lambda: len(relay.slots) == SLOTS)
        waker = RelayWaker(settings.worker_url, settings)
        insert(engine, batch_id := uuid4(), [event(batch_id, 0)])
        waker.wake()
        topic.wait_for(1)
        with engine.begin() as connection:
            assert connection.execute(wakers).scalars().all() == [True]
        insert(engine, batch_id, [event(batch_id, 1)])

        def is_published() -> bool:
            waker.wake()  # As each commit does. The first one finds that the session is lost.
            return rows_left(engine) == 0

        eventually(is_published)
        waker.close()


def test_a_wish_that_comes_while_the_relays_are_woken_wakes_them_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have read the outbox before the commit that the wish is about."""
    sent: list[str] = []

    def notify(connection: Connection, statement: str, values: Mapping[str, object]) -> None:
        run(connection, statement, values)
        sent.append(statement)
        if len(sent) == 1:
            waker.wake()

    monkeypatch.setattr(relay_wakeup, "run", notify)
    with contextlib.closing(RelayWaker(settings.worker_url, settings)) as waker:
        waker.wake()
        eventually(lambda: len(sent) == 2)


def test_waker_goes_on_after_a_bug(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a test's")

    with contextlib.closing(RelayWaker(settings.worker_url, settings)) as waker, listening(settings) as listener:
        with monkeypatch.context() as broken:
            broken.setattr(relay_wakeup, "run", fail)
            waker.wake()
            eventually(lambda: [line["error"] for line in logged(caplog, Action.RELAY_WAKE_FAILED)] == ["KeyError"])
        waker.wake()
        eventually(lambda: is_woken(listener))


def test_waker_can_be_closed_while_the_database_is_away(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # It is bound and does not listen, so connections are refused.
        waker = RelayWaker(settings.worker_url.set(host="127.0.0.1", port=closed.getsockname()[1]), settings)
        waker.wake()
        closing = threading.Thread(target=waker.close, daemon=True)
        closing.start()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
    assert logged(caplog, Action.RELAY_WAKE_FAILED)


def test_relays_share_the_slots_and_keep_the_order_of_each_batch(settings: Settings, engine: Engine, topics: None) -> None:
    batches = [uuid4() for _ in range(20)]

    def write(mine: Sequence[UUID]) -> None:
        for number in range(30):
            for batch_id in mine:
                insert(engine, batch_id, [event(batch_id, 2 * number), event(batch_id, 2 * number + 1)])

    writers = [threading.Thread(target=write, args=[batches[part::4]]) for part in range(4)]
    with running(settings) as first, reading(settings, Topic.BATCHES) as topic:
        eventually(lambda: len(first.slots) == SLOTS)
        for writer in writers:
            writer.start()
        with running(settings) as second:
            eventually(lambda: len(first.slots) == len(second.slots) == SLOTS // 2)
            with running(settings) as third:
                eventually(lambda: third.slots and len(first.slots) <= 6 and len(second.slots) <= 6)
                assert not first.slots & second.slots | second.slots & third.slots | first.slots & third.slots
        for writer in writers:
            writer.join()
        found = topic.wait_for(20 * 60)
    # No relay failed, so each row was published exactly once.
    assert numbers_by_batch(found) == {str(batch_id): list(range(60)) for batch_id in batches}


def test_slots_of_a_killed_relay_are_taken_over(settings: Settings, engine: Engine, topics: None) -> None:
    with running(settings) as survivor, in_process(relay_process, settings) as other:
        eventually(lambda: len(survivor.slots) == SLOTS // 2)
        other.kill()
        for number in range(40):
            insert(engine, batch_id := uuid4(), [event(batch_id, number)])
        with reading(settings, Topic.BATCHES) as topic:
            topic.wait_for(40)
        eventually(lambda: len(survivor.slots) == SLOTS)


def test_row_29_relay_that_loses_its_session_continues_with_another(settings: Settings, engine: Engine, topics: None) -> None:
    kill_relays = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'bulkreg relay' AND datname = current_database()"
    )
    with running(settings) as relay, reading(settings, Topic.BATCHES) as topic:
        for number in range(3):
            eventually(lambda: len(relay.slots) == SLOTS)
            with engine.begin() as connection:
                connection.execute(kill_relays)
            insert(engine, batch_id := uuid4(), [event(batch_id, number)])
            topic.wait_for(number + 1)


class Recorder(SettledAtOnce):
    """A publisher that records the events, and refuses the keys that it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[OutgoingEvent]] = []
        self.refused: set[str] = set()

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        self.calls.append(list(events))
        failed = [index for index, published in enumerate(events) if published.key in self.refused]
        if failed:
            raise DeliveryError(dict.fromkeys(failed, Trouble("refused by the test")))


def test_row_26_parts_of_a_large_batch_let_a_small_one_pass(settings: Settings, engine: Engine) -> None:
    large = uuid4()
    small = next(candidate for candidate in iter(uuid4, None) if slot_of(candidate) == slot_of(large))
    insert(engine, large, [event(large, number, padding=100_000) for number in range(20)])
    insert(engine, small, [event(small, 0)])
    recorder = Recorder()
    with running(settings, recorder):
        eventually(lambda: rows_left(engine) == 0)
    published = [published for call in recorder.calls for published in call]
    assert [e.key for e in published[:2]] == [str(large), str(small)]
    assert [e for e in published if e.key == str(large)] == [event(large, number, padding=100_000) for number in range(20)]
    # A round is short, so a new row does not wait for the whole batch.
    assert max(sum(len(e.value) for e in call) for call in recorder.calls) < 1_500_000


def test_a_batch_that_kafka_refuses_delays_no_other_and_loses_nothing(settings: Settings, engine: Engine) -> None:
    stuck, free = uuid4(), uuid4()
    insert(engine, stuck, [event(stuck, number) for number in range(2)])
    insert(engine, free, [event(free, number) for number in range(2)])
    recorder = Recorder()
    recorder.refused = {str(stuck)}
    with running(settings, recorder):
        eventually(lambda: rows_left(engine) == 2)
        recorder.refused = set()
        eventually(lambda: rows_left(engine) == 0)
    published = [e for call in recorder.calls for e in call if e.key == str(stuck)]
    assert published[-2:] == [event(stuck, 0), event(stuck, 1)]
    assert set(published[:-1]) == {event(stuck, 0)}, "no event of the batch may overtake the refused one"
