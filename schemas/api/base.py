"""The base of all requests, the base of all responses, and a limit that several requests have."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Request(BaseModel):
    """The base of all requests: an unknown field is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    REPEATABLE: ClassVar[frozenset[str]] = frozenset()
    """The parameters of a query that may be given several times."""


class Response(BaseModel):
    """The base of all responses. Fields may be added, so clients must ignore unknown ones."""

    model_config = ConfigDict(frozen=True)


# For a list of a request. `size_mistakes` checks this limit, because pydantic's own counts only well-formed entries.
NOT_EMPTY = Field(json_schema_extra={"minItems": 1})
