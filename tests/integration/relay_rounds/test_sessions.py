"""A relay's session and slots, and how it ends (tests/support/relay_rounds.py)."""

import logging
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
from psycopg2 import InterfaceError, OperationalError
from psycopg2.extensions import Notify
from sqlalchemy import Connection, Engine, text

from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.outbox import SLOTS
from orchestrator.storage.relay_wakeup import CHANNEL, UNHURRIED
from producers import relay as module
from producers.relay import OutboxRelay
from tests.support.log_lines import logged
from tests.support.outbox import rows_left
from tests.support.relay_rounds import (
    CONTACT_S,
    DRAIN_S,
    LEASE_S,
    ROUND_S,
    SLOW_S,
    WAITS,
    Broker,
    Running,
    batches,
    in_trouble,
    insert_one_each,
)
from tests.support.shown import shown
from tests.support.waiting import eventually


def end_sessions(engine: Engine) -> None:
    """Ends the sessions of this database's relays, as a restart of the server does."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'bulkreg relay' AND datname = current_database()"
            )
        )


def test_published_events_are_counted(
    engine: Engine, broker: Broker, start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = shown(metrics.OUTBOX_PUBLISHED)
    insert_one_each(engine, batches(3))
    start().owns_all()
    eventually(lambda: shown(metrics.OUTBOX_PUBLISHED) == before + 3)
    assert shown(metrics.OUTBOX_SLOTS) == SLOTS
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
    failures = metrics.OUTBOX_FAILURES.labels("broker")
    relay = start().relay
    relay.health.broker_contact = True
    before = shown(failures)
    eventually(lambda: shown(failures) >= before + 2)
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


def publish_one(engine: Engine, running: Running) -> None:
    insert_one_each(engine, batches(1))
    running.turns()
    eventually(lambda: rows_left(engine) == 0)


def test_row_72_an_acknowledgement_shows_at_once_that_a_broker_responds_again(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    running = start().owns_all()
    broker.is_up = False
    running.moves_by(CONTACT_S)
    assert not running.relay.health.broker_contact
    publish_one(engine, running)
    assert running.relay.health.broker_contact


def test_row_72_a_relay_gives_its_slots_back_a_lease_after_the_last_acknowledgement(
    engine: Engine, broker: Broker, start: Callable[..., Running]
) -> None:
    """While brokers acknowledge, the relay rarely asks whether one responds."""
    running = start().owns_all()
    broker.is_up = False
    until = broker.now + LEASE_S + CONTACT_S
    while broker.now < until:
        publish_one(engine, running)
        running.moves_by(CONTACT_S / 2)
    running.moves_by(CONTACT_S)
    assert not running.relay.health.broker_contact
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
