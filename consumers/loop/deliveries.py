"""The events that a role has produced and Kafka has not acknowledged yet.

A micro-batch's events are sent together. Mostly they are acknowledged within milliseconds. When a partition or a topic does not
acknowledge, the role continues with other micro-batches, within a limit; only the offsets of this one wait (`runtime.py`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.batches.publishing import Delivery, Publisher
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from schemas.envelope import OutgoingEvent, Topic

# How long to wait for a micro-batch's acknowledgements before the next one begins.
PATIENCE_S = 0.2
# How long while others are late, so that one unreachable broker does not delay what goes to the others.
PATIENCE_IN_TROUBLE_S = 0.02
LOOK_S = 0.01
# How long to wait when the role has nothing else to do.
IDLE_LOOK_S = 0.05
# How many events may be outstanding: minutes of production at a third of the full load. Less than the producer's queue can hold.
MAX_EVENTS = 20_000
MAX_BYTES = 16 * 1024 * 1024
# The pause before a refused event is sent again: short at first; the longest bounds the load when a topic is missing for hours.
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


@dataclass(slots=True, eq=False)
class Pending:
    """The events of one micro-batch. It changes only while the worker runs."""

    bytes: int
    deliveries: list[Delivery]
    again: list[OutgoingEvent] = field(default_factory=list)
    """The events that failed in a way that may pass."""
    attempts: int = 1
    again_at: float = 0.0

    @property
    def is_done(self) -> bool:
        """Whether every event is acknowledged, or never will be."""
        return not self.deliveries and not self.again

    @property
    def outstanding(self) -> int:
        """How many events are neither acknowledged nor given up."""
        return len(self.again) + sum(len(delivery.outstanding) for delivery in self.deliveries)


class Deliveries:
    """The deliveries of one role. Only the worker's thread, which is also the publisher's, uses it; `has_room` may be read while the worker
    is idle."""

    def __init__(self, role: str, publisher: Publisher, clock: Callable[[], float] = time.monotonic) -> None:
        self._role = role
        self._publisher = publisher
        self._clock = clock
        self._pending: list[Pending] = []

    @property
    def has_room(self) -> bool:
        """Whether more events may be sent."""
        return (
            sum(pending.outstanding for pending in self._pending) < MAX_EVENTS
            and sum(pending.bytes for pending in self._pending) < MAX_BYTES
        )

    def send(self, events: Sequence[OutgoingEvent]) -> Pending:
        """Sends the events, and waits for their acknowledgements as long as these usually take. Raises nothing for errors of Kafka."""
        pending = Pending(sum([len(event.value) for event in events]), [self._publisher.send(events)] if events else [])
        patience_s = PATIENCE_IN_TROUBLE_S if self._pending else PATIENCE_S
        self._pending.append(pending)
        until = self._clock() + patience_s
        self._look()
        while not pending.is_done and (remaining := until - self._clock()) > 0:
            self.advance(min(LOOK_S, remaining))
        return pending

    def advance(self, timeout_s: float) -> None:
        """Waits for acknowledgements, and sends again what is due."""
        now = self._clock()
        for pending in self._pending:
            if pending.again and now >= pending.again_at:
                events, pending.again = pending.again, []
                pending.attempts += 1
                pending.deliveries.append(self._publisher.send(events))
        self._publisher.poll(timeout_s)
        self._look()

    def _look(self) -> None:
        for pending in self._pending:
            for delivery in pending.deliveries:
                if delivery.failed:
                    self._note_failures(pending, delivery)
            pending.deliveries = [delivery for delivery in pending.deliveries if delivery.outstanding]
        self._pending = [pending for pending in self._pending if not pending.is_done]

    def _note_failures(self, pending: Pending, delivery: Delivery) -> None:
        for index in sorted(delivery.failed):
            event, trouble = delivery.events[index], delivery.failed.pop(index)
            # A dead letter is the only trace of its record, and always fits a topic that is as planned. So retry until an operator repairs
            # the topic.
            if trouble.is_permanent and event.topic is not Topic.DEAD_LETTER:
                # The tables hold what it announces, so the sweeper creates it again.
                metrics.UNDELIVERABLE.labels(self._role, event.topic.value).inc()
                event_id = dict(event.headers).get("ce_id", b"").decode()
                log_action(
                    Action.EVENT_REFUSED, role=self._role, topic=event.topic.value, event_id=event_id, error=trouble.detail
                )
            else:
                if not pending.again:
                    metrics.RETRIES.labels(self._role, "delivery").inc()
                    log_action(Action.EVENT_NOT_ACKNOWLEDGED, role=self._role, topic=event.topic.value, error=trouble.detail)
                    pending.again_at = self._clock() + min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(pending.attempts - 1, 10))
                pending.again.append(event)
