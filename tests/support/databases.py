"""Gives each test a database of its own, copied from a template that was migrated once."""

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

import psycopg2
from sqlalchemy import URL, make_url

from orchestrator.process.settings import Settings
from orchestrator.storage.migrate import upgrade

# How many databases are made ahead: of two short tests in a row, the second does not wait for its own.
READY = 2


class _Server:
    """Makes and drops databases on one connection, which a test that changes the environment does not reach."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql")
        self._connection = self._connected()

    def create(self, name: str, template: str | None) -> str:
        """Returns its URL."""
        # A copy of the files takes half the CPU of the default, which logs each page, and the log's pages must be written as well.
        self._execute(f"CREATE DATABASE {name} STRATEGY file_copy" + (f" TEMPLATE {template}" if template else ""))
        return self._url.set(database=name).render_as_string(hide_password=False)

    def drop(self, name: str) -> None:
        """Drops it even if there are connections to it."""
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._connection.close()

    def _connected(self) -> "psycopg2.extensions.connection":
        connection = psycopg2.connect(self._url.render_as_string(hide_password=False))
        connection.autocommit = True
        return connection

    def _execute(self, statement: str) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.OperationalError:
            if not self._connection.closed:
                raise
            # The test has killed the server, and it has been started again.
            self._connection = self._connected()
            with self._connection.cursor() as cursor:
                cursor.execute(statement)


@contextlib.contextmanager
def fresh_database(server_url: str, *, template: str | None = None) -> Iterator[str]:
    """Creates a database with a random name, yields its URL, and drops it. `template` is the URL of another."""
    with contextlib.closing(_Server(make_url(server_url))) as server:
        name = f"test_{uuid4().hex}"
        url = server.create(name, make_url(template).database if template else None)
        try:
            yield url
        finally:
            server.drop(name)


@contextlib.contextmanager
def migrated_template(server_url: str) -> Iterator[str]:
    """The URL of a database at the newest schema version, to copy from. Nobody may stay connected to it."""
    with fresh_database(server_url) as url:
        upgrade(Settings(database_url=url))
        yield url


class ReadyDatabases:
    """Copies of a template, one for each test. The next is made, and the last is dropped, while a test runs."""

    def __init__(self, server_url: str, template: str) -> None:
        url = make_url(server_url)
        self._maker, self._remover = _Server(url), _Server(url)
        self._making, self._removing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._template = make_url(template).database
        prefix = f"test_{uuid4().hex}"
        self._names = (f"{prefix}_{number}" for number in itertools.count())
        self._ready = deque(self._make() for _ in range(READY))
        self._removed: list[Future[None]] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[str]:
        """The URL of a database that nobody has used."""
        name, making = self._ready.popleft()
        self._ready.append(self._make())
        url = making.result()
        try:
            yield url
        finally:
            self._remove(name)

    def close(self) -> None:
        """Drops what no test has asked for. Raises what kept a database from being made or dropped."""
        for name, making in self._ready:
            making.result()
            self._remove(name)
        for removed in self._removed:
            removed.result()
        for threads, server in ((self._making, self._maker), (self._removing, self._remover)):
            threads.shutdown()
            server.close()

    def _make(self) -> tuple[str, Future[str]]:
        name = next(self._names)
        return name, self._making.submit(self._maker.create, name, self._template)

    def _remove(self, name: str) -> None:
        self._removed.append(self._removing.submit(self._remover.drop, name))
