"""Finds the header of a table: which columns are wanted, and which titles of the file name them."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.files.cells import BadCellError, BrokenCell, Cell, is_blank, shown
from orchestrator.files.mistakes import MAX_SHOWN_CHARACTERS, BadFileError, FileMistake, excerpt
from schemas.spelling import visible

# Blanks, underscores and hyphens of every width.
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")

# Above the header, a title can have two cells: `Avdeling:` and `Oslo`.
_MOST_CELLS_ABOVE = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column to read. `parse` takes a cell, and raises BadCellError. Mistakes get `code` unless the error has a code.

    The values of a column that `is_private` are never shown. In one that `is_duration`, hours may have a decimal comma. In one that
    `is_compared` with exported values, doubtful letters give no remark, because they may be the exported ones. Below a title, a row with one
    column that `is_enough` is the header; else a header needs two columns.
    """

    name: str
    parse: Callable[[Cell], Any]
    aliases: Sequence[str] = ()
    is_required: bool = True
    is_private: bool = False
    code: str = "bad_value"
    is_duration: bool = False
    is_compared: bool = False
    is_enough: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file that is not blank, with its number and, in a text, the line on which it begins."""

    number: int
    line: int | None
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Header:
    """The titles in the file, and the column of each; None for a title that is not read. `plain_titles` are the positions
    of the titles that are read, and these titles as they are compared; `untitled` are the positions of blank ones."""

    titles: Sequence[str]
    found: Sequence[Column | None]
    plain_titles: Sequence[tuple[int, str]]
    untitled: Sequence[int]


def normal(title: str) -> str:
    """The title as titles are compared."""
    plain = unicodedata.normalize("NFKC", visible(title[:MAX_SHOWN_CHARACTERS]))
    return _SEPARATORS.sub(" ", plain).strip().casefold()


def column_of(title: str, columns: Sequence[Column]) -> str | None:
    """The name of the column that a header's title means, or None."""
    wanted = normal(title)
    return next((column.name for column in columns if wanted in map(normal, (column.name, *column.aliases))), None)


def are_blank(cells: Sequence[Cell]) -> bool:
    """Whether each of the cells is blank."""
    return all(map(is_blank, cells))


def is_above_header(row: Row, known: Mapping[str, Column]) -> bool:
    """Whether the row can be a title above the header: it has one or two cells, and none is a column's title."""
    filled = _filled_cells(row)
    return len(filled) <= _MOST_CELLS_ABOVE and not any(normal(shown(cell)) in known for cell in filled)


def is_header_below(above: Sequence[Row], row: Row, known: Mapping[str, Column]) -> bool:
    """Whether the row is a header, and the rows above it are titles and no records."""
    found = {
        position: column for position, cell in enumerate(row.cells) if (column := known.get(normal(shown(cell)))) is not None
    }
    # Dates and durations: a record has them, and no other text fits.
    forms = {position: column for position, column in found.items() if not (fits(column, "x") or fits(column, ""))}
    is_header = len(found) > 1 or any(column.is_enough for column in found.values())
    return is_header and all(_is_title(each, len(_filled_cells(row)), forms) for each in above)


def _is_title(row: Row, width: int, forms: Mapping[int, Column]) -> bool:
    """Whether the row above the header is no record: it has only one cell, or two and none of the dates and durations that a record has."""
    count = len(_filled_cells(row))
    has_form = any(fits(column, row.cells[position]) for position, column in forms.items() if position < len(row.cells))
    return count < width and (count == 1 or (bool(forms) and not has_form))


def _filled_cells(row: Row) -> Sequence[Cell]:
    return [cell for cell in row.cells if not is_blank(cell)]


def read_header(name: str, row: Row, known: Mapping[str, Column], columns: Sequence[Column], sheet: str | None) -> Header:
    """The header in this row, and in this sheet if there are others. Raises BadFileError with all its mistakes."""
    of_sheet = "" if sheet is None else f" of the sheet {excerpt(sheet)}"
    titles = [" ".join(shown(cell).split()) for cell in row.cells]
    found = [known.get(normal(title)) for title in titles]
    mistakes = [
        FileMistake(name, cell.reason, row.number, row.line, value=shown(cell))
        for cell in row.cells
        if isinstance(cell, BrokenCell)
    ]
    for column in columns:
        times = found.count(column)
        if times > 1:
            detail = "is in the header more than once; remove or rename all but one"
            mistakes.append(FileMistake(name, detail, row.number, row.line, column.name, code="repeated_column"))
        elif times == 0 and column.is_required:
            other_names = f" (or {', '.join(column.aliases)})" if column.aliases else ""
            detail = f"is missing from the header{of_sheet}{other_names}"
            mistakes.append(FileMistake(name, detail, row.number, row.line, column.name, code="missing_column"))
    if mistakes:
        raise BadFileError(mistakes)
    plain = [*enumerate(map(normal, titles))]
    read = [(position, title) for position, title in plain if found[position] is not None]
    return Header(titles, found, read, [position for position, title in plain if not title])


def fits(column: Column, cell: Cell) -> bool:
    """Whether the cell is a value of the column."""
    try:
        column.parse(cell)
    except BadCellError:
        return False
    return True


def repeats_header(header: Header, cells: Sequence[Cell]) -> bool:
    """Whether the cells are the titles of the columns that are read."""
    return bool(header.plain_titles) and all(
        position < len(cells) and normal(shown(cells[position])) == title for position, title in header.plain_titles
    )


def unread_titles(header: Header) -> Sequence[str]:
    """The titles of columns that are not read."""
    return [excerpt(title) for title, column in zip(header.titles, header.found, strict=True) if title and column is None]


def untitled_with_value(header: Header, cells: Sequence[Cell]) -> Iterator[int]:
    """The positions of the row's values in columns without a title."""
    for position in header.untitled:
        if position < len(cells) and cells[position] != "" and not is_blank(cells[position]):
            yield position
