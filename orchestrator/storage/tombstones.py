"""Statements on `tombstone`: what is left of purged batches."""

from collections.abc import Iterable

from sqlalchemy import Connection, text

from orchestrator.batches.repository import Tombstone
from orchestrator.storage import arrays

_PURGED = text("SELECT batch_id::text FROM orchestrator.tombstone WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))")

_TOMBSTONES = text("""
    SELECT batch_id::text, organization_id, content_hash FROM orchestrator.tombstone
    WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))
""")


def tombstones_among(connection: Connection, batch_ids: Iterable[str]) -> dict[str, Tombstone]:
    """What is left of those of these batches that were purged, by batch id."""
    rows = connection.execute(_TOMBSTONES, {"batch_ids": arrays.plain(batch_ids)})
    return {row.batch_id: Tombstone(row.organization_id, bytes(row.content_hash)) for row in rows}


def purged_among(connection: Connection, batch_ids: Iterable[str]) -> set[str]:
    """Which of these batches were purged: late and replayed events about them have no effect."""
    return set(connection.execute(_PURGED, {"batch_ids": arrays.plain(batch_ids)}).scalars())
