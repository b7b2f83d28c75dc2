"""The port to registered activities, for revoking them. Each method is part of the caller's transaction."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from orchestrator.batches.model import Actor, BatchView, Revocation


class ActivityRecord(NamedTuple):
    """The activity of an item of a known batch."""

    position: int
    activity_id: UUID
    activity_date: date
    created_at: datetime
    revocation: Revocation | None


class ActivityPlace(NamedTuple):
    """The organization and the coordinator of an activity, and the item that it came from."""

    organization_id: str
    registered_by: str
    batch_id: UUID
    position: int


class RecordElsewhere(NamedTuple):
    """A living activity of an item of a known batch, at an external registration service. `is_requested`: it was asked to revoke it."""

    position: int
    created_at: datetime
    is_requested: bool


class ServiceRecords(Protocol):
    """The activities at an external registration service, which answers after the transaction."""

    def living(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[RecordElsewhere]:
        """Returns the living activities of the items at these positions, by position."""

    def request(self, batch: BatchView, positions: Sequence[int], actor: Actor, revocation: Revocation) -> None:
        """Asks the service to revoke the activities of these items, for which no request is open. The transaction must hold the batch's lock."""


class ActivityRecords(Protocol):
    """Activities by their items. With a registration service that can't revoke, each method raises RevocationUnavailableError."""

    elsewhere: ServiceRecords | None
    """The activities of an external service that can revoke; None without one."""

    def closed_through(self, organization_id: str) -> date | None:
        """Returns the last day of the organization's closed period, or None if none is closed. Takes no lock."""

    def hold_period(self, organization_id: str) -> date | None:
        """As `closed_through`, but nobody can close or reopen a period of the organization until the transaction ends. Called before `take`."""

    def place(self, activity_id: UUID) -> ActivityPlace | None:
        """Returns the place of an activity, or None if it does not exist. Takes no lock."""

    def read(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        """Returns the activities of the items at these positions, or of the whole batch, by position. Takes no lock."""

    def take(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        """As `read`, but locks the activities, with all living ones of the same mentors, types and dates. The transaction must hold the batch's
        lock."""

    def revoke(self, activity_ids: Sequence[UUID], actor: Actor, revocation: Revocation) -> None:
        """Revokes living activities that the transaction has locked with `take`, and writes an audit row for each.

        If flagged activities are left without an unflagged one of their mentor, type and date, the oldest of them loses its flag.
        """
