"""The field types that bodies and events share, with the limits of a well-formed request (specification, 6).

They say what can be stored and named. Whether an item may be registered is for the registration rules (specification, 4), which
answer item by item.
"""

import re
from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

MAX_ID_LENGTH = 100
MAX_LABEL_LENGTH = 200
MAX_NOTES_LENGTH = 10_000
MAX_REASON_LENGTH = 1_000
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

# PostgreSQL's text can't hold NUL. pydantic itself refuses unpaired surrogates.
_NO_NUL = r"^[^\x00]*$"


def _calendar_date(value: Any) -> Any:
    """A date only as `2026-03-25`: pydantic alone would also take timestamps and numbers."""
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not _ISO_DATE.fullmatch(value):
        raise ValueError("not a date of the form 2026-03-25")
    return date.fromisoformat(value)


Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH, pattern=_NO_NUL, strict=True)]
Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_LENGTH, pattern=_NO_NUL, strict=True)]
Notes = Annotated[str, StringConstraints(max_length=MAX_NOTES_LENGTH, pattern=_NO_NUL, strict=True)]
Reason = Annotated[str, StringConstraints(max_length=MAX_REASON_LENGTH, pattern=_NO_NUL, strict=True)]
Int32 = Annotated[int, Field(ge=INT32_MIN, le=INT32_MAX, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
CalendarDate = Annotated[
    date,
    BeforeValidator(_calendar_date, json_schema_input_type=Annotated[str, Field(json_schema_extra={"format": "date"})]),
]
