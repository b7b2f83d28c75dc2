"""Reads a request from its parsed JSON, or raises all of its mistakes at once."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.api.base import Request
from schemas.mistakes import MOST_MISTAKES, Entries, Mistake, first_of, mistakes_in


class RefusedRequestError(ValueError):
    """A request is invalid. `mistakes` has all mistakes, or the first ones and an entry that says that there are more."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(f"{len(mistakes)} mistakes")
        self.mistakes = tuple(mistakes)


RequestModel = TypeVar("RequestModel", bound=Request)


def read(model: type[RequestModel], raw: Any, *, at: str = "") -> RequestModel:
    """A request from its parsed JSON. Raises RefusedRequestError. `at` is the pointer to `raw` in the whole request."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = first_of(mistakes_in(model, raw, error, {}))
        raise RefusedRequestError([each._replace(pointer=at + each.pointer) for each in found]) from error


def read_with(
    model: type[RequestModel],
    raw: Any,
    entries: Entries,
    *,
    sizes: Sequence[Mistake] = (),
    others: Iterable[Mistake] = (),
    most: int | None = MOST_MISTAKES,
) -> RequestModel:
    """As `read`, for a request with lists, and with mistakes that its model can't find. Raises RefusedRequestError with the first `most` of all:
    the sizes, then those of the model, then the others."""
    try:
        request = model.model_validate(raw)
    except ValidationError as error:
        # Don't keep the iterator in a variable: it refers to the error, whose traceback refers to the variables, and that cycle would stay in
        # memory.
        raise RefusedRequestError(first_of(chain(sizes, mistakes_in(model, raw, error, entries), others), most)) from error
    if mistakes := first_of(chain(sizes, others), most):
        raise RefusedRequestError(mistakes)
    return request
