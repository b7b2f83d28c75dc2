"""Writes a revocation to a batch and its items."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.batches.model import Revocation
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/revoking.sql")

_MARK_ITEMS = _SQL["mark_items"].text()
_MARK_BATCH = _SQL["mark_batch"].text()
_MARK_REQUESTS = _SQL["mark_requests"].text()


def mark_revoked(connection: Connection, batch_id: UUID, positions: Sequence[int], revocation: Revocation) -> None:
    """Writes the revocation to the items at these positions, which must not have one yet, and to the batch's row."""
    values = {"batch_id": batch_id, "at": revocation.at, "by": revocation.by, "reason": revocation.reason}
    marked = connection.execute(_MARK_ITEMS, {**values, "positions": arrays.plain(positions)}).rowcount
    connection.execute(_MARK_BATCH, {**values, "revoked": marked})


def mark_requests(connection: Connection, batch_id: UUID, requests: Mapping[int, str], revocation: Revocation) -> None:
    """Writes what became of requests to an external service to the items at these positions, and an edit to the batch's row."""
    asked = {"positions": arrays.plain(requests), "requests": arrays.texts(list(requests.values()))}
    connection.execute(_MARK_REQUESTS, {"batch_id": batch_id, **asked})
    values = {"batch_id": batch_id, "at": revocation.at, "by": revocation.by, "reason": revocation.reason}
    connection.execute(_MARK_BATCH, {**values, "revoked": 0})
