"""Remarks on a file: what was not read, and what was read and should be checked. It may all be right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.files.mistakes import FileMistake

# The most rows, columns, sheets or letters that a remark names; all are counted.
MOST_NAMED = 10


class RemarkCode(StrEnum):
    """What a remark is about, for programs."""

    OTHER_SHEETS = "other_sheets"
    HIDDEN_SHEETS = "hidden_sheets"
    ROWS_ABOVE = "rows_above"
    UNKNOWN_COLUMNS = "unknown_columns"
    UNTITLED_COLUMNS = "untitled_columns"
    HIDDEN_COLUMNS = "hidden_columns"
    HIDDEN_ROWS = "hidden_rows"
    UNUSUAL_LETTERS = "unusual_letters"
    POSSIBLE_ROWS = "possible_rows"
    POSSIBLE_HOURS = "possible_hours"
    SHORT_DURATIONS = "short_durations"
    POSSIBLE_CLOCK = "possible_clock"
    MISREAD_NOTES = "misread_notes"
    NARROW_NOTES = "narrow_notes"


@dataclass(frozen=True, slots=True)
class FileRemark:
    """A remark on a file. `detail` is for people.

    `rows` are the first rows that it is about, or `names` the first columns, sheets or letters, and `count` says how many there are. A text of
    notes is never in a remark (invariant 10).
    """

    file: str
    code: RemarkCode
    detail: str
    rows: Sequence[int] = ()
    names: Sequence[str] = ()
    count: int = 0

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"


def about_names(file: str, code: RemarkCode, detail: str, names: Sequence[str]) -> FileRemark:
    """A remark on these columns, sheets or letters, which the detail names."""
    return FileRemark(file, code, detail, names=names[:MOST_NAMED], count=len(names))


def about_rows(file: str, code: RemarkCode, detail: str, rows: Sequence[int]) -> FileRemark:
    """A remark on these rows. Their numbers follow the detail."""
    return FileRemark(file, code, f"{detail} {', '.join(first_of(rows))}", rows=rows[:MOST_NAMED], count=len(rows))


def first_of(names: Sequence[object]) -> list[str]:
    """The first of these, and a mark if there are more."""
    return [*map(str, names[:MOST_NAMED]), *(["…"] if len(names) > MOST_NAMED else [])]


@dataclass(frozen=True, slots=True)
class Doubts:
    """The rows that a program may have changed, although nothing proves it. They are read, with a remark.

    `short` and `long` are the rows with durations without a unit. Short ones give a remark only if no row has a long one: they may be hours.
    A duration with a unit, such as `90 min`, says nothing about the others. `decimal_ids` are the mistakes of ids that end with `.0`, by
    column. They give no remark, because the whole column shows whether they are mistakes.
    """

    whole_rows: list[int] = field(default_factory=list)
    split_durations: list[int] = field(default_factory=list)
    short: list[int] = field(default_factory=list)
    long: list[int] = field(default_factory=list)
    clocks: list[int] = field(default_factory=list)
    misread: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    decimal_ids: dict[str, list[FileMistake]] = field(default_factory=dict)

    def remarks(self, file: str) -> Iterator[FileRemark]:
        """A remark on each kind of doubt."""
        for code, rows, detail in (
            (
                RemarkCode.POSSIBLE_ROWS,
                self.whole_rows,
                "a cell of several lines was read as one text; if rows are missing, look for a missing quote",
            ),
            (
                RemarkCode.POSSIBLE_HOURS,
                self.split_durations,
                "a duration before hours was read as minutes; if a decimal comma has split it, put it in quotes",
            ),
            (
                RemarkCode.SHORT_DURATIONS,
                [] if self.long else self.short,
                "all durations without a unit are 9 minutes or less; if they are hours, write them as 2 h",
            ),
            (
                RemarkCode.POSSIBLE_CLOCK,
                self.clocks,
                "hours were read with decimals, so 1.30 h are 78 minutes; if hours and minutes are meant, write 1:30",
            ),
            (
                RemarkCode.MISREAD_NOTES,
                self.misread,
                "the notes seem to have symbols in place of letters; if so, save the list as CSV UTF-8 where the letters are right",
            ),
            (
                RemarkCode.NARROW_NOTES,
                self.hashes,
                "the notes are only #; if the column was too narrow, widen it and save the file again",
            ),
        ):
            if rows:
                # A row can have two durations.
                yield about_rows(file, code, f"{detail}: row", [*dict.fromkeys(rows)])
