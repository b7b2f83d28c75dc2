"""Registration through an external service: the requests, and what its responses mean (docs/external-registration.md).

Requests take long, and no lock may be held meanwhile, so they are sent before the transaction that decides outcomes. The adapter marks the
items as dispatched, commits, sends the requests, and stores the responses. `ExternalRegistrationService` then decides from what is stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from sqlalchemy import Connection

from orchestrator.batches.errors import PreviewUnavailableError
from orchestrator.batches.model import ItemError, ItemValues
from orchestrator.batches.repository import OutcomeKey
from orchestrator.registration.port import Candidate, Decision, Prediction, RegistrationService
from orchestrator.registration.rules import DUPLICATE_ACTIVITY, REGISTRATION_UNAVAILABLE, RULES, duplicate_activity
from orchestrator.storage import dispatch


class NoPrediction(Prediction):
    """The `Prediction` where an external service decides. Our own tables may be empty there; what they say would be made up."""

    def predict(self, organization_id: str, coordinator_id: str, items: Sequence[ItemValues]) -> Sequence[ItemError | None]:
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
    """An item in doubt. `refusals` is how many definite refusals came before; a cancelled item is only asked about, never sent again."""

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
    """The service will not register what was asked under the key."""

    error: ItemError


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The service has registered nothing under the key, and never will."""


Settled = Registered | Refused | Withdrawn
"""A definite response. Any other response leaves the item in doubt."""


class ExternalRegistrationService(RegistrationService):
    """Registers nothing in the transaction: what the service was asked for is decided by `dispatched_decisions`."""

    def register(self, _connection: Connection, candidates: Sequence[Candidate], _at: datetime) -> Sequence[Decision | None]:
        """None for each: the service was not asked for it yet."""
        return [None] * len(candidates)


CANCELLED = Decision(None, None)


def dispatched_decisions(connection: Connection, candidates: Sequence[Candidate]) -> Mapping[int, Decision | None]:
    """By index, what the books say about items that an external service was asked for; None: the item stays pending.

    This holds whatever service is set now: what one may have registered is never registered by another. Absent is an item that no
    service was asked for, or whose last key was refused before the present attempt.
    """
    found = dispatch.dispatches(connection, [(candidate.batch_id, candidate.position) for candidate in candidates])
    decisions: dict[int, Decision | None] = {}
    for index, books in found.items():
        if books.state is dispatch.DispatchState.REGISTERED:
            decisions[index] = Decision(books.activity_id, None)
        elif books.state is dispatch.DispatchState.ASKED:
            # Whether the service has done the work is unknown, and stays in the books: a retry asks under the same key. An item of a
            # cancelled batch can't be retried, so it waits for the service's answer.
            decisions[index] = None if books.is_cancelled else Decision(None, REGISTRATION_UNAVAILABLE)
        elif books.is_cancelled or books.state is dispatch.DispatchState.WITHDRAWN:
            decisions[index] = CANCELLED
        elif books.is_of_present_attempt:
            assert books.error is not None
            decisions[index] = Decision(None, books.error)
    return decisions


_RULES_BY_CODE_AND_FIELD = {(rule.error.code, rule.error.field): rule.error for rule in reversed(RULES)}
_RULES_BY_CODE = {rule.error.code: rule.error for rule in reversed(RULES)}


def refusal(code: str, field: str | None, conflicting_activity_id: str | None) -> ItemError:
    """A service's refusal in our words: its own could quote what nobody else may read (invariant 10)."""
    if code == DUPLICATE_ACTIVITY:
        return replace(duplicate_activity(""), conflicting_activity_id=conflicting_activity_id)
    known = _RULES_BY_CODE_AND_FIELD.get((code, field)) or _RULES_BY_CODE.get(code)
    return known or ItemError("invalid_item", f"The registration service refused the item ({code})", retryable=False)
