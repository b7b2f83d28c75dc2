"""Imports a directory into the registration service's tables: set-based, in one transaction, all or nothing (docs/files.md)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, TextClause, text

from orchestrator.directory.files import CLOSED_ROLE, Directory, Rows, mistake_at
from orchestrator.files.mistakes import BadFileError, FileMistake
from orchestrator.files.tables import TableRow
from orchestrator.registration.rules import DEFAULT_TIME_ZONE

# One import at a time, or two would each prune whom only the other one has. Nobody else writes these tables, and the
# registration reads them without locks: there is nothing that this lock could deadlock with.
_IMPORT_LOCK = text("SELECT pg_advisory_xact_lock(0x64697265, 1)")

# Each file's rows come as one JSON parameter. A row that says nothing new is not written again: the count says what changed.
_COUNTED = "SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS changed FROM written"

# A file without time zones leaves those of the organizations that are there already.
_ORGANIZATIONS = text(f"""
    WITH written AS (
        INSERT INTO registration.organization AS o (organization_id, name, time_zone)
        SELECT organization_id, coalesce(nullif(given.name, ''), organization_id), coalesce(given.time_zone, known.time_zone, :time_zone)
        FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, name text, time_zone text)
        LEFT JOIN registration.organization known USING (organization_id)
        ON CONFLICT (organization_id) DO UPDATE SET name = EXCLUDED.name, time_zone = EXCLUDED.time_zone
        WHERE (o.name, o.time_zone) IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.time_zone)
        RETURNING xmax = 0 AS is_new
    ) {_COUNTED}
""").bindparams(time_zone=DEFAULT_TIME_ZONE)

_NAMED_ELSEWHERE = text("""
    INSERT INTO registration.organization (organization_id, name, time_zone)
    SELECT organization_id, organization_id, :time_zone FROM unnest(CAST(:organizations AS text[])) AS named (organization_id)
    ON CONFLICT (organization_id) DO NOTHING
""")

_MENTORS = text(f"""
    WITH written AS (
        INSERT INTO registration.mentor AS m (organization_id, mentor_id, name, chapter_id, active_from, active_until)
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given
            (organization_id text, mentor_id text, name text, chapter_id text, active_from date, active_until date)
        ON CONFLICT (organization_id, mentor_id) DO UPDATE
        SET name = EXCLUDED.name, chapter_id = EXCLUDED.chapter_id, active_from = EXCLUDED.active_from,
            active_until = EXCLUDED.active_until
        WHERE (m.name, m.chapter_id, m.active_from, m.active_until)
            IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.chapter_id, EXCLUDED.active_from, EXCLUDED.active_until)
        RETURNING xmax = 0 AS is_new
    ) {_COUNTED}
""")

_COORDINATORS = text(f"""
    WITH written AS (
        INSERT INTO registration.coordinator AS k (organization_id, coordinator_id, name, role)
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given
            (organization_id text, coordinator_id text, name text, role text)
        ON CONFLICT (organization_id, coordinator_id) DO UPDATE SET name = EXCLUDED.name, role = EXCLUDED.role
        WHERE (k.name, k.role) IS DISTINCT FROM (EXCLUDED.name, EXCLUDED.role)
        RETURNING xmax = 0 AS is_new
    ) {_COUNTED}
""")

_ACTIVITY_TYPES = text(f"""
    WITH written AS (
        INSERT INTO registration.activity_type AS t (organization_id, activity_type, name)
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, activity_type text, name text)
        ON CONFLICT (organization_id, activity_type) DO UPDATE SET name = EXCLUDED.name
        WHERE t.name IS DISTINCT FROM EXCLUDED.name
        RETURNING xmax = 0 AS is_new
    ) {_COUNTED}
""")

# Scopes replace those of every organization that the file names: else access could never be withdrawn. A row that names an organization
# and nothing else grants nothing, so that the last access can be withdrawn too.
_SCOPES = text("""
    WITH given AS (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, coordinator_id text, chapter_id text)
    ), withdrawn AS (
        DELETE FROM registration.coordinator_scope s
        WHERE organization_id IN (SELECT organization_id FROM given)
          AND NOT EXISTS (SELECT FROM given g WHERE (g.organization_id, g.coordinator_id, g.chapter_id)
                                                    = (s.organization_id, s.coordinator_id, s.chapter_id))
        RETURNING 1
    ), granted AS (
        INSERT INTO registration.coordinator_scope (organization_id, coordinator_id, chapter_id)
        SELECT * FROM given WHERE coordinator_id IS NOT NULL
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM granted) AS added, (SELECT count(*) FROM withdrawn) AS withdrawn
""")

# The people of the organizations that the file names who are not in it, and have not been closed before. A mentor is closed by
# an end: yesterday, in the organization's time zone, so that what was done until then can still be registered.
_ABSENT_MENTOR = """
    m.organization_id = o.organization_id AND m.organization_id = ANY (CAST(:organizations AS text[]))
    AND (m.active_until IS NULL OR m.active_until >= (statement_timestamp() AT TIME ZONE o.time_zone)::date)
    AND (m.organization_id, m.mentor_id) NOT IN (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, mentor_id text))
"""
_ABSENT_MENTORS = text(f"""
    SELECT m.organization_id, m.mentor_id AS id FROM registration.mentor m, registration.organization o WHERE {_ABSENT_MENTOR}
    ORDER BY 1, 2
""")
_CLOSE_MENTORS = text(f"""
    UPDATE registration.mentor m SET active_until = (statement_timestamp() AT TIME ZONE o.time_zone)::date - 1
    FROM registration.organization o WHERE {_ABSENT_MENTOR}
""")

_ABSENT_COORDINATOR = """
    k.organization_id = ANY (CAST(:organizations AS text[])) AND k.role <> :closed
    AND (k.organization_id, k.coordinator_id) NOT IN (
        SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, coordinator_id text))
"""
_ABSENT_COORDINATORS = text(f"""
    SELECT k.organization_id, k.coordinator_id AS id FROM registration.coordinator k WHERE {_ABSENT_COORDINATOR} ORDER BY 1, 2
""")
_CLOSE_COORDINATORS = text(f"""
    WITH closed AS (
        UPDATE registration.coordinator k SET role = :closed WHERE {_ABSENT_COORDINATOR} RETURNING k.organization_id, k.coordinator_id
    )
    DELETE FROM registration.coordinator_scope WHERE (organization_id, coordinator_id) IN (SELECT * FROM closed)
""")

_UNKNOWN_TIME_ZONES = text("""
    SELECT index FROM unnest(CAST(:time_zones AS text[])) WITH ORDINALITY AS given (time_zone, index)
    WHERE time_zone NOT IN (SELECT name FROM pg_timezone_names) ORDER BY 1
""")

_SCOPES_OF_NOBODY = text("""
    SELECT index FROM json_to_recordset(CAST(:rows AS json)) AS given (organization_id text, coordinator_id text, index int)
    WHERE given.coordinator_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM registration.coordinator k WHERE k.role <> :closed
                      AND (k.organization_id, k.coordinator_id) = (given.organization_id, given.coordinator_id))
    ORDER BY 1
""")


@dataclass(frozen=True, slots=True)
class Change:
    """What the import did with one file's rows."""

    given: int
    added: int = 0
    changed: int = 0
    withdrawn: int = 0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody of an organization, by id."""

    organization_id: str
    id: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import changed, by file, and who is not in the files; those were closed if `pruned`."""

    changes: dict[str, Change]
    absent_mentors: Sequence[Person] = field(default=())
    absent_coordinators: Sequence[Person] = field(default=())
    pruned: bool = False


def import_directory(connection: Connection, directory: Directory, *, prune: bool = False) -> ImportReport:
    """Writes the directory in the caller's transaction; the same one again changes nothing. Raises BadFileError: then roll back.

    Who is absent from a file that names their organization is closed only with `prune`: a mentor's activity ends yesterday, a
    coordinator loses the role and all scopes. Nobody is deleted: activities and audits name them.
    """
    connection.execute(_IMPORT_LOCK)
    if mistakes := list(_unknown_time_zones(connection, directory.get("organizations.csv"))):
        raise BadFileError(mistakes)
    changes: dict[str, Change] = {}
    # Organizations first: the other files' people live in their time zones.
    _write(connection, directory, "organizations.csv", _ORGANIZATIONS, changes)
    named = sorted({record.values["organization_id"] for records in directory.values() for record in records})
    connection.execute(_NAMED_ELSEWHERE, {"organizations": named, "time_zone": DEFAULT_TIME_ZONE})
    _write(connection, directory, "activity_types.csv", _ACTIVITY_TYPES, changes)
    _write(connection, directory, "mentors.csv", _MENTORS, changes)
    _write(connection, directory, "coordinators.csv", _COORDINATORS, changes)
    mentors = _absent(connection, directory, "mentors.csv", _ABSENT_MENTORS, _CLOSE_MENTORS if prune else None)
    coordinators = _absent(
        connection, directory, "coordinators.csv", _ABSENT_COORDINATORS, _CLOSE_COORDINATORS if prune else None
    )
    if mistakes := list(_scopes_of_nobody(connection, directory.get("scopes.csv"))):
        raise BadFileError(mistakes)
    _write(connection, directory, "scopes.csv", _SCOPES, changes)
    return ImportReport(changes, mentors, coordinators, pruned=prune)


def _write(connection: Connection, directory: Directory, name: str, statement: TextClause, changes: dict[str, Change]) -> None:
    if name in directory:
        records = directory[name]
        counts = connection.execute(statement, {"rows": _as_json(records)}).one()
        changes[name] = Change(len(records), **counts._mapping)


def _as_json(records: Sequence[TableRow]) -> str:
    return orjson.dumps([dict(record.values) for record in records]).decode()


def _absent(
    connection: Connection, directory: Directory, name: str, find: TextClause, close: TextClause | None
) -> Sequence[Person]:
    records = directory.get(name, ())
    parameters: dict[str, Any] = {
        "rows": _as_json(records),
        "organizations": sorted({record.values["organization_id"] for record in records}),
    }
    if ":closed" in find.text:
        parameters["closed"] = CLOSED_ROLE
    people = [Person(row.organization_id, row.id) for row in connection.execute(find, parameters)]
    if close is not None:
        connection.execute(close, parameters)
    return people


def _unknown_time_zones(connection: Connection, records: Rows | None) -> Iterator[FileMistake]:
    """The database is asked, because the rules compute with its time zones (`AT TIME ZONE` fails for one that it does not know)."""
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
        yield mistake_at(records.file, records[index], "coordinator_id", "is no coordinator of this organization")
