"""Activities: listing, summing and downloading them, and the history of each."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.api.base import Request, Response
from schemas.api.items import ItemErrorResponse
from schemas.fields import CalendarDate, Id
from schemas.groupings import Grouping

_GROUPINGS = "|".join(Grouping)


class _Period(Request):
    """The dates of activities. Both are included."""

    date_from: Annotated[CalendarDate | None, Field(alias="from", description="Only activities on this date or later.")] = None
    date_to: Annotated[CalendarDate | None, Field(alias="to", description="Only activities on this date or earlier.")] = None


class ActivityExportQuery(_Period):
    """Which activities to download."""

    activity_type: Id | None = None
    chapter_id: Annotated[Id | None, Field(description="The mentor's chapter at registration.")] = None
    coordinator_id: Id | None = None
    mentor_id: Id | None = None
    revoked: Annotated[bool | None, Field(description="Only activities that are revoked, or only those that are not.")] = None


class ActivitiesQuery(ActivityExportQuery):
    """Which activities to list."""

    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


class ActivitySummaryQuery(_Period):
    """Which activities to sum, and how to group them."""

    mentor_id: Annotated[Id | None, Field(description="Only this mentor's activities.")] = None
    group_by: Annotated[
        str,
        Field(
            pattern=f"^({_GROUPINGS})(,({_GROUPINGS}))*$",
            description="One or more of activity_type, month, chapter and coordinator, separated by commas.",
        ),
    ] = "activity_type"

    @property
    def groupings(self) -> frozenset[Grouping]:
        """The ways of grouping the activities."""
        return frozenset(map(Grouping, self.group_by.split(",")))


class ActivityResponse(Response):
    """An activity without its notes. `chapter_id` is the mentor's chapter at registration."""

    activity_id: UUID
    mentor_id: str
    coordinator_id: str
    chapter_id: str | None
    activity_type: str
    activity_date: date
    duration_minutes: int
    overrides_duplicate: Annotated[
        bool, Field(description="Registered beside another activity of the same mentor, type and date.")
    ]
    registered_at: AwareDatetime
    revoked_at: AwareDatetime | None
    revoked_by: str | None
    revocation_reason: str | None
    batch_id: UUID
    item_id: UUID


class ActivitiesResponse(Response):
    """A page of activities, the latest date first."""

    data: tuple[ActivityResponse, ...]
    next_cursor: str | None


class ActivityEventResponse(Response):
    """An event in the history of an activity. Fields that do not apply are left out."""

    at: AwareDatetime
    kind: Literal["submitted", "failed", "retried", "registered", "revoked", "notes_erased"]
    by: str | None = None
    channel: Annotated[
        str | None,
        Field(description="How the request came in: `api`, an upstream service, or `retention` for notes that were old."),
    ] = None
    attempt: Annotated[int | None, Field(description="Which attempt failed, or began with the retry.")] = None
    error: ItemErrorResponse | None = None
    correction: Annotated[Mapping[str, Any] | None, Field(description="The values that the retry changed, without notes.")] = None
    reason: str | None = None


class OneActivityResponse(ActivityResponse):
    """An activity and its history, in the order of time."""

    history: tuple[ActivityEventResponse, ...]


class SumResponse(Response):
    """The number of activities, and the sum of their minutes."""

    activities: int
    minutes: int


class ActivityGroupResponse(Response):
    """The activities that share these values. Only fields that `group_by` names are present; `chapter_id` is null without a chapter."""

    activity_type: str | None = None
    month: Annotated[str | None, Field(description="Such as `2026-03`.")] = None
    chapter_id: str | None = None
    coordinator_id: str | None = None
    live: SumResponse
    revoked: SumResponse


class ActivitySummaryResponse(Response):
    """Sums by group, and of all groups together."""

    groups: tuple[ActivityGroupResponse, ...]
    live: SumResponse
    revoked: SumResponse
