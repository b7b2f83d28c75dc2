"""The one order in which a transaction takes locks, so that no two wait for each other in a circle (docs/decisions/0029-one-lock-order.md).

1. the advisory locks of its batches, shared or alone, all at once, sorted by key
2. the rows of batches, sorted by batch id
3. rows of items and dispatches, by batch id and position; nobody needs an order here who holds the rows of their batches
4. activities, sorted by the unique key that rivals meet in; outcomes, by batch id, position and attempt
5. Idempotency-Keys, sorted; one transaction that holds a batch uses one key at most

A step may be left out, but none is gone back to. The advisory locks are taken here and nowhere else. They queue fairly: a cancel does not
starve behind overlapping micro-batches (decision 8). A batch that has no row yet is locked by its key too.
"""

from collections.abc import Iterable
from functools import lru_cache
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements
from schemas.ids import batch_lock_key

_SQL = read_statements("orchestrator/storage/sql/locks.sql")

_SHARE = _SQL["share"].prepared()
_ALONE = _SQL["alone"].prepared()


def share_batches(connection: Connection, batch_ids: Iterable[UUID | str]) -> None:
    """Shares these batches until the commit: what is decided under it is decided before or after a cancel, not during."""
    _SHARE.rows(connection, {"keys": _sorted_keys(batch_ids)})


def take_batches(connection: Connection, batch_ids: Iterable[UUID | str]) -> None:
    """Takes these batches alone until the commit: nobody else decides, cancels, retries, deletes, takes in or promotes one."""
    _ALONE.rows(connection, {"keys": _sorted_keys(batch_ids)})


def _sorted_keys(batch_ids: Iterable[UUID | str]) -> str:
    return arrays.plain(sorted({_key(str(batch_id)) for batch_id in set(batch_ids)}))


# The items of a batch come in several sets, and each takes its lock.
@lru_cache(maxsize=4_096)
def _key(batch_id: str) -> int:
    return batch_lock_key(UUID(batch_id))
