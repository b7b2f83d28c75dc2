"""Erases notes at a person's request (docs/decisions/0045-forgetting.md)."""

from uuid import UUID

from orchestrator.batches.access import may_change, may_see
from orchestrator.batches.errors import ConflictError, NotFoundError
from orchestrator.batches.model import Actor, BatchView
from orchestrator.batches.repository import ActivityRepository, NotesStore
from orchestrator.batches.states import ItemStatus
from schemas.ids import item_position


def erase_notes(repository: ActivityRepository, notes: NotesStore, actor: Actor, batch_id: UUID, item_id: UUID) -> bool:
    """Erases an item's notes from the item, its earlier attempts and its activity, even if the batch is deleted or purged.

    A pending item is registered without notes. Returns whether there were any; erasing twice is a no-op. Raises NotFoundError, ForbiddenError,
    ConflictError (an external service has to be asked for the item again, with the same values).
    """
    may_change(actor)
    position = item_position(batch_id, item_id)
    batch = repository.find_batch(batch_id, or_deleted=True)
    if batch is None:
        place = notes.place_of_registered(batch_id, item_id)
        if place is None or not _may_see(actor, place.organization_id, place.coordinator_id):
            raise NotFoundError
    elif not may_see(actor, batch):
        raise NotFoundError
    if position is None:
        raise NotFoundError("item")
    locked = repository.lock_batch(batch_id, or_deleted=True)
    if locked is not None:
        _check_item(repository, locked, position)
    return notes.erase(actor.organization_id, batch_id, position, actor=actor, at=repository.clock())


def _may_see(actor: Actor, organization_id: str, coordinator_id: str) -> bool:
    return organization_id == actor.organization_id and actor.sees_only_coordinator in (None, coordinator_id)


def _check_item(repository: ActivityRepository, batch: BatchView, position: int) -> None:
    found = repository.items_at(batch.batch_id, [position])
    if not found:
        raise NotFoundError("item")
    if found[0].status is not ItemStatus.SUCCESS and repository.positions_in_doubt(batch.batch_id, [position]):
        detail = "The registration service has not said whether it has registered the item. Try again when it has, or retry the item first."
        raise ConflictError("item_in_doubt", detail)
