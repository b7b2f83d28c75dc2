"""The mistakes in a file, with the place where people find them. (A `Mistake` in `schemas/mistakes.py` has a place in a request.)"""

from collections.abc import Sequence
from dataclasses import dataclass, field

MAX_SHOWN_CHARACTERS = 200
"""A mistake shows no more of a value. No column has a longer name, and the beginning of a value is enough to find a mistake."""


@dataclass(frozen=True, slots=True)
class FileMistake:
    """One mistake in a file. `row` is the number of the row as a spreadsheet program shows it, and `line` that of the line in a text. Both
    count from 1.

    Fields that do not apply are None: an unreadable file has no row, and a row with too many cells has no column. JSON has a `pointer`
    (RFC 6901) instead of both. `value` is the content of the cell. It is always None for notes, which may contain health data and are never
    shown (invariant 10). `code` is for programs, `detail` for people.
    """

    file: str
    detail: str
    row: int | None = None
    line: int | None = None
    column: str | None = None
    value: str | None = None
    pointer: str | None = None
    code: str = field(default="unreadable", compare=False)

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
    """The whole file was refused, and nothing was changed. `mistakes` lists all its mistakes: correct them and try again."""

    def __init__(self, mistakes: Sequence[FileMistake]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


def excerpt(text: str) -> str:
    """A value as a mistake quotes it, cut if it is long."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
