"""Sessions of the console: who is logged in, stored under the SHA-256 of the secret that the browser holds."""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.batches.model import Role
from orchestrator.storage.prepared import preface
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/console_sessions.sql")

_BEGIN = _SQL["begin"].prepared()
_USE = _SQL["use"].prepared()
_END = _SQL["end"].prepared()
_REMOVE_ENDED = _SQL["remove_ended"].text()

# Long enough to fill in a form, short enough for a shared laptop that is left open.
IDLE = timedelta(minutes=30)

# A working day. After it, the identity provider has to confirm that the person still works here.
LIFETIME = timedelta(hours=8)

# The precision of the last use. With it, the requests of one page cause one write.
_NOTED_EVERY = timedelta(minutes=1)

_SEE = "SELECT set_config('bulkreg.console_session', %(session_seen)s, true)"


class ConsoleSession(NamedTuple):
    """A session that has not ended. `ends_at`: seconds since 1970, if it is not used again."""

    organization_id: str
    subject: str
    role: Role
    ends_at: float


def begin_session(connection: Connection, session_hash: bytes, *, organization_id: str, subject: str, role: Role) -> None:
    """Stores a new session. May be repeated."""
    _see(connection, session_hash)
    _BEGIN.count(
        connection,
        {"session_hash": session_hash, "organization_id": organization_id, "subject": subject, "role": role.value},
    )


def use_session(connection: Connection, session_hash: bytes, *, extends: bool) -> ConsoleSession | None:
    """Returns the session, or None if there is none or it has ended. With `extends`, the idle time starts again."""
    _see(connection, session_hash)
    rows = _USE.rows(
        connection,
        {
            "session_hash": session_hash,
            "extends": extends,
            "idle": IDLE,
            "lifetime": LIFETIME,
            "noted_every": _NOTED_EVERY,
        },
    )
    return ConsoleSession(rows[0][0], rows[0][1], Role(rows[0][2]), rows[0][3]) if rows else None


def end_session(connection: Connection, session_hash: bytes) -> None:
    """Revokes the session. May be repeated."""
    _see(connection, session_hash)
    _END.count(connection, {"session_hash": session_hash})


def remove_ended_sessions(connection: Connection, *, max_sessions: int) -> int:
    """Removes up to `max_sessions` ended sessions, and returns how many. For the worker's role."""
    return connection.execute(_REMOVE_ENDED, {"idle": IDLE, "max_sessions": max_sessions}).rowcount


def _see(connection: Connection, session_hash: bytes) -> None:
    """Makes row level security show only this session to the API's role in this transaction."""
    preface(connection, _SEE, {"session_seen": session_hash.hex()})
