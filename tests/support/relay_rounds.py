"""The outbox relay round by round: a real table, a broker that the test controls, and a clock that stands still unless it is moved.

While the clock stands, the relay does nothing that depends on time: no poll, no retry, no verdict about a slow place. So whatever it does
then, it does because it was woken, or because it knows that there is more.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from orchestrator.batches.publishing import Delivery, Trouble
from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from orchestrator.storage.outbox import SLOTS, slot_of
from orchestrator.storage.relay_wakeup import CHANNEL
from producers.relay import OutboxRelay
from schemas.envelope import OutgoingEvent
from tests.support.outbox import event, insert
from tests.support.shown import shown
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
        time.sleep(0.001)  # as the real one, it waits; a round without a report would be a busy loop
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


def in_trouble() -> float:
    return shown(metrics.OUTBOX_PLACES_IN_TROUBLE)


def has_sent(broker: Broker, count: int) -> bool:
    return len(broker.sent) == count
