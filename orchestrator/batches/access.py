"""Who may see and change what. Row level security already hides other organizations."""

from uuid import UUID

from orchestrator.batches.errors import ForbiddenError, NotFoundError
from orchestrator.batches.model import Actor, BatchView, Role
from orchestrator.batches.repository import ActivityRepository


def may_change(actor: Actor) -> None:
    """Raises ForbiddenError unless the caller's role may make changes."""
    if not actor.may_change:
        raise ForbiddenError("role_may_not", "This role can read but not change anything.")


def may_close_periods(actor: Actor) -> None:
    """Raises ForbiddenError unless the caller's role may close and reopen the organization's period."""
    if actor.role not in (Role.ADMIN, Role.SERVICE):
        raise ForbiddenError("role_may_not", "Only an administrator can close or reopen the organization's period.")


def may_read_notes(actor: Actor) -> None:
    """Raises ForbiddenError unless the caller's role may read notes."""
    if not actor.may_read_notes:
        raise ForbiddenError("role_may_not", "Auditors can't read notes. Request the items without notes.")


def may_see(actor: Actor, batch: BatchView) -> bool:
    """Whether the caller may see the batch. Does not rely on row level security."""
    own = actor.sees_only_coordinator
    return batch.organization_id == actor.organization_id and own in (None, batch.coordinator_id)


def visible(repository: ActivityRepository, actor: Actor, batch_id: UUID, *, or_deleted: bool = False) -> BatchView:
    """A batch that the caller may see. Raises NotFoundError."""
    batch = repository.find_batch(batch_id, or_deleted=or_deleted)
    if batch is None or not may_see(actor, batch):
        raise NotFoundError
    return batch
