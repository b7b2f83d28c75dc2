"""The times in a query."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

# pydantic alone would also accept a number of seconds since 1970.
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}.*")

# A time in a query whose `+` was not encoded.
_BLANK_FOR_PLUS = re.compile(r".*:\d{2}(\.\d+)? \d{2}(:?\d{2})?")


def _written_out(value: Any) -> Any:
    if isinstance(value, str) and _BLANK_FOR_PLUS.fullmatch(value):
        raise PydanticCustomError("blank_for_plus", "a blank before the offset")
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise PydanticKnownError("datetime_parsing", {"error": "not written out"})
    return value


def _in_utc(value: datetime) -> datetime:
    """The time in UTC, because PostgreSQL accepts no offset beyond 16 hours, and no year 0 or 10,000."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticKnownError("datetime_parsing", {"error": "out of range"}) from None


Time = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    BeforeValidator(_written_out, json_schema_input_type=Annotated[str, Field(json_schema_extra={"format": "date-time"})]),
]
