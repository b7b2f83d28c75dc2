"""PostgreSQL array literals: one string for each column of a set, which is several times cheaper than adapting each element."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from psycopg2.extensions import QuotedString, register_adapter

from orchestrator.batches.repository import OutcomeKey


def plain(values: Iterable[int | str | UUID | bool]) -> str:
    """An array of values whose text needs no quoting: numbers, UUIDs, booleans, ISO dates, hexadecimal."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str | None]) -> str:
    """An array of any texts and NULLs."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def long_texts(values: Iterable[str | None]) -> "Utf8":
    """The same for notes, of which a batch may have 16 MiB.

    Python stores a text with one emoji in four bytes a character, so each copy of them as `str` could take 64 MB.
    """
    return Utf8(b"{" + b",".join([b"NULL" if value is None else _quoted(value).encode() for value in values]) + b"}")


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Utf8(bytes):
    """A text as the bytes that the driver sends. All connections have the encoding UTF-8."""


class _Adapted:
    """How the driver writes a `Utf8` into a statement."""

    def __init__(self, text: Utf8) -> None:
        self._quoted = QuotedString(text)

    def prepare(self, connection: Any) -> None:
        """The driver calls this first. How backslashes are written depends on the connection."""
        self._quoted.prepare(connection)

    def getquoted(self) -> bytes:
        """The literal."""
        return self._quoted.getquoted()


register_adapter(Utf8, _Adapted)


def items(named: Iterable[tuple[str | UUID, int]]) -> dict[str, str]:
    """The parameters `batch_ids` and `positions` for the items with these batch ids and positions."""
    pairs = list(named)
    return {"batch_ids": plain([batch_id for batch_id, _ in pairs]), "positions": plain([position for _, position in pairs])}


def attempts(keys: Sequence[OutcomeKey]) -> dict[str, str]:
    """The parameters `batch_ids`, `positions` and `attempts` for the attempts that these keys name."""
    return {
        "batch_ids": plain([key.batch_id for key in keys]),
        "positions": plain([key.position for key in keys]),
        "attempts": plain([key.attempt for key in keys]),
    }
