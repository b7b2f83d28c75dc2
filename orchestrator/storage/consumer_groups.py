"""Statements on the table `consumer_group`: the generation of each role's consumer group (docs/decisions/0043-renewed-groups.md)."""

from sqlalchemy import Connection

from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/consumer_groups.sql")

_GENERATION = _SQL["generation"].text()
_NOTE_GENERATION = _SQL["note_generation"].text()

FIRST_GENERATION = 1
"""The generation of a group that was never renewed."""


def read_generation(connection: Connection, role: str) -> int:
    """Returns the generation of the role's group."""
    generation: int | None = connection.scalar(_GENERATION, {"role": role})
    return FIRST_GENERATION if generation is None else generation


def note_generation(connection: Connection, role: str, generation: int) -> None:
    """Stores the generation of the role's group, unless a later one is stored."""
    connection.execute(_NOTE_GENERATION, {"role": role, "generation": generation})
