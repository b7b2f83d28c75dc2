"""A storage as a test sees it: the ports of one transaction, and what other parts of the product write beside them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from orchestrator.batches.repository import ActivityRepository, EventOf, PartStore
from orchestrator.batches.states import ItemStatus


class Ports(NamedTuple):
    """The ports in one transaction."""

    repository: ActivityRepository
    parts: PartStore


class Outcome(NamedTuple):
    """What registration has decided about an item's attempt."""

    status: ItemStatus
    decided_at: datetime
    activity_id: UUID | None = None
    error: Mapping[str, Any] | None = None


class Dispatch(NamedTuple):
    """Where an item stands with an external registration service. `state` as in the table."""

    state: str
    dispatched_at: datetime


class Storage(Protocol):
    """Something that has the ports."""

    def transaction(self) -> AbstractContextManager[Ports]:
        """One transaction: what it changed is undone when the block raises."""

    def know_coordinator(self, organization_id: str, coordinator_id: str) -> None:
        """As an import of the directory does."""

    def decide(self, batch_id: UUID, position: int, attempt: int, outcome: Outcome) -> None:
        """As registration does. The first outcome of an attempt stands."""

    def dispatch(self, batch_id: UUID, position: int, dispatch: Dispatch) -> None:
        """As the request to an external registration service and its answer do."""

    def purge(self, batch_id: UUID) -> None:
        """As a purge does: nothing but a tombstone is left."""

    def take_outbox(self) -> list[EventOf]:
        """Empties the outbox; oldest first."""
