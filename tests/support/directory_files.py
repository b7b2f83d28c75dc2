"""A small directory as files, and its import."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Engine, text

from orchestrator.directory.files import read_directory
from orchestrator.directory.importing import ImportReport, import_directory
from orchestrator.storage.database import transact

MENTORS = """organization_id,mentor_id,name,chapter_id,active_from,active_until
a,m-1,Kari,north,2020-01-01,
a,m-2,Ola,south,,2024-12-31
b,m-1,Per,west,,
"""
COORDINATORS = """organization_id,coordinator_id,name,role
a,c-1,Bente,coordinator
a,c-2,Jan,admin
b,c-1,Frank,coordinator
"""
SCOPES = """organization_id,coordinator_id,chapter_id
a,c-1,north
a,c-1,south
b,c-1,west
"""
TYPES = """organization_id,activity_type,name
a,workshop,Kurs
"""
FILES = {"mentors": MENTORS, "coordinators": COORDINATORS, "scopes": SCOPES, "activity_types": TYPES}

ORGANIZATIONS = """organization_id,name,time_zone
a,Alpha,Europe/Oslo
b,Beta,Europe/Oslo
"""
MINUTES = """organization_id,activity_type,name,default_minutes,minimum_minutes
a,workshop,Kurs,60,30
"""
CHAPTERS = """organization_id,chapter_id,name
a,north,Nord
"""
EVERY_FILE = FILES | {"organizations": ORGANIZATIONS, "activity_types": MINUTES, "chapters": CHAPTERS}

Import = Callable[..., ImportReport]


def rows(engine: Engine, table: str) -> list[tuple[object, ...]]:
    """The rows of a table of the directory, without the closed periods."""
    columns = "organization_id, name, time_zone" if table == "organization" else "*"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM registration.{table} ORDER BY 1, 2, 3"))]


def importer(engine: Engine, folder: Path) -> Import:
    """Returns a function that imports a directory of these files, which it writes into the folder."""

    def put(files: Mapping[str, str] = FILES, *, prune: bool = False) -> ImportReport:
        for old in folder.glob("*.csv"):
            old.unlink()
        for name, content in files.items():
            (folder / f"{name}.csv").write_text(content)
        directory, _ = read_directory(folder)
        return transact(engine, lambda connection: import_directory(connection, directory, prune=prune))

    return put
