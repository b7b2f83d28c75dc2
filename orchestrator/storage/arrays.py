"""PostgreSQL array literals: one string per column of a set, several times cheaper than adapting each element."""

from collections.abc import Iterable
from uuid import UUID


def plain(values: Iterable[int | str | UUID | bool]) -> str:
    """An array of values whose text needs no quoting: numbers, UUIDs, booleans, ISO dates, hexadecimal."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str | None]) -> str:
    """An array of any texts, NULLs among them."""
    quoted = ["NULL" if value is None else _quoted(value) for value in values]
    if not quoted:
        return "{}"
    # The notes of a large batch are 64 MB in here: the whole is made once, and not once more for its braces.
    quoted[0] = "{" + quoted[0]
    quoted[-1] += "}"
    return ",".join(quoted)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
