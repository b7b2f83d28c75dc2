"""Retries of failed items, and their corrections."""

from typing import Annotated, Any, cast
from uuid import UUID

from pydantic import Field

from schemas.api.base import NOT_EMPTY, Request
from schemas.api.batches import BatchResponse
from schemas.api.reading import read_with
from schemas.corrections import Correction
from schemas.fields import CalendarDate, Flag, Id, Int32, Notes
from schemas.mistakes import MOST_MISTAKES, Mistake, pointer, size_mistakes

# A field that is left out differs from null: a correction with `"notes": null` removes the notes. Read `model_fields_set`, never these values.
_LEFT_OUT: Any = Field(default_factory=lambda: None)


class ItemCorrection(Request):
    """New values for a failed item; a field that is left out keeps its value."""

    item_id: UUID
    mentor_id: Id = _LEFT_OUT
    activity_type: Id = _LEFT_OUT
    activity_date: CalendarDate = _LEFT_OUT
    duration_minutes: Int32 = _LEFT_OUT
    notes: Notes | None = _LEFT_OUT
    override_duplicates: Flag = _LEFT_OUT

    def correction(self) -> Correction:
        """The fields that were sent."""
        sent = {name: getattr(self, name) for name in sorted(self.model_fields_set - {"item_id"})}
        return cast("Correction", sent)


class Retry(Request):
    """Which failed items to retry: the named ones, or those whose error is retryable, and those with a correction. By default all.

    The whole body may be left out.
    """

    item_ids: Annotated[tuple[UUID, ...], NOT_EMPTY] | None = None
    only_retryable: Annotated[
        Flag,
        Field(description="Retry items whose error is retryable, and those with a correction. Not together with `item_ids`."),
    ] = False
    corrections: Annotated[
        Annotated[tuple[ItemCorrection, ...], NOT_EMPTY] | None, Field(description="A correction selects its item.")
    ] = None


def read_retry(raw: Any, *, max_items: int, most_mistakes: int | None = MOST_MISTAKES) -> Retry:
    """A retry. Raises one RefusedRequestError with all mistakes that can be found without the batch."""
    sizes: list[Mistake] = []
    for field in ("item_ids", "corrections"):
        if isinstance(raw, dict) and isinstance(entries := raw.get(field), list):
            sizes += size_mistakes(pointer(field), entries, max_items)
            raw = raw | {field: entries[:max_items]}
    if isinstance(raw, dict) and raw.get("only_retryable") is True and raw.get("item_ids") is not None:
        # Ambiguous: it could mean the intersection or the union, so it is rejected.
        sizes.append(Mistake("/only_retryable", "not_with_item_ids", "can't be combined with item_ids; send one of them"))
    return read_with(Retry, raw, {"item_ids": UUID, "corrections": ItemCorrection}, sizes=sizes, most=most_mistakes)


class RetriedResponse(BatchResponse, title="RetriedAnswer"):
    """The batch, and how many of its items begin a new attempt."""

    retried: int
