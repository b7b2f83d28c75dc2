"""Reads the rows that may name a person: first which ones these are, then as many as can be examined before the next statement.

A session that sends no statement for `BULKREG_IDLE_IN_TRANSACTION_TIMEOUT_MS` is ended, and looking at 10,000 characters takes up to 20 ms.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Row, text

from orchestrator.directory.person_columns import TABLES, Holds
from orchestrator.directory.person_pages import Key, Keys, in_order, may_name


@dataclass(frozen=True, slots=True)
class Found:
    """A row that may name the person."""

    key: Key
    text_bytes: int
    """The size of its texts."""


def find_rows(
    connection: Connection, name: str, keys: Keys, condition: str, parameters: Mapping[str, Any], *, most: int | None = None
) -> list[Found]:
    """The rows within the condition that may name the person, in the order of the key, at most `most`."""
    table = TABLES[name]
    sizes = [
        f"coalesce(octet_length(CAST(t.{column} AS text)), 0)"
        for column, holds in table.named.items()
        if holds not in (Holds.ID, Holds.ROW, Holds.IDS)
    ]
    found = connection.execute(
        text(
            f"SELECT {' + '.join(sizes) or '0'}, {', '.join(f't.{column}::text' for column, _ in keys)} FROM {name} t"
            f" WHERE {condition} AND t.organization_id = :organization_id AND ({may_name(table)})"
            f" ORDER BY {in_order(keys)}{'' if most is None else f' LIMIT {most}'}"
        ),
        parameters,
    )
    return [Found(list(row[1:]), row[0]) for row in found]


def portions(found: Sequence[Found], most_bytes: int) -> Iterator[Sequence[Found]]:
    """Divides the rows into runs whose texts have `most_bytes` at most. A larger row is a run of its own."""
    portion: list[Found] = []
    size = 0
    for row in found:
        size += row.text_bytes
        if portion and size > most_bytes:
            yield portion
            portion, size = [], row.text_bytes
        portion.append(row)
    if portion:
        yield portion


def read_rows(
    connection: Connection, name: str, keys: Keys, found: Sequence[Found], columns: Sequence[str], *, locking: bool = False
) -> Sequence[Row[Any]]:
    """These rows, in the order of the key: the columns of their key as text, then these columns. Rows that are gone are missing."""
    given = ", ".join(f"key_{column} {kind}" for column, kind in keys)
    at = " AND ".join(f"t.{column} = n.key_{column}" for column, _ in keys)
    chosen = [*(f"t.{column}::text" for column, _ in keys), *columns]
    wanted = [{f"key_{column}": value for (column, _), value in zip(keys, row.key, strict=True)} for row in found]
    return connection.execute(
        text(
            f"SELECT {', '.join(chosen)} FROM {name} t JOIN jsonb_to_recordset(CAST(:rows AS jsonb)) AS n ({given}) ON {at}"
            f" ORDER BY {in_order(keys)}{' FOR UPDATE OF t' if locking else ''}"
        ),
        {"rows": orjson.dumps(wanted).decode()},
    ).all()
