"""Checks whether a pooler in front of PostgreSQL leaves sessions what the product needs of them: their server and their values."""

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from compose.findings import Finding, State
from orchestrator.process.settings import Settings
from orchestrator.storage.connecting import session_values
from orchestrator.storage.database import create_database_engine, session_limits

_SUBJECT = "pooling"
_POOL_BY_SESSION = "set pool_mode = session in the pooler for this database, or connect without it"

# Behind a busy pooler two queries may reach the same server by chance, but not this many in a row.
_ROUNDS = 20

_BACKEND = text("SELECT pg_backend_pid()")

_VALUES = text("SELECT name, setting FROM pg_settings WHERE lower(name) = ANY (:names)")


def pooling_findings(settings: Settings) -> Iterator[Finding]:
    """Whether a session keeps its server and its values. Silent if the database can't be reached: other checks report that."""
    engine = create_database_engine(settings.worker_url, settings, connections=2, application_name="bulkreg-doctor")
    made: list[object] = []
    event.listen(engine, "connect", lambda connection, _: made.append(connection), insert=True)
    try:
        with engine.connect() as one, engine.connect() as other:
            shared = _servers_change(one, other)
            lost = [] if shared else _lost_values(one, session_values(session_limits(settings)))
    except DBAPIError:
        if made:  # PgBouncer with pool_mode = statement closes the connection without an error
            yield Finding(_SUBJECT, State.UNSAFE, "the pooler closes the connection at its first transaction", _POOL_BY_SESSION)
        return
    finally:
        engine.dispose()
    if shared:
        detail = (
            "a pooler runs each transaction on another server: prepared statements, locks and listeners of a session are lost, and no batch "
            "would finish"
        )
        yield Finding(_SUBJECT, State.UNSAFE, detail, _POOL_BY_SESSION)
    elif lost:
        yield Finding(_SUBJECT, State.UNSAFE, f"the session does not keep its settings: {', '.join(lost)}", _POOL_BY_SESSION)
    else:
        yield Finding(_SUBJECT, State.OK, "sessions keep their server and their values")


def _servers_change(one: Connection, other: Connection) -> bool:
    """Whether two sessions share a server, or one session uses several. Each query is its own transaction."""
    first: set[int] = set()
    second: set[int] = set()
    for _ in range(_ROUNDS):
        first.add(_backend(one))
        second.add(other.scalar(_BACKEND) or 0)
        if first & second:
            return True
        # The other session's transaction is still open, so a pooler that assigns servers by transaction may give this session another one.
        first.add(_backend(one))
        other.rollback()
        if len(first) + len(second) > 2:
            return True
    return False


def _backend(connection: Connection) -> int:
    number: int = connection.scalar(_BACKEND) or 0
    connection.rollback()
    return number


def _lost_values(connection: Connection, wanted: Mapping[str, str]) -> list[str]:
    found = {row.name.lower(): row.setting for row in connection.execute(_VALUES, {"names": list(wanted)})}
    return [f"{name} is {found.get(name)}, not {value}" for name, value in wanted.items() if found.get(name) != value]
