"""Does what autovacuum would do after many writes, at once, so that it costs nothing while something else is measured."""

from sqlalchemy import Engine, text

_TABLES = ("orchestrator.batch", "orchestrator.batch_item", "orchestrator.outcome", "registration.activity", "registration.audit")


def settle(engine: Engine) -> None:
    """Vacuums and analyses the tables of items, and flushes them."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in _TABLES:
            connection.execute(text(f"VACUUM (ANALYZE) {table}"))
        connection.execute(text("CHECKPOINT"))
