"""Erases notes as the API does it, in a transaction of the API's role."""

from uuid import UUID

from orchestrator.batches.erasing import erase_notes
from orchestrator.batches.model import Actor
from orchestrator.storage.notes import PostgresNotes
from schemas.ids import DerivedIds
from tests.support.pipeline import COORDINATOR_ACTOR, Pipeline


def erase(pipeline: Pipeline, batch_id: UUID, position: int = 0, *, actor: Actor = COORDINATOR_ACTOR) -> bool:
    """Erases the notes of one item. Returns whether it had any."""
    return pipeline.call_with(PostgresNotes, erase_notes, actor, batch_id, DerivedIds(batch_id).item_id(position))
