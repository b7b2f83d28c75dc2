"""Keeps a process from believing a former primary.

Each promotion of a standby begins a new timeline of the database. A primary that stood still meanwhile goes on with its old timeline when it
runs again, until its manager ends it. It can commit nothing, because a commit waits for a standby, but it answers reads with its old state. So
a process that has seen a newer timeline replaces its sessions of an older one, and throws away what it has read with them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

from psycopg2 import OperationalError as DriverOperationalError
from sqlalchemy import Connection
from sqlalchemy.exc import DisconnectionError, OperationalError

_KEY = "timeline"

# A standby follows its primary's timeline, so its number would say nothing. A database that was created anew has another identifier.
READ = (
    "(SELECT system_identifier::text FROM pg_control_system()),"
    " CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END"
)
"""Columns of a statement: the system's identifier, and the timeline that the server writes, as eight hexadecimal digits; or NULL."""

FUNCTIONS = ("pg_control_system", "pg_current_wal_lsn", "pg_walfile_name")
"""Functions that every role must be allowed to call for that. PostgreSQL allows it to everybody, unless somebody revokes it."""


class FormerPrimaryError(DriverOperationalError):
    """The server is a former primary: this process has seen a newer timeline of the same system. It counts as a lost connection."""


class Timeline(NamedTuple):
    """The timeline of one session's server."""

    places: str
    """The hosts and ports of the URL. A restored copy at another place has the same identifier."""
    system: str
    number: int


# The newest timeline of each system at each place, by this process. Engines of one database share it.
_newest: dict[tuple[str, str], int] = {}
_noting = Lock()


def note(info: dict[Any, Any], places: str, system: str, number: str | None) -> None:
    """Notes the timeline of a new session in its `info`. Raises FormerPrimaryError if this process has seen a newer one.

    The session of a standby has the newest one that was seen: it is replaced after the next promotion, of this server or another.
    """
    with _noting:
        seen = _newest.get((places, system), 0)
        timeline = Timeline(places, system, seen if number is None else int(number, 16))
        newest = _newest[places, system] = max(timeline.number, seen)
    if timeline.number < newest:
        raise FormerPrimaryError(
            f"the server writes timeline {timeline.number}, and timeline {newest} of this database was seen already: it is a former primary"
        )
    info[_KEY] = timeline


@contextmanager
def believing(connection: Connection) -> Iterator[None]:
    """Checks the connection at the end of the block. At a former primary its result and its error say nothing, because
    the server lacks what was committed since. There OperationalError is raised in place of both."""
    try:
        yield
    except Exception:
        check(connection)
        raise
    check(connection)


def check(connection: Connection) -> None:
    """Raises OperationalError if a newer timeline was seen while the connection was in use. What it has read may be out of date."""
    if is_outdated(connection):
        raise OperationalError(None, None, FormerPrimaryError("the session's server has become a former primary"))


def is_outdated(connection: Connection) -> bool:
    """Whether the connection has a session, and a newer timeline than the session's was seen."""
    return not connection.invalidated and _is_outdated(connection.info)


def _is_outdated(info: dict[Any, Any]) -> bool:
    timeline: Timeline | None = info.get(_KEY)
    return timeline is not None and timeline.number < _newest[timeline.places, timeline.system]


def replace_outdated(_connection: object, entry: Any, _proxy: object) -> None:
    """A listener for the pool's `checkout`: has a session of an older timeline replaced."""
    if _is_outdated(entry.info):
        raise DisconnectionError("a session of a former primary")
