"""The field types that bodies and events share, with the limits of a well-formed request (docs/http.md).

They define what can be stored. The registration rules (docs/rules.md) decide for each item whether it may be registered.
"""

import re
import unicodedata
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetPydanticSchema, StringConstraints, WithJsonSchema
from pydantic_core import core_schema

from schemas.spelling import canonical

MAX_ID_LENGTH = 100
MAX_LABEL_LENGTH = 200
MAX_NOTES_LENGTH = 10_000
MAX_REASON_LENGTH = 1_000
MAX_REVOCATION_REASON_LENGTH = 500
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

# PostgreSQL's text can't hold NUL. pydantic itself refuses unpaired surrogates.
_NO_NUL = r"^[^\x00]*$"


def _calendar_date(value: Any) -> Any:
    """Accepts a date only as `2026-03-25`. pydantic alone would also accept timestamps and numbers."""
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not _ISO_DATE.fullmatch(value):
        raise ValueError("not a date of the form 2026-03-25")
    return date.fromisoformat(value)


# A longer text is refused in any case, even if composing would shorten it.
_MAX_CANONICAL_LENGTH = 4 * MAX_LABEL_LENGTH

# The time for composing is quadratic in the number of marks on one letter: 2 ms for 800. No language needs more than a few. This is the limit of
# Unicode's Stream-Safe Text Format.
_MOST_MARKS = 30


def _can_be_composed(value: Any) -> bool:
    if not isinstance(value, str) or value.isascii() or len(value) > _MAX_CANONICAL_LENGTH:
        return False
    if len(value) <= _MOST_MARKS:
        return True
    marks = 0
    for character in value:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MOST_MARKS:
            return False
    return True


def canonical_id(value: Any) -> Any:
    """An id in its canonical spelling. Non-strings, far too long text and letters with too many marks are returned unchanged."""
    return canonical(value) if _can_be_composed(value) else value


def _composed(value: Any) -> Any:
    """A label with composed letters. It keeps invisible characters, because they can change what people see, as in a family emoji."""
    return unicodedata.normalize("NFC", value) if _can_be_composed(value) else value


_ID = StringConstraints(min_length=1, max_length=MAX_ID_LENGTH, pattern=_NO_NUL, strict=True)
Id = Annotated[str, _ID, BeforeValidator(canonical_id)]
StoredId = Annotated[str, _ID]
"""An id in an event that is written from the tables. It got its canonical spelling when it came in, so the reader need not check it."""
Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_LENGTH, pattern=_NO_NUL, strict=True), BeforeValidator(_composed)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LABEL_LENGTH, pattern=_NO_NUL, strict=True),
    BeforeValidator(_composed),
]
"""What something is called: a label that is not empty."""
Notes = Annotated[str, StringConstraints(max_length=MAX_NOTES_LENGTH, pattern=_NO_NUL, strict=True)]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON_LENGTH, pattern=_NO_NUL, strict=True)]
RevocationReason = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_REVOCATION_REASON_LENGTH, pattern=_NO_NUL, strict=True)
]
Int32 = Annotated[int, Field(ge=INT32_MIN, le=INT32_MAX, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


def one_of(*members: StrEnum) -> GetPydanticSchema:
    """Accepts the texts of these members of an enumeration. The published documents list the texts in the field itself; the schema of the
    enumeration would be a named definition."""
    (kind,) = {type(member) for member in members}
    texts = core_schema.literal_schema([member.value for member in members])
    return GetPydanticSchema(lambda _source, _handler: core_schema.no_info_after_validator_function(kind, texts))


CalendarDate = Annotated[
    date,
    BeforeValidator(_calendar_date, json_schema_input_type=Annotated[str, Field(json_schema_extra={"format": "date"})]),
]
StoredDate = Annotated[
    date,
    GetPydanticSchema(
        lambda _source, _handler: core_schema.chain_schema(
            [core_schema.str_schema(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", strict=True), core_schema.date_schema()]
        )
    ),
    WithJsonSchema({"type": "string", "format": "date"}),
]
"""Accepts the same texts as `CalendarDate` at a quarter of its cost. Its error messages are less helpful, but no client sees them."""
