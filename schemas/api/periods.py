"""The closed period of an organization."""

from datetime import date
from typing import Annotated

from pydantic import AwareDatetime, Field

from schemas.api.base import Request, Response
from schemas.fields import CalendarDate, RevocationReason


class PeriodClosing(Request):
    """Closes or reopens the organization's period. An earlier date, or null, reopens."""

    closed_through: Annotated[
        CalendarDate | None,
        Field(description="The last closed day, at most today in the organization's time zone; null: no period is closed."),
    ]
    reason: Annotated[RevocationReason, Field(description="For auditors.")]


class PeriodQuery(Request):
    """Which changes of the closed period to list."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


class PeriodResponse(Response):
    """An organization's closed period. Nothing in it is registered or revoked."""

    closed_through: Annotated[date | None, Field(description="The last closed day; null: no period is closed.")]
    version: Annotated[int, Field(description="How often the period was changed.")]
    unresolved: Annotated[
        int,
        Field(
            description="Items in the period that an external registration service was asked to register or revoke before the closing,"
            " without a response so far."
        ),
    ]


class PeriodChangeResponse(Response):
    """A change of the closed period: a closing if `closed_through` is later than `previously`, else a reopening."""

    version: int
    closed_through: date | None
    previously: date | None
    reason: str
    changed_by: str
    channel: str
    changed_at: AwareDatetime


class PeriodHistoryResponse(PeriodResponse):
    """An organization's closed period, and its changes, newest first."""

    history: tuple[PeriodChangeResponse, ...]
    next_cursor: Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]
