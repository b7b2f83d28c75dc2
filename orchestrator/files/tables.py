"""Reads a table with a header, in any supported format. Returns records with parsed values, or raises all mistakes at once."""

import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from pathlib import PurePath
from string import ascii_uppercase
from typing import Any

from orchestrator.files import delimited
from orchestrator.files.cells import (
    WITH_DECIMALS,
    BadCellError,
    DecimalIdError,
    has_no_unit,
    is_blank,
    is_only_hashes,
    may_be_clock,
    shown,
)
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.division import Split, holds_rows, split_duration
from orchestrator.files.encodings import misread_part, unusual_letters
from orchestrator.files.formulas import text_of_formula
from orchestrator.files.headers import (
    Column,
    Header,
    Row,
    are_blank,
    fits,
    is_above_header,
    is_header_below,
    normal,
    read_header,
    repeats_header,
    unread_titles,
    untitled_with_value,
)
from orchestrator.files.mistakes import MAX_SHOWN_CHARACTERS, BadFileError, FileMistake, excerpt
from orchestrator.files.remarks import Doubts, FileRemark, RemarkCode, about_names, about_rows, first_of

# An id with other decimals than `.0`, and its whole part. No program has made it from a whole number.
_OTHER_DECIMALS = re.compile(r"([0-9]+)[.,](?:[1-9]|[0-9]{2,})")

# Hardly any activity takes as few minutes.
_LONGEST_SHORT_MINUTES = 9

# Enough for five in every row of the largest default submission. A damaged file can have millions, which nobody would read.
_MOST_MISTAKES = 50_000


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row below the header: its place (from 1; `line` only for text), and its values by column name."""

    row: int
    line: int | None
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The contents of a file. `remarks` tell people what was not read."""

    rows: Sequence[TableRow]
    remarks: Sequence[str] = field(default=())


TableCheck = Callable[[str, Sequence[TableRow]], Iterable[FileMistake]]
"""Finds the mistakes that only show when a file's records are compared. Records lack the values that could not be read."""


def no_rows(name: str, records: Sequence[TableRow]) -> Iterator[FileMistake]:
    """The mistake of an empty table."""
    if not records:
        yield FileMistake(name, "has a header, but no rows", code="no_rows")


def repeated(records: Iterable[TableRow], columns: Sequence[str]) -> Iterator[tuple[TableRow, TableRow]]:
    """Each record that repeats an earlier one's values in these columns, and the first record with these values."""
    firsts: dict[Hashable, TableRow] = {}
    for record in records:
        if all(column in record.values for column in columns):
            first = firsts.setdefault(tuple(record.values[column] for column in columns), record)
            if first is not record:
                yield record, first


@dataclass(frozen=True, slots=True)
class TableContent:
    """The contents of a file and its mistakes. Records lack the values that could not be read. `found` has the names of the columns in the
    file, `unread` the titles of others. `row_count` also counts the rows that were not read because there were too many."""

    rows: Sequence[TableRow]
    mistakes: Sequence[FileMistake]
    remarks: Sequence[FileRemark]
    found: frozenset[str]
    unread: Sequence[str]
    row_count: int


def read_table(name: str, raw: bytes, columns: Sequence[Column], check: TableCheck) -> Table:
    """Reads a table as `read_content` does. Raises BadFileError with all its mistakes."""
    content = read_content(name, raw, columns, check)
    if content.mistakes:
        raise BadFileError(content.mistakes)
    return Table(content.rows, [str(remark) for remark in content.remarks])


def read_content(
    name: str, raw: bytes, columns: Sequence[Column], check: TableCheck, *, most_rows: int | None = None
) -> TableContent:
    """Reads a table: a workbook if the name ends in `.xlsx`, else text with delimiters. A mistake in a row, one that `check` finds too,
    does not keep the others from being read. Rows after the first `most_rows` are only counted.

    Raises BadFileError if no row can be read: with all that is wrong with the header, or with what the file is.

    The header is the first row that is not blank. Up to five rows with one or two cells, such as a title, may stand above it. A title matches a
    column's name or an alias in upper or lower case, with blanks, underscores or hyphens. Columns with other titles are not read, with a remark.
    """
    known = {normal(alias): column for column in columns for alias in (column.name, *column.aliases)}
    mistakes: list[FileMistake] = []
    records: list[TableRow] = []
    untitled: set[int] = set()
    doubts = Doubts()
    unread_rows = 0
    try:
        source = _opened(name, raw, known)
        rows = (row for row in source.rows if not are_blank(row.cells))
        header, above = _find_header(name, rows, known, columns, source, doubts)
        for row in rows:
            if len(mistakes) >= _MOST_MISTAKES:
                raise UnreadableFileError("has more mistakes than are listed here", row.line)
            if most_rows is not None and len(records) >= most_rows:
                unread_rows += 1
            else:
                records.append(_record(name, row, header, source.delimiter, mistakes, doubts))
                untitled.update(untitled_with_value(header, row.cells))
    except UnreadableFileError as error:
        raise BadFileError([*mistakes, FileMistake(name, str(error), line=error.line)]) from error
    mistakes += _changed_ids(records, doubts)
    mistakes += check(name, records)
    if above:
        detail = "above the header, and so not read: row"
        remarks = [about_rows(name, RemarkCode.ROWS_ABOVE, detail, [row.number for row in above])]
    else:
        remarks = []
    remarks += [*source.remarks, *_remarks(name, header, source, records, sorted(untitled)), *doubts.remarks(name)]
    found = frozenset(column.name for column in header.found if column is not None)
    return TableContent(records, mistakes, remarks, found, unread_titles(header), len(records) + unread_rows)


@dataclass(frozen=True, slots=True)
class _Source:
    """The rows of a file as they are read. Rows and columns count from 1. A workbook has no delimiter, and its
    encoding is certain; `sheet` is the one that is read if there are others."""

    rows: Iterable[Row]
    delimiter: str | None = None
    remarks: Sequence[FileRemark] = ()
    encoding: str = delimited.UTF_8
    sheet: str | None = None
    hidden_rows: frozenset[int] = frozenset()
    hidden_columns: frozenset[int] = frozenset()


def _opened(name: str, raw: bytes, known: Mapping[str, Column]) -> _Source:
    if PurePath(name).suffix.lower() == ".xlsx":
        return _workbook(name, raw)

    def recognized(titles: Sequence[str]) -> int:
        return sum(normal(text_of_formula(title)) in known for title in titles)

    text, encoding = delimited.decode(raw)
    delimiter, divided = delimited.rows_of(text, recognized)
    rows = (Row(number, line, [text_of_formula(each) for each in texts]) for number, line, texts in divided)
    return _Source(rows, delimiter, encoding=encoding)


def _workbook(name: str, raw: bytes) -> _Source:
    # Imported here, because most tables are text and don't need to load the readers of zip and XML.
    from orchestrator.files import workbooks

    sheet = workbooks.first_sheet(raw)
    remarks = []
    if sheet.other_sheets:
        detail = f"only the sheet {sheet.name} is read, not {', '.join(sheet.other_sheets)}"
        remarks.append(about_names(name, RemarkCode.OTHER_SHEETS, detail, sheet.other_sheets))
    if sheet.hidden_sheets:
        detail = f"hidden sheets are not read: {', '.join(sheet.hidden_sheets)}"
        remarks.append(about_names(name, RemarkCode.HIDDEN_SHEETS, detail, sheet.hidden_sheets))
    rows = (Row(number, None, cells) for number, cells in sheet.rows())
    named = sheet.name if sheet.other_sheets else None
    return _Source(rows, None, remarks, sheet=named, hidden_rows=sheet.hidden_rows, hidden_columns=sheet.hidden_columns)


def _find_header(
    name: str, rows: Iterable[Row], known: Mapping[str, Column], columns: Sequence[Column], source: _Source, doubts: Doubts
) -> tuple[Header, Sequence[Row]]:
    """The header, and the rows above it. Reads no further than the header. Raises BadFileError if no row can be the header."""
    above: list[Row] = []
    for row in rows:
        if len(above) < delimited.MOST_ROWS_ABOVE and is_above_header(row, known):
            above.append(row)
            continue
        if above and not is_header_below(above, row, known):
            # The rows above may be records, so the first row has to be the header.
            row, above = above[0], []
        header = read_header(name, row, known, columns, source.sheet)
        _refuse_swallowed_rows(name, row, header, source.delimiter, doubts)
        return header, above
    if not above:
        raise BadFileError([FileMistake(name, "is empty", code="empty_file")])
    return read_header(name, above[0], known, columns, source.sheet), []


def _refuse_swallowed_rows(name: str, row: Row, header: Header, delimiter: str | None, doubts: Doubts) -> None:
    mistake = _swallowed_rows(name, row, header, delimiter, doubts)
    if mistake is not None:
        raise BadFileError([mistake])


def _swallowed_rows(name: str, row: Row, header: Header, delimiter: str | None, doubts: Doubts) -> FileMistake | None:
    """The mistake of a cell that holds other rows, or None. Adds the row to the doubts if its cell only may hold rows."""
    broken = [position for position, cell in enumerate(row.cells) if isinstance(cell, str) and ("\n" in cell or "\r" in cell)]
    if delimiter is None or not broken:
        return None
    texts = [str(cell) for cell in row.cells]
    width = len(header.titles)
    forms = [position for position, column in enumerate(header.found) if column is not None and not fits(column, "x")]
    is_doubtful = False
    for position in broken:
        if not holds_rows(texts, position, width, delimiter, partial(_may_be_record, header, forms)):
            continue
        is_titled = position < width
        title, column = (header.titles[position], header.found[position]) if is_titled else (None, None)
        is_free_text = column is None or column.is_private
        if holds_rows(texts, position, width, delimiter, partial(_is_proven_record, header, forms, is_free_text)):
            detail = "contains what looks like whole rows; look for a missing quote"
            return FileMistake(name, detail, row.number, row.line, title or None)
        is_doubtful = True
    if is_doubtful:
        doubts.whole_rows.append(row.number)
    return None


def _is_record(header: Header, cells: Sequence[str]) -> bool:
    """Whether each of these cells fits its column."""
    padded = chain(cells, repeat(""))
    fitting = all(column is None or fits(column, text) for column, text in zip(header.found, padded, strict=False))
    return fitting and are_blank(cells[len(header.found) :])


def _is_proven_record(header: Header, forms: Collection[int], is_free_text: bool, cells: Sequence[str]) -> bool:
    """Whether the cells fit, and free text would not look like that: they have two forms, or one and a cell for each title.

    `forms` are the positions of columns that do not take any text, such as dates. A cell for each title is enough in a column
    that is no free text, such as a name.
    """
    proofs = _filled(forms, cells)
    is_proof = proofs > 1 or (len(cells) == len(header.titles) and (proofs == 1 or not is_free_text))
    return is_proof and _is_record(header, cells)


def _may_be_record(header: Header, forms: Collection[int], cells: Sequence[str]) -> bool:
    """Whether the cells fit, and one has a form or there is one for each title. Lines of an address can look like that, too."""
    return (_filled(forms, cells) > 0 or len(cells) == len(header.titles)) and _is_record(header, cells)


def _filled(positions: Collection[int], cells: Sequence[str]) -> int:
    return sum(position < len(cells) and not is_blank(cells[position]) for position in positions)


def _record(name: str, row: Row, header: Header, delimiter: str | None, mistakes: list[FileMistake], doubts: Doubts) -> TableRow:
    """The row's values. Adds its mistakes to `mistakes`, and the row to the doubts that it raises."""
    titles = header.titles
    swallowed = _swallowed_rows(name, row, header, delimiter, doubts)
    if swallowed is not None:
        mistakes.append(swallowed)
        return TableRow(row.number, row.line, {})
    if not are_blank(row.cells[len(titles) :]):
        detail = f"has {len(row.cells)} cells, but the header has {len(titles)}; put texts that contain the delimiter in quotes"
        mistakes.append(FileMistake(name, detail, row.number, row.line, code="too_many_cells"))
        return TableRow(row.number, row.line, {})
    if repeats_header(header, row.cells):
        detail = "repeats the header; remove this row"
        mistakes.append(FileMistake(name, detail, row.number, row.line, code="bad_value"))
        return TableRow(row.number, row.line, {})
    values = {}
    for position, column in enumerate(header.found):
        if column is None:
            continue
        cell = row.cells[position] if position < len(row.cells) else ""
        try:
            if column.is_duration and delimiter == ",":
                _refuse_split_duration(row, position, doubts)
            if column.is_duration and may_be_clock(cell):
                doubts.clocks.append(row.number)
            values[column.name] = column.parse(cell)
            minutes = values[column.name]
            if column.is_duration and isinstance(minutes, int) and minutes > 0 and has_no_unit(cell):
                (doubts.short if minutes <= _LONGEST_SHORT_MINUTES else doubts.long).append(row.number)
            if column.is_private and isinstance(cell, str):
                _doubt_notes(row, cell, column, delimiter, doubts)
        except BadCellError as error:
            seen = None if column.is_private else excerpt(shown(cell))
            code = error.code or column.code
            mistake = FileMistake(name, str(error), row.number, row.line, titles[position], seen, code=code)
            if isinstance(error, DecimalIdError):
                values[column.name] = error.identifier
                doubts.decimal_ids.setdefault(column.name, []).append(mistake)
            else:
                mistakes.append(mistake)
    return TableRow(row.number, row.line, values)


def _changed_ids(records: Sequence[TableRow], doubts: Doubts) -> Iterator[FileMistake]:
    """The mistakes of ids that end with `.0`, in columns where none of them has another id beside it, as `1.0` has in `1.1`."""
    for column, mistakes in doubts.decimal_ids.items():
        ids = [value for record in records if isinstance(value := record.values.get(column), str)]
        others = {match[1] for value in ids if (match := _OTHER_DECIMALS.fullmatch(value))}
        if not any(WITH_DECIMALS.fullmatch(value) and value[:-2] in others for value in ids):
            yield from mistakes


def _doubt_notes(row: Row, notes: str, column: Column, delimiter: str | None, doubts: Doubts) -> None:
    if delimiter is not None and is_only_hashes(notes):
        doubts.hashes.append(row.number)
    if not column.is_compared and misread_part(notes[:MAX_SHOWN_CHARACTERS]) is not None:
        doubts.misread.append(row.number)


def _refuse_split_duration(row: Row, position: int, doubts: Doubts) -> None:
    """Raises BadCellError if the duration at this position was split at a comma. Adds the row to the doubts if it may have been."""
    neighbours = [*map(str, row.cells[position : position + 2])]
    match split_duration(neighbours):
        case Split.YES:
            minutes = int(neighbours[0])
            raise BadCellError(f"was split at its decimal comma; put it in quotes; if these are minutes, write {minutes} min")
        case Split.BEFORE_MINUTES:
            raise BadCellError("was split at its comma; put it in quotes, or write it in minutes")
        case Split.POSSIBLY:
            doubts.split_durations.append(row.number)
        case Split.NO:
            pass


def _letters(position: int) -> str:
    """The letters by which a spreadsheet program names the column at this position, which counts from 0: A, Z, AA."""
    before, letter = divmod(position, len(ascii_uppercase))
    return (_letters(before - 1) if before else "") + ascii_uppercase[letter]


def _remarks(
    name: str, header: Header, source: _Source, records: Sequence[TableRow], untitled: Sequence[int]
) -> Iterator[FileRemark]:
    unread = unread_titles(header)
    if unread:
        yield about_names(name, RemarkCode.UNKNOWN_COLUMNS, f"not read: {', '.join(unread)}", unread)
    if untitled:
        letters = [*map(_letters, untitled)]
        listed = ", ".join(first_of(letters))
        subject, verbs = ("column", "has no title and is") if len(untitled) == 1 else ("columns", "have no title and are")
        yield about_names(name, RemarkCode.UNTITLED_COLUMNS, f"{subject} {listed} {verbs} not read", letters)
    if source.encoding == delimited.WINDOWS_1252 and (unusual := unusual_letters(_names(header, records))):
        detail = (
            f"is not UTF-8, so it was read as Windows-1252, in which ids and names have {' '.join(unusual)};"
            " if these are wrong, save it as CSV UTF-8"
        )
        yield about_names(name, RemarkCode.UNUSUAL_LETTERS, detail, unusual)
    hidden = [record.row for record in records if record.row in source.hidden_rows]
    if hidden:
        verb = "row is" if len(hidden) == 1 else "rows are"
        yield about_rows(name, RemarkCode.HIDDEN_ROWS, f"{len(hidden)} {verb} hidden in the sheet, but read:", hidden)
    columns = [
        title
        for position, (title, column) in enumerate(zip(header.titles, header.found, strict=True), start=1)
        if column is not None and position in source.hidden_columns
    ]
    if columns:
        detail = f"these columns are hidden in the sheet, but read: {', '.join(columns)}"
        yield about_names(name, RemarkCode.HIDDEN_COLUMNS, detail, columns)


def _names(header: Header, records: Sequence[TableRow]) -> Iterator[str]:
    """The ids and names in the records."""
    columns = [column.name for column in header.found if column is not None and not column.is_private]
    for record in records:
        yield from (value for column in columns if isinstance(value := record.values.get(column), str))
