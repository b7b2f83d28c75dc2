"""Whose fault an error is, and so what is done about it (docs/decisions/0022-what-repeats.md).

A record is blamed only for what can be its fault. Everything else that the database refuses is the environment's: nothing is dead-lettered
for it, and nobody's item fails.
"""

from enum import StrEnum

from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class Blame(StrEnum):
    """Whose fault an error is."""

    RECORD = "record"
    """The value's: a data error or a violated constraint. It fails again, whatever the environment does."""
    BUG = "bug"
    """Our code's, for this record. It fails again."""
    RIVAL = "rival"
    """A rival decided first. The next try sees what the rival decided; one that never succeeds meets a broken invariant."""
    LOCKED = "locked"
    """Somebody holds a lock, or a deadlock or a conflict was resolved against us. It passes when the rival ends."""
    PASSING = "passing"
    """The environment's, and it passes by itself: a lost connection, a failover, a full disk, no free connection."""
    LASTING = "lasting"
    """The environment's, and it may last: a statement timeout, a missing right or table. Only a few records may meet it."""


class TransientError(Exception):
    """The unit of work met a rival that decided first; tried again, it will see what the rival decided."""


# 22 data exception, 23 integrity constraint violation: all that a value of a record can be to blame for.
_RECORD_CLASSES = ("22", "23")
# 40001 serialization failure, 40P01 deadlock, 55P03 lock timeout.
_LOCKED_CODES = ("40001", "40P01", "55P03")
# 08 connection, 28 login refused (a password that is being changed), 53 out of resources (disk full, too many connections), 57P shutdown
# and crash recovery, 58 the server's own trouble with its files, F0 its configuration.
_PASSING_CLASSES = ("08", "28", "53", "57P", "58", "F0")
# 25006 a read-only database: the former primary, on the way through a failover. 25P02 and 25P03: the transaction was ended before. 26000: a
# prepared statement that somebody between us and the server has forgotten (`Prepared` makes it anew). 3D000: the database is gone while
# it is restored. 0A000: a kept plan that a migration has outdated.
_PASSING_CODES = ("25006", "25P02", "25P03", "26000", "3D000", "0A000")

# Nothing of the session is to blame, or the session has put it right itself.
_SESSION_IS_GOOD = (*_LOCKED_CODES, "57014", "26000")

# What the driver raises for a value that it can't send: NUL, a lone surrogate, a number that is too large.
_VALUE_ERRORS = (ValueError, OverflowError)
# psycopg2's exceptions without an SQLSTATE are its own: these say that our code or a value is wrong, all others that the connection is.
_OF_THE_DRIVER = {"DataError": Blame.RECORD, "ProgrammingError": Blame.BUG, "NotSupportedError": Blame.BUG}


def sqlstate(error: BaseException) -> str | None:
    """The database's code for the error; None when it has none: a lost connection, or no error of the database's."""
    code: str | None = getattr(getattr(error, "orig", None), "pgcode", None)
    return code


def blame(error: BaseException) -> Blame:
    """Whose fault it is."""
    match error:
        case TransientError():
            return Blame.RIVAL
        case PoolTimeoutError():
            return Blame.PASSING
        case DBAPIError():
            code = sqlstate(error)
            return _of_driver(error) if code is None else _of_database(code)
        case StatementError() if isinstance(error.orig, _VALUE_ERRORS):
            return Blame.RECORD
        case _:
            return Blame.BUG


def _of_database(code: str) -> Blame:
    if code.startswith(_RECORD_CLASSES):
        return Blame.RECORD
    if code in _LOCKED_CODES:
        return Blame.LOCKED
    if code in _PASSING_CODES or code.startswith(_PASSING_CLASSES):
        return Blame.PASSING
    return Blame.LASTING


def _of_driver(error: DBAPIError) -> Blame:
    if error.connection_invalidated:
        return Blame.PASSING
    return _OF_THE_DRIVER.get(type(error.orig).__name__, Blame.PASSING)


def is_environments(error: BaseException) -> bool:
    """Whether no record and no code of ours is to blame: nothing may be given up for it at once."""
    return blame(error) not in (Blame.RECORD, Blame.BUG)


def is_transient(error: BaseException) -> bool:
    """Whether the same unit of work is likely to succeed when it is tried again soon."""
    return blame(error) in (Blame.PASSING, Blame.LOCKED, Blame.RIVAL)


def spoils_session(code: str) -> bool:
    """Whether a session that has met this error should not be used again: a new one may be on the new primary, or see a right that was
    given since."""
    return not code.startswith(_RECORD_CLASSES) and code not in _SESSION_IS_GOOD


def spoils_pool(code: str) -> bool:
    """Whether all sessions are as bad as the one that has met this error: they are on the same, former primary."""
    return code == "25006" or code.startswith(("08", "57P"))


def kind_of(error: BaseException) -> str:
    """The error in a few words that are the same each time it happens, and quote no values."""
    if isinstance(error, StatementError):
        code = sqlstate(error)
        return f"{type(error.orig).__name__} {code}" if code else type(error.orig).__name__
    return type(error).__name__
