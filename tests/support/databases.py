"""Gives each test a database of its own, copied from a template that was migrated once."""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

from sqlalchemy import URL, create_engine, make_url, text

from orchestrator.process.settings import Settings
from orchestrator.storage.migrate import upgrade

# How many databases are made ahead: of two short tests in a row, the second does not wait for its own.
READY = 2


def _execute(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


class _Database:
    """A database with a random name."""

    def __init__(self, server_url: str, template: str | None) -> None:
        self._server = make_url(server_url).set(drivername="postgresql+psycopg2")
        self._name = f"test_{uuid4().hex}"
        _execute(self._server, f"CREATE DATABASE {self._name}" + (f" TEMPLATE {make_url(template).database}" if template else ""))

    @property
    def url(self) -> str:
        return self._server.set(drivername="postgresql", database=self._name).render_as_string(hide_password=False)

    def drop(self) -> None:
        """Drops it even if there are connections to it."""
        _execute(self._server, f"DROP DATABASE {self._name} WITH (FORCE)")


@contextlib.contextmanager
def fresh_database(server_url: str, *, template: str | None = None) -> Iterator[str]:
    """Creates a database with a random name, yields its URL, and drops it."""
    database = _Database(server_url, template)
    try:
        yield database.url
    finally:
        database.drop()


@contextlib.contextmanager
def migrated_template(server_url: str) -> Iterator[str]:
    """Yields the URL of a database with the newest schema version, to copy from. No connection to it may stay open."""
    with fresh_database(server_url) as url:
        upgrade(Settings(database_url=url))
        yield url


class ReadyDatabases:
    """Copies of a template for one test each. The next is made, and the last dropped, while a test runs."""

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url = server_url
        self._template = template
        self._makers, self._removers = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._ready = deque(self._makers.submit(self._make) for _ in range(READY))
        self._removed: list[Future[None]] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        """The URL of a database that nobody has used."""
        database = self._ready.popleft().result()
        self._ready.append(self._makers.submit(self._make))
        try:
            yield database.url
        finally:
            self._removed.append(self._removers.submit(database.drop))

    def close(self) -> None:
        """Drops what was never asked for. Raises what kept a database from being dropped."""
        self._removed += [self._removers.submit(database.result().drop) for database in self._ready]
        for removed in self._removed:
            removed.result()
        for threads in (self._makers, self._removers):
            threads.shutdown()

    def _make(self) -> "_Database":
        return _Database(self._server_url, self._template)
