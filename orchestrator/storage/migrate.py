"""Brings a database to the newest schema, one upgrade at a time: the two roles, Alembic's migrations, and the indexes of large tables."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from tenacity import (
    Retrying,
    retry,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random,
)

from orchestrator.process.settings import Settings
from orchestrator.storage.chapters import fill_chapters
from orchestrator.storage.connecting import open_engine
from orchestrator.storage.large_indexes import FOR_FILLING, INDEXES, build_large_indexes

# A migration holds this advisory lock, so any number of processes can start an upgrade at the same time.
_MIGRATION_LOCK = (0x62756C6B, 1)

# A waiting migration blocks every later query on the table, so lock_timeout stays below deadlock_timeout (1 s), after which PostgreSQL could
# abort a transaction of the product. On timeout the migration rolls back and retries.
_LOCK_TIMEOUT_MS = 500
# PostgreSQL cancels an autovacuum only for a session that has waited for deadlock_timeout, and the autovacuum of a large table runs for hours.
# So every tenth try waits longer. If that aborts a transaction of the product as a deadlock victim, the product retries it as usual.
_PATIENT_LOCK_TIMEOUT_MS = 1_500
_PATIENT_EVERY = 10
_TRY_FOR_S = 600
# 55P03 lock timeout, 40P01 deadlock
_IN_THE_WAY = ("55P03", "40P01")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def newest_version() -> str:
    """The schema version that this code is written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


# Roles belong to the whole server, but advisory locks to one database. Upgrades of two databases can create the roles at the same time.
@retry(retry=retry_if_exception_type(DBAPIError), stop=stop_after_attempt(5), wait=wait_random(0.05, 0.2), reraise=True)
def _make_roles(engine: Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        for role, password in settings.role_passwords().items():
            exists = connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :role"), {"role": role})
            verb = "ALTER" if exists else "CREATE"
            # DDL takes no parameters. The role is a constant, and a verifier contains no quotes.
            clause = "" if password is None else f" PASSWORD '{_verifier(connection, role, password)}'"
            connection.exec_driver_sql(f"{verb} ROLE {role} LOGIN{clause}")


def _verifier(connection: Connection, role: str, password: str) -> str:
    """What the server stores of a password. The password itself would get into the log of a server that logs DDL."""
    return str(encrypt_password(password, role, connection.connection.driver_connection, "scram-sha-256"))


def _is_in_the_way(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "pgcode", None) in _IN_THE_WAY


def _migrate(engine: Engine) -> None:
    tries = Retrying(
        retry=retry_if_exception(_is_in_the_way), stop=stop_after_delay(_TRY_FOR_S), wait=wait_random(0.1, 0.5), reraise=True
    )
    for each in tries:
        with each:
            is_patient = each.retry_state.attempt_number % _PATIENT_EVERY == 0
            _try_to_migrate(engine, _PATIENT_LOCK_TIMEOUT_MS if is_patient else _LOCK_TIMEOUT_MS)


def _try_to_migrate(engine: Engine, lock_timeout_ms: int) -> None:
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:a, :b)"), dict(zip("ab", _MIGRATION_LOCK, strict=True)))
        connection.execute(text(f"SET LOCAL lock_timeout = {lock_timeout_ms}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def upgrade(settings: Settings) -> str:
    """Migrates to the newest version and returns it. The previous version of the product can run meanwhile.

    Needs the owner's URL. Raises SQLAlchemy's OperationalError if the database is unreachable, or if a table stays locked for ten minutes.
    """
    engine = open_engine(
        settings.owner_url,
        application_name="bulkreg db upgrade",
        # An upgrade that is stopped in the middle releases the migration lock and its tables after this time.
        session={"idle_in_transaction_session_timeout": str(settings.idle_in_transaction_timeout_ms)},
    )
    try:
        _make_roles(engine, settings)
        _migrate(engine)
        build_large_indexes(engine, FOR_FILLING)
        fill_chapters(engine)
        build_large_indexes(engine, INDEXES)
    finally:
        engine.dispose()
    return newest_version()
