"""Opens connections to PostgreSQL. Every session value is set here, independent of the shell and of a pooler (decision 27).

libpq reads some thirty environment variables. Those that name another server, user or behaviour are removed from this process, because the URL
has all of that. A pooler (PgBouncer) refuses or ignores a connection's `options`, so the session's first statement sets the values; a pooler
keeps them as long as it pools by session.
"""

import os
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from psycopg2 import OperationalError as DriverOperationalError
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.process.database_urls import hosts_of
from orchestrator.process.loopback import is_this_machine
from orchestrator.storage import timelines
from orchestrator.storage.prepared import send_waiting
from orchestrator.storage.timelines import FormerPrimaryError

# The product depends on these values, so it does not rely on defaults of the server, the database or the role.
_FORMS = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
}

# Variables of libpq that are always removed. The URL and the values below replace them.
_NEVER = (
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"),
    *("PGOPTIONS", "PGAPPNAME", "PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGTZ", "PGDATESTYLE", "PGGEQO"),
)

# How to reach and authenticate a remote server. An operator may rely on these; for a server on this machine they can only do harm.
_ELSEWHERE_ONLY = (
    *("PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLCRL"),
    *("PGSSLCRLDIR", "PGSSLSNI", "PGSSLCOMPRESSION", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGCHANNELBINDING"),
    *("PGREQUIREAUTH", "PGREQUIREPEER", "PGGSSENCMODE", "PGGSSLIB", "PGGSSDELEGATION", "PGKRBSRVNAME"),
    *("PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"),
)

_PARAMETERS = {
    "client_encoding": "utf8",
    "connect_timeout": 5,
    # A peer that has vanished silently is noticed within 5 s: while we wait for it, and while it has not acknowledged what we sent.
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}


def open_engine(url: URL, *, application_name: str, session: Mapping[str, str] | None = None, **pool: Any) -> Engine:
    """An engine whose sessions have the values of `session`, and those that the product always depends on.

    `pool` are SQLAlchemy's arguments for the pool (`pool_size` and the like).
    """
    values = session_values(session or {})
    places = " ".join(map(str, (url.host, url.port, url.query.get("host"), url.query.get("port"))))
    engine = create_engine(url, connect_args=_PARAMETERS | {"application_name": application_name}, **pool)

    def opened(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> DBAPIConnection:
        try:
            timelines.note(entry.info, places, *_set(connection, values))
        except BaseException:  # An interruption, too: nobody else could close the connection.
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "do_connect")
    def _connect(
        dialect: Dialect, entry: ConnectionPoolEntry, arguments: tuple[Any, ...], parameters: MutableMapping[str, Any]
    ) -> DBAPIConnection:
        forget_shell(url)
        if "," in str(parameters.get("host")):
            # Only one of several hosts is writable. The first that responds may be the former primary while that still runs.
            parameters.setdefault("target_session_attrs", "read-write")
        *others, last = _orders(parameters)
        for ordered in others:
            with suppress(FormerPrimaryError):
                return opened(_connected(dialect, arguments, ordered), entry)
        return opened(_connected(dialect, arguments, last), entry)

    event.listen(engine, "checkout", timelines.replace_outdated)

    @event.listens_for(engine, "before_cursor_execute")
    def _send_waiting(connection: Connection, cursor: DBAPICursor, *_: object) -> None:
        send_waiting(cursor, connection.info)

    return engine


def _connected(dialect: Dialect, arguments: tuple[Any, ...], parameters: Mapping[str, Any]) -> DBAPIConnection:
    """A new connection. Raises the driver's error also for a refusal that is not in UTF-8.

    The server refuses a login in its own language and encoding, because the session's is not known yet. psycopg2 decodes it as UTF-8, and raises
    the decoder's error, which would count as a bug of ours.
    """
    try:
        return dialect.connect(*arguments, **parameters)
    except UnicodeDecodeError as error:
        raise DriverOperationalError(error.object.decode(errors="replace")) from error


def _orders(parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The parameters, once for each host, with this host first. libpq takes the first that accepts changes, which may be a former primary."""
    hosts, ports = (str(parameters.get(name, "")).split(",") for name in ("host", "port"))
    if len(hosts) == 1:
        return [parameters]
    turned = [{"host": _turned(hosts, by), "port": _turned(ports, by)} for by in range(len(hosts))]
    return [{**parameters, **{name: each[name] for name in each.keys() & parameters.keys()}} for each in turned]


def _turned(values: Sequence[str], by: int) -> str:
    """The list, turned so that it begins with another value. A single value is for all hosts, and stays."""
    return ",".join([*values[by:], *values[:by]] if len(values) > 1 else values)


def session_values(session: Mapping[str, str]) -> Mapping[str, str]:
    """The values of a session that `open_engine` has opened, as `pg_settings` shows them."""
    return {**_FORMS, **session}


def forget_shell(url: URL) -> None:
    """Removes the variables of libpq that must not apply to this URL from this process, and so from its children."""
    names = _NEVER if _is_elsewhere(url) else (*_NEVER, *_ELSEWHERE_ONLY)
    for name in names:
        os.environ.pop(name, None)


def _is_elsewhere(url: URL) -> bool:
    return bool(url.query.get("service")) or not all(map(is_this_machine, hosts_of(url)))


def _set(connection: Any, values: Mapping[str, str]) -> tuple[str, str | None]:
    """Sets the values in one round trip, without leaving a transaction open. Returns the system's identifier and the timeline."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        sets = ", ".join("set_config(%s, %s, false)" for _ in values)
        cursor.execute(f"SELECT {timelines.READ}, {sets}", [part for pair in values.items() for part in pair])
        system, timeline, *_ = cursor.fetchone()
    connection.autocommit = False
    return system, timeline
