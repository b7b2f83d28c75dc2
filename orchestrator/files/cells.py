"""Parses the cells of a table: ids, texts, dates and durations, as people and spreadsheets write them (docs/files.md).

Each function takes a cell and returns its value, or raises BadCellError with a message that completes "the cell …".
"""

import re
import unicodedata
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from orchestrator.files import number_formats
from orchestrator.files.encodings import misread_part
from orchestrator.files.formulas import FormulaText, is_plain_text, original
from schemas.fields import INT32_MAX, MAX_ID_LENGTH, MAX_LABEL_LENGTH, MAX_NOTES_LENGTH
from schemas.spelling import canonical, visible

Cell = str | int | float | date | time | timedelta
"""A cell as it was read: always text in CSV, in a workbook the type that the spreadsheet program stored. A blank cell is the empty text."""

_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_DOTTED_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)

MIDNIGHT = re.compile(r"[ T]0?0[:.]00(?:[:.]00(?:[.,]0+)?)?$")
"""Midnight behind a date. Programs that store dates with a time export it as well."""

HOUR_WORD = r"(?:h|hrs?|hours?|t|tim(?:e|er|ar)?)\.?"
"""A unit of hours, in English, Bokmål and Nynorsk, as a regular expression."""

MINUTE_WORD = r"min(?:s|utes?|utt(?:er)?)?\.?"
"""A unit of minutes, likewise."""

MINUTE_WORD_AFTER_HOURS = rf"(?:m|{MINUTE_WORD})"
"""A unit of minutes after hours. Only there `m` is one."""

_MINUTES = re.compile(rf"(\d+)\s*(?:{MINUTE_WORD})?", re.ASCII | re.IGNORECASE)
# Programs that show durations add the seconds.
_CLOCK = re.compile(r"(\d{1,4}):([0-5]\d)(?::00)?", re.ASCII)
_HOURS = re.compile(rf"(\d+(?:[.,]\d+)?)\s*{HOUR_WORD}", re.ASCII | re.IGNORECASE)
_HOURS_AND_MINUTES = re.compile(
    rf"(\d+)\s*{HOUR_WORD}\s*(?:(?:og|and|,)\s*)?([0-5]?\d)\s*{MINUTE_WORD_AFTER_HOURS}", re.ASCII | re.IGNORECASE
)
# Hours that may be meant as hours and minutes: `1.30 t`, which is 78 minutes. A quarter of an hour has other decimals.
_CLOCK_WITH_POINT = re.compile(rf"\d+[.,](?!00|25|50)[0-5][05]\s*{HOUR_WORD}", re.ASCII | re.IGNORECASE)

# A longer number is too large for a duration in any unit; and parsing thousands of digits takes long.
_MAX_DURATION_LENGTH = 40


# What a spreadsheet program shows in English or Norwegian for a formula that failed, and saves as text.
_ERROR_TEXT = re.compile(
    r"#(?:N/A|I/T|GETTING_DATA|(?:NULL|DIV/0|VALUE|VERDI|REF|NUM|SPILL|OVERFLYT|CALC|BEREGN|FIELD|FELT|BLOCKED|UNKNOWN|CONNECT|BUSY)!"
    r"|(?:NAME|NAVN)\?)|Err:[0-9]{3}"
)
# What a spreadsheet program writes for a long number. Other digits of it are lost.
_SHORTENED = re.compile(r"[1-9](?:[.,][0-9]{1,14})?E\+[0-9]{2,3}")
# What a program writes for an id that it has taken for a date.
_WITH_MIDNIGHT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]00:00:00")
# A text between apostrophes, or digits that an apostrophe marks as a text. `'t-hooft` is a name.
_MARKED_TEXT = re.compile(r"'(?:[0-9].*|.*'|)|\".+\"", re.DOTALL)
# What databases and programs export for an empty value.
_NO_VALUE = frozenset({"NULL", "[NULL]", "(null)", "<null>", "\\N", "NaN", "<NA>", "NaT"})
_TOO_NARROW = re.compile("#{3,}")

WITH_DECIMALS = re.compile(r"[0-9]+[.,]0")
"""What a program writes for an id that it has taken for a number with decimals."""

# The end of each message about an id or a name that can also be meant.
_IF_MEANT = '; if it is meant, write ="…" in a CSV file'


class Number(float):
    """A number of a workbook, and the format in which its cell shows it."""

    __slots__ = ("format",)

    def __new__(cls, value: float, format: str = number_formats.GENERAL) -> "Number":  # noqa: A002 - the name in workbooks
        """A number in this format."""
        number = super().__new__(cls, value)
        number.format = format
        return number

    format: str


class ShownText(str):
    """A text in a workbook whose cell format shows it differently. `shown` is the text that people see; None if that is unknown."""

    __slots__ = ("shown",)

    def __new__(cls, value: str, shown: str | None) -> "ShownText":
        """A text that is shown as `shown`."""
        text = super().__new__(cls, value)
        text.shown = shown
        return text

    shown: str | None


class BrokenCell(str):
    """A cell without a usable value: its content as text, and the reason."""

    __slots__ = ("reason",)

    def __new__(cls, content: str, reason: str) -> "BrokenCell":
        """A cell with this content."""
        cell = super().__new__(cls, content)
        cell.reason = reason
        return cell

    reason: str


class FormulaError(BrokenCell):
    """The text of a cell whose formula failed, such as `#N/A`."""

    __slots__ = ()

    def __new__(cls, content: str) -> "FormulaError":
        """A cell that shows this error."""
        return super().__new__(cls, content, "is the error of a formula")  # type: ignore[return-value]


class UnsavedFormula(BrokenCell):
    """A formula whose value was never calculated and saved."""

    __slots__ = ()

    def __new__(cls, content: str) -> "UnsavedFormula":
        """A cell with this formula."""
        reason = (
            "is a formula without a saved value; open the file in a spreadsheet program and save it, or write the value itself"
        )
        return super().__new__(cls, content, reason)  # type: ignore[return-value]


class BadCellError(ValueError):
    """A cell does not have a valid value for its column. The message says why, without quoting the value.

    `code` is the same for programs. None: the column has a code for everything that it can't read.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class DecimalIdError(BadCellError):
    """An id ends with `.0`: a program may have changed a whole number. It has not, if another id of the column has other decimals."""

    def __init__(self, identifier: str) -> None:
        super().__init__(f"is an id that a program has changed into a number with decimals; write the id itself{_IF_MEANT}")
        self.identifier = identifier


EMPTY, TOO_LONG = "empty", "too_long"


def text(cell: Cell) -> str:
    """The cell as people see it, without surrounding blanks."""
    value = _text(cell)
    if is_only_hashes(value):
        raise BadCellError(
            "is what a spreadsheet program shows if a column is too narrow; widen the column and save the file again"
        )
    return value


def _text(cell: Cell) -> str:
    """As `text`, but also `###`."""
    if isinstance(cell, BrokenCell):
        raise BadCellError(cell.reason)
    value = shown(cell)
    if value.startswith(("#", "Err:")) and _ERROR_TEXT.fullmatch(value):
        raise BadCellError(FormulaError(value).reason)
    return value


def is_only_hashes(cell: Cell) -> bool:
    """Whether the cell is `###`, which a spreadsheet program shows and saves as text if a column is too narrow. In notes it can be meant."""
    return isinstance(cell, str) and _TOO_NARROW.fullmatch(cell.strip()) is not None


def shown(cell: Cell) -> str:
    """As `text`, but for a cell without a usable value, its error or its formula."""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, Number) and (seen := number_formats.shown(cell, cell.format, with_decimals=True)) is not None:
        return seen
    if isinstance(cell, datetime) and not (cell.hour or cell.minute or cell.second):
        return cell.date().isoformat()
    if isinstance(cell, float):
        # A spreadsheet stores every number as a float, but the id 482 is not "482.0".
        return number_formats.plain(cell)
    return str(cell).strip()


def is_blank(cell: Cell) -> bool:
    """Whether the cell is empty, or has only blanks and invisible characters."""
    return isinstance(cell, str) and not isinstance(cell, BrokenCell) and not visible(cell).strip()


def identifier(cell: Cell) -> str:
    """The id in a cell, of at most 100 characters: what the cell shows, in canonical spelling (decision 26). Raises BadCellError."""
    value = _identifier(cell)
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise BadCellError("contains a line break or another control character")
    if isinstance(cell, FormulaText):
        return _undamaged(value)
    # Our exports have an apostrophe before what a spreadsheet program would take for a formula.
    value = original(value) if value.startswith("'") else value
    if value.startswith("="):
        raise BadCellError("is a formula in a text; write the id itself")
    if _MARKED_TEXT.fullmatch(value):
        raise BadCellError(f"has quotes that a program has added, or that mark a text; write the id without them{_IF_MEANT}")
    _refuse_no_value(value, "write the id itself")
    if WITH_DECIMALS.fullmatch(value):
        raise DecimalIdError(value)
    if _WITH_MIDNIGHT.fullmatch(value):
        raise BadCellError(f"is an id that a program has changed into a date; write the id itself{_IF_MEANT}")
    if _SHORTENED.fullmatch(value):
        raise BadCellError(
            f"is a number that a spreadsheet program has shortened; format the column as text and write the id again{_IF_MEANT}"
        )
    return _undamaged(value)


def optional_identifier(cell: Cell) -> str | None:
    """As `identifier`; None for a blank cell."""
    if is_blank(cell):
        return None
    _refuse_no_value(cell, "leave the cell empty")
    return identifier(cell)


def _identifier(cell: Cell) -> str:
    value = visible(_shown_id(cell)).strip()
    # Composing a text can take long, and a longer text is too long even when it is composed.
    if len(value) <= 4 * MAX_ID_LENGTH:
        value = canonical(value)
    if not value:
        raise BadCellError("is empty", EMPTY)
    if len(value) > MAX_ID_LENGTH:
        raise BadCellError(f"is longer than {MAX_ID_LENGTH} characters", TOO_LONG)
    return _without_nul(value)


def _shown_id(cell: Cell) -> str:
    if isinstance(cell, bool):
        raise BadCellError("is an id that the spreadsheet program has changed into TRUE or FALSE; format the column as text")
    if isinstance(cell, date | time | timedelta):
        raise BadCellError("is an id that the spreadsheet program has changed into a date or time; format the column as text")
    if isinstance(cell, ShownText | Number):
        seen = cell.shown if isinstance(cell, ShownText) else number_formats.shown(cell, cell.format)
        if seen is None:
            raise BadCellError(
                "is an id in a number format that is not supported, so the sheet may show another id; format the column as text"
                " and write the id again"
            )
        return seen
    return text(cell)


def optional_reference(cell: Cell) -> str | None:
    """The sender's own name for the row. Nothing is looked up by it, so it may contain line breaks. None for a blank cell."""
    return None if is_blank(cell) else _identifier(cell)


def name(cell: Cell) -> str:
    """A name of at most 200 characters."""
    value = text(cell)
    if not value:
        raise BadCellError("is empty", EMPTY)
    _refuse_no_value(cell, "write the name itself")
    if len(value) > MAX_LABEL_LENGTH:
        raise BadCellError(f"is longer than {MAX_LABEL_LENGTH} characters", TOO_LONG)
    return _undamaged(_without_nul(value))


def optional_name(cell: Cell) -> str | None:
    """As `name`; None for a blank cell."""
    if is_blank(cell):
        return None
    _refuse_no_value(cell, "leave the cell empty")
    return name(cell)


def notes(cell: Cell) -> str | None:
    """Free text of at most 10,000 characters; None for a blank cell."""
    return verbatim_notes(_text(cell)) or None


def verbatim_notes(cell: Cell) -> str:
    """As `notes`, with surrounding blanks."""
    seen = _text(cell)
    value = str(cell) if is_plain_text(cell) else seen
    if len(value) > MAX_NOTES_LENGTH:
        raise BadCellError(f"is longer than {MAX_NOTES_LENGTH:,} characters", TOO_LONG)
    return _without_nul(value)


def calendar_date(cell: Cell) -> date:
    """The date in a cell: `2026-03-25`, `25.03.2026` (dots are always day.month.year), or a date of the spreadsheet program."""
    if isinstance(cell, datetime):
        return cell.date()
    if isinstance(cell, date):
        return cell
    if isinstance(cell, Number) and number_formats.is_date(cell.format):
        raise BadCellError("is a number in a cell formatted as a date, but not a date; write 25.03.2026")
    value = visible(text(cell)).strip()
    if not value:
        raise BadCellError("is empty", EMPTY)
    if "/" in value:
        raise BadCellError(
            "has slashes, which some read as day/month and others as month/day; write 2026-03-25 or 25.03.2026 instead",
            "slashes",
        )
    value = MIDNIGHT.sub("", value)
    if match := _ISO_DATE.fullmatch(value):
        year, month, day = match.groups()
    elif match := _DOTTED_DATE.fullmatch(value):
        day, month, year = match.groups()
    else:
        raise BadCellError("is not a date; write 2026-03-25 or 25.03.2026")
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise BadCellError("is not a valid date") from None


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
    value = visible(_written_duration(cell)).strip()
    if not value:
        raise BadCellError("is empty", EMPTY)
    if len(value) > _MAX_DURATION_LENGTH:
        raise BadCellError("is too large" if value.isdigit() else _NO_DURATION)
    if match := _MINUTES.fullmatch(value):
        return _whole_minutes(Decimal(match[1]))
    if match := _CLOCK.fullmatch(value) or _HOURS_AND_MINUTES.fullmatch(value):
        return _whole_minutes(Decimal(match[1]) * 60 + Decimal(match[2]))
    if match := _HOURS.fullmatch(value):
        return _whole_minutes(Decimal(match[1].replace(",", ".")) * 60)
    raise BadCellError(_NO_DURATION)


_NO_DURATION = "is not a duration; write minutes (90), hours and minutes (1:30) or hours (1,5 h)"


def may_be_clock(cell: Cell) -> bool:
    """Whether a duration such as `1.30 t`, which is 78 minutes, may be meant as an hour and 30 minutes."""
    seen = number_formats.shown(cell, cell.format, with_decimals=True) if isinstance(cell, Number) else cell
    return isinstance(seen, str) and _CLOCK_WITH_POINT.fullmatch(visible(seen).strip()) is not None


def has_no_unit(cell: Cell) -> bool:
    """Whether a duration is only a number. It is read as minutes."""
    if isinstance(cell, Number):
        return not number_formats.alters_amount(cell.format)
    return isinstance(cell, str) and visible(cell).strip().isdigit()


def _written_duration(cell: Cell) -> str:
    if not isinstance(cell, Number):
        return text(cell)
    if number_formats.is_date(cell.format):
        raise BadCellError("is a date, not a duration")
    if not number_formats.alters_amount(cell.format):
        return number_formats.plain(cell)
    # The cell shows `2 t`, which means two hours, but stores 2. Or it shows `1:30` and stores 130.
    seen = number_formats.shown(cell, cell.format, with_decimals=True)
    if seen is None:
        raise BadCellError(_NO_DURATION)
    if number_formats.is_rounded(cell, cell.format):
        raise BadCellError("shows a rounded number; write minutes")
    return seen


def _whole_minutes(value: Decimal) -> int:
    if value < 0:
        raise BadCellError("is negative")
    if value != value.to_integral_value():
        raise BadCellError("is not a whole number of minutes")
    if value > INT32_MAX:
        raise BadCellError("is too large")
    return int(value)


def _refuse_no_value(cell: Cell, advice: str) -> None:
    """Raises BadCellError if the cell is what a program writes for an empty value."""
    if isinstance(cell, str) and not isinstance(cell, FormulaText) and cell.strip() in _NO_VALUE:
        raise BadCellError(f"is what a program writes for an empty value; {advice}{_IF_MEANT}")


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise BadCellError("contains a NUL character")
    return value


def _undamaged(value: str) -> str:
    """The value, unless a program has read a letter in a wrong encoding, or has put a replacement character in its place."""
    if "\ufffd" in value:
        raise BadCellError("contains a \ufffd: a program could not read a letter there; write the letter again")
    misread = misread_part(value)
    if misread is not None:
        raise BadCellError(
            f"contains {misread}, probably in place of a letter that a program has read in a wrong encoding; save the list as CSV UTF-8"
            " where the letters are still right, or write them again"
        )
    return value
