"""The requests to an external registration service, and its responses (docs/external-registration.md)."""

from datetime import date
from enum import StrEnum
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

CODE = r"^[a-z][a-z0-9_]{0,49}$"
"""What the code of a refusal looks like."""


class RegistrationRequest(BaseModel):
    """The activity to create. Every try under one key sends the same."""

    model_config = ConfigDict(frozen=True)

    item_id: UUID
    batch_id: UUID
    organization_id: str
    attributed_to: str
    registered_by: str
    submitted_by: str
    channel: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    notes: str | None
    override_duplicates: bool


class RevocationAsked(BaseModel):
    """The activity to revoke. Every try under one key sends the same."""

    model_config = ConfigDict(frozen=True)

    item_id: UUID
    batch_id: UUID
    organization_id: str
    activity_id: UUID
    revoked_by: str
    channel: str
    reason: str


class RevocationStatus(StrEnum):
    """The state of a revocation's key: a definite result, or that the service is still working on it."""

    REVOKED = "revoked"
    REFUSED = "refused"
    PROCESSING = "processing"


class RevocationAnswer(BaseModel):
    """The state of a revocation's key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    status: RevocationStatus
    code: Annotated[str, Field(pattern=CODE)] | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.status is RevocationStatus.REFUSED) != (self.code is not None):
            raise ValueError("refused needs a code, and no other status may have one")
        return self


class RegistrationStatus(StrEnum):
    """The state of a key: a definite result, or that the service is still working on it."""

    REGISTERED = "registered"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    PROCESSING = "processing"


class RegistrationResponse(BaseModel):
    """The state of a key. It repeats the key, so that a response to another request on the connection is detected."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    status: RegistrationStatus
    activity_id: UUID | None = None
    code: Annotated[str, Field(pattern=CODE)] | None = None
    field: str | None = None
    conflicting_activity_id: UUID | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.status is RegistrationStatus.REGISTERED) != (self.activity_id is not None):
            raise ValueError("registered needs an activity_id, and no other status may have one")
        if self.status is RegistrationStatus.REFUSED and self.code is None:
            raise ValueError("refused needs a code")
        return self
