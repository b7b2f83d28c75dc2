"""A storage for tests: the ports of one transaction, and what other parts of the product write."""

from contextlib import AbstractContextManager
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from orchestrator.batches.model import ItemError
from orchestrator.batches.repository import ActivityRepository, EventOf, PartStore, TemplateStore
from orchestrator.batches.states import Outcome
from orchestrator.storage.dispatch import DispatchState


class Ports(NamedTuple):
    """The ports in one transaction."""

    repository: ActivityRepository
    parts: PartStore


class Decided(NamedTuple):
    """What registration decided about an item's attempt, and when."""

    outcome: Outcome
    at: datetime
    activity_id: UUID | None = None
    error: ItemError | None = None


class Storage(Protocol):
    """An implementation of the ports."""

    def transaction(self) -> AbstractContextManager[Ports]:
        """Runs one transaction. It is rolled back when the block raises."""

    def template_transaction(self) -> AbstractContextManager[tuple[ActivityRepository, TemplateStore]]:
        """Runs one transaction in the same way, with the port to templates."""

    def know_coordinator(self, organization_id: str, coordinator_id: str) -> None:
        """Does what an import of the directory does."""

    def decide(self, batch_id: UUID, position: int, attempt: int, decided: Decided) -> None:
        """Does what registration does. The first outcome of an attempt stands."""

    def dispatch(self, batch_id: UUID, position: int, state: DispatchState, at: datetime) -> None:
        """Does what a request to an external registration service at that moment and its response do."""

    def purge(self, batch_id: UUID) -> None:
        """Does what a purge does: only a tombstone is left."""

    def take_outbox(self) -> list[EventOf]:
        """Empties the outbox and returns its events, oldest first."""
