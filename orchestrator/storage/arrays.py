"""PostgreSQL array literals: one string per column of a set, several times cheaper than adapting each element."""

from collections.abc import Iterable
from uuid import UUID


def plain(values: Iterable[int | str | UUID | bool]) -> str:
    """An array of values whose text needs no quoting: numbers, UUIDs, booleans, ISO dates, hexadecimal."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str | None]) -> str:
    """An array of any texts, NULLs among them."""
    return "{" + ",".join("NULL" if value is None else _quoted(value) for value in values) + "}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
