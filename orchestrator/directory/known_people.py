"""Whether an id is a person's: the places in which forgetting would replace it (docs/decisions/0045-forgetting.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, text

from orchestrator.directory.person_columns import TABLES, Holds, Table
from orchestrator.directory.person_pages import Page, following

AT_ONCE_BYTES = 256 * 1024 * 1024
"""How large the tables may be together for a request to search them: that takes 0.25 s of CPU. The sweeper searches larger ones."""

_INDEXED: Mapping[str, tuple[str, ...]] = {
    "registration.mentor": ("mentor_id",),
    "registration.coordinator": ("coordinator_id",),
    "registration.coordinator_scope": ("coordinator_id",),
    "orchestrator.receipt_salt": ("person_id",),
    "orchestrator.idempotency_key": ("subject",),
    "registration.activity": ("attributed_to", "registered_by"),
}
"""The columns of ids by which, after the organization, an index begins."""

_IN_JSON = {
    "orchestrator.item_history": ":person_id IN (t.submitted ->> 'mentor_id', t.correction ->> 'mentor_id')",
    # The columns of an item are those of `CollectedParts.add`.
    "orchestrator.batch_part": "EXISTS (SELECT FROM jsonb_array_elements(t.items) e WHERE e ->> 1 = :person_id)",
}


def _conditions(name: str, table: Table) -> Iterator[str]:
    for column, holds in table.columns.items():
        match holds:
            case Holds.ID | Holds.ROW | Holds.SALT:
                # The product itself is named in both: forgetting, retention, operator.
                unless_product = f" AND t.{column} IS DISTINCT FROM t.channel" if "channel" in table.columns else ""
                yield f"t.{column} = :person_id{unless_product}"
            case Holds.IDS:
                yield f":person_id = ANY (t.{column})"
            case _:
                pass
    if name in _IN_JSON:
        yield _IN_JSON[name]


_WHERE = {name: " OR ".join(found) for name, table in TABLES.items() if (found := list(_conditions(name, table)))}
"""The condition that a row of a table names the person by the id. A table is read once for all its columns."""

_SOUGHT = list(_WHERE)
FIRST_SOUGHT: Mapping[str, Any] = {"table": _SOUGHT[0], "after": None, "is_sought": True}
"""The place of a request whose id has to be searched for, before its work begins."""


def _exists(name: str, condition: str) -> str:
    return f"EXISTS (SELECT FROM {name} t WHERE t.organization_id = :organization_id AND ({condition}))"


_BY_INDEX = text(
    "SELECT " + " OR ".join(_exists(name, f"t.{column} = :person_id") for name, columns in _INDEXED.items() for column in columns)
)
_SIZE = text("SELECT sum(pg_table_size(name)) FROM unnest(CAST(:names AS regclass[])) AS n (name)")
_ANYWHERE = text("SELECT " + " OR ".join(_exists(name, condition) for name, condition in _WHERE.items()))


def is_known(connection: Connection, organization_id: str, person_id: str) -> bool | None:
    """Whether a row of the organization names this person by the id; None if the tables are too large to search them now. Texts do not
    count."""
    if is_indexed(connection, organization_id, person_id):
        return True
    person = {"organization_id": organization_id, "person_id": person_id}
    if connection.execute(_SIZE, {"names": _SOUGHT}).scalar_one() > AT_ONCE_BYTES:
        return None
    return bool(connection.execute(_ANYWHERE, person).scalar_one())


def is_indexed(connection: Connection, organization_id: str, person_id: str) -> bool:
    """Whether an index finds this person: in the directory, for example."""
    return bool(connection.execute(_BY_INDEX, {"organization_id": organization_id, "person_id": person_id}).scalar_one())


def is_sought(place: Mapping[str, Any] | None) -> bool:
    """Whether a request is at a place where its id is searched for."""
    return place is not None and place.get("is_sought", False)


def has_person(connection: Connection, page: Page, organization_id: str, person_id: str) -> bool:
    """Whether a row of the page names this person by the id."""
    found = text(f"SELECT {_exists(page.table, f'{page.condition} AND ({_WHERE[page.table]})')}")
    return bool(
        connection.execute(found, {**page.parameters, "organization_id": organization_id, "person_id": person_id}).scalar_one()
    )


def sought_after(page: Page) -> Mapping[str, Any] | None:
    """The place after this page; None if it was the last."""
    table = page.table if page.end is not None else following(page.table, _SOUGHT)
    return None if table is None else {"table": table, "after": page.end, "is_sought": True}
