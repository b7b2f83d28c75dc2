"""The mistakes in a file, described so that its owner finds the place: a `Mistake` (`schemas/mistakes.py`) names a place in a request."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileMistake:
    """One mistake in a file. `row` counts rows from 1, as a spreadsheet program shows them, and `line` the lines of a text.

    What does not apply is None: a file that can't be read has no row, a row with too many cells no column; JSON has a `pointer`
    (RFC 6901) instead of both. `value` is what the cell holds, and None for notes too: they may hold health data and are shown
    nowhere (invariant 10).
    """

    file: str
    detail: str
    row: int | None = None
    line: int | None = None
    column: str | None = None
    value: str | None = None
    pointer: str | None = None

    def __str__(self) -> str:
        place = [self.file]
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.line not in (None, self.row):
            place.append(f"line {self.line}")
        if self.column is not None:
            place.append(f"column {self.column}")
        if self.pointer:
            place.append(self.pointer)
        value = "" if self.value is None else f' "{self.value}"'
        return f"{', '.join(place)}:{value} {self.detail}"


class BadFileError(Exception):
    """The file was refused as a whole; `mistakes` names every mistake in it. Mend them and try again: nothing was changed."""

    def __init__(self, mistakes: Sequence[FileMistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)
