"""How a connection to PostgreSQL is made: every value of its session comes from here, whatever the shell or a pooler does (decision 27).

libpq reads some thirty variables of the environment. Those that name another server, user or behaviour are removed from this process: a URL
says all of that. A pooler (PgBouncer) refuses or ignores what a connection asks for in its `options`, so the values are set by the first
statement of the session, which a pooler keeps as long as it pools by session.
"""

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.process.loopback import is_this_machine

# The product depends on these, whatever the server, the database or the role has as its default.
_FORMS = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
}

# Variables of libpq that never count: the URL and the values below say what they would say.
_NEVER = (
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS"),
    *("PGOPTIONS", "PGAPPNAME", "PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGTZ", "PGDATESTYLE", "PGGEQO"),
)

# How to reach a server elsewhere, and to know it again: an operator may rely on these. On this machine they can only do harm.
_ELSEWHERE_ONLY = (
    *("PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGSSLCRL"),
    *("PGSSLCRLDIR", "PGSSLSNI", "PGSSLCOMPRESSION", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGCHANNELBINDING"),
    *("PGREQUIREAUTH", "PGREQUIREPEER", "PGGSSENCMODE", "PGGSSLIB", "PGGSSDELEGATION", "PGKRBSRVNAME"),
    *("PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"),
)

_PARAMETERS = {
    "client_encoding": "utf8",
    "connect_timeout": 5,
    # A peer that vanished without a word is noticed within 10 + 3 x 5 seconds.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def open_engine(url: URL, *, application_name: str, session: Mapping[str, str] | None = None, **pool: Any) -> Engine:
    """An engine whose sessions have the values of `session`, and those that the product depends on everywhere.

    `pool` is SQLAlchemy's (`pool_size` and the like).
    """
    values = session_values(session or {})
    engine = create_engine(url, connect_args=_PARAMETERS | {"application_name": application_name}, **pool)

    @event.listens_for(engine, "do_connect")
    def _connect(
        dialect: Dialect, _entry: ConnectionPoolEntry, arguments: tuple[Any, ...], parameters: MutableMapping[str, Any]
    ) -> DBAPIConnection:
        forget_shell(url)
        if "," in str(parameters.get("host")):
            # Of several hosts one takes changes. The first that answers may be the former primary, for as long as it runs.
            parameters.setdefault("target_session_attrs", "read-write")
        connection = dialect.connect(*arguments, **parameters)
        try:
            _set(connection, values)
        except BaseException:
            connection.close()
            raise
        return connection

    return engine


def session_values(session: Mapping[str, str]) -> Mapping[str, str]:
    """What a session has when `open_engine` has made it, as `pg_settings` shows it."""
    return {**_FORMS, **session}


def forget_shell(url: URL) -> None:
    """Removes from this process, and so from its children, the variables of libpq that must not count for this URL."""
    names = _NEVER if _is_elsewhere(url) else (*_NEVER, *_ELSEWHERE_ONLY)
    for name in names:
        os.environ.pop(name, None)


def _is_elsewhere(url: URL) -> bool:
    # A URL without a host names a socket of this machine, or a host or a service in its query.
    if url.host:
        return not is_this_machine(url.host)
    return bool(url.query.get("service") or url.query.get("host"))


def _set(connection: Any, values: Mapping[str, str]) -> None:
    """One round trip, and no transaction that would stay open."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        sets = ", ".join("set_config(%s, %s, false)" for _ in values)
        cursor.execute(f"SELECT {sets}", [part for pair in values.items() for part in pair])
    connection.autocommit = False
