"""Notifies the followers of batches of changes, and reads the batches' present versions for them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.statements import read_statements

CHANNEL = "bulkreg_batches"

_SQL = read_statements("orchestrator/storage/sql/watching.sql")

# Behind the id of a batch that goes on.
_GOES_ON = "+"

_ANNOUNCE = Prepared(f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(CAST(:payloads AS text[])) AS changed (payload)")
_VERSIONS = _SQL["versions"].prepared()


class Announced(NamedTuple):
    """A notification: the batch, and whether it goes on, so that its next change is to be expected in a moment."""

    batch_id: str
    goes_on: bool


def announced(payload: str) -> Announced:
    """What a notification on the channel says."""
    batch_id = payload.removesuffix(_GOES_ON)
    return Announced(batch_id, batch_id != payload)


def announce(connection: Connection, batch_ids: Sequence[UUID], *, going_on: Sequence[UUID] = ()) -> None:
    """Notifies the followers of these batches when the caller's transaction commits. `going_on` are further batches,
    of which some items are done and others will be in a moment.

    NOTIFY makes such commits wait for each other (docs/architecture.md). So use this for changes that happen once in a micro-batch or at a
    person's request, not for submissions.
    """
    payloads = [*map(str, batch_ids), *(f"{batch_id}{_GOES_ON}" for batch_id in going_on)]
    _ANNOUNCE.later(connection, {"payloads": arrays.plain(payloads)})


def versions(connection: Connection, batch_ids: Sequence[str]) -> Mapping[str, int]:
    """The present version of each of these batches that the transaction may see."""
    return {row.batch_id: row.version for row in _VERSIONS.named(connection, {"batch_ids": arrays.plain(batch_ids)})}
