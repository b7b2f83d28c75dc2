"""Controls how PostgreSQL finds rows, for tests that must not depend on it, and counts how many it returns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event, text


@contextmanager
def rows_read(engine: Engine, *parts: str) -> Iterator[list[int]]:
    """How many rows each statement with these parts returns meanwhile. A statement that returns too many takes longer and longer as the tables
    grow, although its caller ignores them."""
    counts: list[int] = []

    def count(_connection: Connection, cursor: Any, statement: str, *_: object) -> None:
        if all(part in statement for part in parts):
            counts.append(cursor.rowcount)

    event.listen(engine, "after_cursor_execute", count)
    yield counts
    event.remove(engine, "after_cursor_execute", count)


def without_indexes(connection: Connection) -> None:
    """Makes rows come in the order of their table until the transaction ends. An index would hide a missing ORDER BY."""
    for way in ("indexscan", "indexonlyscan", "bitmapscan"):
        connection.execute(text(f"SET LOCAL enable_{way} = off"))
