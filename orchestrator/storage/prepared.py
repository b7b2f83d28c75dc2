"""Statements of the hot path. They are planned once for each session, and bypass SQLAlchemy's general machinery.

The transaction, the pool, the events and the errors remain SQLAlchemy's. At 5,000 items/s this saves PostgreSQL's parsing and planning, a fifth
of its work (planning a statement with some joins takes longer than running it for a batch of 25), and for each execution a tenth of a
millisecond in which SQLAlchemy would compile `text()` and describe its rows (docs/performance.md).
"""

import hashlib
import re
import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from psycopg2.errors import InvalidSqlStatementName
from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor

Parameters = Mapping[str, Any]

# As in `sqlalchemy.text`: `:name`, and not the `::` of a cast.
PARAMETER = re.compile(r"(?<![:\w]):(\w+)")

# A cached plan fits the tables as they were at planning. For a table that had one row, it would read the whole table, perhaps once for each key
# of a set. So plans are cached only while the largest table has at least 1 MB, some 4,000 items, where a lookup by key is by far the cheapest;
# and not for long, because other tables may grow, too. (When plans were cached from the start, a batch of 10,000 took 15 s in a new database,
# twice.)
_KEPT_FROM_BYTES = 1024 * 1024
_LOOK = f"""
    SELECT set_config('plan_cache_mode', CASE WHEN pg_relation_size(to_regclass('orchestrator.batch_item')) >= {_KEPT_FROM_BYTES}
                                         THEN 'force_generic_plan' ELSE 'force_custom_plan' END, false)
"""
_LOOK_EVERY_S = 20.0
_LOOK_EVERY_S_WHILE_SMALL = 1.0

# Names in the pool's dictionary for the session: the statements that are sent with its next one, and whether `Prepared.later` adds to them.
_WAITING = "waiting"
_GATHERS = "gathers"

_COMMIT = "COMMIT"


class RolledBackError(Exception):
    """A statement had failed, and the block went on all the same. PostgreSQL then responds to COMMIT with a rollback, and without an error."""


@dataclass(slots=True)
class _Session:
    """The names of the statements that a database session has prepared, and when it next checks whether to cache plans."""

    names: set[str] = field(default_factory=set)
    look_at: float = 0.0

    def look(self, cursor: DBAPICursor) -> None:
        cursor.execute("DISCARD PLANS")
        cursor.execute(_LOOK)
        [(mode,)] = cursor.fetchall()
        self.look_at = time.monotonic() + (_LOOK_EVERY_S if mode == "force_generic_plan" else _LOOK_EVERY_S_WHILE_SMALL)


class Prepared:
    """A statement with parameters `:name`, whose types PostgreSQL must be able to infer (usually from a CAST).

    It is planned without the parameters' values. Use it for lookups by one key or a set of keys, not for searches in which a value decides the
    plan. The planner assumes ten rows for a set (`unnest`), so join a set to a table by its index, but don't join large sets to each other.
    """

    def __init__(self, sql: str) -> None:
        names = list(dict.fromkeys(PARAMETER.findall(sql)))
        numbered = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
        self._sql = sql
        self._name = f"bulkreg_{hashlib.sha256(numbered.encode()).hexdigest()[:16]}"
        self._prepare = f"PREPARE {self._name} AS {numbered}"
        values = ", ".join(f"%({name})s" for name in names)
        self._execute = f"EXECUTE {self._name} ({values})" if names else f"EXECUTE {self._name}"
        self._as_row: Callable[[Iterable[Any]], Any] | None = None

    def rows(self, connection: Connection, parameters: Parameters | None = None) -> Sequence[tuple[Any, ...]]:
        """Executes the statement and returns all rows. Raises SQLAlchemy's DBAPIError."""
        return run(connection, self._execute, parameters or {}, prepared=self).fetchall()

    def named(self, connection: Connection, parameters: Parameters | None = None) -> Sequence[Any]:
        """As `rows`, with named tuples."""
        cursor = run(connection, self._execute, parameters or {}, prepared=self)
        if self._as_row is None:
            # Once, because a statement's columns never change. The driver's own cursor for named tuples reads their names each time.
            names = [column[0] for column in cursor.description]
            self._as_row = namedtuple("Row", names)._make  # type: ignore[attr-defined]
        return list(map(self._as_row, cursor.fetchall()))

    def scalars(self, connection: Connection, parameters: Parameters | None = None) -> Sequence[Any]:
        """As `rows`, but only the first column."""
        return [row[0] for row in self.rows(connection, parameters)]

    def count(self, connection: Connection, parameters: Parameters | None = None) -> int:
        """Executes the statement and returns how many rows it wrote. Raises SQLAlchemy's DBAPIError."""
        return run(connection, self._execute, parameters or {}, prepared=self).rowcount

    def later(self, connection: Connection, parameters: Parameters) -> None:
        """Executes a statement whose result is not needed. In a transaction of `database.begin` it is sent together with the next statement;
        elsewhere at once. Raises SQLAlchemy's DBAPIError, perhaps only when it is sent."""
        if not connection.info.get(_GATHERS):
            self.count(connection, parameters)
            return
        cursor = None
        try:
            session = connection.connection
            cursor = session.cursor()
            if not self.is_ready(session.info):
                self.prepare(cursor, session.info)
            waiting = _take(session.info)
            connection.dispatch.before_cursor_execute(connection, cursor, self._sql, parameters, None, False)
            session.info[_WAITING] = [*waiting, (self._execute, parameters)]
        except BaseException as error:
            _raise(connection, error, self._sql, parameters, cursor)

    def is_ready(self, info: dict[str, Any]) -> bool:
        """Whether the session has prepared the statement. `info` is the pool's dictionary for the session."""
        session = info.get("prepared")
        return session is not None and self._name in session.names and time.monotonic() < session.look_at

    def prepare(self, cursor: DBAPICursor, info: dict[str, Any]) -> None:
        """Prepares the statement in the cursor's session."""
        session = info.get("prepared")
        if session is None:
            session = info["prepared"] = _Session()
        if time.monotonic() >= session.look_at:
            session.look(cursor)
        if self._name not in session.names:
            cursor.execute(self._prepare)
            session.names.add(self._name)

    @property
    def sql(self) -> str:
        """The SQL as it was written."""
        return self._sql


def preface(connection: Connection, sql: str, parameters: Parameters) -> None:
    """Sends SQL whose result is not needed together with the connection's next statement, in one round trip.

    Only for engines of `open_engine`, which send it with any statement.
    """
    info = connection.info
    # What an `ask` has left that failed before its statement is dropped.
    before = _take(info) if info.get(_GATHERS) else ()
    info[_WAITING] = [*before, (sql, parameters)] if sql else before


@contextmanager
def gathering(connection: Connection, sql: str) -> Iterator[None]:
    """Gathers statements whose results are not needed (`Prepared.later`) while the block runs. `sql` is sent before the first statement.

    The block sends what waits at its end. Only for engines of `open_engine`, as `preface`.
    """
    info = connection.info
    info[_WAITING], info[_GATHERS] = [(sql, {})], True
    try:
        yield
    finally:
        # After a failure some may be left. They must not reach the session's next transaction. After an invalidation, another thread may have
        # the place in the pool, with this dictionary. It has found it empty, and what is in it now belongs to that thread.
        if not connection.invalidated:
            info.pop(_WAITING, None)
            info.pop(_GATHERS, None)


def commit(connection: Connection) -> None:
    """Sends the waiting statements and COMMIT. Raises SQLAlchemy's DBAPIError, and RolledBackError."""
    cursor = None
    try:
        session = connection.connection
        cursor = session.cursor()
        cursor.execute(_joined(cursor, [*_take(session.info), (_COMMIT, {})]))
    except BaseException as error:
        _raise(connection, error, _COMMIT, {}, cursor)
    if cursor.statusmessage != _COMMIT:
        raise RolledBackError(cursor.statusmessage)


def send_waiting(cursor: Any, info: dict[str, Any]) -> None:
    """Sends the waiting statements alone, before a statement that they can't be combined with."""
    if waiting := _take(info):
        try:
            cursor.execute(_joined(cursor, waiting))
        except InvalidSqlStatementName:
            info.pop("prepared", None)
            raise


def _take(info: dict[str, Any]) -> Sequence[tuple[str, Parameters]]:
    """Removes the waiting statements from the dictionary, and returns them."""
    waiting: Sequence[tuple[str, Parameters]] = info.pop(_WAITING, ())
    return waiting


def _joined(cursor: Any, statements: Iterable[tuple[str, Parameters]]) -> bytes:
    return b"; ".join([cursor.mogrify(sql, parameters) for sql, parameters in statements])


def run(
    connection: Connection,
    sql: str,
    parameters: Parameters,
    *,
    prepared: Prepared | None = None,
) -> DBAPICursor:
    """Executes SQL in the driver's format in the connection's transaction, after the waiting statements."""
    if not connection.in_transaction():
        connection.begin()  # as `execute` does
    shown = sql if prepared is None else prepared.sql
    cursor = None
    try:
        session = connection.connection
        cursor = session.cursor()
        if prepared is not None and not prepared.is_ready(session.info):
            if not session.autocommit:
                # A transaction's isolation must be set before any other statement.
                send_waiting(cursor, session.info)
            prepared.prepare(cursor, session.info)
        waiting = _take(session.info)
        connection.dispatch.before_cursor_execute(connection, cursor, shown, parameters, None, False)
        if waiting:
            cursor.execute(_joined(cursor, [*waiting, (sql, parameters)]))
        else:
            cursor.execute(sql, parameters)
    except BaseException as error:
        _raise(connection, error, shown, parameters, cursor)
    return cursor


def _raise(
    connection: Connection, error: BaseException, sql: str, parameters: Parameters, cursor: DBAPICursor | None
) -> NoReturn:
    if isinstance(error, InvalidSqlStatementName):
        connection.info.pop("prepared", None)
    # This method is not public, but has long been the only place that distinguishes a lost connection from a wrong statement, removes the
    # connection from the pool and wraps the error. (It passes an event listener's own error through unchanged.)
    connection._handle_dbapi_exception(error, sql, parameters, cursor, None)
