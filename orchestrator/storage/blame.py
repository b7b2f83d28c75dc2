"""Whose fault an error is, which decides how it is handled (docs/decisions/0022-what-repeats.md).

A record is blamed only for errors that its values can cause. Every other refusal of the database is the environment's fault: it dead-letters no
record and fails no item.
"""

from enum import StrEnum

from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class Blame(StrEnum):
    """Whose fault an error is."""

    RECORD = "record"
    """A value's fault: a data error or a violated constraint. The record fails again in any environment."""
    BUG = "bug"
    """Our code's fault, for this record. The record fails again."""
    RIVAL = "rival"
    """A concurrent transaction decided first. The next try sees its decision; if no try ever succeeds, an invariant is broken."""
    LOCKED = "locked"
    """Another transaction holds a lock, or PostgreSQL resolved a deadlock or conflict against us. A retry succeeds when the other ends."""
    PASSING = "passing"
    """The environment's fault, and temporary: a lost connection, a failover, a full disk, no free connection."""
    LASTING = "lasting"
    """The environment's fault, and possibly lasting: a statement timeout, a missing right or table. It may affect only a few records."""


class TransientError(Exception):
    """A concurrent transaction decided first. When the unit of work is retried, it sees that decision."""


# 22 data exception, 23 integrity constraint violation: the only errors that a record's values can cause.
_RECORD_CLASSES = ("22", "23")
# 40001 serialization failure, 40P01 deadlock, 55P03 lock timeout.
_LOCKED_CODES = ("40001", "40P01", "55P03")
# 08 connection, 28 login refused (a password that is being changed), 53 out of resources (disk full, too many connections), 57P shutdown
# and crash recovery, 58 the server's own trouble with its files, F0 its configuration.
_PASSING_CLASSES = ("08", "28", "53", "57P", "58", "F0")
# 25006: a read-only database, which is the former primary during a failover. 25P02 and 25P03: the transaction was already ended. 26000: a
# pooler between us and the server has dropped a prepared statement (`Prepared` prepares it again). 3D000: the database does not exist while
# it is restored. 0A000: a migration has invalidated a cached plan.
_PASSING_CODES = ("25006", "25P02", "25P03", "26000", "3D000", "0A000")

# Errors after which the session is still usable.
_SESSION_IS_GOOD = (*_LOCKED_CODES, "57014", "26000")

# Raised by the driver for a value that it can't send: NUL, a lone surrogate, a number that is too large.
_VALUE_ERRORS = (ValueError, OverflowError)
# Exceptions without an SQLSTATE are psycopg2's own. These mean that our code or a value is wrong, all others that the connection failed.
_OF_THE_DRIVER = {"DataError": Blame.RECORD, "ProgrammingError": Blame.BUG, "NotSupportedError": Blame.BUG}


def sqlstate(error: BaseException) -> str | None:
    """The database's code for the error. None for a lost connection, and for errors that are not the database's."""
    code: str | None = getattr(getattr(error, "orig", None), "pgcode", None)
    return code


def blame(error: BaseException) -> Blame:
    """Whose fault the error is."""
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
    """Whether neither a record nor our code is to blame. No record may be given up at once for such an error."""
    return blame(error) not in (Blame.RECORD, Blame.BUG)


def is_transient(error: BaseException) -> bool:
    """Whether the same unit of work is likely to succeed when it is retried soon."""
    return blame(error) in (Blame.PASSING, Blame.LOCKED, Blame.RIVAL)


def spoils_session(code: str) -> bool:
    """Whether a session should be closed after this error: a new one may reach the new primary, or have a right that was granted since."""
    return not code.startswith(_RECORD_CLASSES) and code not in _SESSION_IS_GOOD


def spoils_pool(code: str) -> bool:
    """Whether all sessions of the pool should be closed after this error, because they are connected to the same former primary."""
    return code == "25006" or code.startswith(("08", "57P"))


def kind_of(error: BaseException) -> str:
    """The error in a few words, which are the same each time and quote no values."""
    if isinstance(error, StatementError):
        code = sqlstate(error)
        return f"{type(error.orig).__name__} {code}" if code else type(error.orig).__name__
    return type(error).__name__
