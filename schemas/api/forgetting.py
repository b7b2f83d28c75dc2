"""Requests to forget a mentor."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.api.base import Request, Response
from schemas.fields import Id


class MentorToForget(Request):
    """The mentor to forget: name and notes are erased, and the id is replaced by a pseudonym everywhere."""

    mentor_id: Annotated[Id, Field(description="It need not be in the directory any more, if a record has it.")]


class ForgettingResponse(Response):
    """A request to forget a mentor, and what has become of it. It does not name the mentor."""

    forgetting_id: UUID
    state: Annotated[
        Literal["waiting", "running", "done", "unknown"],
        Field(
            description="It runs as soon as the sweeper has begun, and waits for running batches that name the mentor. Unknown: nobody has the"
            " id, and nothing was changed."
        ),
    ]
    pseudonym: Annotated[
        str | None, Field(description="What replaces the id; null until the sweeper has begun, and if nobody has the id.")
    ]
    requested_by: str
    requested_at: AwareDatetime
    changed_rows: Annotated[int, Field(description="How many rows of the database were changed so far.")]
    done_at: AwareDatetime | None
