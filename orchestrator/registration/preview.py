"""Preview: what each item of a submission would become now, and the signed plan that a submission can be held to (docs/http.md, Preview and
plan).

The plan is a JSON Web Token that only this product signs and reads. It contains the organization, the coordinator, a hash of the items, and a
letter per item for its prediction.
"""

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import jwt
import orjson

from orchestrator.batches.errors import InvalidRequestError, PlanChangedError, PlanDifference
from orchestrator.batches.model import Actor, ItemError, NewBatch
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.states import Outcome
from orchestrator.batches.submit import may_submit
from orchestrator.registration.port import Prediction
from orchestrator.registration.rules import DUPLICATE_ACTIVITY, RULES
from schemas.mistakes import Mistake

PLAN_LIFETIME = timedelta(minutes=15)
_AUDIENCE = "bulkreg-plan"
_ALGORITHM = "HS256"

# All possible predictions, one letter each. Plans live for minutes, so letters may change between versions.
_OUTCOMES = (Outcome.SUCCESS.value, *dict.fromkeys(rule.error.code for rule in RULES), DUPLICATE_ACTIVITY)
_LETTER = dict(zip(_OUTCOMES, string.ascii_letters, strict=False))
_OUTCOME = {letter: outcome for outcome, letter in _LETTER.items()}


@dataclass(frozen=True, slots=True)
class Preview:
    """The error that each item would get now (None: success), by position, and the plan with these predictions."""

    batch: NewBatch
    errors: Sequence[ItemError | None]
    plan: str


@dataclass(frozen=True, slots=True)
class Planner:
    """Creates and checks plans with the deployment's key. Repository and prediction must belong to one transaction."""

    key: str

    def preview(self, repository: ActivityRepository, prediction: Prediction, actor: Actor, batch: NewBatch) -> Preview:
        """Predicts a submission without writing anything. Raises what submitting it would raise, and PreviewUnavailableError."""
        may_submit(repository, actor, batch)
        errors = _predict(prediction, actor, batch)
        now = repository.clock()
        claims = {
            "aud": _AUDIENCE,
            "exp": now + PLAN_LIFETIME,
            "org": actor.organization_id,
            "coordinator": batch.coordinator_id,
            "items": _items_hash(batch),
            "outcomes": "".join(_LETTER[_outcome(error)] for error in errors),
            "beside": _beside(prediction, actor, batch),
        }
        return Preview(batch, errors, jwt.encode(claims, self.key, algorithm=_ALGORITHM))

    def hold_to(
        self, plan: str, repository: ActivityRepository, prediction: Prediction, actor: Actor, batch: NewBatch
    ) -> NewBatch:
        """The batch with the prediction of each item, if every prediction still holds in this transaction.

        Raises InvalidRequestError for a plan that is not for this submission or has expired, PlanChangedError, PreviewUnavailableError.
        """
        planned, planned_beside = self._read(plan, repository.clock(), actor, batch)
        now = [_outcome(error) for error in _predict(prediction, actor, batch)]
        for position, activities in _beside(prediction, actor, batch).items():
            # An item that overrides would be registered beside an activity that its sender has not seen.
            if now[int(position)] == Outcome.SUCCESS and not set(activities) <= set(planned_beside.get(position, ())):
                now[int(position)] = DUPLICATE_ACTIVITY
        differences = [
            PlanDifference(position, item.values.mentor_id, before, after)
            for position, (item, before, after) in enumerate(zip(batch.items, planned, now, strict=True))
            if before != after
        ]
        if differences:
            raise PlanChangedError(differences)
        return replace(batch, items=[item._replace(planned=what) for item, what in zip(batch.items, planned, strict=True)])

    def _read(self, plan: str, now: datetime, actor: Actor, batch: NewBatch) -> tuple[Sequence[str], Mapping[str, Sequence[str]]]:
        """The planned results, and the activities beside which items would be registered, by position."""
        try:
            # `exp` and `now` are times of the database. jwt would compare `exp` with this host's clock, which may differ.
            claims = jwt.decode(
                plan, self.key, algorithms=[_ALGORITHM], audience=_AUDIENCE, options={"require": ["exp"], "verify_exp": False}
            )
        except jwt.InvalidTokenError:
            raise _bad_plan("plan_invalid", "This plan was not issued by this product, or was changed; preview again.") from None
        if claims["exp"] <= now.timestamp():
            raise _bad_plan("plan_expired", "The plan has expired; preview again.")
        expected = (actor.organization_id, batch.coordinator_id, _items_hash(batch))
        if (claims["org"], claims["coordinator"], claims["items"]) != expected:
            raise _bad_plan("plan_mismatch", "The plan is for another submission; preview this one.")
        # A plan of the version before, which lives for minutes, has no `beside`.
        return [_OUTCOME[letter] for letter in claims["outcomes"]], claims.get("beside", {})


def _predict(prediction: Prediction, actor: Actor, batch: NewBatch) -> Sequence[ItemError | None]:
    return prediction.predict(actor.organization_id, batch.coordinator_id, [item.values for item in batch.items])


def _beside(prediction: Prediction, actor: Actor, batch: NewBatch) -> Mapping[str, Sequence[str]]:
    """By position, the activities beside which items that override would be registered. (JSON has no other keys than texts.)"""
    overriding = [(position, item.values) for position, item in enumerate(batch.items) if item.values.override_duplicates]
    if not overriding:
        return {}
    found = prediction.beside(actor.organization_id, [values for _, values in overriding])
    return {str(position): activities for (position, _), activities in zip(overriding, found, strict=True) if activities}


def _outcome(error: ItemError | None) -> str:
    return Outcome.SUCCESS.value if error is None else error.code


def _bad_plan(code: str, detail: str) -> InvalidRequestError:
    return InvalidRequestError([Mistake("/plan", code, detail)])


def _items_hash(batch: NewBatch) -> str:
    rows = [
        (v.mentor_id, v.activity_type, v.activity_date, v.duration_minutes, v.notes, v.override_duplicates)
        for v in (item.values for item in batch.items)
    ]
    return hashlib.sha256(orjson.dumps(rows)).hexdigest()
