"""The port to the registration service, which creates the activity records."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from orchestrator.batches.model import ItemError, ItemValues


class Candidate(NamedTuple):
    """An item to register, and the id that its activity will have. The item's values and notes are in the database."""

    batch_id: str
    position: int
    item_id: str
    activity_id: str


class Decision(NamedTuple):
    """The service's decision on a candidate: the activity that now exists, or the error; neither if the item was cancelled."""

    activity_id: str | None
    error: ItemError | None


class Prediction(Protocol):
    """Predicts registrations in one transaction, by the same rules, without writing anything."""

    def predict(self, organization_id: str, coordinator_id: str, items: Sequence[ItemValues]) -> Sequence[ItemError | None]:
        """The error that each item would get now; None for success. Raises PreviewUnavailableError."""

    def beside(self, organization_id: str, items: Sequence[ItemValues]) -> Sequence[Sequence[str]]:
        """The ids of the living activities with each item's mentor, type and date. An item that overrides is registered beside them.

        Raises PreviewUnavailableError.
        """


class RegistrationService(Protocol):
    """Registers activities in the caller's transaction."""

    def register(self, connection: Connection, candidates: Sequence[Candidate], at: datetime) -> Sequence[Decision | None]:
        """Decides the candidates, in order; `at` becomes the records' time. For an item that is already registered, returns its activity's id.

        Returns None for a candidate that can't be decided yet; it stays pending.

        Raises TransientError if a concurrent transaction interfered and the whole transaction should be retried.
        """
