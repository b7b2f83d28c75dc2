"""How PostgreSQL finds rows, where a test does not want to depend on it."""

from sqlalchemy import Connection, text


def without_indexes(connection: Connection) -> None:
    """Rows come as they stand in their tables until the transaction ends, if nothing sorts them: an index would hide that."""
    for way in ("indexscan", "indexonlyscan", "bitmapscan"):
        connection.execute(text(f"SET LOCAL enable_{way} = off"))
