"""Templates: the mentors that a coordinator registers repeatedly, and their activity."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.api.base import NOT_EMPTY, Request, Response
from schemas.api.reading import read_with
from schemas.fields import Id, Name
from schemas.mistakes import Mistake, pointer, size_mistakes


class TemplateChange(Request):
    """The values of a template: the mentors that a coordinator registers repeatedly, and their activity. It has no notes."""

    name: Name
    mentor_ids: Annotated[tuple[Id, ...], NOT_EMPTY]
    activity_type: Id
    duration_minutes: Annotated[int, Field(ge=1, le=1_440, strict=True)]
    weekday: Annotated[
        int | None, Field(ge=1, le=7, strict=True, description="1 for Monday to 7 for Sunday; null for no particular day.")
    ] = None


class NewTemplate(TemplateChange):
    """A template to be saved."""

    coordinator_id: Annotated[
        Id | None, Field(description="The coordinator who owns the template. Default: the token's subject.")
    ] = None


class TemplatesQuery(Request):
    """Which templates to list."""

    coordinator_id: Annotated[Id | None, Field(description="Only templates of this coordinator.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


TemplateModel = TypeVar("TemplateModel", bound=TemplateChange)


def read_template(model: type[TemplateModel], raw: Any, *, max_items: int) -> TemplateModel:
    """A template. Raises one RefusedRequestError with all its mistakes."""
    sizes: Sequence[Mistake] = ()
    if isinstance(raw, dict) and isinstance(entries := raw.get("mentor_ids"), list):
        sizes = size_mistakes(pointer("mentor_ids"), entries, max_items)
        raw = raw | {"mentor_ids": entries[:max_items]}
    return read_with(model, raw, {"mentor_ids": Id}, sizes=sizes)


class TemplateResponse(Response):
    """A template of a coordinator."""

    template_id: UUID
    coordinator_id: str
    name: str
    mentor_ids: tuple[str, ...]
    activity_type: str
    duration_minutes: int
    weekday: Annotated[int | None, Field(description="1 for Monday to 7 for Sunday.")]
    version: int
    changed_at: AwareDatetime


class TemplatesResponse(Response):
    """A page of templates, oldest first."""

    data: tuple[TemplateResponse, ...]
    next_cursor: Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]
