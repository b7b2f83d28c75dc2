"""Builds result events from outcomes, for the registration, and for the sweeper when it gives up an item."""

from typing import Any

from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import Outcome
from orchestrator.storage.outcomes import CommandState, NewOutcome
from schemas import event_builders, events
from schemas.envelope import OutgoingEvent

_EVENT_TYPE = {Outcome.SUCCESS: events.SUCCEEDED, Outcome.FAILED: events.FAILED, Outcome.CANCELLED: events.CANCELLED}


class ResultWriter:
    """Builds result events. Encodes headers that the items of a batch share only once."""

    def __init__(self) -> None:
        self._headers: dict[str, event_builders.ItemEventHeaders] = {}

    def write(self, key: OutcomeKey, state: CommandState, decided: NewOutcome | None, *, bulk: bool) -> OutgoingEvent:
        """The result of a command: from `decided`, or from the stored outcome in `state` if nothing was decided now."""
        outcome = state.outcome if decided is None else decided.outcome
        activity_id = state.activity_id if decided is None else decided.activity_id
        error = state.error if decided is None else decided.error
        assert outcome is not None, "a result needs an outcome"
        data: dict[str, Any] = {
            "batch_id": key.batch_id,
            "item_id": state.item_id,
            "position": key.position,
            "attempt": key.attempt,
            "organization_id": state.organization_id,
            "bulk": bulk,
        }
        if activity_id is not None:
            data["activity_id"] = activity_id
        if error is not None:
            data["error"] = error.as_json()
        headers = self._headers.get(state.trace_id) or self._headers.setdefault(
            state.trace_id, event_builders.ItemEventHeaders(state.trace_id)
        )
        return event_builders.result(
            data,
            headers.of(_EVENT_TYPE[outcome], state.item_id, key.attempt, state.decided_at),
            batch_id=key.batch_id,
            position=key.position,
        )
