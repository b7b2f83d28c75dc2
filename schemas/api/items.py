"""The items of a batch, and their attempts."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.api.base import Request, Response
from schemas.fields import one_of
from schemas.statuses import ItemStatus

ItemState = Annotated[ItemStatus, one_of(*ItemStatus)]


class NamesQuery(Request):
    """Whether to return items with names."""

    names: Annotated[
        bool,
        Field(
            description="Add `mentor_name` and `activity_type_name`, and to `duplicate_activity` who registered the other one and when. "
            "Only for mentors in the caller's scope."
        ),
    ] = False


class ItemErrorResponse(Response, title="ItemErrorAnswer"):
    """Why an item failed."""

    code: str
    message: str
    retryable: bool
    field: str | None = None
    conflicting_activity_id: UUID | None = None
    registered_by_name: Annotated[
        str | None, Field(description="With `names=true`: the coordinator who registered the conflicting activity.")
    ] = None
    registered_at: Annotated[AwareDatetime | None, Field(description="With `names=true`: when it was registered.")] = None


MENTOR_NAME = Field(
    description="With `names=true`; null if the directory does not have the mentor, or not in the caller's scope."
)

TYPE_NAME = Field(description="With `names=true`; null if the directory does not have the type.")


class ItemResponse(Response, title="ItemAnswer"):
    """The present state of an item, without its notes."""

    item_id: UUID
    position: int
    mentor_id: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    mentor_name: Annotated[str | None, MENTOR_NAME] = None
    activity_type_name: Annotated[str | None, TYPE_NAME] = None
    client_reference: str | None = None
    status: ItemState
    attempt: int
    activity_id: UUID | None = None
    error: ItemErrorResponse | None = None
    revoked_at: Annotated[AwareDatetime | None, Field(description="When the activity was revoked; the item stays `success`.")] = (
        None
    )
    revoked_by: str | None = None
    revocation_reason: str | None = None
    revocation_request: Annotated[
        str | None,
        Field(
            description="What became of the request to an external registration service to revoke the activity: `unresolved`, or the code "
            "with which the service refused."
        ),
    ] = None
    plan_changed: Annotated[bool, Field(description="The item failed although its preview predicted another result.")] = False


class AttemptResponse(Response, title="AttemptAnswer"):
    """A finished attempt, and the correction that began the next one."""

    attempt: int
    submitted: Mapping[str, Any]
    error: ItemErrorResponse
    attempted_at: AwareDatetime
    correction: Mapping[str, Any] | None
    retried_by: str
    retried_at: AwareDatetime


class OneItemResponse(ItemResponse, title="OneItemAnswer"):
    """An item with its notes and its finished attempts."""

    notes: Annotated[str | None, Field(description="Always null for an auditor.")]
    override_duplicates: bool
    history: tuple[AttemptResponse, ...]
