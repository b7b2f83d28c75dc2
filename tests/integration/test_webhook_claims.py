"""Which deliveries a process takes, in which order, and how many."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.process.settings import Settings
from orchestrator.webhooks import deliveries as webhook_deliveries
from orchestrator.webhooks.deliveries import LEASE, Claimed, Ended, Turns, claim_deliveries, end_attempt
from orchestrator.webhooks.model import Attempt
from schemas.statuses import DeliveryState
from tests.support.two_transactions import begun_meanwhile
from tests.support.webhooks import BROKEN, URL, claim, end, make_deliveries, make_webhook, shift, states


def test_a_claimed_delivery_is_left_to_its_process_until_the_lease_ends(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    [event_id] = make_deliveries(engine, webhook, 1)
    [first] = claim(engine)
    assert (first.event_id, first.attempts, first.previous_secret) == (event_id, 1, None)
    assert claim(engine) == []
    shift(engine, due_at=LEASE)
    [second] = claim(engine)
    assert (second.event_id, second.attempts) == (event_id, 2)
    # The first process comes too late with a failure, which says nothing about the attempt under way.
    assert end(engine, first) is None
    assert states(engine, webhook) == ["pending"]
    # A late success counts.
    assert end(engine, first, Attempt(1, None, 200, "")) == Ended(DeliveryState.DELIVERED)
    assert end(engine, second) is None
    assert states(engine, webhook) == ["delivered"]


def test_a_failure_that_comes_while_another_process_claims_the_delivery_says_nothing(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 1)
    [first] = claim(engine)
    shift(engine, due_at=LEASE)

    def claim_again(connection: Connection) -> None:
        assert claim_deliveries(connection, under_way=(), turns=Turns(), most=1, connections=400)

    assert begun_meanwhile(engine, claim_again, lambda connection: end_attempt(connection, first, BROKEN)) is None
    assert claim(engine) == [], "the other process has it for the whole lease"


def test_what_another_process_claims_at_the_same_moment_is_left_out(engine: Engine, settings: Settings) -> None:
    make_deliveries(engine, make_webhook(engine, settings, URL), 2)
    with engine.connect() as other, other.begin():
        [theirs] = claim_deliveries(other, under_way=(), turns=Turns(), most=1, connections=400)
        [ours] = claim(engine)
    assert ours.event_id != theirs.event_id
    assert claim(engine) == []


def test_no_more_are_claimed_than_may_be_under_way_and_a_long_queue_hides_no_other(engine: Engine, settings: Settings) -> None:
    long, short, disabled = (make_webhook(engine, settings, URL) for _ in range(3))
    for webhook, count in ((long, 10), (disabled, 1), (short, 1)):
        make_deliveries(engine, webhook, count)
    with engine.begin() as connection:
        told = text("UPDATE orchestrator.webhook SET disabled_at = now(), disabled_because = 'gone' WHERE webhook_id = :id")
        connection.execute(told, {"id": disabled})
    [first] = claim(engine, most=1, connections=2)
    assert first.webhook_id == long
    found = claim(engine, under_way=[first])
    assert sorted(each.webhook_id for each in found) == sorted([long] * 3 + [short])
    assert claim(engine, under_way=[first, *found]) == []


def test_half_of_the_connections_are_for_first_requests_to_receivers_that_work(engine: Engine, settings: Settings) -> None:
    failing, working = ([make_webhook(engine, settings, URL) for _ in range(count)] for count in (9, 3))
    for webhook in (*failing, *working):
        make_deliveries(engine, webhook, 6)
    with engine.begin() as connection:
        told = text("UPDATE orchestrator.webhook SET failing_since = now() WHERE webhook_id = ANY (CAST(:ids AS uuid[]))")
        connection.execute(told, {"ids": [str(webhook) for webhook in failing]})
    under_way = claim(engine, connections=11)
    # Each receiver that works has one. The others get the rest of their half, one each.
    assert {each.webhook_id for each in under_way if each.is_first} == set(working)
    others = [each.webhook_id for each in under_way if not each.is_first]
    assert (len(others), len(set(others)), set(others) <= set(failing)) == (5, 5, True)
    # Those that work have no second one while the other half is full, and three more may come.
    assert claim(engine, under_way=under_way, connections=11) == []
    late = make_webhook(engine, settings, URL)
    make_deliveries(engine, late, 6)
    [of_late] = claim(engine, under_way=under_way, connections=11)
    assert of_late.webhook_id == late
    # As soon as there is room, the webhook with the fewest is next.
    [other, *rest] = [each for each in under_way if not each.is_first]
    end(engine, other)
    left = [of_late, *(each for each in under_way if each is not other)]
    [following] = claim(engine, under_way=left, connections=11)
    assert (following.webhook_id in failing, following.webhook_id in {each.webhook_id for each in rest}) == (True, False)


def test_what_has_been_due_for_longest_is_claimed_first(engine: Engine, settings: Settings) -> None:
    """There is room for one request. A changed row stands behind the others in the table's file."""
    early, late = (make_webhook(engine, settings, URL) for _ in range(2))
    of_late, of_early = make_deliveries(engine, late, 2), make_deliveries(engine, early, 2)
    aged = text("UPDATE orchestrator.webhook_delivery SET due_at = now() - :by * interval '1 minute' WHERE event_id = :event_id")
    with engine.begin() as connection:
        for event_id, minutes in ((of_late[0], 1), (of_early[0], 2), (of_late[1], 3), (of_early[1], 4)):
            connection.execute(aged, {"event_id": event_id, "by": minutes})
    order: list[UUID] = []
    for _ in range(4):
        [claimed] = claim(engine, connections=1)
        end(engine, claimed, Attempt(1, None, 200, ""))
        order.append(claimed.event_id)
    assert order == [of_early[1], of_late[1], of_early[0], of_late[0]]


@pytest.mark.parametrize("fails", [False, True])
def test_receivers_with_old_deliveries_take_turns_with_others(engine: Engine, settings: Settings, fails: bool) -> None:
    """One request at a time fits, and each receiver has more to be told than it is told here."""
    old = [make_webhook(engine, settings, URL) for _ in range(2)]
    for webhook in old:
        make_deliveries(engine, webhook, 6)
    shift(engine, due_at=timedelta(hours=1))
    late = make_webhook(engine, settings, URL)
    make_deliveries(engine, late, 6)
    failing = text("UPDATE orchestrator.webhook SET failing_since = CASE WHEN :fails THEN now() END")
    turns, served = Turns(), []
    for _ in range(6):
        with engine.begin() as connection:
            connection.execute(failing, {"fails": fails})
        # One place in each half, of which a receiver is in one only.
        [claimed] = claim(engine, connections=2, most=1, turns=turns)
        turns.note([claimed])
        end(engine, claimed, Attempt(1, None, 200, ""))
        served.append(claimed.webhook_id)
    assert set(served[:3]) == set(served[3:]) == {*old, late}


def test_so_many_turns_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_deliveries, "_REMEMBERED", 2)
    turns = Turns()
    claimed = [Claimed(UUID(int=number), uuid4(), "", "", 1, True, URL, b"", None) for number in range(3)]
    for each in (claimed[0], claimed[1], claimed[0], claimed[2]):
        turns.note([each])
    assert turns.of == {claimed[0].webhook_id: 3, claimed[2].webhook_id: 4}
