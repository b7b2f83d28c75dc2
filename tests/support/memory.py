"""The ports to storage in memory, so that tests of the domain need no server.

`tests/support/port_contract` holds this implementation and PostgreSQL to the same behaviour. It does not imitate locks (one transaction
runs at a time), NOTIFY and row level security, because they do not show in what a port returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from orchestrator.batches.repository import ActivityRepository, EventOf, TemplateStore, Tombstone
from orchestrator.storage.dispatch import DispatchState
from tests.support.memory_parts import MemoryParts, MemoryTemplates
from tests.support.memory_repository import MemoryRepository
from tests.support.memory_tables import Memory
from tests.support.storage import Ports, Storage


class MemoryStorage(Memory, Storage):
    """A database in memory. A test may set its clock, `now`."""

    @contextmanager
    def transaction(self) -> Iterator[Ports]:
        before = self.tables.snapshot()
        try:
            yield Ports(MemoryRepository(self), MemoryParts(self))
        except BaseException:
            self.tables = before
            raise

    @contextmanager
    def template_transaction(self) -> Iterator[tuple[ActivityRepository, TemplateStore]]:
        with self.transaction() as (repository, _):
            yield repository, MemoryTemplates(self)

    def know_coordinator(self, organization_id: str, coordinator_id: str) -> None:
        self.tables.coordinators.add((organization_id, coordinator_id))

    def forget_coordinator(self, organization_id: str, coordinator_id: str) -> None:
        """Does what an import of a directory without the coordinator does."""
        self.tables.coordinators.remove((organization_id, coordinator_id))

    def dispatch(self, batch_id: UUID, position: int, state: DispatchState, at: datetime) -> None:
        self.tables.dispatches.setdefault(batch_id, {})[position] = (state, at)

    def purge(self, batch_id: UUID) -> None:
        tables = self.tables
        batch = tables.batches.pop(batch_id)
        tables.tombstones[batch_id] = Tombstone(batch.view.organization_id, batch.content_hash)
        for rows in (tables.items, tables.outcomes, tables.dispatches, tables.parts):
            rows.pop(batch_id, None)
        tables.history = {key: past for key, past in tables.history.items() if key[0] != batch_id}

    def take_outbox(self) -> list[EventOf]:
        taken, self.tables.outbox = self.tables.outbox, []
        return taken
