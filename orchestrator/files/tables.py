"""A table with a header, whatever its format, as records whose values have been parsed, or all its mistakes at once."""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from orchestrator.files import delimited
from orchestrator.files.cells import BadCellError, Cell, is_blank, text
from orchestrator.files.delimited import UnreadableFileError
from orchestrator.files.problems import BadFileError, FileProblem

_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is looked for. `parse` takes a cell and raises BadCellError; `is_private`: its values are shown nowhere."""

    name: str
    parse: Callable[[Cell], Any]
    aliases: Sequence[str] = ()
    is_required: bool = True
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A row below the header: where it stands (from 1; `line` only for text), and its values by column name."""

    row: int
    line: int | None
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds. `remarks` say what was left unread, for the owner to notice."""

    records: Sequence[Record]
    remarks: Sequence[str] = field(default=())


Check = Callable[[str, Sequence[Record]], Iterable[FileProblem]]
"""What is wrong with a file's records beside each other. A record lacks the values that could not be read."""


def no_rows(name: str, records: Sequence[Record]) -> Iterator[FileProblem]:
    """The check of a table that must not be empty."""
    if not records:
        yield FileProblem(name, "has a header, but no rows")


def repeated(records: Iterable[Record], columns: Sequence[str]) -> Iterator[tuple[Record, Record]]:
    """Each record whose values of these columns stood in an earlier one, and the first of those."""
    firsts: dict[Hashable, Record] = {}
    for record in records:
        if all(column in record.values for column in columns):
            first = firsts.setdefault(tuple(record.values[column] for column in columns), record)
            if first is not record:
                yield record, first


def read_table(name: str, raw: bytes, columns: Sequence[Column], check: Check) -> Table:
    """Reads a table: a workbook if the name ends in `.xlsx`, else text with delimiters.

    Raises BadFileError with all its mistakes, those that `check` finds among them.

    The header is the first row that is not blank. Its names match in any case, with blanks, underscores or hyphens, by the column's
    own name or an alias. Columns of other names are left unread, with a remark.
    """
    known = {_normal(alias): column for column in columns for alias in (column.name, *column.aliases)}
    remarks: list[str] = []
    try:
        rows = [row for row in _rows(name, raw, known, remarks) if not _is_blank(row.cells)]
    except UnreadableFileError as error:
        raise BadFileError([FileProblem(name, str(error), line=error.line)]) from error
    if not rows:
        raise BadFileError([FileProblem(name, "is empty")])
    header, *body = rows
    titles = [text(cell) for cell in header.cells]
    found = [known.get(_normal(title)) for title in titles]
    unread = [title for title, column in zip(titles, found, strict=True) if title and column is None]
    if unread:
        remarks.append(f"{name}: not read: {', '.join(unread)}")
    problems = _header_problems(name, header, found, columns)
    if problems:
        raise BadFileError(problems)
    records = [_record(name, row, titles, found, problems) for row in body]
    problems += check(name, records)
    if problems:
        raise BadFileError(problems)
    return Table(records, remarks)


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    line: int | None
    cells: Sequence[Cell]


def _rows(name: str, raw: bytes, known: Mapping[str, Column], remarks: list[str]) -> Iterator[_Row]:
    if PurePath(name).suffix.lower() == ".xlsx":
        # Imported here: openpyxl takes longer to import than most tables to read.
        from orchestrator.files import workbooks

        sheet = workbooks.first_sheet(raw)
        if sheet.other_sheets:
            remarks.append(f"{name}: only the sheet {sheet.name} is read, not {', '.join(sheet.other_sheets)}")
        for number, cells in enumerate(sheet.rows, start=1):
            yield _Row(number, None, cells)
        return

    def recognised(titles: Sequence[str]) -> int:
        return sum(_normal(title) in known for title in titles)

    for number, (line, texts) in enumerate(delimited.rows_of(delimited.decode(raw), recognised), start=1):
        yield _Row(number, line, texts)


def _normal(title: str) -> str:
    return _SEPARATORS.sub(" ", title).strip().casefold()


def _is_blank(cells: Sequence[Cell]) -> bool:
    return all(map(is_blank, cells))


def _header_problems(name: str, header: _Row, found: Sequence[Column | None], columns: Sequence[Column]) -> list[FileProblem]:
    problems = []
    for column in columns:
        times = found.count(column)
        if times > 1:
            problems.append(FileProblem(name, "stands in the header more than once", header.number, header.line, column.name))
        elif times == 0 and column.is_required:
            other_names = f" (or {', '.join(column.aliases)})" if column.aliases else ""
            detail = f"is missing in the header{other_names}"
            problems.append(FileProblem(name, detail, header.number, header.line, column.name))
    return problems


def _record(name: str, row: _Row, titles: Sequence[str], found: Sequence[Column | None], problems: list[FileProblem]) -> Record:
    """The row's values; what is wrong with it goes to `problems`."""
    if not _is_blank(row.cells[len(titles) :]):
        detail = f"has {len(row.cells)} cells, but the header has {len(titles)}; put texts that hold the delimiter in quotes"
        problems.append(FileProblem(name, detail, row.number, row.line))
        return Record(row.number, row.line, {})
    values = {}
    for position, column in enumerate(found):
        if column is None:
            continue
        cell = row.cells[position] if position < len(row.cells) else ""
        try:
            values[column.name] = column.parse(cell)
        except BadCellError as error:
            shown = None if column.is_private else str(cell).strip()
            problems.append(FileProblem(name, str(error), row.number, row.line, titles[position], shown))
    return Record(row.number, row.line, values)
