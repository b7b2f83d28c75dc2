"""Reads a workbook (.xlsx) as rows of cells: the contents of its first visible sheet, and what is hidden."""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from orchestrator.files import number_formats
from orchestrator.files.cells import BrokenCell, Cell, FormulaError, Number, ShownText, UnsavedFormula, is_blank, shown
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.packages import local, opened, workbook_part

# Ten times as many as a list needs. A cell in the last of 16,384 columns is there by accident.
MAX_COLUMNS = 1_000
# The most places up to the last cell of each row, empty ones too, and the most that merged cells cover.
# A list of 10,000 rows with ten columns has a tenth.
MAX_PLACES = 1_000_000
# The most characters in all cells. Many cells can refer to one long text, so the size of the file does not limit them.
MAX_TEXT_CHARACTERS = 32 * 1024 * 1024
# The most characters in a number format, as spreadsheet programs limit it, and in all of them: each is divided into its parts.
MAX_FORMAT_CHARACTERS = 255
MAX_FORMATS_CHARACTERS = 100_000
# The most characters in a cell. A longer text is cut, and is too long for every column.
_MAX_CELL_CHARACTERS = 32_767

# Numbers up to this were typed as days or years into a cell whose format shows every number as a date.
MAX_TYPED_NUMBER = 9_999

_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_REFERENCE = re.compile(r"([A-Za-z]{1,3})([0-9]{1,7})")
# No row, style or text has a number with more digits.
_MOST_DIGITS = 9
_TRUE = ("1", "true")
_SECONDS_OF_DAY = 86_400
_MIDNIGHT = datetime(1900, 1, 1)  # noqa: DTZ001 - not a moment; only its time is used
_MIXED = "has a number format with both digits and letters of dates; choose another format and write the value again"
_TOO_WIDE = "is too large for a list: clear the cells beside the list, and unmerge cells that are merged over many rows"
_LONG_TEXTS = "has too much text for a list: shorten the long texts, or split the list"
_LONG_FORMATS = "has number formats that are too long or too many; copy the list into a new workbook and save that"
_SUSPECT = "is damaged: a cell refers to a text that does not exist; save it again in a spreadsheet program"


@dataclass(frozen=True, slots=True)
class Sheet:
    """The cells of a workbook's first visible sheet, by row and column from 1, with its hidden rows and columns and the other sheets."""

    name: str
    cells: Mapping[int, Mapping[int, Cell]]
    hidden_rows: frozenset[int]
    hidden_columns: frozenset[int]
    other_sheets: tuple[str, ...]
    hidden_sheets: tuple[str, ...]

    def rows(self) -> Iterator[tuple[int, list[Cell]]]:
        """The rows that have cells, in order, each with its number."""
        for number in sorted(self.cells):
            row = self.cells[number]
            yield number, [row.get(column, "") for column in range(1, max(row) + 1)]


def first_sheet(raw: bytes) -> Sheet:
    """Reads a workbook. For a formula, reads the value that the spreadsheet program last saved. Raises UnreadableFileError."""
    with opened(raw) as package:
        part = workbook_part(package)
        book = _Workbook()
        package.read(part, book)
        targets = package.relationships(part)
        sheets = [(each, targets.get(each.relationship, ("", ""))) for each in book.sheets]
        sheets = [(each, target) for each, target in sheets if target[0] == "worksheet"]
        visible = [(each, target) for each, target in sheets if not each.is_hidden]
        if not visible:
            raise UnreadableFileError("has no visible sheet; unhide the sheet with the list, and save the file again")
        (chosen, (_, where)), *others = visible
        texts, styles = _SharedStrings(), _Styles()
        for kind, target in targets.values():
            if kind == "sharedStrings" and target in package:
                package.read(target, texts)
            elif kind == "styles" and target in package:
                package.read(target, styles)
        content = _Sheet(texts.texts, styles.formats(), book)
        package.read(where, content)
    content.mark_merged()
    if sum(map(max, content.cells.values())) > MAX_PLACES:
        raise UnreadableFileError(_TOO_WIDE)
    return Sheet(
        chosen.name,
        content.cells,
        frozenset(content.hidden_rows),
        frozenset(content.hidden_columns),
        tuple(each.name for each, _ in others),
        tuple(each.name for each, _ in sheets if each.is_hidden),
    )


def column_letters(column: int) -> str:
    """The name of a column as a spreadsheet program shows it."""
    letters = ""
    while column > 0:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


@dataclass(frozen=True, slots=True)
class _Entry:
    """A sheet in the workbook's list."""

    name: str
    relationship: str
    is_hidden: bool


class _Workbook:
    """Reads the list of sheets, and the day from which dates count."""

    def __init__(self) -> None:
        self.sheets: list[_Entry] = []
        self.counts_from_1904 = False
        self.is_uncalculated = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "sheet":
            hidden = attributes.get("state", "visible") != "visible"
            relationship = next((value for key, value in attributes.items() if local(key) == "id"), "")
            self.sheets.append(_Entry(unescaped(attributes.get("name", "")), relationship, hidden))
        elif name == "workbookPr":
            self.counts_from_1904 = attributes.get("date1904") in _TRUE
        elif name == "calcPr":
            # Programs that can't calculate set this attribute, and write 0 for each formula.
            self.is_uncalculated = attributes.get("fullCalcOnLoad") in _TRUE

    def end(self, name: str) -> None:
        """Does nothing."""

    def text(self, data: str) -> None:
        """Does nothing."""


class _Text:
    """Collects a text from its pieces, without phonetic readings."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._depth_of_phonetics = 0
        self._is_open = False

    def start(self, name: str) -> None:
        if name == "rPh":
            self._depth_of_phonetics += 1
        self._is_open = name == "t" and not self._depth_of_phonetics

    def end(self, name: str) -> None:
        if name == "rPh":
            self._depth_of_phonetics -= 1
        self._is_open = False

    def add(self, data: str) -> None:
        if self._is_open:
            self.append(data)

    def append(self, data: str) -> None:
        if self._length <= _MAX_CELL_CHARACTERS:
            self._pieces.append(data[:_MAX_CELL_CHARACTERS])
            self._length += len(data)

    def taken(self) -> str:
        """Returns the text, and begins the next one."""
        text = "".join(self._pieces)
        self._pieces.clear()
        self._length = 0
        return text


class _SharedStrings:
    """Reads the texts that cells refer to by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._text = _Text()

    def start(self, name: str, _attributes: Mapping[str, str]) -> None:
        self._text.start(name)

    def end(self, name: str) -> None:
        self._text.end(name)
        if name == "si":
            self.texts.append(unescaped(self._text.taken()))

    def text(self, data: str) -> None:
        self._text.add(data)


class _Styles:
    """Reads the number format of each style."""

    def __init__(self) -> None:
        self._codes: dict[int, str] = {}
        self._ids: list[int] = []
        self._is_in_cell_formats = False
        self._characters = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "cellXfs":
            self._is_in_cell_formats = True
        elif name == "xf" and self._is_in_cell_formats:
            self._ids.append(_number(attributes.get("numFmtId")))
        elif name == "numFmt":
            self._add_code(_number(attributes.get("numFmtId")), unescaped(attributes.get("formatCode", "")))

    def end(self, name: str) -> None:
        if name == "cellXfs":
            self._is_in_cell_formats = False

    def text(self, data: str) -> None:
        """Does nothing."""

    def _add_code(self, number: int, code: str) -> None:
        self._characters += len(code)
        if len(code) > MAX_FORMAT_CHARACTERS or self._characters > MAX_FORMATS_CHARACTERS:
            raise UnreadableFileError(_LONG_FORMATS)
        self._codes[number] = code

    def formats(self) -> Sequence[str]:
        """The number format of each style, by its number."""
        known = number_formats.BUILTIN | self._codes
        return [known.get(each, number_formats.GENERAL) for each in self._ids]


@dataclass(slots=True)
class _OpenCell:
    """The cell that is being read. `value` and `formula` are None until the cell has one."""

    row: int
    column: int
    kind: str
    format: str
    value: str | None = None
    formula: str | None = None
    inline: str | None = None


@dataclass(frozen=True, slots=True)
class _Merge:
    """Cells of several rows that are merged, by their first column. Only the first row has the value."""

    first_row: int
    last_row: int
    column: int


@dataclass(slots=True)
class _Place:
    """The reader's position in the sheet. A row or cell without a reference follows the previous one."""

    row: int = 0
    column: int = 0


class _Sheet:
    """Reads the cells of a sheet."""

    def __init__(self, texts: Sequence[str], formats: Sequence[str], book: _Workbook) -> None:
        self.cells: dict[int, dict[int, Cell]] = {}
        self.hidden_rows: set[int] = set()
        self.hidden_columns: set[int] = set()
        self._merges: list[_Merge] = []
        self._characters = 0
        self._texts = texts
        self._formats = formats
        self._book = book
        self._place = _Place()
        self._cell: _OpenCell | None = None
        self._text = _Text()
        self._gathers = ""
        self._hides_rows = False

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if name == "row":
            self._begin_row(attributes)
        elif name == "c":
            self._begin_cell(attributes)
        elif self._cell is not None:
            if name in ("v", "f"):
                self._gathers = name
            else:
                self._text.start(name)
        elif name == "col":
            self._note_columns(attributes)
        elif name == "mergeCell":
            self._add_merge(attributes.get("ref", ""))
        elif name == "sheetFormatPr":
            self._hides_rows = attributes.get("zeroHeight") in _TRUE

    def text(self, data: str) -> None:
        if self._cell is None:
            return
        if self._gathers:
            self._text.append(data)
        else:
            self._text.add(data)

    def end(self, name: str) -> None:
        cell = self._cell
        if cell is None:
            return
        if name == "v":
            cell.value, self._gathers = self._text.taken(), ""
        elif name == "f":
            cell.formula, self._gathers = self._text.taken(), ""
        elif name == "is":
            cell.inline = self._text.taken()
            self._text.end(name)
        elif name == "c":
            self._keep(cell)
            self._cell = None
        else:
            self._text.end(name)

    def mark_merged(self) -> None:
        """Makes each cell that shows the value of a merged cell in a row above a mistake. A merged cell without a value changes nothing, and
        neither does one that reaches into a blank row, which is not read."""
        rows = sorted(row for row, cells in self.cells.items() if not all(map(is_blank, cells.values()))) if self._merges else []
        marked = 0
        for merge in self._merges:
            value = self.cells.get(merge.first_row, {}).get(merge.column, "")
            if is_blank(value):
                continue
            first, end = bisect_right(rows, merge.first_row), bisect_right(rows, merge.last_row)
            marked += end - first
            if marked > MAX_PLACES:
                raise UnreadableFileError(_TOO_WIDE)
            reason = f"is a merged cell that begins in row {merge.first_row}; unmerge it and write the value in each row"
            covered = BrokenCell(shown(value), reason)
            for row in rows[first:end]:
                self.cells[row][merge.column] = covered

    def _begin_row(self, attributes: Mapping[str, str]) -> None:
        self._place = _Place(_number(attributes.get("r")) or self._place.row + 1)
        is_hidden = attributes.get("hidden", "1" if self._hides_rows and "ht" not in attributes else "0") in _TRUE
        is_flat = attributes.get("customHeight") in _TRUE and attributes.get("ht") in ("0", "0.0")
        if is_hidden or is_flat:
            self.hidden_rows.add(self._place.row)

    def _note_columns(self, attributes: Mapping[str, str]) -> None:
        """Notes columns that are described together, if they are hidden."""
        if attributes.get("hidden") in _TRUE or attributes.get("width") == "0":
            first, last = _number(attributes.get("min")), _number(attributes.get("max"))
            self.hidden_columns.update(range(first, min(last, MAX_COLUMNS) + 1))

    def _add_merge(self, cells: str) -> None:
        first, _, last = (_REFERENCE.fullmatch(each) for each in cells.partition(":"))
        if first is not None and last is not None:
            self._merges.append(_Merge(int(first[2]), int(last[2]), _column(first[1])))

    def _begin_cell(self, attributes: Mapping[str, str]) -> None:
        place = self._place
        match = _REFERENCE.fullmatch(attributes.get("r", ""))
        if match:
            place.row, place.column = int(match[2]), _column(match[1])
        else:
            place.column += 1
        style = _number(attributes.get("s"))
        code = self._formats[style] if style < len(self._formats) else number_formats.GENERAL
        self._cell = _OpenCell(place.row, place.column, attributes.get("t", "n"), code)

    def _keep(self, cell: _OpenCell) -> None:
        value = self._value(cell)
        if type(value) is str and not value:
            return
        if cell.column > MAX_COLUMNS:
            raise UnreadableFileError(
                f"has a cell in column {column_letters(cell.column)} of row {cell.row}, far beyond any list; clear that cell"
            )
        if isinstance(value, str):
            self._characters += len(value)
            if self._characters > MAX_TEXT_CHARACTERS:
                raise UnreadableFileError(_LONG_TEXTS)
        self.cells.setdefault(cell.row, {})[cell.column] = value

    def _value(self, cell: _OpenCell) -> Cell:
        if cell.formula is not None and self._is_unsaved(cell):
            return UnsavedFormula(f"={cell.formula}")
        if cell.kind == "inlineStr":
            return _text(unescaped(cell.inline or cell.value or ""), cell.format)
        if not cell.value:
            return ""
        match cell.kind:
            case "s":
                return _text(self._shared(cell.value), cell.format)
            case "str":
                return _text(unescaped(cell.value), cell.format)
            case "b":
                return cell.value in _TRUE
            case "e":
                return FormulaError(cell.value)
            case "d":
                return _iso_date(cell.value)
            case _:
                return self._of_number(cell)

    def _is_unsaved(self, cell: _OpenCell) -> bool:
        if cell.kind == "inlineStr":
            return False
        if cell.value is None:
            return True
        if cell.kind == "n" and self._book.is_uncalculated and cell.value.strip() in ("0", "0.0"):
            return True
        # A formula with an empty text as its value has the kind `str`.
        return not cell.value and cell.kind != "str"

    def _shared(self, number: str) -> str:
        # Only digits: a negative number would count from the last text.
        digits = number.strip()
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS and int(digits) < len(self._texts)):
            raise UnreadableFileError(_SUSPECT)
        return self._texts[int(digits)]

    def _of_number(self, cell: _OpenCell) -> Cell:
        try:
            value = float(cell.value or "")
        except ValueError:
            return BrokenCell(cell.value or "", "is not a number, although the workbook marks it as one")
        if not math.isfinite(value):
            return BrokenCell(cell.value or "", "is too large a number")
        if number_formats.is_mixed(cell.format):
            return BrokenCell(number_formats.plain(value), _MIXED)
        if not number_formats.is_date(cell.format) or 1 <= value <= MAX_TYPED_NUMBER:
            return timedelta(days=value) if number_formats.is_elapsed(cell.format) else Number(value, cell.format)
        return _moment(value, cell.format, from_1904=self._book.counts_from_1904)


def unescaped(text: str) -> str:
    """The text with characters that XML can't contain, which workbooks write as `_x000D_`. Line ends become `\\n`."""
    if "_x" in text:
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
        # Two escapes can be the halves of one character. A single half is replaced.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _text(value: str, code: str) -> Cell:
    shown = number_formats.shown_text(value, code)
    return value if shown == value or not value else ShownText(value, shown)


def _moment(value: float, code: str, *, from_1904: bool) -> Cell:
    """The date, time or duration that a number means."""
    try:
        if number_formats.is_elapsed(code):
            return timedelta(days=value)
        seconds = round(value % 1 * _SECONDS_OF_DAY * 1_000) / 1_000
        if 0 <= value < 1 and seconds < _SECONDS_OF_DAY:
            return (_MIDNIGHT + timedelta(seconds=seconds)).time()
        # Day 1 is 1 January 1900, and 29 February 1900 counts although it did not exist. All earlier dates are at most MAX_TYPED_NUMBER.
        start = datetime(1904, 1, 1) if from_1904 else datetime(1899, 12, 30)  # noqa: DTZ001 - a calendar date, not a moment
        return start + timedelta(days=int(value // 1), seconds=seconds)
    except OverflowError:
        return BrokenCell(number_formats.plain(value), "is not a valid date")


def _iso_date(text: str) -> Cell:
    """A date or a time that a workbook stores as text."""
    for read in (date.fromisoformat, datetime.fromisoformat, time.fromisoformat):
        try:
            found = read(text.strip())
        except ValueError:
            continue
        return found.replace(tzinfo=None) if isinstance(found, datetime | time) else found
    return BrokenCell(text, "is not a date, although the workbook marks it as one")


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0


def _column(letters: str) -> int:
    column = 0
    for letter in letters.upper():
        column = column * 26 + ord(letter) - ord("A") + 1
    return column
