"""The pages in which a table is searched for a person: ranges of its primary key, so that each row is read once however the table changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.directory.person_columns import Holds, Table
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/directory/sql/person_pages.sql")

_KEY_COLUMNS = _SQL["key_columns"].text()

Keys = Sequence[tuple[str, str]]
"""The columns of a primary key, with their types."""

Key = Sequence[str]
"""The values of a primary key, as text."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a table."""

    table: str
    keys: Keys
    condition: str
    parameters: Mapping[str, Any]
    end: Key | None
    """The key of the last row; None if the table ends with it."""


def key_columns(connection: Connection, name: str) -> Keys:
    """The primary key of a table."""
    return [(row[0], row[1]) for row in connection.execute(_KEY_COLUMNS, {"table_name": name})]


def read_page(connection: Connection, name: str, after: Key | None, rows: int) -> Page:
    """The next so many rows of the table after this key, in the order of the key."""
    keys = key_columns(connection, name)
    begin, given = ("true", {}) if after is None else _bounds(keys, after, by=">", prefix="after")
    found = connection.execute(
        text(
            f"SELECT {', '.join(f't.{column}::text' for column, _ in keys)} FROM {name} t WHERE {begin}"
            f" ORDER BY {in_order(keys)} OFFSET :most LIMIT 1"
        ),
        {**given, "most": rows - 1},
    ).one_or_none()
    if found is None:
        return Page(name, keys, begin, given, None)
    until, last = _bounds(keys, list(found), by="<=", prefix="last")
    return Page(name, keys, f"{begin} AND {until}", {**given, **last}, list(found))


def in_order(keys: Keys) -> str:
    """The columns of a key, as an ORDER BY names them."""
    return ", ".join(f"t.{column}" for column, _ in keys)


def may_name(table: Table) -> str:
    """The condition that a row may name the person. Texts are compared in the coarsest way.

    Whether a row does name the person is decided afterwards. All texts of a row are folded at once, because that takes most of the time.
    """
    conditions, searched = [], []
    for column, holds in table.named.items():
        match holds:
            case Holds.ID | Holds.ROW:
                conditions.append(f"t.{column} = :mentor_id")
            case Holds.IDS:
                conditions.append(f":mentor_id = ANY (t.{column})")
            case _:
                searched.append(f"t.{column}")
    if searched:
        conditions.append(f"registration.folded(concat_ws(E'\\n', {', '.join(searched)})) ~ :words")
    return " OR ".join(conditions)


def following(name: str, tables: Sequence[str]) -> str | None:
    """The table that is searched after this one; None if it is the last."""
    next_ = tables.index(name) + 1
    return tables[next_] if next_ < len(tables) else None


def _bounds(keys: Keys, values: Key, *, by: str, prefix: str) -> tuple[str, dict[str, str]]:
    """The condition that the key of a row is beyond these values, and its parameters."""
    names = [f"{prefix}_{column}" for column, _ in keys]
    given = ", ".join(f"CAST(:{name} AS {kind})" for name, (_, kind) in zip(names, keys, strict=True))
    return f"({in_order(keys)}) {by} ({given})", dict(zip(names, values, strict=True))
