"""Which batches the database knows: those with a row, and those that were purged."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/known_batches.sql")

_UNKNOWN = _SQL["unknown"].text()


def unknown_among(connection: Connection, batch_ids: Iterable[UUID]) -> set[UUID]:
    """Returns the given batches that the database does not know."""
    return set(map(UUID, connection.scalars(_UNKNOWN, {"batch_ids": arrays.plain(map(str, batch_ids))})))
