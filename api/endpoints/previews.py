"""The preview of a submission: the predicted result of each item, and a plan that the submission can be held to."""

from typing import Any

from api.endpoints.batches import new_batch, submission_in
from api.endpoints.calls import Call, Reply
from orchestrator.batches.model import ItemError, NewItem
from orchestrator.batches.states import Outcome


def preview(call: Call) -> Reply:
    """`POST /preview`: a dry run of a submission; nothing is written."""
    service = call.service
    submission = submission_in(call)
    actor = call.actor(submission.organization_id)
    batch = new_batch(submission, actor, trace=None)
    foretold = service.database.preview(
        actor.organization_id,
        lambda repository, prediction: service.planner.preview(repository, prediction, actor, batch),
    )
    items = [
        _predicted(position, item, error) for position, (item, error) in enumerate(zip(batch.items, foretold.errors, strict=True))
    ]
    failed = sum(error is not None for error in foretold.errors)
    counts = {Outcome.SUCCESS.value: len(items) - failed, Outcome.FAILED.value: failed}
    return Reply(200, {"plan": foretold.plan, "items": items, "counts": counts}, {"Cache-Control": "no-store"})


def _predicted(position: int, item: NewItem, error: ItemError | None) -> dict[str, Any]:
    predicted: dict[str, Any] = {"position": position, "mentor_id": item.values.mentor_id}
    if item.client_reference is not None:
        predicted["client_reference"] = item.client_reference
    if error is None:
        return predicted | {"outcome": Outcome.SUCCESS}
    return predicted | {"outcome": Outcome.FAILED, "error": error.as_json()}
