"""The field types for events that are written from the tables accept and refuse the same values as those for other senders' events."""

from datetime import date
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.fields import MAX_ID_LENGTH, CalendarDate, Id, StoredDate, StoredId
from schemas.spelling import canonical

IDS, STORED_IDS = TypeAdapter[str](Id), TypeAdapter[str](StoredId)
DATES, STORED_DATES = TypeAdapter[date](CalendarDate), TypeAdapter[date](StoredDate)

NUMBERS = st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 10_000), st.integers(0, 13), st.integers(0, 32))
NEARLY = st.tuples(NUMBERS, st.sampled_from(["", " ", "\n", "T00:00:00", "T00:00:00Z", "Z", "٣"])).map("".join)
OTHERS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.lists(NUMBERS, max_size=1)


def accepted(types: TypeAdapter[Any], value: object) -> Any:
    """The value after reading, or None if it is refused."""
    try:
        return types.validate_json(orjson.dumps(value))
    except ValidationError:
        return None


@given(NUMBERS | NEARLY | OTHERS | st.text(max_size=12))
@example("2026-03-25")
@example("0000-01-01")
@example("2026-W12-3")
@example("20260325")
@example("\uff12\uff10\uff12\uff16-03-25")
@example(" 2026-03-25")
def test_a_stored_date_is_a_calendar_date(value: object) -> None:
    assert accepted(STORED_DATES, value) == accepted(DATES, value)


@given(st.text(max_size=2 * MAX_ID_LENGTH).map(canonical) | OTHERS)
@example("x" * MAX_ID_LENGTH)
@example("x" * (MAX_ID_LENGTH + 1))
@example("")
@example("a\x00b")
def test_a_stored_id_is_an_id_in_its_one_spelling(value: object) -> None:
    assert accepted(STORED_IDS, value) == accepted(IDS, value)


@pytest.mark.parametrize("types", [DATES, STORED_DATES])
def test_a_date_is_read(types: TypeAdapter[date]) -> None:
    assert accepted(types, "2026-03-25") == date(2026, 3, 25)
