"""Finds signs that a text with delimiters was divided into cells at the wrong places: at a comma within a duration, or with a missing quote."""

import re
from collections.abc import Callable, Sequence
from enum import Enum

from orchestrator.files.cells import HOUR_WORD, MINUTE_WORD_AFTER_HOURS

_LINE_END = re.compile(r"\r\n|\r|\n")

# Rows follow a stray quote at once. A cell can have a hundred thousand lines, and trying all of them would take long.
_MOST_LINES_READ = 100

# `1,5 t` between commas becomes a cell `1` and a cell `5 t`. Hardly any activity takes 9 minutes or less. Durations of more than a day are no
# hours, so the `60` of `60,5 t` is whole. Those between can be either.
_HOURS = re.compile(r"0?[0-9]")
_HOURS_OR_MINUTES = re.compile(r"1[0-9]|2[0-4]")
_FRACTION = re.compile(rf"[0-9]{{1,2}}\s*{HOUR_WORD}", re.IGNORECASE)
# `1 t, 30 min` becomes `1 t` and `30 min`.
_WHOLE_HOURS = re.compile(rf"[0-9]+\s*{HOUR_WORD}", re.IGNORECASE)
_MINUTES = re.compile(rf"[0-5]?[0-9]\s*{MINUTE_WORD_AFTER_HOURS}", re.IGNORECASE)


class Split(Enum):
    """Whether a cell and the next one were one duration, which was divided at its decimal comma, or before its minutes."""

    NO = "no"
    POSSIBLY = "possibly"
    YES = "yes"
    BEFORE_MINUTES = "before minutes"


def split_duration(neighbours: Sequence[str]) -> Split:
    """Whether these two cells, between commas, were one duration."""
    if len(neighbours) < 2:
        return Split.NO
    whole, fraction = (cell.strip() for cell in neighbours)
    if _WHOLE_HOURS.fullmatch(whole) and _MINUTES.fullmatch(fraction):
        return Split.BEFORE_MINUTES
    if _FRACTION.fullmatch(fraction) is None:
        return Split.NO
    if _HOURS.fullmatch(whole):
        return Split.YES
    return Split.POSSIBLY if _HOURS_OR_MINUTES.fullmatch(whole) else Split.NO


def holds_rows(cells: Sequence[str], position: int, width: int, delimiter: str, is_row: Callable[[Sequence[str]], bool]) -> bool:
    """Whether the cell at this position holds the ends and beginnings of rows. `width` is the number of titles.

    The rows between the first line and the last are whole. The first row begins before this cell, and the last one ends after it.
    """
    lines = _LINE_END.split(cells[position])
    if width < 2 or len(lines) < 2:
        return False
    if any(is_row(line.split(delimiter, width - 1)) for line in lines[1:-1][:_MOST_LINES_READ]):
        return True
    is_first, is_last = position == 0, position == width - 1
    first = [*cells[:position], *lines[0].split(delimiter, max(0, width - 1 - position))]
    beginning = lines[-1].split(delimiter, position)
    last = [*beginning, *cells[position + 1 :]]
    return (is_last or is_row(first)) and (is_first or (len(beginning) == position + 1 and is_row(last)))
