"""Events that a role has sent and Kafka has not acknowledged: how long it waits for them, and when it sends them again."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from consumers.loop import deliveries
from consumers.loop.deliveries import Deliveries
from orchestrator.batches.publishing import Delivery, Trouble
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from schemas.envelope import OutgoingEvent, Topic
from tests.support.log_lines import logged
from tests.support.shown import shown

PASSING = Trouble("not now")
FOR_GOOD = Trouble("too large", is_permanent=True)


def event(number: int = 0, topic: Topic = Topic.RESULTS, *, size: int = 1) -> OutgoingEvent:
    return OutgoingEvent(topic, "key", (("ce_id", b"%d" % number),), b"x" * size)


def events(count: int, *, size: int = 1) -> list[OutgoingEvent]:
    return [event(number, size=size) for number in range(count)]


class Broker:
    """A publisher whose clock moves on while a caller waits. `reply` says what a poll brings."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[float, list[OutgoingEvent]]] = []
        self.live: list[Delivery] = []
        self.waits: list[float] = []
        self.reply: Callable[[Delivery], None] = lambda _: None

    def clock(self) -> float:
        return self.now

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        self.sent.append((self.now, list(events)))
        self.live.append(Delivery(events))
        return self.live[-1]

    def poll(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        self.now += timeout_s
        for delivery in self.live:
            self.reply(delivery)

    def place(self, event: OutgoingEvent) -> str:
        return event.topic.value

    def abandon(self) -> None:
        self.live.clear()

    def is_reachable(self) -> bool:
        return True


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def role(broker: Broker) -> Deliveries:
    return Deliveries("test-role", broker, broker.clock)


def acknowledge(delivery: Delivery) -> None:
    for index in list(delivery.outstanding):
        delivery.settle(index)


def refuse(trouble: Trouble, *indexes: int) -> Callable[[Delivery], None]:
    """Lets these events of each delivery fail, and acknowledges the others."""

    def reply(delivery: Delivery) -> None:
        for index in list(delivery.outstanding):
            delivery.settle(index, trouble if index in indexes else None)

    return reply


def advance_to(role: Deliveries, broker: Broker, moment: float) -> None:
    broker.now = moment
    role.advance(0.0)


def test_without_events_nothing_is_sent(role: Deliveries, broker: Broker) -> None:
    assert role.send([]).is_done
    assert (broker.sent, broker.waits) == ([], [])


def test_the_wait_ends_with_the_acknowledgements(role: Deliveries, broker: Broker) -> None:
    broker.reply = acknowledge
    assert role.send(events(3)).is_done
    assert len(broker.waits) == 1
    assert [sent for _, sent in broker.sent] == [events(3)]


def test_missing_acknowledgements_are_waited_for_briefly_and_then_beside_other_work(role: Deliveries, broker: Broker) -> None:
    pending = role.send(events(3))
    assert not pending.is_done
    assert broker.now == pytest.approx(100.2)
    assert max(broker.waits) <= deliveries.LOOK_S
    broker.live[0].settle(1)
    role.advance(0.0)
    assert (pending.outstanding, pending.is_done) == (2, False)
    acknowledge(broker.live[0])
    role.advance(0.0)
    assert (pending.outstanding, pending.is_done) == (0, True)
    assert len(broker.sent) == 1


def test_events_that_failed_for_a_while_are_sent_again_in_order_at_growing_intervals(
    role: Deliveries, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def reply(delivery: Delivery) -> None:
        for index in sorted(delivery.outstanding, reverse=True):
            delivery.settle(index, PASSING if delivery.events[index] in (event(0), event(2)) else None)

    broker.reply = reply
    pending = role.send(events(4))
    while len(broker.sent) < 10:
        advance_to(role, broker, pending.again_at)
    assert [sent for _, sent in broker.sent] == [events(4)] + [[event(0), event(2)]] * 9
    assert len(logged(caplog, Action.EVENT_NOT_ACKNOWLEDGED)) == 10, "once for each try, and not for each event"
    times = [at for at, _ in broker.sent]
    pauses = [later - earlier for earlier, later in pairwise(times[1:])]
    # The first repetition was sent while the role still waited for the micro-batch.
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0], abs=0.02)


def test_an_event_is_sent_again_when_it_is_due_and_not_before(role: Deliveries, broker: Broker) -> None:
    broker.reply = refuse(PASSING, 0)
    pending = role.send(events(1))
    assert [len(sent) for _, sent in broker.sent] == [1, 1], "the second must be sent while the role still waits"
    first, second = (at for at, _ in broker.sent)
    assert second - first == pytest.approx(0.11, abs=0.011)
    advance_to(role, broker, pending.again_at - 0.001)
    assert len(broker.sent) == 2
    broker.reply = acknowledge
    advance_to(role, broker, pending.again_at)
    assert len(broker.sent) == 3
    assert pending.is_done


def test_an_event_that_waits_to_be_sent_again_is_outstanding(role: Deliveries, broker: Broker) -> None:
    broker.reply = refuse(PASSING, 0)
    pending = role.send(events(3))
    assert not pending.deliveries
    assert (pending.outstanding, pending.is_done) == (1, False)


def test_an_event_that_is_refused_for_good_is_logged_and_not_sent_again(
    role: Deliveries, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.reply = refuse(FOR_GOOD, 1)
    before = shown(metrics.UNDELIVERABLE.labels("test-role", "results"))
    assert role.send(events(3)).is_done
    advance_to(role, broker, 10_000)
    assert len(broker.sent) == 1
    assert shown(metrics.UNDELIVERABLE.labels("test-role", "results")) == before + 1
    [line] = logged(caplog, Action.EVENT_REFUSED)
    assert (line["role"], line["topic"], line["event_id"], line["error"]) == ("test-role", "results", "1", "too large")


def test_a_dead_letter_is_sent_until_it_is_accepted(role: Deliveries, broker: Broker) -> None:
    broker.reply = refuse(FOR_GOOD, 0)
    pending = role.send([event(7, Topic.DEAD_LETTER)])
    assert not pending.is_done
    broker.reply = acknowledge
    advance_to(role, broker, pending.again_at)
    assert pending.is_done
    assert broker.sent[-1][1] == [event(7, Topic.DEAD_LETTER)]


def test_a_failed_micro_batch_is_counted_once_for_each_try(role: Deliveries, broker: Broker) -> None:
    retries = metrics.RETRIES.labels("test-role", "delivery")
    before = shown(retries)
    broker.reply = refuse(PASSING, 0, 1, 2)
    pending = role.send(events(3))
    assert len(broker.sent) == 2
    assert shown(retries) == before + 2
    assert pending.outstanding == 3


@pytest.mark.parametrize("by", ["events", "bytes"])
def test_there_is_no_room_beyond_the_limit_of_outstanding_events(
    role: Deliveries, broker: Broker, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(deliveries, "MAX_EVENTS", 10 if by == "events" else 1_000)
    monkeypatch.setattr(deliveries, "MAX_BYTES", 1_000 if by == "events" else 10)
    first = role.send(events(5))
    role.send(events(4))
    assert role.has_room
    role.send(events(1))
    assert not role.has_room
    acknowledge(broker.live[0])
    role.advance(0.0)
    assert first.is_done
    assert role.has_room


def test_a_failed_event_keeps_its_room_until_it_is_accepted(
    role: Deliveries, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MAX_EVENTS", 2)
    broker.reply = refuse(PASSING, 0, 1)
    pending = role.send(events(3))
    assert not role.has_room
    broker.reply = acknowledge
    advance_to(role, broker, pending.again_at)
    assert role.has_room


def test_the_room_for_bytes_counts_values(role: Deliveries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MAX_BYTES", 10)
    role.send(events(3, size=3))
    assert role.has_room
    role.send(events(1))
    assert not role.has_room
