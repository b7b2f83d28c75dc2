"""Notifies the followers of batches of changes, and reads the batches' present versions for them."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.statements import read_statements

CHANNEL = "bulkreg_batches"

_SQL = read_statements("orchestrator/storage/sql/watching.sql")

_ANNOUNCE = Prepared(f"SELECT pg_notify('{CHANNEL}', batch_id) FROM unnest(CAST(:batch_ids AS text[])) AS changed (batch_id)")
_VERSIONS = _SQL["versions"].prepared()


def announce(connection: Connection, batch_ids: Sequence[UUID]) -> None:
    """Notifies the followers of these batches when the caller's transaction commits.

    NOTIFY makes such commits wait for each other (docs/architecture.md). So use this for changes that happen once in a micro-batch or at a
    person's request, not for submissions.
    """
    _ANNOUNCE.later(connection, {"batch_ids": arrays.plain(batch_ids)})


def versions(connection: Connection, batch_ids: Sequence[str]) -> Mapping[str, int]:
    """The present version of each of these batches that the transaction may see."""
    return {row.batch_id: row.version for row in _VERSIONS.named(connection, {"batch_ids": arrays.plain(batch_ids)})}
