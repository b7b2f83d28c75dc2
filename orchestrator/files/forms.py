"""Decides whether a cell still means the exported value in another form, because spreadsheet programs rewrite values that nobody has edited.

They interpret texts as numbers (leading zeros are lost, exponents appear), dates, times and truth values; they write numbers and dates in their
own language; and they read or write letters in a wrong encoding (docs/files.md).
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Context, Decimal
from functools import cache
from itertools import permutations

from orchestrator.files import number_formats
from orchestrator.files.cells import MIDNIGHT, BrokenCell, Cell, Number, ShownText, shown
from orchestrator.files.formulas import is_plain_text, neutral, original
from orchestrator.files.workbooks import MAX_TYPED_NUMBER
from schemas.spelling import canonical

# No number and no date is longer. The time for composing a text can be quadratic in its length.
_MAX_CHARACTERS = 60

_NUMBER = re.compile(r"[+-]?(?:\d[\d.,]*|[.,]\d+)(?:E[+-]?\d{1,3})?%?", re.ASCII | re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*", re.ASCII)
_GROUPING = re.compile("[ '’]")  # noqa: RUF001 - Swiss numbers group digits with it
# The digits that a spreadsheet program keeps of a number.
_KEPT_DIGITS = 15

_DATE_PARTS = re.compile(r"[^\W\d_]+|\d+")
_DATE = re.compile(r"(?:[^\W\d_]+|\d+)(?:(?:[-./ ]|\. |, )?(?:[^\W\d_]+|\d+)){1,2}")
_CLOCK = re.compile(r"(\d{1,4})[:.](\d\d)(?:[:.](\d\d)(?:[.,]0+)?)?", re.ASCII)
_WHOLE_DURATION = re.compile(r"(\d+)(?:[.,]0+)?(?:\s*min\.?)?", re.ASCII | re.IGNORECASE)
_MONTHS: Sequence[str] = (
    "january januar jan",
    "february februar feb",
    "march mars mar märz mär",
    "april apr",
    "may mai",
    "june juni jun",
    "july juli jul",
    "august aug",
    "september sept sep",
    "october oktober oct okt",
    "november nov",
    "december desember dezember dec des dez",
)
_MONTH_OF = {name: number for number, names in enumerate(_MONTHS, start=1) for name in names.split()}
_FIRST_SERIAL, _LAST_SERIAL = 1, 2_958_465

_TRUE = frozenset({"true", "sann", "wahr", "vrai", "verdadero", "vero", "waar", "sant", "tosi", "prawda"})
_FALSE = frozenset({"false", "usann", "falsch", "faux", "falso", "onwaar", "falskt", "falsk", "epätosi", "fałsz"})

# The encodings of Windows, the Mac and DOS in our users' languages.
_ENCODINGS = ("windows-1252", "latin-1", "mac-roman", "cp850", "cp437", "cp865")
_LOST_MARKS = re.compile("[?_\N{REPLACEMENT CHARACTER}]")
# Letters that a program can lose, with the marks that it can leave.
_LOSABLE = re.compile(r"((?:[^\x00-\x7f]|[?_])+)")
_NOT_OF_ASCII = re.compile("[^A-Za-z0-9]")


def is_same_text(cell: Cell, exported: str) -> bool:
    """Whether the cell has this text, or a form that a spreadsheet program may change it into."""
    if isinstance(cell, BrokenCell):
        return False
    if is_spelled_alike(cell, exported):
        return True
    texts = {_folded(each) for each in _texts(cell)}
    plain = _folded(exported)
    if not exported.isascii() and any(_is_misread(text, plain) for text in texts):
        return True
    if len(plain) > _MAX_CHARACTERS or any(len(text) > _MAX_CHARACTERS for text in texts):
        return False
    return _is_same_number(cell, texts, plain) or _is_same_moment(cell, texts, plain) or _is_same_truth(texts, plain)


def is_spelled_alike(cell: Cell, exported: str) -> bool:
    """Whether the cell has this text, apart from blanks, invisible characters, and the apostrophe before a formula."""
    alike = {_folded(exported), _folded(neutral(exported)), _folded(f"'{exported}")}
    return not alike.isdisjoint(map(_folded, _texts(cell)))


def is_same_duration(cell: Cell, exported: int) -> bool:
    """Whether the cell has this number of minutes, written like `60`, `60,0`, `1 440` or `01:00:00`."""
    if isinstance(cell, timedelta | time):
        return _seconds(cell) == exported * 60
    if isinstance(cell, Number):
        return float(cell) == exported and not number_formats.alters_amount(cell.format)
    for text in map(_folded, _texts(cell)):
        if len(text) > _MAX_CHARACTERS:
            continue
        if any(number == exported for number in _numbers(text)):
            return True
        if (match := _WHOLE_DURATION.fullmatch(text)) and int(match[1]) == exported:
            return True
        if (match := _CLOCK.fullmatch(text)) and ":" in text and _clock_seconds(match) == exported * 60:
            return True
    return False


def whole_numbers(cell: Cell) -> set[int]:
    """The whole numbers, from 0, that a cell can mean: 1 for `1,0`, and 1 or 1000 for `1.000`."""
    if isinstance(cell, Number):
        found = {Decimal(repr(float(cell)))}
    elif isinstance(cell, bool | BrokenCell) or not isinstance(cell, str | int | float):
        return set()
    else:
        found = {number for text in map(_folded, _texts(cell)) if len(text) <= _MAX_CHARACTERS for number in _numbers(text)}
    return {int(number) for number in found if number >= 0 and number == int(number)}


def is_same_date(cell: Cell, exported: date, slashes: str) -> bool:
    """Whether the cell has this date in any form. `slashes` is the order of the parts if slashes separate them."""
    if isinstance(cell, datetime):
        return cell.date() == exported
    if isinstance(cell, date):
        return cell == exported
    if isinstance(cell, Number):
        return _of_serial(cell) == exported
    for text in _date_texts(cell):
        if exported in (slashed_dates(text, slashes) if "/" in text else _days(text)):
            return True
        if exported in _of_written_serials(text):
            return True
    return False


def slashed_dates(text: str, order: str) -> set[date]:
    """The possible dates of a text with slashes in this order (`dmy`, `mdy` or `ymd`). A year of two digits gives two dates."""
    parts = text.split("/")
    if len(parts) != len(order) or not all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts):
        return set()
    named = dict(zip(order, parts, strict=True))
    return _calendar({int(named["d"])}, {int(named["m"])}, _years(named["y"]))


def has_slashes(cell: Cell) -> str | None:
    """The text of a date with slashes; None for any other cell."""
    return next((text for text in _date_texts(cell) if "/" in text), None) if is_plain_text(cell) else None


def _texts(cell: Cell) -> Iterator[str]:
    yield shown(cell)
    if isinstance(cell, ShownText):
        yield cell.shown or ""
    elif is_plain_text(cell):
        yield original(cell)
        yield original(str(cell).strip())
    elif isinstance(cell, float):
        yield number_formats.plain(cell)


def _date_texts(cell: Cell) -> list[str]:
    return [MIDNIGHT.sub("", text) for text in map(_folded, _texts(cell)) if len(text) <= _MAX_CHARACTERS]


def _folded(text: str) -> str:
    """The text without invisible differences: kinds of blanks, line ends, decomposed letters, invisible characters."""
    plain = " ".join(text.split())
    return " ".join(canonical(plain).split()) if len(plain) <= 10_000 else plain


# --- Numbers ------------------------------------------------------------------------------------------------------------------


def _numbers(text: str) -> Iterator[Decimal]:
    """The numbers that a text can mean, in any language."""
    bare = _GROUPING.sub("", text)
    if not _NUMBER.fullmatch(bare):
        return
    divisor = 100 if bare.endswith("%") else 1
    bare = bare.rstrip("%")
    if _THOUSANDS.fullmatch(bare):
        yield Decimal(bare.replace(",", "").replace(".", "")) / divisor
    whole, point, decimals = bare.rpartition("," if bare.rfind(",") > bare.rfind(".") else ".")
    if "," in decimals or "." in decimals or (point and point in whole):
        return
    whole = whole.replace(",", "").replace(".", "")
    yield Decimal(f"{whole}.{decimals}" if point else decimals) / divisor


def _is_same_number(cell: Cell, texts: set[str], exported: str) -> bool:
    meant = set(_numbers(exported))
    if not meant:
        return False
    if isinstance(cell, Number) and any(float(each) == cell for each in meant):
        # A workbook stores only so many digits.
        return True
    for text in texts:
        if is_plain_text(cell) and _leading_zeros(text) > _leading_zeros(exported):
            # No program adds zeros to a text, so a person has, perhaps to restore lost ones.
            continue
        for number in _numbers(text):
            if number in meant or any(_is_rounded(each, number, text) for each in meant):
                return True
    return False


def _leading_zeros(text: str) -> int:
    return len(text) - len(text.lstrip("0")) if text.isdigit() else 0


def _is_rounded(exact: Decimal, number: Decimal, text: str) -> bool:
    """Whether the number is what a spreadsheet program keeps of a longer number, or shows of it with an exponent."""
    if number == 0 or exact == 0:
        return False
    if "e" in text.lower():
        shown_digits = sum(character.isdigit() for character in text.lower().partition("e")[0])
        return _to_digits(exact, shown_digits) == _to_digits(number, shown_digits)
    if len(exact.as_tuple().digits) <= _KEPT_DIGITS:
        return False
    # Some programs cut the other digits off, and some round.
    return number in (_to_digits(exact, _KEPT_DIGITS, ROUND_DOWN), _to_digits(exact, _KEPT_DIGITS))


def _to_digits(number: Decimal, digits: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    return Context(digits, rounding).plus(number)


# --- Dates, times, truth values -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a date in a text. None for a missing part."""

    day: int | None
    month: int
    year: int | None

    def fits(self, other: "_Parts") -> bool:
        """Whether both can be the same date. For a missing day, programs use the first; a missing year matches any."""
        days = {self.day or 1, other.day or 1} if None in (self.day, other.day) else {self.day, other.day}
        return len(days) == 1 and self.month == other.month and (None in (self.year, other.year) or self.year == other.year)


def _is_same_moment(cell: Cell, texts: set[str], exported: str) -> bool:
    if (clock := _CLOCK.fullmatch(exported)) and _clock_seconds(clock) in _seconds_of(cell, texts):
        return True
    meant = _date_parts(MIDNIGHT.sub("", exported))
    if not meant:
        return False
    if isinstance(cell, date):
        found = {_Parts(cell.day, cell.month, cell.year)}
    elif isinstance(cell, Number):
        serial = _of_serial(cell)
        found = set() if serial is None else {_Parts(serial.day, serial.month, serial.year)}
    else:
        # A text of the same shape as the exported one was typed, not converted.
        found = {each for text in texts if _shape(text) != _shape(exported) for each in _date_parts(MIDNIGHT.sub("", text))}
        found |= {_Parts(each.day, each.month, each.year) for text in texts for each in _of_written_serials(text)}
    return any(one.fits(other) for one in meant for other in found)


def _shape(text: str) -> str:
    return re.sub(r"\d+", "9", text)


@cache
def _date_parts(text: str) -> frozenset[_Parts]:
    """All dates that a program could interpret the text as."""
    pieces = _DATE_PARTS.findall(text)
    if not 2 <= len(pieces) <= 3 or not _DATE.fullmatch(text):
        return frozenset()
    found = set()
    for order in set(permutations("dmy", len(pieces))):
        named = dict(zip(order, pieces, strict=True))
        month = _month(named.get("m", ""))
        day = int(named["d"]) if named.get("d", "").isdecimal() else None
        years = _years(named["y"]) if "y" in named else {None}
        if month is None or ("d" in named and (day is None or not 1 <= day <= 31)):
            continue
        found |= {_Parts(day, month, year) for year in years}
    return frozenset(found)


def _days(text: str) -> set[date]:
    """The dates that a text with all three parts can mean: with a year of four digits, or with the day first as with dots."""
    found: set[date] = set()
    pieces = _DATE_PARTS.findall(text)
    if len(pieces) != 3 or not _DATE.fullmatch(text):
        return found
    for order in ("dmy", "ymd", "mdy"):
        named = dict(zip(order, pieces, strict=True))
        if order == "mdy" and named["m"].isdigit():
            continue
        month = _month(named["m"])
        if month is not None and named["d"].isdecimal() and (order != "ymd" or len(named["y"]) == 4):
            found |= _calendar({int(named["d"])}, {month}, _years(named["y"]))
    return found


def _month(piece: str) -> int | None:
    if piece.isdecimal():
        return int(piece) if 1 <= int(piece) <= 12 else None
    return _MONTH_OF.get(piece.casefold())


def _years(piece: str) -> set[int]:
    if not piece.isdecimal() or len(piece) not in (1, 2, 4):
        return set()
    return {int(piece)} if len(piece) == 4 else {1900 + int(piece), 2000 + int(piece)}


def _calendar(days: set[int], months: set[int], years: set[int]) -> set[date]:
    found = set()
    for day, month, year in ((d, m, y) for d in days for m in months for y in years):
        try:
            found.add(date(year, month, day))
        except (ValueError, OverflowError):
            continue
    return found


def _of_serial(number: float | Decimal) -> date | None:
    """The date with this serial number in a spreadsheet program."""
    if not _FIRST_SERIAL <= number <= _LAST_SERIAL or number != int(number):
        return None
    return date(1899, 12, 30) + timedelta(days=int(number))


def _of_written_serials(text: str) -> set[date]:
    """The dates whose serial number a text can be, because a program wrote a date without its format. A small number is no date."""
    dates = (_of_serial(number) for number in _numbers(text) if number > MAX_TYPED_NUMBER)
    return {each for each in dates if each is not None}


def _clock_seconds(match: re.Match[str]) -> int:
    return int(match[1]) * 3_600 + int(match[2]) * 60 + int(match[3] or 0)


def _seconds_of(cell: Cell, texts: set[str]) -> set[int]:
    """The times that a cell can mean, in seconds. As a number, a time is a fraction of a day."""
    if isinstance(cell, timedelta | time):
        return {_seconds(cell)}
    days = [Decimal(repr(float(cell)))] if isinstance(cell, Number) else [number for text in texts for number in _numbers(text)]
    return {round(each * 86_400) for each in days} | {_clock_seconds(match) for match in map(_CLOCK.fullmatch, texts) if match}


def _seconds(cell: timedelta | time) -> int:
    if isinstance(cell, timedelta):
        return round(cell.total_seconds())
    return cell.hour * 3_600 + cell.minute * 60 + round(cell.second + cell.microsecond / 1_000_000)


def _is_same_truth(texts: set[str], exported: str) -> bool:
    words = {text.casefold() for text in texts}
    return any(exported.casefold() in group and not words.isdisjoint(group) for group in (_TRUE, _FALSE))


# --- Encodings ----------------------------------------------------------------------------------------------------------------


def _is_misread(text: str, exported: str) -> bool:
    """Whether the text is the exported one after its bytes were decoded in a wrong encoding, once or twice."""
    # Every encoding keeps the letters and digits of ASCII, so most edited texts differ in them.
    return _is_lossy(text, exported) or (_of_ascii(text) == _of_ascii(exported) and text in map(_folded, _misreadings(exported)))


def _of_ascii(text: str) -> str:
    return _NOT_OF_ASCII.sub("", text)


def _misreadings(text: str) -> Iterator[str]:
    for wrong in _ENCODINGS:
        once = _decoded(text.encode(), wrong)
        yield from (once, _decoded(once.encode(), wrong))
        yield from (_decoded(text.encode(right, "replace"), wrong) for right in _ENCODINGS if right != wrong)
        yield text.encode(wrong, "replace").decode("utf-8", "replace")


def _decoded(raw: bytes, encoding: str) -> str:
    """Decodes as programs do: a byte that the encoding does not define becomes a control character."""
    return codecs.charmap_decode(raw, "strict", _CHARACTERS[encoding])[0]


def _character(byte: int, encoding: str) -> str:
    try:
        return bytes([byte]).decode(encoding)
    except UnicodeDecodeError:
        return chr(byte)


_CHARACTERS = {encoding: "".join(_character(byte, encoding) for byte in range(256)) for encoding in _ENCODINGS}


def _is_lossy(text: str, exported: str) -> bool:
    """Whether the text is the exported one with some letters replaced by one to four question marks and the like.

    Texts are compared run by run, because a pattern with a choice for each letter can take years.
    """
    runs, meant = _LOSABLE.split(text), _LOSABLE.split(exported)
    return len(runs) == len(meant) and all(map(_is_lossy_run, runs, meant))


def _is_lossy_run(run: str, exported: str) -> bool:
    if run == exported or exported.isascii():
        return run == exported
    kept, letters = _LOST_MARKS.sub("", run), _LOST_MARKS.sub("", exported)
    missing = len(letters) - len(kept)
    added = (len(run) - len(kept)) - (len(exported) - len(letters))
    remaining = iter(letters)
    return missing <= added <= 4 * missing and all(letter in remaining for letter in kept)
