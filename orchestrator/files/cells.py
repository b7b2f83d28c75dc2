"""What a cell may say: ids, texts, dates and durations, as people and spreadsheets write them (specification, 9).

Each function takes a cell and answers its value, or raises BadCellError with words that complete "the cell …".
"""

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from schemas.fields import INT32_MAX, MAX_ID_LENGTH, MAX_LABEL_LENGTH, MAX_NOTES_LENGTH

Cell = str | int | float | date | time | timedelta
"""A cell as read: always text in CSV; what the spreadsheet program stores in a workbook. A blank one is the empty text."""

_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_DOTTED_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)

_MINUTES = re.compile(r"(\d+)\s*(?:min\.?)?", re.ASCII | re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,4}):([0-5]\d)", re.ASCII)
_HOURS = re.compile(r"(\d+(?:[.,]\d+)?)\s*[ht]", re.ASCII | re.IGNORECASE)


class FormulaError(str):
    """The text of a cell whose formula failed, such as `#N/A`."""

    __slots__ = ()


class BadCellError(ValueError):
    """A cell can't mean what its column asks for; the message says why, without the value."""


def text(cell: Cell) -> str:
    """The cell as its owner sees it, without the blanks around it."""
    if isinstance(cell, FormulaError):
        raise BadCellError("is the error of a formula")
    if isinstance(cell, float) and cell.is_integer():
        # A spreadsheet stores every number as a float: the id 482 is not "482.0".
        return str(int(cell))
    return str(cell).strip()


def is_blank(cell: Cell) -> bool:
    """Whether nothing is in the cell, or nothing but blanks."""
    return isinstance(cell, str) and not cell.strip()


def identifier(cell: Cell) -> str:
    """The id in a cell that must hold one, of at most 100 characters."""
    if isinstance(cell, date | time | timedelta):
        raise BadCellError("is an id that the spreadsheet program has made a date or time of; format the column as text")
    value = text(cell)
    if not value:
        raise BadCellError("is empty")
    if len(value) > MAX_ID_LENGTH:
        raise BadCellError(f"is longer than {MAX_ID_LENGTH} characters")
    return _without_nul(value)


def optional_identifier(cell: Cell) -> str | None:
    """As `identifier`; None for a blank cell."""
    return None if is_blank(cell) else identifier(cell)


def name(cell: Cell) -> str:
    """What somebody or something is called, in at most 200 characters."""
    value = text(cell)
    if not value:
        raise BadCellError("is empty")
    if len(value) > MAX_LABEL_LENGTH:
        raise BadCellError(f"is longer than {MAX_LABEL_LENGTH} characters")
    return _without_nul(value)


def notes(cell: Cell) -> str | None:
    """Free text of at most 10,000 characters; None for a blank cell."""
    return verbatim_notes(text(cell)) or None


def verbatim_notes(cell: Cell) -> str:
    """As `notes`, with the blanks around it."""
    value = cell if type(cell) is str else text(cell)
    if len(value) > MAX_NOTES_LENGTH:
        raise BadCellError(f"is longer than {MAX_NOTES_LENGTH:,} characters")
    return _without_nul(value)


def calendar_date(cell: Cell) -> date:
    """The date in a cell: `2026-03-25`, `25.03.2026` (dots are always day.month.year), or a date of the spreadsheet program."""
    if isinstance(cell, datetime):
        return cell.date()
    if isinstance(cell, date):
        return cell
    value = text(cell)
    if not value:
        raise BadCellError("is empty")
    if "/" in value:
        raise BadCellError(
            "has slashes, which some read as day/month and others as month/day; write 2026-03-25 or 25.03.2026 instead"
        )
    if match := _ISO_DATE.fullmatch(value):
        year, month, day = match.groups()
    elif match := _DOTTED_DATE.fullmatch(value):
        day, month, year = match.groups()
    else:
        raise BadCellError("is not a date; write 2026-03-25 or 25.03.2026")
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise BadCellError("is not a day of the calendar") from None


def optional_date(cell: Cell) -> date | None:
    """As `calendar_date`; None for a blank cell."""
    return None if is_blank(cell) else calendar_date(cell)


def minutes(cell: Cell) -> int:
    """The duration in a cell in minutes: `90`, `90 min`, `1:30`, `1,5 h` or `1.5 t`, or a time of the spreadsheet program."""
    if isinstance(cell, datetime | date):
        raise BadCellError("is a date, not a duration")
    if isinstance(cell, time):
        cell = timedelta(hours=cell.hour, minutes=cell.minute, seconds=cell.second, microseconds=cell.microsecond)
    if isinstance(cell, timedelta):
        return _whole_minutes(Decimal(round(cell.total_seconds())) / 60)
    value = text(cell)
    if not value:
        raise BadCellError("is empty")
    if match := _MINUTES.fullmatch(value):
        return _whole_minutes(Decimal(match[1]))
    if match := _CLOCK.fullmatch(value):
        return _whole_minutes(Decimal(match[1]) * 60 + Decimal(match[2]))
    if match := _HOURS.fullmatch(value):
        return _whole_minutes(Decimal(match[1].replace(",", ".")) * 60)
    raise BadCellError("is not a duration; write minutes (90), hours and minutes (1:30) or hours (1,5 h)")


def _whole_minutes(value: Decimal) -> int:
    if value != value.to_integral_value():
        raise BadCellError("is not a whole number of minutes")
    if value > INT32_MAX:
        raise BadCellError("is too large")
    return int(value)


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise BadCellError("has a NUL character in it")
    return value
