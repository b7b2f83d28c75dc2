"""Imports a directory into the registration service's tables: set-based, in one transaction, all or nothing (docs/files.md)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy import Connection, TextClause

from orchestrator.directory.files import CLOSED_ROLE, Directory, Rows, mistake_at
from orchestrator.directory.periods import ClosedPeriod, close_periods, not_over_yet
from orchestrator.files.mistakes import BadFileError, FileMistake
from orchestrator.files.tables import TableRow
from orchestrator.registration.rules import DEFAULT_TIME_ZONE
from orchestrator.storage.people import ForgettingKey, read_forgotten, readmit, wait_for_imports
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/directory/sql/importing.sql")

_ORGANIZATIONS = _SQL["organizations"].text().bindparams(time_zone=DEFAULT_TIME_ZONE)
_BEING_FORGOTTEN = _SQL["being_forgotten"].text()
_NAMED_ELSEWHERE = _SQL["named_elsewhere"].text()
_MENTORS = _SQL["mentors"].text()
_COORDINATORS = _SQL["coordinators"].text()
_ACTIVITY_TYPES = _SQL["activity_types"].text()
_CHAPTERS = _SQL["chapters"].text()
_SCOPES = _SQL["scopes"].text()
_ABSENT_MENTORS = _SQL["absent_mentors"].text()
_CLOSE_MENTORS = _SQL["close_mentors"].text()
_ABSENT_COORDINATORS = _SQL["absent_coordinators"].text()
_CLOSE_COORDINATORS = _SQL["close_coordinators"].text()
_UNKNOWN_TIME_ZONES = _SQL["unknown_time_zones"].text()
_SCOPES_OF_NOBODY = _SQL["scopes_of_nobody"].text()


@dataclass(frozen=True, slots=True)
class Change:
    """How many rows of one file the import got, and what it did with them."""

    given: int
    added: int = 0
    changed: int = 0
    withdrawn: int = 0


@dataclass(frozen=True, slots=True)
class Person:
    """A person in an organization, by id."""

    organization_id: str
    id: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import changed, by file; people who are not in the files (if `pruned`, they were closed); the periods that it closed, and those
    that stay closed longer than the file says; people in the files who were forgotten, and so were left out; and people who were left out
    although they were to be readmitted, because they are still being forgotten."""

    changes: dict[str, Change]
    absent_mentors: Sequence[Person] = field(default=())
    absent_coordinators: Sequence[Person] = field(default=())
    pruned: bool = False
    closed_periods: Sequence[ClosedPeriod] = field(default=())
    periods_closed_longer: Sequence[ClosedPeriod] = field(default=())
    forgotten: Sequence[Person] = field(default=())
    being_forgotten: Sequence[Person] = field(default=())


def import_directory(
    connection: Connection, directory: Directory, *, prune: bool = False, key: ForgettingKey | None = None, again: bool = False
) -> ImportReport:
    """Writes the directory in the caller's transaction. Importing the same directory again changes nothing. Raises BadFileError, and
    ForgettingKeyError if somebody was forgotten and the key is not the one of that time; the caller must then roll back.

    People who were forgotten are left out, unless `again` readmits them. Nobody is readmitted while a request to forget them is open.

    With `prune`, people who are absent from a file that names their organization are closed: a mentor's activity ends yesterday, a coordinator
    loses the role and all scopes. Nobody is deleted, because activities and audit rows refer to them.
    """
    wait_for_imports(connection)
    directory, forgotten, being_forgotten = _without_forgotten(connection, directory, key, again=again)
    if mistakes := list(_unknown_time_zones(connection, directory.get("organizations.csv"))):
        raise BadFileError(mistakes)
    changes: dict[str, Change] = {}
    # Organizations first: mentors are closed by the date in their organization's time zone.
    organizations = directory.get("organizations.csv")
    _write(connection, directory, "organizations.csv", _ORGANIZATIONS, changes)
    if mistakes := list(not_over_yet(connection, organizations)):
        raise BadFileError(mistakes)
    named = sorted({record.values["organization_id"] for records in directory.values() for record in records})
    connection.execute(_NAMED_ELSEWHERE, {"organizations": named, "time_zone": DEFAULT_TIME_ZONE})
    _write(connection, directory, "activity_types.csv", _ACTIVITY_TYPES, changes)
    _write(connection, directory, "chapters.csv", _CHAPTERS, changes)
    _write(connection, directory, "mentors.csv", _MENTORS, changes)
    _write(connection, directory, "coordinators.csv", _COORDINATORS, changes)
    mentors = _absent(connection, directory, "mentors.csv", _ABSENT_MENTORS, _CLOSE_MENTORS if prune else None)
    close = _CLOSE_COORDINATORS if prune else None
    coordinators = _absent(connection, directory, "coordinators.csv", _ABSENT_COORDINATORS, close, closed=CLOSED_ROLE)
    if mistakes := list(_scopes_of_nobody(connection, directory.get("scopes.csv"))):
        raise BadFileError(mistakes)
    _write(connection, directory, "scopes.csv", _SCOPES, changes)
    closed, longer = close_periods(connection, organizations)
    return ImportReport(
        changes,
        mentors,
        coordinators,
        pruned=prune,
        closed_periods=closed,
        periods_closed_longer=longer,
        forgotten=forgotten,
        being_forgotten=being_forgotten,
    )


_PEOPLE = {"mentors.csv": "mentor_id", "coordinators.csv": "coordinator_id", "scopes.csv": "coordinator_id"}


def _without_forgotten(
    connection: Connection, directory: Directory, key: ForgettingKey | None, *, again: bool
) -> tuple[Directory, Sequence[Person], Sequence[Person]]:
    """The directory without the rows of people who stay forgotten, and these people: those who were left out because they were forgotten,
    and those who can't be readmitted yet."""
    people = read_forgotten(connection, key)
    if not people or key is None:
        return directory, (), ()
    left_out = {
        (organization_id, person)
        for organization_id, person in _listed(directory)
        if people.pseudonym(organization_id, person) is not None
    }
    if again:
        being_forgotten = {(row.organization_id, row.mentor_id) for row in connection.execute(_BEING_FORGOTTEN)}
        readmit(connection, key, sorted(left_out - being_forgotten))
        left_out &= being_forgotten
    kept = {
        name: Rows(rows.file, [row for row in rows if _person(name, row) not in left_out]) for name, rows in directory.items()
    }
    left = [Person(organization_id, person) for organization_id, person in sorted(left_out)]
    return (kept, (), left) if again else (kept, left, ())


def _listed(directory: Directory) -> set[tuple[str, str]]:
    """The people in the files, by organization and id."""
    return {person for name, rows in directory.items() for row in rows if (person := _person(name, row)) is not None}


def _person(name: str, row: TableRow) -> tuple[str, str] | None:
    person = row.values.get(_PEOPLE.get(name, ""))
    return None if person is None else (row.values["organization_id"], person)


def _write(connection: Connection, directory: Directory, name: str, statement: TextClause, changes: dict[str, Change]) -> None:
    if name in directory:
        records = directory[name]
        counts = connection.execute(statement, {"rows": _as_json(records)}).one()
        changes[name] = Change(len(records), **counts._mapping)


def _as_json(records: Sequence[TableRow]) -> str:
    return orjson.dumps([dict(record.values) for record in records]).decode()


def _absent(
    connection: Connection, directory: Directory, name: str, find: TextClause, close: TextClause | None, **more: str
) -> Sequence[Person]:
    records = directory.get(name, ())
    named = sorted({record.values["organization_id"] for record in records})
    parameters = {"rows": _as_json(records), "organizations": named, **more}
    people = [Person(row.organization_id, row.id) for row in connection.execute(find, parameters)]
    if close is not None and people:
        closed = {"organizations": [person.organization_id for person in people], "people": [person.id for person in people]}
        connection.execute(close, {**closed, **more})
    return people


def _unknown_time_zones(connection: Connection, records: Rows | None) -> Iterator[FileMistake]:
    """Checks the time zones against the database's, because the rules use those (`AT TIME ZONE` fails for an unknown one)."""
    if records:
        time_zones = [record.values.get("time_zone") for record in records]
        for index in connection.scalars(_UNKNOWN_TIME_ZONES, {"time_zones": time_zones}):
            yield mistake_at(records.file, records[index - 1], "time_zone", "is not a time zone, such as Europe/Oslo")


def _scopes_of_nobody(connection: Connection, records: Rows | None) -> Iterator[FileMistake]:
    if not records:
        return
    rows = [dict(record.values) | {"index": index} for index, record in enumerate(records)]
    parameters = {"rows": orjson.dumps(rows).decode(), "closed": CLOSED_ROLE}
    for index in connection.scalars(_SCOPES_OF_NOBODY, parameters):
        yield mistake_at(records.file, records[index], "coordinator_id", "is not a coordinator of this organization")
