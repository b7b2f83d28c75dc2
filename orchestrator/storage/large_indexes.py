"""Builds indexes of large tables after the migrations, without blocking writes. A migration would build them under a lock."""

from collections.abc import Mapping

from sqlalchemy import Connection, Engine, text
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_random

FOR_FILLING = {
    "registration.activity_without_chapter": """
        CREATE INDEX CONCURRENTLY activity_without_chapter ON registration.activity (activity_id) WHERE chapter_id IS NULL
    """,
}
"""The index by which a column is filled in (`chapters.py`). Afterwards it is empty, so it costs nothing."""

# One index for a page of activities with each filter alone. The first also holds the columns of `summary`, which then does not read the table.
_BY = "activity_date, activity_id"
INDEXES = {
    "registration.activity_by_date": f"""
        CREATE INDEX CONCURRENTLY activity_by_date ON registration.activity (organization_id, {_BY})
        INCLUDE (activity_type, chapter_id, registered_by, duration_minutes, revoked_at)
    """,
    "registration.activity_by_type": f"""
        CREATE INDEX CONCURRENTLY activity_by_type ON registration.activity (organization_id, activity_type, {_BY})
    """,
    "registration.activity_by_chapter": f"""
        CREATE INDEX CONCURRENTLY activity_by_chapter ON registration.activity (organization_id, chapter_id, {_BY})
    """,
    "registration.activity_by_coordinator": f"""
        CREATE INDEX CONCURRENTLY activity_by_coordinator ON registration.activity (organization_id, registered_by, {_BY})
    """,
    "registration.activity_by_mentor": f"""
        CREATE INDEX CONCURRENTLY activity_by_mentor ON registration.activity (organization_id, attributed_to, {_BY})
    """,
    "registration.activity_revoked": f"""
        CREATE INDEX CONCURRENTLY activity_revoked ON registration.activity (organization_id, {_BY}) WHERE revoked_at IS NOT NULL
    """,
    # For the retention of notes. Rows without notes are not in them.
    "registration.activity_notes": """
        CREATE INDEX CONCURRENTLY activity_notes ON registration.activity (created_at) WHERE notes IS NOT NULL
    """,
    "orchestrator.batch_item_notes": """
        CREATE INDEX CONCURRENTLY batch_item_notes ON orchestrator.batch_item (attempt_at) WHERE notes IS NOT NULL
    """,
    # For the history of one activity.
    "registration.audit_activity": "CREATE INDEX CONCURRENTLY audit_activity ON registration.audit (activity_id)",
    # The living flagged activities of a mentor, type and date. When the unflagged one is revoked, the oldest of them loses its flag.
    "registration.activity_flagged": """
        CREATE INDEX CONCURRENTLY activity_flagged ON registration.activity (organization_id, attributed_to, activity_type, activity_date)
        WHERE overrides_duplicate AND revoked_at IS NULL
    """,
}

# Only one process builds at a time. The others wait without a transaction, because the builder would have to wait for it.
_LOCK = (0x62756C6B, 2)
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:a, :b)")

# An index is built in two passes. Each waits up to this long for transactions that started before it.
_WAIT_FOR_OTHERS = "10min"
_TRY_FOR_S = 1_800

_IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def build_large_indexes(engine: Engine, indexes: Mapping[str, str]) -> None:
    """Builds those of the indexes that are missing or unfinished.

    Raises SQLAlchemy's DBAPIError if a transaction stays open for ten minutes. End that transaction, and repeat the upgrade.
    """
    with engine.connect() as opened:
        connection = opened.execution_options(isolation_level="AUTOCOMMIT")
        _take_turn(connection)
        connection.execute(text(f"SET lock_timeout = '{_WAIT_FOR_OTHERS}'"))
        for name, sql in indexes.items():
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
