"""A directory: an organization's people, their scopes and its activity types, as CSV files (specification, 9).

Reading finds what is wrong in the files themselves; what only the database knows is found by the import
(`orchestrator/storage/directory.py`). Either way all mistakes come at once, by file and line, and nothing is changed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.files import cells
from orchestrator.files.cells import BadCellError, Cell
from orchestrator.files.problems import BadFileError, FileProblem
from orchestrator.files.tables import Column, Record, read_table, repeated
from orchestrator.rules import DEFAULT_TIME_ZONE

DIRECTORY_ROLES = ("coordinator", "admin")

CLOSED_ROLE = "closed"
"""The role of a coordinator whom `--prune` has closed: still known by name, may register for nobody."""


def _role(cell: Cell) -> str:
    role = cells.text(cell)
    if role not in DIRECTORY_ROLES:
        raise BadCellError(f"is not {' or '.join(DIRECTORY_ROLES)}")
    return role


def _or_default(default: str) -> Callable[[Cell], str]:
    return lambda cell: default if cells.is_blank(cell) else cells.name(cell)


_ORGANIZATION = Column("organization_id", cells.identifier)
_COORDINATOR = Column("coordinator_id", cells.identifier)

FILES: Mapping[str, Sequence[Column]] = {
    "organizations.csv": (
        _ORGANIZATION,
        Column("name", _or_default("")),
        Column("time_zone", _or_default(DEFAULT_TIME_ZONE), is_required=False),
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
    "scopes.csv": (_ORGANIZATION, _COORDINATOR, Column("chapter_id", cells.identifier)),
    "activity_types.csv": (_ORGANIZATION, Column("activity_type", cells.identifier), Column("name", cells.name)),
}

# What may stand only once in a file.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "organizations.csv": ("organization_id",),
    "mentors.csv": ("organization_id", "mentor_id"),
    "coordinators.csv": ("organization_id", "coordinator_id"),
    "scopes.csv": ("organization_id", "coordinator_id", "chapter_id"),
    "activity_types.csv": ("organization_id", "activity_type"),
}

Directory = Mapping[str, Sequence[Record]]
"""The records of each file that is there, by its name."""


def read_directory(path: Path) -> tuple[Directory, Sequence[str]]:
    """The directory's records, and what of the files was left unread. Raises BadFileError with all mistakes of all files.

    A file that is not there leaves what it would say as it is. A CSV file of an unknown name is a mistake: a `scope.csv` that
    nobody reads would leave people the access that it takes away.
    """
    found = {file.name: file for file in sorted(path.glob("*.csv"))}
    problems = [FileProblem(name, f"is none of {', '.join(FILES)}") for name in found if name not in FILES]
    if found.keys().isdisjoint(FILES):
        problems.append(FileProblem(str(path), f"has none of {', '.join(FILES)}"))
    directory: dict[str, Sequence[Record]] = {}
    remarks: list[str] = []
    for name in FILES:
        if name not in found:
            continue
        try:
            table = read_table(name, found[name].read_bytes(), FILES[name], _check)
        except BadFileError as refusal:
            problems += refusal.problems
            continue
        directory[name] = table.records
        remarks += table.remarks
    if problems:
        raise BadFileError([replace(problem, row=None) for problem in problems])
    return directory, remarks


def _check(name: str, records: Sequence[Record]) -> Iterator[FileProblem]:
    for record, first in repeated(records, _KEYS[name]):
        yield problem_at(name, record, _KEYS[name][-1], f"stands on line {first.line} already")
    for record in records:
        if _ends_before_it_begins(record.values):
            yield problem_at(name, record, "active_until", "is before active_from")


def _ends_before_it_begins(values: Mapping[str, Any]) -> bool:
    first, last = values.get("active_from"), values.get("active_until")
    return first is not None and last is not None and last < first


def problem_at(name: str, record: Record, column: str, detail: str) -> FileProblem:
    """A mistake in one cell of a record that could be read."""
    return FileProblem(name, detail, line=record.line, column=column, value=str(record.values[column]))
