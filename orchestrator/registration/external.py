"""Registration through an external service: the requests, and what its responses mean (docs/external-registration.md).

Requests take long, and no lock may be held meanwhile, so they are sent before the transaction that decides outcomes. The adapter marks the
items as dispatched, commits, sends the requests, and stores the responses. `dispatched_decisions` then decides from the stored responses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from sqlalchemy import Connection

from orchestrator.batches.errors import PreviewUnavailableError
from orchestrator.batches.model import ItemError, ItemValues
from orchestrator.batches.repository import OutcomeKey
from orchestrator.registration.port import Candidate, Decision, Prediction, RegistrationService
from orchestrator.registration.rules import (
    DUPLICATE_ACTIVITY,
    PERIOD_CLOSED,
    REGISTRATION_UNAVAILABLE,
    RULES,
    duplicate_activity,
)
from orchestrator.storage import arrays, dispatch
from orchestrator.storage.statements import read_statements

_IN_CLOSED_PERIODS = read_statements("orchestrator/registration/sql/external.sql")["in_closed_periods"].text()


class NoPrediction(Prediction):
    """The `Prediction` when an external service decides. Our own tables may then be empty, so a prediction from them would be wrong."""

    def predict(self, organization_id: str, coordinator_id: str, items: Sequence[ItemValues]) -> Sequence[ItemError | None]:
        """Raises PreviewUnavailableError."""
        raise PreviewUnavailableError

    def beside(self, organization_id: str, items: Sequence[ItemValues]) -> Sequence[Sequence[str]]:
        """Raises PreviewUnavailableError."""
        raise PreviewUnavailableError


@dataclass(frozen=True, slots=True)
class Registration:
    """The activity that the service is asked to create."""

    batch_id: str
    item_id: str
    organization_id: str
    attributed_to: str
    registered_by: str
    submitted_by: str
    channel: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    notes: str | None
    override_duplicates: bool


@dataclass(frozen=True, slots=True)
class Question:
    """An item in doubt. `refusals` is how many definite refusals it had before. A cancelled item is only looked up, never sent again."""

    command: OutcomeKey
    refusals: int
    registration: Registration
    trace_id: str
    is_cancelled: bool

    @property
    def key(self) -> str:
        """The Idempotency-Key. An unknown outcome keeps it; a definite refusal ends it (docs/external-registration.md)."""
        return f"{self.registration.item_id}:{self.refusals}"


@dataclass(frozen=True, slots=True)
class Registered:
    """The service holds this activity for the key."""

    activity_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused the registration that was sent under the key."""

    error: ItemError


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The service has registered nothing under the key, and never will."""


Settled = Registered | Refused | Withdrawn
"""A definite response. Any other response leaves the item in doubt."""


class ExternalRegistrationService(RegistrationService):
    """Registers nothing in the transaction. `dispatched_decisions` decides the items that were sent to the service."""

    def register(self, connection: Connection, candidates: Sequence[Candidate], _at: datetime) -> Sequence[Decision | None]:
        """Refuses candidates in a closed period, and returns None for each other one: it was not sent to the service yet."""
        decisions: list[Decision | None] = [None] * len(candidates)
        parameters = arrays.items((candidate.batch_id, candidate.position) for candidate in candidates)
        for row in connection.execute(_IN_CLOSED_PERIODS, parameters):
            decisions[row.ord - 1] = Decision(None, PERIOD_CLOSED)
        return decisions


CANCELLED_DECISION = Decision(None, None)


def dispatched_decisions(connection: Connection, candidates: Sequence[Candidate]) -> Mapping[int, Decision | None]:
    """The decisions, by index, on items that were sent to an external service, from the dispatch rows. None: the item stays pending.

    They apply whichever service is configured now: an item that one service may have registered is never registered by another. An item is
    absent if it was never sent to a service, or if its last key was refused before the present attempt.
    """
    found = dispatch.dispatches(connection, [(candidate.batch_id, candidate.position) for candidate in candidates])
    decisions: dict[int, Decision | None] = {}
    for index, books in found.items():
        if books.state is dispatch.DispatchState.REGISTERED:
            decisions[index] = Decision(books.activity_id, None)
        elif books.state is dispatch.DispatchState.ASKED:
            # It is unknown whether the service has registered the item, and the dispatch row keeps that: a retry uses the same key. An item
            # of a cancelled batch can't be retried, so it waits for the service's response.
            decisions[index] = None if books.is_cancelled else Decision(None, REGISTRATION_UNAVAILABLE)
        elif books.is_cancelled or books.state is dispatch.DispatchState.WITHDRAWN:
            decisions[index] = CANCELLED_DECISION
        elif books.is_of_present_attempt:
            assert books.error is not None
            decisions[index] = Decision(None, books.error)
    return decisions


_RULES_BY_CODE_AND_FIELD = {(rule.error.code, rule.error.field): rule.error for rule in reversed(RULES)}
_RULES_BY_CODE = {rule.error.code: rule.error for rule in reversed(RULES)}


def refusal(code: str, field: str | None, conflicting_activity_id: str | None) -> ItemError:
    """A service's refusal in our words. The service's own words could quote notes (invariant 10)."""
    if code == DUPLICATE_ACTIVITY:
        return replace(duplicate_activity(""), conflicting_activity_id=conflicting_activity_id)
    known = _RULES_BY_CODE_AND_FIELD.get((code, field)) or _RULES_BY_CODE.get(code)
    return known or ItemError("invalid_item", f"The registration service refused the item ({code})", retryable=False)
