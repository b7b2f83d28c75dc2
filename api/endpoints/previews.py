"""The preview of a submission: the predicted result of each item, and a plan that the submission can be held to."""

from collections.abc import Mapping
from typing import Any

from api.endpoints import presentation
from api.endpoints.batches import new_batch, submission_in
from api.endpoints.calls import Call, Reply
from orchestrator.batches.model import ItemError, NewItem
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.states import Outcome
from orchestrator.directory.reading import DirectoryReader, Names
from orchestrator.registration.port import Prediction
from orchestrator.registration.preview import Preview
from schemas.api.items import NamesQuery


def preview(call: Call) -> Reply:
    """`POST /preview`: a dry run of a submission; nothing is written."""
    service, query = call.service, call.read_query(NamesQuery)
    submission = submission_in(call)
    actor = call.actor(submission.organization_id)
    batch = new_batch(submission, actor, trace=None)

    def work(
        repository: ActivityRepository, prediction: Prediction, directory: DirectoryReader
    ) -> tuple[Preview, Mapping[str, int], Names | None]:
        predicted = service.planner.preview(repository, prediction, actor, batch)
        values = [item.values for item in batch.items]
        minimum_minutes = directory.minimum_minutes(actor.organization_id, {value.activity_type for value in values})
        return predicted, minimum_minutes, directory.names(actor, values, predicted.errors) if query.names else None

    predicted, minimum_minutes, names = service.database.preview(actor.organization_id, work)
    items = [
        _predicted(position, item, error, names) | _warnings(item, minimum_minutes)
        for position, (item, error) in enumerate(zip(batch.items, predicted.errors, strict=True))
    ]
    failed = sum(error is not None for error in predicted.errors)
    counts = {Outcome.SUCCESS.value: len(items) - failed, Outcome.FAILED.value: failed}
    return Reply(200, {"plan": predicted.plan, "items": items, "counts": counts}, {"Cache-Control": "no-store"})


def _predicted(position: int, item: NewItem, error: ItemError | None, names: Names | None) -> dict[str, Any]:
    predicted = {"position": position, "mentor_id": item.values.mentor_id, **presentation.item_names(item.values, names)}
    if item.client_reference is not None:
        predicted["client_reference"] = item.client_reference
    if error is None:
        return predicted | {"outcome": Outcome.SUCCESS}
    return predicted | {"outcome": Outcome.FAILED, "error": presentation.error(error, names)}


def _warnings(item: NewItem, minimum_minutes: Mapping[str, int]) -> dict[str, Any]:
    least = minimum_minutes.get(item.values.activity_type)
    if least is None or item.values.duration_minutes >= least:
        return {}
    message = f"Activities of this type mostly take {least} minutes or more"
    return {"warnings": [{"code": "shorter_than_usual", "message": message, "field": "duration_minutes"}]}
