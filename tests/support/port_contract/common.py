"""What the contracts of the storage ports share: an organization for each test, and steps of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.batches.model import Actor, BatchView, ItemError, ItemView, NewBatch, NewItem, Role
from orchestrator.batches.parts import submitted_events
from orchestrator.batches.repository import BatchChange, BatchToCreate, OutcomeKey
from orchestrator.batches.states import BatchStatus, ItemStatus, Outcome
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.support.storage import Decided, Storage

COORDINATOR = "coord-1"
TRACE = "ab" * 16
ERROR = ItemError("mentor_not_found", "No such mentor", retryable=False, field="mentor_id")
OTHER_ERROR = ItemError("out_of_scope", "Not theirs", retryable=True, conflicting_activity_id="another")


class Contract(ABC):
    """The common base of both ports' tests. Each test has an organization of its own, so that all can share a database."""

    @pytest.fixture
    @abstractmethod
    def storage(self) -> Storage:
        """Returns a storage that holds nothing of the test's organization."""

    @pytest.fixture
    def actor(self) -> Actor:
        """Returns a person of the test's own organization."""
        return Actor(f"org-{uuid4()}", "the-sender", Role.SERVICE, channel="the-channel")


def new_batch(items: Sequence[NewItem], **fields: Any) -> NewBatch:
    batch = NewBatch(new_batch_id(), COORDINATOR, "the label", False, items, TRACE)
    return replace(batch, **fields)


def to_create(actor: Actor, batch: NewBatch, at: datetime) -> BatchToCreate:
    header, parts, events = submitted_events(actor, batch, submitted_at=at)
    return BatchToCreate(actor, batch, at, header, parts, events)


def created(storage: Storage, actor: Actor, items: Sequence[NewItem], **fields: Any) -> UUID:
    """Creates a batch of these items and drops its events."""
    batch = new_batch(items, **fields)
    with storage.transaction() as (repository, _):
        repository.create_batches([to_create(actor, batch, repository.clock())])
    storage.take_outbox()
    return batch.batch_id


def now(storage: Storage) -> datetime:
    with storage.transaction() as (repository, _):
        return repository.clock()


def found(storage: Storage, batch_id: UUID) -> BatchView:
    with storage.transaction() as (repository, _):
        batch = repository.find_batch(batch_id, or_deleted=True)
    assert batch is not None
    return batch


def items_of(storage: Storage, batch_id: UUID) -> Sequence[ItemView]:
    with storage.transaction() as (repository, _):
        return repository.items_at(batch_id, range(100))


def states(storage: Storage, batch_id: UUID) -> list[tuple[str, int]]:
    return [(each.status, each.attempt) for each in items_of(storage, batch_id)]


def succeed(storage: Storage, batch_id: UUID, *positions: int, attempt: int = 1) -> None:
    at = now(storage)
    for position in positions:
        storage.decide(batch_id, position, attempt, Decided(Outcome.SUCCESS, at, activity_id=uuid4()))


def fail(storage: Storage, batch_id: UUID, *positions: int, attempt: int = 1, error: ItemError = ERROR) -> None:
    at = now(storage)
    for position in positions:
        storage.decide(batch_id, position, attempt, Decided(Outcome.FAILED, at, error=error))


def fold_all(storage: Storage, batch_id: UUID) -> None:
    """Folds decided outcomes, and writes the resulting counts."""
    with storage.transaction() as (repository, _):
        batch = repository.lock_batch(batch_id)
        assert batch is not None
        counts = batch.counts
        for status, count in repository.fold_batch(batch_id).items():
            counts = counts.moved(ItemStatus.PENDING, status, count)
        repository.change_batches([BatchChange(batch_id, counts, BatchStatus.PROCESSING, repository.clock(), None)])


def key(batch_id: UUID, position: int, attempt: int = 1) -> OutcomeKey:
    return OutcomeKey(str(batch_id), position, attempt)


def event(batch_id: UUID, number: int) -> OutgoingEvent:
    return OutgoingEvent(Topic.BATCHES, str(batch_id), (("ce_id", str(number).encode()), ("ce_type", b"Test")), b"{}")
