"""Statements on `tombstone`, which has a row for each purged batch."""

from collections.abc import Iterable

from sqlalchemy import Connection

from orchestrator.batches.repository import Tombstone
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/tombstones.sql")

_PURGED = _SQL["purged"].text()
_TOMBSTONES = _SQL["tombstones"].text()


def tombstones_among(connection: Connection, batch_ids: Iterable[str]) -> dict[str, Tombstone]:
    """The tombstones of the given batches that were purged, by batch id."""
    rows = connection.execute(_TOMBSTONES, {"batch_ids": arrays.plain(batch_ids)})
    return {row.batch_id: Tombstone(row.organization_id, bytes(row.content_hash)) for row in rows}


def purged_among(connection: Connection, batch_ids: Iterable[str]) -> set[str]:
    """The given batches that were purged. Late and replayed events about them have no effect."""
    return set(connection.execute(_PURGED, {"batch_ids": arrays.plain(batch_ids)}).scalars())
