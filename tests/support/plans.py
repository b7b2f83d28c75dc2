"""Controls how PostgreSQL finds rows, for tests that must not depend on it."""

from sqlalchemy import Connection, text


def without_indexes(connection: Connection) -> None:
    """Makes rows come in the order of their table until the transaction ends. An index would hide a missing ORDER BY."""
    for way in ("indexscan", "indexonlyscan", "bitmapscan"):
        connection.execute(text(f"SET LOCAL enable_{way} = off"))
