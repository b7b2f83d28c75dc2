"""What forgetting writes: rows of a table without the person whom they named (docs/decisions/0045-forgetting.md)."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Row, text

from orchestrator.directory.person_columns import TABLES, Holds, Table
from orchestrator.directory.person_pages import Key, Keys, key_columns
from orchestrator.directory.person_rows import Found, find_rows, portions, read_rows
from orchestrator.storage.people import ForgottenPeople, PlainWords, Replacement, spellings
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/directory/sql/person_rewriting.sql")

_FOLDED = _SQL["folded"].text()

_DELETED = ("",)
"""In place of the columns that change: the row is deleted."""


class Rewriting:
    """The rows that name one person, and what becomes of them. In the transaction of the connection."""

    def __init__(self, connection: Connection, request: Row[Any], forgotten: ForgottenPeople) -> None:
        """`request` has organization, id, name and pseudonym. `forgotten` has this person's words, then those of all who were forgotten."""
        self._connection = connection
        self._organization_id: str = request.organization_id
        self._mentor_id: str = request.mentor_id
        self._pseudonym: str = request.pseudonym
        self._forgotten = forgotten
        plain = PlainWords()
        words = plain.words(request.organization_id, request.mentor_id, request.name)
        self._person = ForgottenPeople(plain, [Replacement(request.organization_id, word, request.pseudonym) for word in words])
        self.parameters: Mapping[str, Any] = {
            "organization_id": request.organization_id,
            "mentor_id": request.mentor_id,
            "pseudonym": request.pseudonym,
            "words": self._pattern(request.mentor_id, request.name),
        }
        """The parameters of `may_name`, and of the functions that change append-only tables."""

    def _pattern(self, mentor_id: str, name: str | None) -> str:
        """The regular expression of what may be in the tables, as text and as JSON. A server without a locale only changes the case of ASCII
        letters."""
        cased = [each for word in spellings(mentor_id, name) for each in (word, word.lower(), word.upper(), word.title())]
        searched = [*cased, *(_json(word)[1:-1] for word in cased)]
        folded = self._connection.execute(_FOLDED, {"words": searched}).scalar_one()
        return "|".join(re.escape(word) for word in folded)

    def naming(self, table: Table, columns: Mapping[str, Any]) -> bool:
        """Whether the columns of a row name the person."""
        return any(self._changed(self._person, table.named[column], value) != value for column, value in columns.items())

    def rewrite_some(
        self, name: str, condition: str, parameters: Mapping[str, Any], *, most: int, most_bytes: int
    ) -> tuple[int, Key | None]:
        """Rewrites the rows within the condition that name the person, in the order of the key. Looks at `most` rows and
        `most_bytes` of text at most, and at one row at least.

        Returns how many changed, and the key of the last row that was looked at if there may be more.
        """
        keys = key_columns(self._connection, name)
        found = find_rows(self._connection, name, keys, condition, {**self.parameters, **parameters}, most=most)
        if not found:
            return 0, None
        portion = next(portions(found, most_bytes))
        may_be_more = len(portion) < len(found) or len(found) == most
        return self._rewrite(name, keys, portion), portion[-1].key if may_be_more else None

    def rewrite_all(self, name: str, condition: str, parameters: Mapping[str, Any], *, most_bytes: int) -> int:
        """Rewrites all rows within the condition that name the person, in statements of `most_bytes` of text. Returns how many changed."""
        keys = key_columns(self._connection, name)
        found = find_rows(self._connection, name, keys, condition, {**self.parameters, **parameters})
        return sum(self._rewrite(name, keys, portion) for portion in portions(found, most_bytes))

    def _rewrite(self, name: str, keys: Keys, found: Sequence[Found]) -> int:
        """Rewrites those of the rows that name the person. Returns how many."""
        table = TABLES[name]
        columns_read = [f"t.{column}" for column in table.named]
        changes: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
        for row in read_rows(self._connection, name, keys, found, columns_read, locking=table.function is None):
            before = dict(zip(table.named, row[len(keys) :], strict=True))
            if self.naming(table, before):
                columns, values = self._change(table, before)
                changes[columns].append({**_key_values(keys, row[: len(keys)]), **values})
        for columns, rows in changes.items():
            self._write(name, keys, columns, rows)
        return sum(map(len, changes.values()))

    def _change(self, table: Table, before: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
        """The columns of a row that change, and the values that are written."""
        after = {column: self._changed(self._forgotten, table.named[column], value) for column, value in before.items()}
        changed = {column: value for column, value in after.items() if value != before[column]}
        if any(table.named[column] in (Holds.ROW, Holds.KEY) or value == [] for column, value in changed.items()):
            return _DELETED, {}
        if table.function is not None:
            return tuple(changed), {"new_reason": after["reason"]} if "reason" in table.named else {}
        return tuple(changed), {f"new_{column}": value for column, value in changed.items()}

    def _changed(self, people: ForgottenPeople, holds: Holds, value: Any) -> Any:
        """The value as it is without these people."""
        if value is None:
            return None
        match holds:
            case Holds.ID | Holds.ROW:
                return self._pseudonym if value == self._mentor_id else value
            case Holds.IDS:
                return [each for each in value if each != self._mentor_id]
            case Holds.BODY:
                told = orjson.loads(value)
                changed = people.value(self._organization_id, told)
                return value if changed == told else _json(changed)
            case _:
                return people.value(self._organization_id, value)

    def _write(self, name: str, keys: Keys, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes rows of which the same columns change, in one statement."""
        table = TABLES[name]
        types = {f"key_{column}": kind for column, kind in keys} | {
            each: _type(table, each) for each in rows[0] if each.startswith("new_")
        }
        given = (
            f"jsonb_to_recordset(CAST(:rows AS jsonb)) AS n ({', '.join(f'{column} {kind}' for column, kind in types.items())})"
        )
        at = " AND ".join(f"t.{column} = n.key_{column}" for column, _ in keys)
        if columns == _DELETED:
            statement = f"DELETE FROM {name} t USING {given} WHERE {at}"
        elif table.function is not None:
            arguments = [f"n.key_{column}" for column, _ in keys if column != "organization_id"]
            arguments += ["n.new_reason"] if "reason" in table.named else []
            statement = f"SELECT {table.function}(:organization_id, :mentor_id, :pseudonym, {', '.join(arguments)}) FROM {given}"
        else:
            sets = [f"{column} = n.new_{column}" for column in columns] + ([table.also] if table.also else [])
            statement = f"UPDATE {name} t SET {', '.join(sets)} FROM {given} WHERE {at}"
        self._connection.execute(text(statement), {**self.parameters, "rows": _json(rows)})


def _key_values(keys: Keys, values: Sequence[str]) -> dict[str, Any]:
    return {f"key_{column}": value for (column, _), value in zip(keys, values, strict=True)}


def _type(table: Table, new_column: str) -> str:
    match table.named[new_column.removeprefix("new_")]:
        case Holds.JSON:
            return "jsonb"
        case Holds.IDS:
            return "text[]"
        case _:
            return "text"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
