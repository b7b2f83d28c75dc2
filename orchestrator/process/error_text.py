"""How errors are written in logs."""

import traceback
from pathlib import Path

from sqlalchemy.exc import DBAPIError

# What libpq and the server say when there is no session. Only these words are written, never the rest of the message.
_WITHOUT_SESSION = (
    "could not translate host name",
    "Connection refused",
    "Network is unreachable",
    "No route to host",
    "Connection timed out",
    "timeout expired",
    "certificate verify failed",
    "server does not support SSL",
    "no pg_hba.conf entry",
    "password authentication failed",
    "does not exist",
    "is not permitted to log in",
    "too many clients already",
    "remaining connection slots are reserved",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
    "session is read-only",
    "server is in hot standby mode",
    "server closed the connection unexpectedly",
    "SSL connection has been closed unexpectedly",
    "could not receive data from server",
    "connection already closed",
)


def without_values(error: BaseException | None) -> str:
    """An error's type, SQLSTATE and place, without its message: those of the database and the drivers quote rows, and so notes.

    Without a session there is no SQLSTATE. Then the known reasons in the message stand in its place: several, if there are several hosts.
    """
    if error is None:
        return "nothing"
    name = type(error).__name__
    if isinstance(error, DBAPIError):
        name += f"({type(error.orig).__name__} {getattr(error.orig, 'pgcode', None) or _reasons(error.orig)})"
    frames = traceback.extract_tb(error.__traceback__)
    # The outermost frame and the two innermost: usually a line of ours, and one of the library's.
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:1] + frames[-2:]]
    return f"{name} at {' > '.join(dict.fromkeys(places))}"


def _reasons(error: BaseException | None) -> str | None:
    said = str(error)
    return ", ".join(reason for reason in _WITHOUT_SESSION if reason in said) or None
