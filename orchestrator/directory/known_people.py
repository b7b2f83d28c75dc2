"""Whether an id is a person's: the places in which forgetting would replace it (docs/decisions/0045-forgetting.md)."""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from orchestrator.directory.person_columns import TABLES, Holds, Table

_FIRST = ("registration.mentor", "registration.coordinator", "orchestrator.receipt_salt", "registration.activity")
"""Tables that have an index which begins with the organization and the person, or are small."""

_IN_JSON = {
    "orchestrator.item_history": ":person_id IN (t.submitted ->> 'mentor_id', t.correction ->> 'mentor_id')",
    "orchestrator.batch_part": "t.items @> jsonb_build_array(jsonb_build_object('mentor_id', CAST(:person_id AS text)))",
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


def _statement() -> str:
    """One place after the other, up to the first that has the id."""
    places = [
        f"EXISTS (SELECT FROM {name} t WHERE t.organization_id = :organization_id AND {condition})"
        for name in [*_FIRST, *(each for each in TABLES if each not in _FIRST)]
        for condition in _conditions(name, TABLES[name])
    ]
    return "SELECT " + "\n    OR ".join(places)


_IS_KNOWN = text(_statement())


def is_known(connection: Connection, organization_id: str, person_id: str) -> bool:
    """Whether a row of the organization names this person by the id.

    An id that nobody has is searched for in whole tables, which takes seconds if there are millions of rows. Texts do not count.
    """
    return bool(connection.execute(_IS_KNOWN, {"organization_id": organization_id, "person_id": person_id}).scalar_one())
