"""Problem details (RFC 9457)."""

from typing import Annotated

from pydantic import Field

from schemas.api.base import Response
from schemas.api.previews import PlanDifferenceResponse


class MistakeResponse(Response, title="ProblemEntry"):
    """One mistake in a request."""

    pointer: Annotated[
        str,
        Field(
            description="JSON pointer into the body; it begins with `/query` for the query and with `/headers` for the headers."
        ),
    ]
    code: str
    detail: str


class ProblemResponse(Response, title="ProblemAnswer"):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="The last part of `type`.")]
    errors: tuple[MistakeResponse, ...] | None = None
    differences: Annotated[tuple[PlanDifferenceResponse, ...] | None, Field(description="Only with `plan_changed`.")] = None
