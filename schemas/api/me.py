"""The caller, and what this deployment allows and can do."""

from datetime import date
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from schemas.api.base import Response


class OrganizationResponse(Response):
    """An organization. If the directory does not have it, its name is its id."""

    organization_id: str
    name: str
    time_zone: str
    today: Annotated[date, Field(description="Today's date in that time zone. No activity may have a later date.")]
    closed_through: Annotated[
        date | None,
        Field(description="No activity on this date or an earlier one is registered or revoked; null: no period is closed."),
    ]


class LimitsResponse(Response):
    """The limits on a submission. With an external registration service, some limits are up to the service, and null here."""

    max_items: int
    max_batch_bytes: Annotated[int, Field(description="The largest body of a submission.")]
    max_file_bytes: Annotated[int, Field(description="The largest file that is read.")]
    max_notes_length: Annotated[int, Field(description="In characters.")]
    max_duration_minutes: int | None
    earliest_date: Annotated[date | None, Field(description="No activity may be earlier.")]


class FeaturesResponse(Response):
    """What this deployment can do."""

    preview: Annotated[bool, Field(description="Not available with an external registration service.")]
    revoke: Annotated[bool, Field(description="Whether registered activities can be revoked.")]


class MeResponse(Response):
    """The caller, in the organization of the request."""

    subject: str
    name: Annotated[str | None, Field(description="From the directory; null if the directory does not have the caller.")]
    role: Literal["coordinator", "admin", "service", "auditor"]
    organization: OrganizationResponse
    limits: LimitsResponse
    features: FeaturesResponse
    session_ends_at: Annotated[AwareDatetime | None, Field(description="When the token expires; null if it never does.")]
