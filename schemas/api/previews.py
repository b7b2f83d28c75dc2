"""The result of a preview."""

from typing import Annotated, Literal

from schemas.api.base import Response
from schemas.api.items import MENTOR_NAME, TYPE_NAME, ItemErrorResponse
from schemas.fields import one_of
from schemas.statuses import Outcome


class WarningResponse(Response):
    """Something unusual about an item. The item can be registered nevertheless."""

    code: Literal["shorter_than_usual"]
    message: str
    field: str


class PredictedItem(Response):
    """The predicted outcome of one item."""

    position: int
    mentor_id: str
    mentor_name: Annotated[str | None, MENTOR_NAME] = None
    activity_type_name: Annotated[str | None, TYPE_NAME] = None
    client_reference: str | None = None
    outcome: Annotated[Outcome, one_of(Outcome.SUCCESS, Outcome.FAILED)]
    error: ItemErrorResponse | None = None
    warnings: tuple[WarningResponse, ...] = ()


class PredictedCounts(Response):
    """How many items would succeed, and how many would fail."""

    success: int
    failed: int


class PreviewResponse(Response, title="PreviewAnswer"):
    """The result of a dry run, and a plan that the submission can be held to for 15 minutes."""

    plan: str
    items: tuple[PredictedItem, ...]
    counts: PredictedCounts


class PlanDifferenceResponse(Response, title="PlanDifferenceAnswer"):
    """An item whose predicted result has changed since the plan. Each result is `success` or an error code."""

    position: int
    mentor_id: str
    planned: str
    now: str
