"""Gives each test a database of its own, copied from a template that was migrated once."""

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
    """Creates a database with a random name, yields its URL, and drops it even if there are connections to it."""
    server = make_url(server_url).set(drivername="postgresql+psycopg2")
    name = f"test_{uuid4().hex}"
    _execute(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {make_url(template).database}" if template else ""))
    try:
        yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    finally:
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def migrated_template(server_url: str) -> Iterator[str]:
    """Yields the URL of a database with the newest schema version, to copy from. No connection to it may stay open."""
    with fresh_database(server_url) as url:
        upgrade(Settings(database_url=url))
        yield url
