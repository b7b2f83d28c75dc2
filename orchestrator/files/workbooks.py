"""A workbook (.xlsx) as rows of cells, with what the spreadsheet program stores in them."""

import io
import warnings
from dataclasses import dataclass

from openpyxl import load_workbook

from orchestrator.files.cells import Cell, FormulaError
from orchestrator.files.delimited import UnreadableFileError


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rows of a workbook's first visible sheet, in their places, and the names of the other visible ones."""

    name: str
    rows: list[list[Cell]]
    other_sheets: tuple[str, ...]


def first_sheet(raw: bytes) -> Sheet:
    """Reads a workbook; of a formula, the value that the spreadsheet program saved last. Raises UnreadableFileError."""
    try:
        # openpyxl warns about styles and validations that it leaves out: nothing that a reader of values could miss.
        with warnings.catch_warnings(action="ignore"):
            return _first_sheet(raw)
    except Exception as error:
        # A file that only calls itself a workbook fails in the zip, the XML, or anywhere in openpyxl, which has no exception of its own.
        raise UnreadableFileError(f"is not a workbook that can be read ({type(error).__name__})") from error


def _first_sheet(raw: bytes) -> Sheet:
    workbook = load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
    try:
        first, *others = [sheet for sheet in workbook.worksheets if sheet.sheet_state == "visible"]
        # Some programs write a wrong extent, and cells outside of it would be missed.
        first.reset_dimensions()
        rows = [[_cell(cell.value, cell.data_type) for cell in row] for row in first.iter_rows()]
        return Sheet(first.title, rows, tuple(sheet.title for sheet in others))
    finally:
        workbook.close()


def _cell(value: object, data_type: str) -> Cell:
    if value is None:
        return ""
    if data_type == "e":
        return FormulaError(value)
    return value if isinstance(value, Cell) else str(value)
