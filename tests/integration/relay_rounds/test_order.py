"""The order of a stream, and how much may be under way (tests/support/relay_rounds.py)."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Engine

from producers import relay as module
from tests.support.outbox import event, insert, rows_left
from tests.support.relay_rounds import SLOW_S, WAITS, Broker, Running, batches, has_sent, in_trouble, insert_one_each
from tests.support.waiting import eventually

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
