"""The port to the activities that were registered, as far as people take them back. Each method is part of the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from orchestrator.batches.model import Actor, Revocation


class ActivityRecord(NamedTuple):
    """The activity of an item of a known batch."""

    position: int
    activity_id: UUID
    created_at: datetime
    revocation: Revocation | None


class ActivityPlace(NamedTuple):
    """Whose an activity is, and which item it came from."""

    organization_id: str
    registered_by: str
    batch_id: UUID
    position: int


class ActivityRecords(Protocol):
    """Activities by the items that they came from. With a service that can't take anything back, each method raises
    RevocationUnavailableError."""

    def place(self, activity_id: UUID) -> ActivityPlace | None:
        """Where an activity belongs, None for one that does not exist. Takes no lock."""

    def read(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        """The activities of the items at these positions, or of the whole batch, by position. Takes no lock."""

    def take(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        """The same, locked with all living activities of the same mentors, types and dates. The transaction holds the batch."""

    def revoke(self, activity_ids: Sequence[UUID], actor: Actor, revocation: Revocation) -> None:
        """Takes back living activities that the transaction has locked by `take`, and writes an audit row for each.

        Where a flagged activity is left without an unflagged one of its mentor, type and date, the oldest of them loses its flag.
        """
