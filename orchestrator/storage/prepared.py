"""Statements of the hot path: planned once for each session, and sent past SQLAlchemy's general machinery.

The transaction, the pool, the events and the errors stay SQLAlchemy's. What is saved, at 5,000 items/s: PostgreSQL's parsing and planning,
a fifth of its work (a statement of some joins takes longer to plan than to run for a batch of 25), and a tenth of a millisecond in which
SQLAlchemy compiles `text()` and describes its rows anew for each execution (docs/performance.md).
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from psycopg2.errors import InvalidSqlStatementName
from psycopg2.extras import NamedTupleCursor
from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor

Parameters = Mapping[str, Any]

# As in `sqlalchemy.text`: `:name`, and not the `::` of a cast.
PARAMETER = re.compile(r"(?<![:\w]):(\w+)")

# A plan is made for the tables as they were then, and so it would read a whole table that had one row, perhaps once for each key of a set.
# So plans are kept only while the largest table has 1 MB, some 4,000 items, where a lookup by key is by far the cheapest way; and not for
# long, because others may grow beside it. (While they were kept from the beginning, a batch of 10,000 took 15 s in a new database, twice.)
_KEPT_FROM_BYTES = 1024 * 1024
_LOOK = f"""
    SELECT set_config('plan_cache_mode', CASE WHEN pg_relation_size(to_regclass('orchestrator.batch_item')) >= {_KEPT_FROM_BYTES}
                                         THEN 'force_generic_plan' ELSE 'force_custom_plan' END, false)
"""
_LOOK_EVERY_S = 20.0
_LOOK_EVERY_S_WHILE_SMALL = 1.0

_PREFACE = "preface"


@dataclass(slots=True)
class _Session:
    """What a session of the database has prepared, and when it looks again whether its plans still fit."""

    names: set[str] = field(default_factory=set)
    look_at: float = 0.0

    def look(self, cursor: DBAPICursor) -> None:
        cursor.execute("DISCARD PLANS")
        cursor.execute(_LOOK)
        [(mode,)] = cursor.fetchall()
        self.look_at = time.monotonic() + (_LOOK_EVERY_S if mode == "force_generic_plan" else _LOOK_EVERY_S_WHILE_SMALL)


class Prepared:
    """A statement with parameters `:name`, whose types PostgreSQL must be able to tell (mostly by a CAST).

    It is planned without knowing their values: for lookups by key and for sets of them, not for searches where a value decides on the way.
    A set (`unnest`) is taken for one of ten rows; so it may be joined to a table by its index, but no large one to another.
    """

    def __init__(self, sql: str) -> None:
        names = list(dict.fromkeys(PARAMETER.findall(sql)))
        numbered = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
        self._sql = sql
        self._name = f"bulkreg_{hashlib.sha256(numbered.encode()).hexdigest()[:16]}"
        self._prepare = f"PREPARE {self._name} AS {numbered}"
        values = ", ".join(f"%({name})s" for name in names)
        self._execute = f"EXECUTE {self._name} ({values})" if names else f"EXECUTE {self._name}"

    def rows(self, connection: Connection, parameters: Parameters | None = None) -> Sequence[tuple[Any, ...]]:
        """Executes it; all rows that it returns. Raises SQLAlchemy's DBAPIError."""
        return run(connection, self._execute, parameters or {}, prepared=self).fetchall()

    def named(self, connection: Connection, parameters: Parameters | None = None) -> Sequence[Any]:
        """The rows as named tuples."""
        return run(connection, self._execute, parameters or {}, prepared=self, factory=NamedTupleCursor).fetchall()

    def scalars(self, connection: Connection, parameters: Parameters | None = None) -> Sequence[Any]:
        """The first column of `rows`."""
        return [row[0] for row in self.rows(connection, parameters)]

    def count(self, connection: Connection, parameters: Parameters | None = None) -> int:
        """Executes it; how many rows it wrote. Raises SQLAlchemy's DBAPIError."""
        return run(connection, self._execute, parameters or {}, prepared=self).rowcount

    def is_ready(self, info: dict[str, Any]) -> bool:
        """Whether the session is ready; `info` is what the pool keeps of it."""
        session = info.get("prepared")
        return session is not None and self._name in session.names and time.monotonic() < session.look_at

    def prepare(self, cursor: DBAPICursor, info: dict[str, Any]) -> None:
        """Makes the cursor's session ready."""
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
        """As it was written."""
        return self._sql


def preface(connection: Connection, sql: str, parameters: Parameters) -> None:
    """Has SQL whose answer nobody needs sent together with the connection's next statement, in one round trip.

    Its parameters need names that no statement has. For engines of `create_database_engine`: they send it with any statement.
    """
    connection.info[_PREFACE] = (sql, parameters)


def send_preface(cursor: DBAPICursor, info: dict[str, Any]) -> None:
    """Sends it alone, before a statement that can't take it along."""
    sql, parameters = info.pop(_PREFACE, ("", {}))
    if sql:
        cursor.execute(sql, parameters)


def run(
    connection: Connection,
    sql: str,
    parameters: Parameters,
    *,
    prepared: Prepared | None = None,
    factory: type[Any] | None = None,
) -> DBAPICursor:
    """Executes SQL of the driver's in the connection's transaction, behind its preface."""
    if not connection.in_transaction():
        connection.begin()  # as `execute` does
    shown = sql if prepared is None else prepared.sql
    cursor = None
    try:
        session = connection.connection
        cursor = session.cursor(cursor_factory=factory)
        if prepared is not None and not prepared.is_ready(session.info):
            if not session.autocommit:
                # A transaction's isolation is set before anything else in it.
                send_preface(cursor, session.info)
            prepared.prepare(cursor, session.info)
        first, of_first = session.info.pop(_PREFACE, ("", {}))
        connection.dispatch.before_cursor_execute(connection, cursor, shown, parameters, None, False)
        if first:
            cursor.execute(f"{first}; {sql}", {**of_first, **parameters})
        else:
            cursor.execute(sql, parameters)
    except BaseException as error:
        if isinstance(error, InvalidSqlStatementName):
            session.info.pop("prepared", None)
        _raise(connection, error, shown, parameters, cursor)
    return cursor


def _raise(
    connection: Connection, error: BaseException, sql: str, parameters: Parameters, cursor: DBAPICursor | None
) -> NoReturn:
    # Not public, but the one place that tells a lost connection from a wrong statement, takes it out of the pool and wraps the error, and
    # has been for many versions. (An event listener's own error passes through it as it is.)
    connection._handle_dbapi_exception(error, sql, parameters, cursor, None)
