"""The directory's mentors, chapters, activity types and coordinators."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from schemas.api.base import Request, Response
from schemas.fields import CalendarDate, Id, Label

_Q = Field(description="Only entries whose name or id contains this text, in any case; o finds ø, ae finds æ, a finds å.")

_SCOPE_OF = Field(
    description="Only entries in this coordinator's scope. Coordinators can name only themselves, which is their default."
)


class DirectoryQuery(Request):
    """Which page of the directory's entries to list, by id."""

    limit: Annotated[int, Field(ge=1, le=1_000)] = 200
    # Enough for the longest id, with characters of four bytes.
    cursor: Annotated[str | None, Field(max_length=600, description="`next_cursor` of the previous page.")] = None


class MentorsQuery(DirectoryQuery):
    """Which mentors to list."""

    coordinator_id: Annotated[Id | None, _SCOPE_OF] = None
    q: Annotated[Label | None, _Q] = None
    chapter_id: Id | None = None
    active_on: Annotated[CalendarDate | None, Field(description="The date for `active`; default: today. It is not a filter.")] = (
        None
    )


class ChaptersQuery(DirectoryQuery):
    """Which chapters to list."""

    coordinator_id: Annotated[Id | None, _SCOPE_OF] = None


class CoordinatorsQuery(DirectoryQuery):
    """Which coordinators to list."""

    q: Annotated[Label | None, _Q] = None


class MentorResponse(Response):
    """A mentor of the directory."""

    mentor_id: str
    name: str
    chapter_id: str
    active_from: Annotated[date | None, Field(description="The first day; null: no limit.")]
    active_until: Annotated[date | None, Field(description="The last day; null: no limit.")]
    active: Annotated[bool, Field(description="Whether the mentor is active on `active_on`, or today.")]


class ChapterResponse(Response):
    """A chapter of the organization."""

    chapter_id: str
    name: Annotated[str, Field(description="The id if the directory has no name.")]


class ActivityTypeResponse(Response):
    """An activity type of the organization."""

    activity_type: str
    name: str
    default_minutes: Annotated[int | None, Field(description="How long it usually takes.")]
    minimum_minutes: Annotated[int | None, Field(description="A preview warns about a shorter activity; it is not refused.")]


class CoordinatorResponse(Response):
    """A coordinator of the organization."""

    coordinator_id: str
    name: str
    role: Annotated[
        Literal["coordinator", "admin", "closed"],
        Field(description="An `admin` may register for everybody, a `closed` coordinator for nobody."),
    ]


_NEXT = Field(description="The `cursor` of the next page; null on the last one.")


class MentorsResponse(Response):
    """A page of mentors, by id."""

    data: tuple[MentorResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class ChaptersResponse(Response):
    """A page of chapters, by id."""

    data: tuple[ChapterResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class ActivityTypesResponse(Response):
    """A page of activity types, by their code."""

    data: tuple[ActivityTypeResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class CoordinatorsResponse(Response):
    """A page of coordinators, by id."""

    data: tuple[CoordinatorResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]
