"""PostgreSQL array literals: one string for each column of a set, which is several times cheaper than adapting each element."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from orchestrator.batches.repository import OutcomeKey


def plain(values: Iterable[int | str | UUID | bool]) -> str:
    """An array of values whose text needs no quoting: numbers, UUIDs, booleans, ISO dates, hexadecimal."""
    return "{" + ",".join(map(str, values)) + "}"


def texts(values: Iterable[str | None]) -> str:
    """An array of any texts and NULLs."""
    quoted = ["NULL" if value is None else _quoted(value) for value in values]
    if not quoted:
        return "{}"
    # The notes of a large batch are 64 MB. Adding the braces to the elements avoids another copy of the whole.
    quoted[0] = "{" + quoted[0]
    quoted[-1] += "}"
    return ",".join(quoted)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


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
