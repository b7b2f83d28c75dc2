"""Places in trouble, and rows with trouble of their own (tests/support/relay_rounds.py)."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Engine, text

from orchestrator.process import metrics
from orchestrator.process.actions import Action
from producers import relay as module
from schemas.envelope import OutgoingEvent
from tests.integration.relay_rounds.test_sessions import end_sessions
from tests.support.log_lines import logged
from tests.support.outbox import event, insert, rows_left
from tests.support.relay_rounds import FOR_GOOD, NOT_NOW, SLOW_S, WAITS, Broker, Running, batches, in_trouble, insert_one_each
from tests.support.shown import shown
from tests.support.waiting import eventually


def held(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT held_for, held_why FROM orchestrator.outbox WHERE held_for IS NOT NULL ORDER BY held_for, held_why")
        )
        return [(row.held_for, row.held_why) for row in rows]


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
    is_held = metrics.OUTBOX_HELD.labels("batches")
    before = shown(is_held)
    relay = start().owns_all()
    eventually(lambda: held(engine) == [("a", "not now")] * 5)
    others = insert_one_each(engine, batches(1))
    relay.turns()
    eventually(lambda: broker.accepted == others)
    assert broker.sent == made + others
    assert shown(is_held) == before + 5
    broker.now += 0.1
    relay.soon(lambda: len(broker.calls) == 3)  # The relay is not woken. It knows when to try again.
    assert broker.calls[2] == probes
    relay.turns()
    relay.turns()
    assert len(broker.calls) == 3, "the pause after the second failure must be twice as long"
    assert shown(is_held) == before + 5, "rows that are held already must not be counted again"
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
    refused, is_held = metrics.OUTBOX_REFUSED.labels("batches"), metrics.OUTBOX_HELD.labels("batches")
    before = shown(refused), shown(is_held)
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
    assert (shown(refused), shown(is_held), in_trouble()) == (before[0] + 1, before[1], 0)
    [line] = logged(caplog, Action.EVENT_REFUSED)
    assert (line["role"], line["batch"], line["topic"], line["error"]) == ("relay", str(guilty), "batches", "too large")
    relay.end()
    start(second := Broker()).owns_all().soon(lambda: rows_left(engine) == 0)
    assert second.accepted == [event(guilty, 0), event(guilty, 1)]
