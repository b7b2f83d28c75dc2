"""A database of its own for each test, copied from a template that was migrated once."""

import contextlib
from collections.abc import Iterator
from uuid import uuid4

from sqlalchemy import URL, create_engine, make_url, text

from orchestrator.process.settings import Settings
from orchestrator.storage.migrate import upgrade


def _execute(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


@contextlib.contextmanager
def fresh_database(server_url: str, *, template: str | None = None) -> Iterator[str]:
    """Makes a database with a random name, yields its URL, and drops it whoever is still connected."""
    server = make_url(server_url).set(drivername="postgresql+psycopg2")
    name = f"test_{uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {make_url(template).database}" if template else ""))
    try:
        yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def migrated_template(server_url: str) -> Iterator[str]:
    """The URL of a database at the newest schema version, to copy from. Nobody may stay connected to it."""
    with fresh_database(server_url) as url:
        upgrade(Settings(database_url=url))
        yield url
