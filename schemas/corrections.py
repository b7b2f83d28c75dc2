"""What a retry changes in an item. The request, the event, the row and the history share this type."""

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # pydantic accepts the standard library's only from Python 3.12

from schemas.fields import CalendarDate, Flag, Id, Int32, Notes


class Correction(TypedDict, total=False):
    """New values of an item. A field that is absent keeps its value; None removes the notes."""

    mentor_id: Id
    activity_type: Id
    activity_date: CalendarDate
    duration_minutes: Int32
    notes: Notes | None
    override_duplicates: Flag


CORRECTION: TypeAdapter[Correction] = TypeAdapter(Correction)
"""Reads a correction from parsed JSON. Raises ValidationError; ignores unknown fields."""
