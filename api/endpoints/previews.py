"""The preview of a submission: the predicted result of each item, and a plan that the submission can be held to."""

from collections.abc import Mapping
from typing import Any

from api.endpoints.batches import new_batch, submission_in
from api.endpoints.calls import Call, Reply
from orchestrator.batches.model import ItemError, NewItem
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.states import Outcome
from orchestrator.directory.reading import DirectoryReader
from orchestrator.registration.port import Prediction
from orchestrator.registration.preview import Preview


def preview(call: Call) -> Reply:
    """`POST /preview`: a dry run of a submission; nothing is written."""
    service = call.service
    submission = submission_in(call)
    actor = call.actor(submission.organization_id)
    batch = new_batch(submission, actor, trace=None)

    def work(
        repository: ActivityRepository, prediction: Prediction, directory: DirectoryReader
    ) -> tuple[Preview, Mapping[str, int]]:
        foretold = service.planner.preview(repository, prediction, actor, batch)
        return foretold, directory.minimum_minutes(actor.organization_id, {item.values.activity_type for item in batch.items})

    foretold, minimum_minutes = service.database.preview(actor.organization_id, work)
    items = [
        _predicted(position, item, error) | _warnings(item, minimum_minutes)
        for position, (item, error) in enumerate(zip(batch.items, foretold.errors, strict=True))
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


def _warnings(item: NewItem, minimum_minutes: Mapping[str, int]) -> dict[str, Any]:
    least = minimum_minutes.get(item.values.activity_type)
    if least is None or item.values.duration_minutes >= least:
        return {}
    message = f"Activities of this type mostly take {least} minutes or more"
    return {"warnings": [{"code": "shorter_than_usual", "message": message, "field": "duration_minutes"}]}
