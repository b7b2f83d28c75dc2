"""An upstream service that sends batches through Kafka with its own producer (docs/events.md)."""

import random
import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orchestrator.process.settings import Settings
from schemas.envelope import OutgoingEvent, Topic
from tests.chaos.history import Call, Ending, History, Operation, Submission
from tests.chaos.work import Work
from tests.support.upstream import submitted

MOST_ITEMS = 200
PAUSE_S = 0.3
DELIVERY_TIMEOUT_S = 5.0

IN_PARTS, SENT_TWICE, LEFT_UNKNOWN = 0.3, 0.2, 0.5
"""How often a batch comes in parts, is sent twice, and is not repeated although its arrival is unknown."""


class Upstream:
    """Sends one batch after the other in a thread of its own."""

    def __init__(self, seed: str, settings: Settings, work: Work, history: History) -> None:
        self._rng = random.Random(f"{seed} upstream")
        self._topic = Topic.BATCHES.on_cluster(settings.topic_prefix)
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka_bootstrap_servers,
                "acks": "all",
                "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        self._work = work
        self._history = history
        self._unfinished: list[tuple[Submission, int, OutgoingEvent]] = []

    def run(self, is_over: threading.Event) -> None:
        """Sends until the end."""
        while not is_over.wait(self._rng.uniform(0, 2 * PAUSE_S)):
            submission = self._work.submission(
                self._rng, batch_id=str(UUID(int=self._rng.getrandbits(128), version=4)), most=MOST_ITEMS
            )
            events = self._events(submission)
            for part, event in enumerate(events, start=1):
                outcome = self._send(submission, part, event)
                if outcome is Ending.UNKNOWN and (len(events) > 1 or self._rng.random() > LEFT_UNKNOWN):
                    self._unfinished.append((submission, part, event))
            if self._rng.random() < SENT_TWICE:
                self._send(submission, 1, events[0])
            if self._unfinished:
                self._finish_one()

    def finish(self) -> None:
        """Repeats unacknowledged events until they are acknowledged, because the product waits for the missing parts of a batch."""
        while self._unfinished:
            self._finish_one()
        self._producer.flush(DELIVERY_TIMEOUT_S)

    def _finish_one(self) -> None:
        if self._send(*self._unfinished[0]) is Ending.OK:
            del self._unfinished[0]

    def _events(self, submission: Submission) -> Sequence[OutgoingEvent]:
        items = [
            {
                "position": position,
                "mentor_id": values.mentor_id,
                "activity_type": values.activity_type,
                "activity_date": values.activity_date,
                "duration_minutes": values.duration_minutes,
                "override_duplicates": values.override_duplicates,
            }
            for position, values in enumerate(submission.items)
        ]
        parts = min(len(items), self._rng.randint(2, 4)) if self._rng.random() < IN_PARTS else 1
        bounds = [len(items) * number // parts for number in range(parts + 1)]
        assert submission.batch_id is not None
        events = []
        for part in range(1, parts + 1):
            fields: dict[str, Any] = {"label": submission.label, "part": part, "parts": parts, "total_items": len(items)}
            of_part = items[bounds[part - 1] : bounds[part]]
            events.append(submitted(UUID(submission.batch_id), of_part, event_id=uuid4().hex, **fields))
        return events

    def _send(self, submission: Submission, part: int, event: OutgoingEvent) -> Ending:
        """Waits for the acknowledgement, and records it."""
        began_s = time.monotonic()
        told: list[Ending] = []

        def report(error: KafkaError | None, _message: Message) -> None:
            told.append(Ending.OK if error is None else Ending.UNKNOWN)

        try:
            self._producer.produce(self._topic, event.value, event.key, headers=list(event.headers), on_delivery=report)
            while not told:
                self._producer.poll(0.1)
        except KafkaException:
            told.append(Ending.FAILED)
        self._history.add(
            Call(
                label=submission.label,
                operation=Operation.UPSTREAM,
                outcome=told[0],
                began_s=began_s,
                ended_s=time.monotonic(),
                part=part,
            )
        )
        return told[0]
