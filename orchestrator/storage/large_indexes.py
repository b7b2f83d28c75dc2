"""Builds indexes of large tables after the migrations, without blocking writes. A migration would build them under a lock."""

from sqlalchemy import Connection, Engine, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_random

_INDEXES = {
    # The living flagged activities of a mentor, type and date. When the unflagged one is revoked, the oldest of them loses its flag.
    "registration.activity_flagged": """
        CREATE INDEX CONCURRENTLY activity_flagged ON registration.activity (organization_id, attributed_to, activity_type, activity_date)
        WHERE overrides_duplicate AND revoked_at IS NULL
    """,
}

# Only one process builds at a time. The others wait without a transaction, because the builder would have to wait for it.
_LOCK = (0x62756C6B, 2)
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:a, :b)")

# An index is built in two passes. Each waits up to this long for transactions that began before it.
_WAIT_FOR_OTHERS = "10min"
_TRY_FOR_S = 1_800

_IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def build_large_indexes(engine: Engine) -> None:
    """Builds the indexes that are missing or unfinished.

    Raises SQLAlchemy's DBAPIError if a transaction stays open for ten minutes. End that transaction, and repeat the upgrade.
    """
    with engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        _take_turn(connection)
        connection.execute(text(f"SET lock_timeout = '{_WAIT_FOR_OTHERS}'"))
        for name, sql in _INDEXES.items():
            _build(connection, name, sql)
        # Closes the session, which ends its lock and its settings.
        opened.invalidate()


def _take_turn(connection: Connection) -> None:
    tries = Retrying(
        retry=retry_if_result(lambda taken: not taken), stop=stop_after_delay(_TRY_FOR_S), wait=wait_random(0.1, 0.5)
    )
    tries(lambda: bool(connection.scalar(_TRY_LOCK, dict(zip("ab", _LOCK, strict=True)))))


def _build(connection: Connection, name: str, sql: str) -> None:
    is_valid = connection.scalar(_IS_VALID, {"name": name})
    if is_valid:
        return
    if is_valid is not None:
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {name}")
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
