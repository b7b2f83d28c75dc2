"""A directory: an organization's people, their scopes, its activity types and chapters, as CSV files (docs/files.md).

Reading finds the mistakes in the files themselves. The import (`orchestrator/directory/importing.py`) finds those that only the database can
show. Both report all mistakes at once, by file and line, and change nothing.
"""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from orchestrator.files import cells
from orchestrator.files.cells import BadCellError, Cell
from orchestrator.files.headers import Column, column_of
from orchestrator.files.mistakes import BadFileError, FileMistake
from orchestrator.files.submissions import TABLES
from orchestrator.files.tables import TableCheck, TableRow, read_table, repeated
from orchestrator.registration.rules import DEFAULT_TIME_ZONE, MAX_DURATION_MINUTES, MIN_DURATION_MINUTES
from schemas.spelling import canonical

DIRECTORY_ROLES = ("coordinator", "admin")

CLOSED_ROLE = "closed"
"""The role of a coordinator whom `--prune` has closed. The coordinator keeps the name, but may register for nobody."""


def _role(cell: Cell) -> str:
    role = cells.text(cell)
    if role not in DIRECTORY_ROLES:
        raise BadCellError(f"is not {' or '.join(DIRECTORY_ROLES)}")
    return role


def _or_default(default: str) -> Callable[[Cell], str]:
    return lambda cell: default if (name := cells.optional_name(cell)) is None else name


def _minutes_or_none(cell: Cell) -> int | None:
    if cells.is_blank(cell):
        return None
    minutes = cells.minutes(cell)
    if not MIN_DURATION_MINUTES <= minutes <= MAX_DURATION_MINUTES:
        raise BadCellError(f"is not {MIN_DURATION_MINUTES} to {MAX_DURATION_MINUTES} minutes")
    return minutes


_ORGANIZATION = Column("organization_id", cells.identifier)
_COORDINATOR = Column("coordinator_id", cells.identifier)

FILES: Mapping[str, Sequence[Column]] = {
    "organizations.csv": (
        _ORGANIZATION,
        Column("name", _or_default("")),
        Column("time_zone", _or_default(DEFAULT_TIME_ZONE), is_required=False),
        Column("closed_through", cells.optional_date, is_required=False),
    ),
    "mentors.csv": (
        _ORGANIZATION,
        Column("mentor_id", cells.identifier),
        Column("name", cells.name),
        Column("chapter_id", cells.identifier),
        Column("active_from", cells.optional_date),
        Column("active_until", cells.optional_date),
    ),
    "coordinators.csv": (_ORGANIZATION, _COORDINATOR, Column("name", cells.name), Column("role", _role)),
    # A row with both blank is for an organization that no longer has any scopes.
    "scopes.csv": (
        _ORGANIZATION,
        Column("coordinator_id", cells.optional_identifier),
        Column("chapter_id", cells.optional_identifier),
    ),
    "activity_types.csv": (
        _ORGANIZATION,
        Column("activity_type", cells.identifier),
        Column("name", cells.name),
        Column("default_minutes", _minutes_or_none, is_required=False, is_duration=True),
        Column("minimum_minutes", _minutes_or_none, is_required=False, is_duration=True),
    ),
    "chapters.csv": (_ORGANIZATION, Column("chapter_id", cells.identifier), Column("name", cells.name)),
}

# The columns that together must be unique in a file.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "organizations.csv": ("organization_id",),
    "mentors.csv": ("organization_id", "mentor_id"),
    "coordinators.csv": ("organization_id", "coordinator_id"),
    "scopes.csv": ("organization_id", "coordinator_id", "chapter_id"),
    "activity_types.csv": ("organization_id", "activity_type"),
    "chapters.csv": ("organization_id", "chapter_id"),
}

# Words in the names of the tables. A file with one of them in its name is probably meant to be one of the tables.
_SUBJECTS = re.compile("organi[sz]ation|mentor|coordinator|scope|activit|chapter")

# Endings of tables, also of those that are not read.
_TABLE_ENDINGS = frozenset(
    {*TABLES, ".tab", ".xls", ".xlsm", ".xlsb", ".xltx", ".xlt", ".ods", ".fods", ".ots", ".numbers", ".gsheet", ".dif", ".slk"}
)

# Endings that a program or a person adds to the name of a table: `list.csv.txt`.
_ADDED_ENDINGS = frozenset({".txt", ".bak", ".old", ".orig", ".tmp", ".copy", ".kopi"})

# Endings of archives, programs, pages and submissions. Such a file may begin with the titles of a table, but is no table.
_OTHER_ENDINGS = frozenset({".zip", ".7z", ".gz", ".json", ".ndjson", ".sql", ".py", ".sh", ".md"})

# A header is the first line of a table, or follows a line such as `sep=;` or a title.
_HEAD_BYTES, _HEAD_LINES = 4_096, 3
_BETWEEN_TITLES = re.compile(r"""[\s"']*[,;\t|]["'\s]*|["']""")

# What spreadsheet programs and reports write below a list.
_TOTAL = re.compile(r"(?:(?:grand |sub)?totals?|totalt|sum|delsum|i alt|antall|count|rows|rader)\s*[:=]?\s*[0-9]*", re.IGNORECASE)

# A row in which these columns are blank has only the id of an organization. A blank time zone is read as the default.
_BESIDE_ORGANIZATION = ("chapter_id", "coordinator_id", "name", "closed_through")

_TEXT_WITH_NUMBER = re.compile(r"(?=.*[0-9])(?=.*[^\W\d_]).*\s.*")

# Beginnings of the names of files that systems and spreadsheet programs leave in folders, hidden or beside an open file.
_LEFT_BEHIND = (".", "~$")


class Rows(list[TableRow]):
    """The records of a file, and the file's own name."""

    def __init__(self, file: str, records: Sequence[TableRow] = ()) -> None:
        super().__init__(records)
        self.file = file


Directory = Mapping[str, Rows]
"""The records of each file that exists, by its name in FILES."""


def read_directory(path: Path) -> tuple[Directory, Sequence[str]]:
    """The directory's records, and remarks on what was not read. Raises BadFileError with all mistakes of all files.

    If a file is missing, its table stays unchanged. So every file in the folder is either read or reported: if a `scope.csv` or a
    `scopes.csv.txt` were ignored, people would keep the access that it withdraws.
    """
    found, mistakes, unread = _sorted_out(path)
    remarks = [f"{path.name}: not read: {', '.join(unread)}"] if unread else []
    if not found:
        mistakes.append(FileMistake(str(path), f"has none of {', '.join(FILES)}"))
    directory: dict[str, Rows] = {}
    for name in FILES:
        if name not in found:
            continue
        file, *others = found[name]
        mistakes += (FileMistake(other.name, f"holds the same table as {file.name}; remove one of them") for other in others)
        try:
            table = read_table(file.name, file.read_bytes(), FILES[name], _check_of(name))
        except OSError as error:
            mistakes.append(FileMistake(file.name, f"can't be read: {error.strerror}"))
        except BadFileError as refusal:
            mistakes += refusal.mistakes
        else:
            directory[name] = Rows(file.name, table.rows)
            remarks += table.remarks
            if not table.rows:
                remarks.append(f"{file.name}: has a header, but no rows: it changes nothing{_HOW_TO_EMPTY.get(name, '')}")
    if mistakes:
        raise BadFileError([mistake if mistake.line is None else replace(mistake, row=None) for mistake in mistakes])
    return directory, remarks


_HOW_TO_EMPTY = {
    "scopes.csv": "; to withdraw the last scopes of an organization, write a row with its organization_id and nothing else"
}


def _sorted_out(path: Path) -> tuple[dict[str, list[Path]], list[FileMistake], list[str]]:
    """The files of the folder by the table that they hold, mistakes for files that only seem to hold one, and the names of all others."""
    found: dict[str, list[Path]] = {}
    mistakes: list[FileMistake] = []
    unread: list[str] = []
    for file in sorted(path.iterdir()):
        table = _table_named(file.name)
        if file.name.startswith(_LEFT_BEHIND) or (table is None and file.is_dir() and not _has_table_ending(file.name)):
            unread.append(file.name)
        elif table is not None and not file.is_file():
            mistakes.append(FileMistake(file.name, "is not a file; remove it or replace it by one"))
        elif table is not None:
            found.setdefault(table, []).append(file)
        elif _has_table_ending(file.name) or _SUBJECTS.search(_folded(file.name)) or _begins_like_a_table(file):
            detail = f"is none of {', '.join(FILES)}; rename it to one of these, or remove it from the folder"
            mistakes.append(FileMistake(file.name, detail))
        else:
            unread.append(file.name)
    return found, mistakes, unread


def _table_named(file_name: str) -> str | None:
    """The table that a file of this name holds: the name in upper or lower case, as CSV, TSV or workbook."""
    folded = PurePath(_folded(file_name))
    name = f"{re.sub('[ -]+', '_', folded.stem)}.csv"
    return name if name in FILES and folded.suffix in TABLES else None


def _has_table_ending(file_name: str) -> bool:
    """Whether the name's ending is that of a table, or the one before an ending that was added."""
    name = PurePath(_folded(file_name))
    return name.suffix in _TABLE_ENDINGS or (name.suffix in _ADDED_ENDINGS and PurePath(name.stem).suffix in _TABLE_ENDINGS)


def _begins_like_a_table(file: Path) -> bool:
    """Whether the file has the header of a table, or is a workbook, whatever its name: `list.txt`, or a name without an ending."""
    if not file.is_file() or PurePath(file.name).suffix.lower() in _OTHER_ENDINGS:
        return False
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return False  # it is listed as not read
    if head.startswith(b"PK"):
        return b"xl/" in head
    text = head.decode("utf-16" if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig", "replace")
    return any(map(_is_header, text.strip().splitlines()[:_HEAD_LINES]))


def _is_header(line: str) -> bool:
    titles = _BETWEEN_TITLES.split(line)
    return any(all(any(column_of(title, [column]) for title in titles) for column in columns[:2]) for columns in FILES.values())


def _folded(file_name: str) -> str:
    return canonical(file_name[:_MAX_NAME]).strip().casefold()


# No file system has longer names.
_MAX_NAME = 255


def _check_of(name: str) -> TableCheck:
    """The check of this table, whatever its file is called."""

    def check(file: str, records: Sequence[TableRow]) -> Iterator[FileMistake]:
        for record, first in repeated(records, _KEYS[name]):
            where = f"in row {first.row}" if first.line is None else f"on line {first.line}"
            yield mistake_at(file, record, _KEYS[name][-1], f"is already {where}")
        for record in records:
            if _ends_before_it_begins(record.values):
                yield mistake_at(file, record, "active_until", "is before active_from")
        for record in _footer(records):
            detail = "looks like a total or a footer, or is below one; remove it; if an organization has this id, make it the first row"
            yield mistake_at(file, record, "organization_id", detail)
        if name == "scopes.csv":
            yield from _half_empty_scopes(file, records)

    return check


def _footer(records: Sequence[TableRow]) -> Sequence[TableRow]:
    """The last rows, from the first that is no organization's: a total, or only a text with a number (`(3 rows)`, `Exported 01.02.2026`).

    Ids can be texts with numbers, too. Then another row has an id of the same form (`Region 1`, `Region 2`), or the same id.
    """
    ids = Counter(record.values["organization_id"] for record in records if "organization_id" in record.values)
    forms = Counter(map(_form, ids))
    first = len(records)
    for position in range(len(records) - 1, 0, -1):
        values = records[position].values
        organization = values.get("organization_id", "")
        is_alone = not any(values.get(name) for name in _BESIDE_ORGANIZATION)
        is_total = _TOTAL.fullmatch(organization) is not None
        if not (is_alone or is_total):
            break
        is_text = is_alone and _TEXT_WITH_NUMBER.fullmatch(organization) is not None and forms[_form(organization)] == 1
        if ids[organization] == 1 and (is_total or is_text):
            first = position
    return records[first:]


def _form(organization: str) -> str:
    """The id with the same mark for any number."""
    return re.sub(r"[0-9]+", "0", organization)


def _half_empty_scopes(file: str, records: Sequence[TableRow]) -> Iterator[FileMistake]:
    """Mistakes in scopes. A scope has both ids; a row without either means that its organization has no scopes."""
    granting = {record.values.get("organization_id") for record in records if record.values.get("chapter_id") is not None}
    for record in records:
        values = record.values
        if "coordinator_id" not in values or "chapter_id" not in values:
            continue  # an unreadable cell is already a mistake
        empty = [column for column in ("coordinator_id", "chapter_id") if values[column] is None]
        if len(empty) == 1:
            yield mistake_at(file, record, empty[0], "is empty")
        elif empty and values.get("organization_id") in granting:
            detail = "has other rows in this file, but a row without coordinator and chapter means that it has no scopes; remove this row"
            yield mistake_at(file, record, "organization_id", detail)


def _ends_before_it_begins(values: Mapping[str, Any]) -> bool:
    first, last = values.get("active_from"), values.get("active_until")
    return first is not None and last is not None and last < first


def mistake_at(file: str, record: TableRow, column: str, detail: str) -> FileMistake:
    """A mistake in one cell of a readable record."""
    value = record.values[column]
    row = record.row if record.line is None else None
    return FileMistake(file, detail, row, record.line, column, "" if value is None else str(value))
