"""Connections and transactions. A transaction is retried after a transient error (`blame.py`)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from psycopg2 import Error as DriverError
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.engine.interfaces import ExceptionContext
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from orchestrator.process.settings import Settings
from orchestrator.storage import timelines
from orchestrator.storage.blame import is_transient, spoils_pool, spoils_session
from orchestrator.storage.connecting import open_engine
from orchestrator.storage.prepared import commit, gathering, preface

Returned = TypeVar("Returned")

# `is_read_only` is also "on" while a standby is in recovery. A session sees what other sessions of its role wait for.
_STATE = text(
    "SELECT current_setting('transaction_read_only') = 'on' AS is_read_only,"
    " (SELECT extract(epoch FROM max(clock_timestamp() - state_change)) FROM pg_stat_activity"
    " WHERE usename = current_user AND wait_event = 'SyncRep') AS commit_wait_s"
)

# A commit waits for its standby for milliseconds.
_COMMIT_WAITS_TOO_LONG_S = 5.0

# After a transient error the same is tried again: at once, then after a pause of random length, up to the first limit, then up to twice as
# long, and so on.
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5

# Separates organization ids in the session variable that the API's row level security reads. In practice no id contains it; an id that did
# would name organizations that do not exist.
_UNIT_SEPARATOR = "\x1f"


def create_database_engine(url: URL, settings: Settings, *, connections: int, application_name: str) -> Engine:
    """An engine whose sessions can't hang, because every wait has a limit."""
    engine = open_engine(
        url,
        application_name=application_name,
        session=session_limits(settings),
        pool_size=connections,
        max_overflow=0,
        # A caller that gets no connection within this time gets an error (503) instead of queueing forever.
        pool_timeout=5,
    )

    event.listen(engine, "handle_error", _end_spoilt_sessions)
    return engine


def session_limits(settings: Settings) -> Mapping[str, str]:
    """The session values of `create_database_engine` that come from the settings, and the plan cache mode with which a session begins."""
    return {
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(settings.lock_timeout_ms),
        "idle_in_transaction_session_timeout": str(settings.idle_in_transaction_timeout_ms),
        # Until `Prepared` finds the tables large enough for cached plans.
        "plan_cache_mode": "force_custom_plan",
    }


def _end_spoilt_sessions(context: ExceptionContext) -> None:
    """Makes SQLAlchemy reconnect after an error that would persist in the session. Otherwise a pooled session would stay connected to a
    read-only former primary forever."""
    code = getattr(context.original_exception, "pgcode", None)
    if code is not None and not context.is_disconnect and spoils_session(code):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = spoils_pool(code)


class NotWritableError(Exception):
    """The database responds, but accepts no changes now. The message says why."""


@contextmanager
def begin(engine: Engine) -> Iterator[Connection]:
    """A transaction that sends BEGIN with its first statement, and COMMIT together with the statements whose results nobody needs
    (`Prepared.later`). Commits at the end of the block, and rolls back if the block raises. Raises DBAPIError and RolledBackError.

    For transactions of a few milliseconds, where each round trip costs both processes about as much as a statement (decision 18).
    """
    with engine.connect() as connection, _each_by_itself(connection), gathering(connection, "BEGIN"):
        try:
            with timelines.believing(connection):
                yield connection
            connection.dispatch.commit(connection)  # as `engine.begin` does
            commit(connection)
        except BaseException:  # An interruption, too: the session returns to the pool, and must have no transaction then.
            _roll_back(connection)
            raise


def _roll_back(connection: Connection) -> None:
    """Ends the transaction of `begin`, if the session still has one. A session that can't is closed."""
    if connection.invalidated:
        return
    if timelines.is_outdated(connection):
        connection.invalidate()  # A former primary may stand still again, and would be waited for.
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    if driver.closed or driver.info.transaction_status == TRANSACTION_STATUS_IDLE:
        return
    try:
        with driver.cursor() as cursor:
            cursor.execute("ROLLBACK")
    except BaseException as error:
        # The pool's own rollback does nothing, because the driver does not know of the transaction.
        connection.invalidate()
        if not isinstance(error, DriverError):
            raise


def transact(
    engine: Engine,
    work: Callable[[Connection], Returned],
    *,
    organizations: Sequence[str] | None = None,
    snapshot: bool = False,
    give_up_after_s: float = 5.0,
) -> Returned:
    """Runs `work` in one transaction and commits. On a transient error, runs the whole unit again, with backoff.

    `work` must have the same effect when it is run twice, even after a commit whose acknowledgement was lost, which it can't know.
    `organizations` are those that row level security lets an API transaction see. With `snapshot`, all statements see the same state
    (REPEATABLE READ, read-only).
    """

    def unit() -> Returned:
        with begin(engine) as connection:
            _begin(connection, organizations, snapshot=snapshot)
            return work(connection)

    return _retried(unit, give_up_after_s)


def ask(
    engine: Engine, work: Callable[[Connection], Returned], *, organizations: Sequence[str], give_up_after_s: float = 5.0
) -> Returned:
    """Runs `work`, which executes one prepared read-only statement, in one round trip. On a transient error, runs it again, with backoff.

    A transaction takes at least three round trips, and after each the thread of a busy process waits for its turn. Row level security would
    show no rows to a second statement.
    """

    def unit() -> Returned:
        with engine.connect() as connection, _each_by_itself(connection), timelines.believing(connection):
            _begin(connection, organizations, snapshot=False)
            return work(connection)

    return _retried(unit, give_up_after_s)


def _retried(unit: Callable[[], Returned], give_up_after_s: float) -> Returned:
    """Runs `unit`, and runs it again after a transient error. Raises the last error when the time is over, and any other at once.

    Nearly every first run succeeds. So the library is only used for the others: it takes 10 to 25 µs (docs/performance.md).
    """
    began = time.monotonic()
    try:
        return unit()
    except Exception as error:
        left_s = give_up_after_s - (time.monotonic() - began)
        if not is_transient(error) or left_s <= 0:
            raise
    again = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
        stop=stop_after_delay(left_s),
        reraise=True,
    )
    return again(unit)


@contextmanager
def _each_by_itself(connection: Connection) -> Iterator[None]:
    """Makes each statement a transaction of its own while the block runs."""
    # The driver's own switch. SQLAlchemy's isolation_level would restore the session's default afterwards, which takes another round trip.
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.autocommit = True
    try:
        yield
    finally:
        if not driver.closed:
            driver.autocommit = False


def check_writable(engine: Engine, *, give_up_after_s: float = 5.0) -> None:
    """Returns if the database is writable. Raises NotWritableError if it is not, DBAPIError if it does not respond."""
    state = transact(engine, _read_state, give_up_after_s=give_up_after_s)
    if state.is_read_only:
        # The session may be connected to a former primary, or older than the end of a recovery. Only a new session shows the present state.
        engine.dispose()
        state = transact(engine, _read_state, give_up_after_s=give_up_after_s)
    if state.is_read_only:
        raise NotWritableError("the database is read-only")
    if state.commit_wait_s is not None and state.commit_wait_s > _COMMIT_WAITS_TOO_LONG_S:
        raise NotWritableError(f"a commit has waited for a synchronous standby for {state.commit_wait_s:.0f} s")


class _State(NamedTuple):
    is_read_only: bool
    commit_wait_s: float | None


def _read_state(connection: Connection) -> _State:
    return _State(*connection.execute(_STATE).one())


# Not SQLAlchemy's isolation_level, which sets the session's default and restores it: four more round trips.
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_SEE = "SELECT set_config('bulkreg.organizations', %(organizations_seen)s, true)"


def _begin(connection: Connection, organizations: Sequence[str] | None, *, snapshot: bool) -> None:
    """Sets the snapshot and the organizations that row level security lets the transaction see. Both are sent with its first statement."""
    statements = [_SNAPSHOT] if snapshot else []
    if organizations is not None:
        statements.append(_SEE)
    values = {} if organizations is None else {"organizations_seen": _UNIT_SEPARATOR.join(organizations)}
    preface(connection, "; ".join(statements), values)
