"""The outbox relay round by round: a real table, a broker that the test controls, and a clock that stands still unless it is moved.

While the clock stands, the relay does nothing that depends on time: no poll, no retry, no verdict about a slow place. So whatever it does
then, it does because it was woken, or because it knows that there is more.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import cast
from uuid import UUID, uuid4

import pytest
from psycopg2 import InterfaceError, OperationalError
from psycopg2.extensions import Notify
from sqlalchemy import Connection, Engine, text

from orchestrator.batches.publishing import Delivery, Trouble
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.outbox import SLOTS, slot_of
from orchestrator.storage.relay_wakeup import CHANNEL, UNHURRIED
from producers import relay as module
from producers.relay import OutboxRelay
from schemas.envelope import OutgoingEvent
from tests.integration.test_relay import event, insert, rows_left
from tests.support.log_lines import logged
from tests.support.waiting import eventually

WAITS = Trouble("the broker says nothing yet")
NOT_NOW = Trouble("not now")
FOR_GOOD = Trouble("too large", is_permanent=True)

ROUND_S, SLOW_S, CONTACT_S, DRAIN_S, LEASE_S = 0.11, 2.0, 5.0, 5.0, 40.0


@dataclass
class Broker:
    """Accepts everything, unless `verdict` says otherwise."""

    verdict: Callable[[OutgoingEvent], Trouble | None] = lambda _: None
    place_of: Callable[[OutgoingEvent], str] = lambda each: each.topic.value
    now: float = 1_000.0
    is_up: bool = True
    bug: Exception | None = None
    calls: list[list[OutgoingEvent]] = field(default_factory=list)
    accepted: list[OutgoingEvent] = field(default_factory=list)
    abandoned: int = 0
    is_awaited: bool = False
    """Whether the relay has begun to wait for what it sent last. Only then does moving the clock end that round."""
    _live: list[Delivery] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    @property
    def sent(self) -> list[OutgoingEvent]:
        return [each for call in list(self.calls) for each in call]

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        if self.bug is not None:
            raise self.bug
        self.is_awaited = False
        self.calls.append(list(events))
        self._live.append(Delivery(events))
        return self._live[-1]

    def poll(self, timeout_s: float) -> None:
        assert timeout_s > 0
        time.sleep(0.001)
        for delivery in self._live:
            for index in list(delivery.outstanding):
                verdict = self.verdict(delivery.events[index])
                if verdict is not WAITS:
                    if verdict is None:
                        self.accepted.append(delivery.events[index])
                    delivery.settle(index, verdict)
        self.is_awaited = True

    def place(self, event: OutgoingEvent) -> str:
        return self.place_of(event)

    def abandon(self) -> None:
        self.abandoned += 1
        self._live.clear()

    def is_reachable(self) -> bool:
        return self.is_up


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(module, "STOP_LOOK_S", 0.01)
    return settings.model_copy(update={"relay_poll_ms": 100, "relay_lease_ms": int(1000 * LEASE_S), "relay_batch_rows": 100})


@pytest.fixture
def broker() -> Broker:
    return Broker()


class Running:
    """A relay in a thread. An error that it raises is kept."""

    def __init__(self, settings: Settings, broker: Broker, engine: Engine) -> None:
        self.broker = broker
        self.relay = OutboxRelay(settings, broker, broker.clock)
        self.raised: BaseException | None = None
        self._engine = engine
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.relay.run()
        except BaseException as error:
            self.raised = error

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def owns_all(self) -> "Running":
        eventually(lambda: len(self.relay.slots) == SLOTS)
        return self

    def wake(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(f"NOTIFY {CHANNEL}"))

    def turns(self) -> None:
        """Waits until the relay has completed a round that began after this call."""
        for _ in range(2):
            self._turns_once(self.relay.health._turned_at)

    def _turns_once(self, last: float) -> None:
        self.wake()
        eventually(lambda: self.relay.health._turned_at != last)

    def moves_to(self, moment: float) -> None:
        """Moves the clock, and waits until the relay has seen it."""
        self.broker.now = moment
        self.turns()

    def moves_by(self, seconds: float) -> None:
        self.moves_to(self.broker.now + seconds)

    def round_ends(self, look: Callable[[], object]) -> None:
        """Waits until the relay has sent what `look` sees and has begun to wait for it. Then moves the clock, and waits until the round is
        over."""
        eventually(lambda: look() and self.broker.is_awaited)
        last = self.relay.health._turned_at
        self.broker.now += ROUND_S
        eventually(lambda: self.relay.health._turned_at != last)

    def soon(self, look: Callable[[], object]) -> None:
        """Waits for something that the relay does by itself. Moves the clock by less than any pause, and more than the wait for
        acknowledgements."""
        end = self.broker.now + 0.04

        def has_come() -> bool:
            self.broker.now = min(end, self.broker.now + 0.002)
            return bool(look())

        eventually(has_come)

    def end(self) -> None:
        self.relay.stop()
        self._thread.join(0.05)
        while self._thread.is_alive():
            self.broker.now += DRAIN_S
            self._thread.join(0.05)


@pytest.fixture
def start(settings: Settings, broker: Broker, engine: Engine) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(own: Broker | None = None, **changes: object) -> Running:
        started.append(Running(settings.model_copy(update=changes), own or broker, engine))
        return started[-1]

    yield run
    for each in started:
        each.end()
    assert [each.raised for each in started if each.raised is not broker.bug] == []


def batches(count: int, *, slot: int | None = None) -> list[UUID]:
    """This many batches of a slot."""
    found: list[UUID] = []
    while len(found) < count:
        batch_id = uuid4()
        if slot is None or slot_of(batch_id) == slot:
            found.append(batch_id)
    return found


def insert_one_each(engine: Engine, batch_ids: Sequence[UUID], *, padding: int = 0) -> list[OutgoingEvent]:
    """Inserts a row for each batch."""
    made = [event(batch_id, 0, padding=padding) for batch_id in batch_ids]
    for batch_id, each in zip(batch_ids, made, strict=True):
        insert(engine, batch_id, [each])
    return made


def held(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT held_for, held_why FROM orchestrator.outbox WHERE held_for IS NOT NULL ORDER BY held_for, held_why")
        )
        return [(row.held_for, row.held_why) for row in rows]


def end_sessions(engine: Engine) -> None:
    """Ends the sessions of this database's relays, as a restart of the server does."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'bulkreg relay' AND datname = current_database()"
            )
        )


def in_trouble() -> float:
    return float(metrics.OUTBOX_PLACES_IN_TROUBLE._value.get())


# --- Order -----------------------------------------------------------------------------------------------------------------------


def test_later_rows_of_a_stream_wait_for_the_acknowledgement_of_the_first_and_other_streams_do_not(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    stuck, free = batches(2)
    of_stuck, of_free = ([event(batch_id, number) for number in range(3)] for batch_id in (stuck, free))
    insert(engine, stuck, of_stuck)
    insert(engine, free, of_free)
    broker.verdict = lambda each: WAITS if each == of_stuck[0] else None
    relay = start().owns_all()
    relay.round_ends(lambda: broker.sent)
    eventually(lambda: broker.accepted == of_free and rows_left(engine) == 3)
    relay.turns()
    assert [each for each in broker.sent if each.key == str(stuck)] == of_stuck[:1]
    assert rows_left(engine) == 3
    broker.verdict = lambda _: None
    # The relay is not woken, and the clock stands. It knows that more of the stream waits.
    eventually(lambda: rows_left(engine) == 0)
    assert [each for each in broker.sent if each.key == str(stuck)] == of_stuck


def test_rows_that_came_while_their_stream_was_busy_are_read_when_it_is_free(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    [batch_id] = batches(1)
    insert(engine, batch_id, [event(batch_id, 0)])
    broker.verdict = lambda _: WAITS
    start().owns_all().round_ends(lambda: broker.sent)
    insert(engine, batch_id, [event(batch_id, 1)])
    eventually(lambda: broker.sent == [event(batch_id, 0)])
    broker.verdict = lambda _: None
    eventually(lambda: rows_left(engine) == 0)
    assert broker.sent == [event(batch_id, 0), event(batch_id, 1)]


@pytest.mark.parametrize("rows", [3, 4, 5, 6])
def test_more_rows_than_one_read_are_published_without_waking_the_relay(
    engine: Engine, broker: Broker, start: Callable[..., Running], rows: int
) -> None:
    made = insert_one_each(engine, batches(rows))
    start(relay_batch_rows=2)
    eventually(lambda: rows_left(engine) == 0)
    assert [len(call) for call in broker.calls] == [2] * (rows // 2) + [1] * (rows % 2)
    assert broker.accepted == made


def test_a_read_has_no_more_bytes_than_others_may_have_to_wait_for(
    engine: Engine, broker: Broker, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = insert_one_each(engine, batches(5))
    monkeypatch.setattr(module, "MAX_ROUND_BYTES", 2 * len(made[0].value))
    start()
    eventually(lambda: rows_left(engine) == 0)
    assert [len(call) for call in broker.calls] == [2, 2, 1]


# --- What may be under way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["MAX_FLIGHT_ROWS", "MAX_FLIGHT_BYTES"])
def test_no_more_is_sent_than_may_be_under_way(
    engine: Engine, broker: Broker, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    made = insert_one_each(engine, batches(5))
    monkeypatch.setattr(module, limit, 3 if limit == "MAX_FLIGHT_ROWS" else 3 * len(made[0].value))
    broker.verdict = lambda _: WAITS
    relay = start(relay_batch_rows=2).owns_all()
    for count in (2, 3):
        relay.round_ends(partial(has_sent, broker, count))
    relay.turns()
    assert broker.sent == made[:3]
    broker.verdict = lambda each: WAITS if each == made[0] else None
    eventually(lambda: broker.sent == made)


def test_events_under_way_to_places_in_trouble_take_no_room_from_others_up_to_a_limit(
    engine: Engine, broker: Broker, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = insert_one_each(engine, batches(2))
    size = len(stuck[0].value)
    monkeypatch.setattr(module, "MAX_FLIGHT_BYTES", 2 * size)
    monkeypatch.setattr(module, "MAX_TOTAL_FLIGHT_BYTES", 4 * size)
    broker.place_of = lambda each: each.key
    broker.verdict = lambda _: WAITS
    relay = start().owns_all()
    relay.round_ends(lambda: len(broker.sent) == 2)
    more = insert_one_each(engine, batches(3))
    relay.turns()
    assert broker.sent == stuck, "there must be no room before their place is known to be in trouble"
    broker.now += SLOW_S
    relay.wake()
    relay.round_ends(lambda: broker.sent == stuck + more[:2])
    relay.moves_by(SLOW_S)
    assert in_trouble() == 4
    relay.turns()
    assert broker.sent == stuck + more[:2]
    broker.verdict = lambda _: None
    eventually(lambda: rows_left(engine) == 0)
    assert in_trouble() == 0


# --- Places in trouble ---------------------------------------------------------------------------------------------------------------


def has_sent(broker: Broker, count: int) -> bool:
    return len(broker.sent) == count


def by_letter(first: Sequence[OutgoingEvent]) -> Callable[[OutgoingEvent], str]:
    """These events belong to the place `a`, all others to `b`."""
    keys = {each.key for each in first}
    return lambda each: "a" if each.key in keys else "b"


def test_a_place_that_is_silent_for_too_long_gets_nothing_more_until_it_responds(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    first, second, third = batches(3)
    made = [event(each, 0) for each in (first, second, third)]
    broker.place_of = by_letter(made)
    broker.verdict = lambda each: WAITS if each == made[0] else None
    insert(engine, first, made[:1])
    began = broker.now
    relay = start().owns_all()
    relay.round_ends(lambda: broker.sent)
    relay.moves_to(began + SLOW_S - 0.001)
    assert in_trouble() == 0
    insert(engine, second, made[1:2])
    relay.turns()
    eventually(lambda: broker.accepted == made[1:2], what="an event for a place that may only be busy")
    # The place acknowledged something, but not the row that waits.
    relay.moves_to(began + SLOW_S)
    assert in_trouble() == 1
    insert(engine, third, made[2:])
    others = insert_one_each(engine, batches(1))
    relay.turns()
    eventually(lambda: held(engine) == [("a", "its place is in trouble")])
    eventually(lambda: others[0] in broker.accepted)
    relay.moves_by(1.0)
    assert made[2] not in broker.sent, "the place must get no probe while it still has a row"
    broker.verdict = lambda _: None
    eventually(lambda: rows_left(engine) == 0)
    assert broker.accepted.count(made[2]) == 1
    assert in_trouble() == 0


def test_a_failing_place_gets_one_probe_of_each_slot_and_then_everything(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    made = insert_one_each(engine, [*batches(3, slot=2), *batches(2, slot=5)])
    probes = [made[0], made[3]]
    broker.place_of = by_letter(made)
    broker.verdict = lambda each: NOT_NOW if each in made else None
    is_held = metrics.OUTBOX_HELD.labels("batches")._value
    before = is_held.get()
    relay = start().owns_all()
    eventually(lambda: held(engine) == [("a", "not now")] * 5)
    others = insert_one_each(engine, batches(1))
    relay.turns()
    eventually(lambda: broker.accepted == others)
    assert broker.sent == made + others
    assert is_held.get() == before + 5
    broker.now += 0.1
    relay.soon(lambda: len(broker.calls) == 3)  # The relay is not woken. It knows when to try again.
    assert broker.calls[2] == probes
    relay.turns()
    relay.turns()
    assert len(broker.calls) == 3, "the pause after the second failure must be twice as long"
    assert is_held.get() == before + 5, "rows that are held already must not be counted again"
    broker.verdict = lambda _: None
    broker.now += 0.2
    relay.soon(lambda: rows_left(engine) == 0)
    assert broker.calls[3] == probes
    assert sorted(broker.accepted[1:3]) == sorted(probes)
    assert in_trouble() == 0


def test_a_place_whose_probe_fails_under_another_name_waits_as_well(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    """An earlier relay held the rows for a place that has another name now, because the topic got more partitions."""
    made = insert_one_each(engine, batches(3, slot=2))
    with engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.outbox SET slot = -1 - slot, held_for = 'before', held_why = 'not now'"))
    broker.place_of = lambda _: "now"
    broker.verdict = lambda _: NOT_NOW
    relay = start().owns_all()
    eventually(lambda: [place for place, _ in held(engine)] == ["before", "before", "now"])
    relay.turns()
    relay.turns()
    assert broker.sent == made[:1], "the other rows of that place must not be tried one after the other"
    broker.verdict = lambda _: None
    broker.now += 1.0
    relay.soon(lambda: rows_left(engine) == 0)
    assert in_trouble() == 0


def test_a_row_with_trouble_of_its_own_waits_alone(engine: Engine, broker: Broker, start: Callable[..., Running]) -> None:
    guilty, *others = made = insert_one_each(engine, batches(3))
    broker.verdict = lambda each: NOT_NOW if each == guilty else None
    relay = start().owns_all()
    eventually(lambda: held(engine) == [(f"batches:{guilty.key}", "not now")])
    assert sorted(broker.accepted) == sorted(others)
    more = insert_one_each(engine, batches(2))
    relay.turns()
    eventually(lambda: sorted(broker.accepted) == sorted([*others, *more]))
    broker.verdict = lambda _: None
    broker.now += 0.1
    relay.soon(lambda: rows_left(engine) == 0)
    assert sorted(broker.accepted) == sorted([*made, *more])


def test_too_many_rows_with_trouble_of_their_own_mean_that_the_place_is_in_trouble(
    engine: Engine, broker: Broker, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 2)
    guilty, well = batches(3), batches(1)
    made = insert_one_each(engine, guilty)
    insert_one_each(engine, well)
    broker.verdict = lambda each: NOT_NOW if each in made else None
    start().owns_all()
    eventually(lambda: len(held(engine)) == 3)
    assert sorted(place.partition(":")[0] + ":" * (":" in place) for place, _ in held(engine)) == [
        "batches",
        "batches:",
        "batches:",
    ]


def test_rows_that_an_earlier_relay_held_are_tried_at_once(engine: Engine, broker: Broker, start: Callable[..., Running]) -> None:
    made = insert_one_each(engine, batches(3, slot=4))
    broker.verdict = lambda _: NOT_NOW
    first = start().owns_all()
    eventually(lambda: len(held(engine)) == 3)
    first.end()
    second = Broker()
    start(second).owns_all().soon(lambda: rows_left(engine) == 0)
    assert second.calls == [made[:1], made[1:]]


def test_a_refused_row_waits_with_its_stream_until_a_relay_starts_and_its_place_continues(
    engine: Engine, broker: Broker, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    guilty, free = batches(2)
    insert(engine, guilty, [event(guilty, 0), event(guilty, 1)])
    insert(engine, free, [event(free, 0), event(free, 1)])
    refused, is_held = metrics.OUTBOX_REFUSED.labels("batches")._value, metrics.OUTBOX_HELD.labels("batches")._value
    before = refused.get(), is_held.get()
    broker.verdict = lambda each: FOR_GOOD if each.key == str(guilty) else None
    relay = start().owns_all()
    eventually(lambda: rows_left(engine) == 2)
    assert held(engine) == [("refused", "too large")]
    relay.moves_by(60)
    end_sessions(engine)
    eventually(lambda: broker.abandoned)
    relay.owns_all()
    others = insert_one_each(engine, batches(1))
    relay.turns()
    eventually(lambda: others[0] in broker.accepted)
    assert [each for each in broker.sent if each.key == str(guilty)] == [event(guilty, 0)], "the same relay must not try it again"
    assert (refused.get(), is_held.get(), in_trouble()) == (before[0] + 1, before[1], 0)
    [line] = logged(caplog, Action.EVENT_REFUSED)
    assert (line["role"], line["batch"], line["topic"], line["error"]) == ("relay", str(guilty), "batches", "too large")
    relay.end()
    start(second := Broker()).owns_all().soon(lambda: rows_left(engine) == 0)
    assert second.accepted == [event(guilty, 0), event(guilty, 1)]


# --- Sessions and slots --------------------------------------------------------------------------------------------------------------


def test_published_events_are_counted(
    engine: Engine, broker: Broker, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = metrics.OUTBOX_PUBLISHED._value.get()
    insert_one_each(engine, batches(3))
    start().owns_all()
    eventually(lambda: metrics.OUTBOX_PUBLISHED._value.get() == before + 3)
    assert metrics.OUTBOX_SLOTS._value.get() == SLOTS
    assert logged(caplog, Action.RELAY_SLOTS)[-1]["slots"] == list(range(SLOTS))


def test_a_relay_with_nothing_under_way_waits_for_no_acknowledgement(broker: Broker, start: Callable[..., Running]) -> None:
    start().owns_all().turns()
    assert not broker.is_awaited


def test_the_pauses_of_a_failing_relay_grow_from_the_shortest_until_a_round_succeeds(
    engine: Engine, broker: Broker, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def note(count: int) -> float:
        failures.append(count)
        return 0.001

    monkeypatch.setattr(module, "backoff_s", note)
    broker.is_up = False
    running = start()
    eventually(lambda: len(failures) >= 3)
    assert failures[:3] == [0, 1, 2]
    broker.is_up = True
    running.owns_all().turns()
    failures.clear()
    end_sessions(engine)
    eventually(lambda: failures)
    assert failures[0] == 0


def test_events_under_way_when_the_session_ended_are_published_again(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    made = insert_one_each(engine, batches(2))
    broker.verdict = lambda _: WAITS
    start().owns_all().round_ends(lambda: broker.sent == made)
    end_sessions(engine)
    eventually(lambda: broker.sent == made * 2)
    assert broker.abandoned == 1
    broker.verdict = lambda _: None
    eventually(lambda: rows_left(engine) == 0)


def test_a_relay_without_a_broker_takes_no_slots(
    engine: Engine, broker: Broker, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    broker.is_up = False
    insert_one_each(engine, batches(1))
    failures = metrics.OUTBOX_FAILURES.labels("broker")._value
    relay = start().relay
    relay.health.broker_contact = True
    before = failures.get()
    eventually(lambda: failures.get() >= before + 2)
    assert (relay.slots, broker.sent, relay.health.broker_contact) == (frozenset(), [], False)
    assert logged(caplog, Action.RELAY_FAILED)
    broker.is_up = True
    eventually(lambda: rows_left(engine) == 0)
    assert relay.health.broker_contact


def test_a_relay_whose_broker_is_away_reports_it_and_gives_its_slots_back_after_the_lease(
    broker: Broker, start: Callable[..., Running]
) -> None:
    began = broker.now
    running = start().owns_all()
    running.turns()
    broker.is_up = False
    running.moves_to(began + CONTACT_S - 0.25)
    assert running.relay.health.broker_contact
    for moment in (CONTACT_S, 4 * CONTACT_S, LEASE_S - CONTACT_S, LEASE_S - 0.25):
        running.moves_to(began + moment)
        assert not running.relay.health.broker_contact
        assert len(running.relay.slots) == SLOTS
    broker.now = began + LEASE_S
    running.wake()  # It may have begun its wait after the clock was moved.
    running.soon(lambda: not running.relay.slots)
    broker.is_up = True
    running.owns_all()


def test_row_72_acknowledgements_show_that_a_broker_responds(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    """The question goes to a broker at random, perhaps to the one that is unreachable. Others acknowledge meanwhile."""
    running = start().owns_all()
    broker.is_up = False
    until = broker.now + 2 * LEASE_S
    while broker.now < until:
        insert_one_each(engine, batches(1))
        running.turns()
        eventually(lambda: rows_left(engine) == 0)
        running.moves_to(broker.now + CONTACT_S / 2)
        assert running.relay.health.broker_contact
        assert len(running.relay.slots) == SLOTS


def test_a_relay_that_is_told_to_stop_waits_for_events_under_way(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    insert_one_each(engine, batches(2))
    broker.verdict = lambda _: WAITS
    running = start().owns_all()
    eventually(lambda: len(broker.sent) == 2 and broker.is_awaited)
    running.relay.stop()
    broker.now += ROUND_S
    eventually(lambda: broker.accepted == [])
    broker.now += DRAIN_S - 0.01 - ROUND_S
    assert not running.has_ended
    broker.verdict = lambda _: None
    eventually(lambda: running.has_ended)
    assert rows_left(engine) == 0


@pytest.mark.parametrize("is_slow", [True, False], ids=["a place in trouble", "for too long"])
def test_a_stopping_relay_waits_neither_for_a_place_in_trouble_nor_forever(
    engine: Engine, broker: Broker, start: Callable[..., Running], is_slow: bool
) -> None:
    insert_one_each(engine, batches(1))
    broker.verdict = lambda _: WAITS
    running = start().owns_all()
    running.round_ends(lambda: broker.sent)
    running.turns()
    if is_slow:
        running.moves_by(SLOW_S)
        assert in_trouble() == 1
    running.relay.stop()
    running.wake()

    def has_ended() -> bool:
        if not is_slow:  # It may begin only now to wait for the events under way.
            broker.now += DRAIN_S
        return running.has_ended

    eventually(has_ended)
    assert rows_left(engine) == 1


def test_a_slot_with_a_row_under_way_is_not_given_back(engine: Engine, broker: Broker, start: Callable[..., Running]) -> None:
    of_each_slot = [batch_id for slot in range(SLOTS) for batch_id in batches(1, slot=slot)]
    made = insert_one_each(engine, of_each_slot)
    broker.verdict = lambda _: WAITS
    first = start().owns_all()
    first.round_ends(lambda: sorted(broker.sent) == sorted(made))
    second = start(Broker(is_up=True))
    for _ in range(5):
        first.broker.now += ROUND_S
        first.turns()
    assert len(first.relay.slots) == SLOTS
    broker.verdict = lambda _: None
    eventually(lambda: rows_left(engine) == 0)

    def is_shared() -> bool:
        for each in (first, second):
            each.broker.now += ROUND_S
        return len(first.relay.slots) == len(second.relay.slots) == SLOTS // 2

    eventually(is_shared)
    assert second.broker.sent == []


def test_a_bug_ends_the_relay(engine: Engine, broker: Broker, start: Callable[..., Running]) -> None:
    broker.bug = KeyError("a bug")
    insert_one_each(engine, batches(1))
    running = start()
    eventually(lambda: running.has_ended)
    assert running.raised is broker.bug
    assert (running.relay.slots, rows_left(engine)) == (frozenset(), 1)


class EndingSession:
    """Stands in for the driver's connection: it receives a last NOTIFY together with its end."""

    def __init__(self, ended: socket.socket) -> None:
        self.closed = 0
        self.notifies: list[Notify] = []
        self._ended = ended

    def fileno(self) -> int:
        if self.closed:
            raise InterfaceError("connection already closed")
        return self._ended.fileno()

    def poll(self) -> None:
        self.closed = 2
        self.notifies.append(Notify(1, CHANNEL, UNHURRIED))
        raise OperationalError("terminating connection")


def test_a_session_that_ends_with_a_last_notification_is_left_to_the_next_statement(settings: Settings, broker: Broker) -> None:
    ended, other_end = socket.socketpair()
    other_end.close()
    with ended:
        session = EndingSession(ended)
        connection = SimpleNamespace(connection=SimpleNamespace(driver_connection=session))
        OutboxRelay(settings, broker, broker.clock)._wait(cast("Connection", connection))
    assert session.closed
