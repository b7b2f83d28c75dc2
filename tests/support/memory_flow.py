"""The flow of batches without a server: the domain's own code on the ports in memory, and a registration with the standard directory.

Its names are those of `tests/support/pipeline.py`, where the roles do the same with real SQL.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from consumers.loop.handler import Record
from orchestrator.batches import operations
from orchestrator.batches.model import Actor, ItemError, ItemFilter, ItemView, NewBatch, NewItem, StatusView
from orchestrator.batches.projection import fold_outcomes
from orchestrator.batches.repository import ActivityRepository, OutcomeKey
from orchestrator.batches.states import ItemStatus, Outcome
from orchestrator.registration.rules import INTERNAL_ERROR, RULES
from orchestrator.upstream.intake import Intake
from orchestrator.upstream.part import Part, malformed_part, submitted_part
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import MAX_BATCH_BYTES, BatchSubmitted, EventData, MalformedSubmission
from schemas.ids import DerivedIds, new_batch_id
from schemas.mistakes import Mistake
from tests.support.contents import Contents
from tests.support.memory import MemoryStorage
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, record
from tests.support.storage import Decided

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

_KNOWN_MENTOR = re.compile(r"mentor-([1-9][0-9]?|100)")
_MENTOR_NOT_FOUND = RULES[0].error


class MemoryFlow:
    """Runs the domain's code step by step. It registers nothing twice, because it delivers nothing twice."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.storage.know_coordinator(ORGANIZATION, COORDINATOR)
        self.queues: dict[Topic, list[OutgoingEvent]] = defaultdict(list)
        self._contents = Contents()

    def submit(self, items: Sequence[NewItem], *, actor: Actor = COORDINATOR_ACTOR, label: str | None = None) -> UUID:
        """Accepts a batch as the API does."""
        batch = NewBatch(new_batch_id(), COORDINATOR, label, False, items, "0" * 31 + "1")
        self.call(operations.submit_bulk_registration, actor, batch)
        return batch.batch_id

    def call(
        self,
        operation: Callable[Concatenate[ActivityRepository, Actor, Arguments], Returned],
        actor: Actor,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Returned:
        """Runs an operation in a transaction."""
        with self.storage.transaction() as (repository, _):
            return operation(repository, actor, *arguments, **named)

    def status(self, batch_id: UUID, *, actor: Actor = ADMIN) -> StatusView:
        """Returns the batch with all its items."""
        return self.call(operations.get_bulk_submission_status, actor, batch_id, ItemFilter(limit=10_000))

    def relay(self) -> None:
        """Publishes the contents of the outbox."""
        for _, _, event in self.storage.take_outbox():
            difference = self._contents.difference(event.key, event.headers, event.value)
            assert difference is None, difference
            self.queues[event.topic].append(event)

    def take(self, *topics: Topic) -> list[OutgoingEvent]:
        """Empties the queues of these topics and returns their events."""
        taken = [event for topic in topics for event in self.queues[topic]]
        for topic in topics:
            self.queues[topic].clear()
        return taken

    def register(self, batch_id: UUID, *positions: int) -> None:
        """Decides the pending items at these positions, or all of them. The outcomes are not folded yet."""
        for item in self._pending(batch_id, positions):
            if _KNOWN_MENTOR.fullmatch(item.values.mentor_id):
                activity_id = UUID(DerivedIds(batch_id).activity_id(item.position))
                self._decide(batch_id, item, Decided(Outcome.SUCCESS, self.storage.clock(), activity_id))
            else:
                self._fail(batch_id, item, _MENTOR_NOT_FOUND)

    def give_up(self, batch_id: UUID, *positions: int) -> None:
        """Fails the pending items at these positions, or all of them, with an internal error. The outcomes are not folded yet."""
        for item in self._pending(batch_id, positions):
            self._fail(batch_id, item, INTERNAL_ERROR)

    def _pending(self, batch_id: UUID, positions: Sequence[int]) -> list[ItemView]:
        with self.storage.transaction() as (repository, _):
            pending = repository.items_by_status(batch_id, ItemStatus.PENDING)
        return [item for item in pending if not positions or item.position in positions]

    def _fail(self, batch_id: UUID, item: ItemView, error: ItemError) -> None:
        self._decide(batch_id, item, Decided(Outcome.FAILED, self.storage.clock(), error=error))

    def _decide(self, batch_id: UUID, item: ItemView, decided: Decided) -> None:
        self.storage.decide(batch_id, item.position, item.attempt, decided)

    def fold(self) -> None:
        """Folds every outcome, also those that were folded before."""
        outcomes = self.storage.tables.outcomes
        keys = [OutcomeKey(str(batch_id), *key) for batch_id, decided in outcomes.items() for key in decided]
        with self.storage.transaction() as (repository, _):
            assert fold_outcomes(repository, keys).unknown == []

    def drain(self) -> None:
        """Decides and folds everything, and publishes the events about it. Drops the events that asked for the work."""
        for batch_id in self.storage.tables.batches:
            self.register(batch_id)
        self.fold()
        self.relay()
        self.queues[Topic.BATCHES].clear()

    def take_in(self, *events: OutgoingEvent) -> dict[int, Sequence[Mistake]]:
        """Takes in events of upstream services as one set. Returns the mistakes of refused ones, by index."""
        parts = [(index, _part(record(event))) for index, event in enumerate(events)]
        with self.storage.transaction() as (repository, store):
            intake = Intake(repository, store, max_items=10_000, max_batch_bytes=MAX_BATCH_BYTES)
            return dict(intake.take(parts))


def _part(record: Record[EventData]) -> Part:
    written_at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    if isinstance(record.data, MalformedSubmission):
        return malformed_part(record.data, record.envelope, written_at)
    assert isinstance(record.data, BatchSubmitted)
    return submitted_part(record.data, record.envelope, written_at)
