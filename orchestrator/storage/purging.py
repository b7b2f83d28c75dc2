"""Statements of the purge: remove batches that were deleted long ago, and expired keys, a bounded number of rows at a time.

The first transaction that touches a batch inserts its tombstone. From then on the batch counts as purged, whatever rows of it are left. The
batch's own row is removed last, so that the next purge finds it again after a crash. An item and its outcomes are removed together, because a
redelivered command would register an item again that has lost its outcome. Activities and audit rows are funding records and remain.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/purging.sql")

_DUE = _SQL["due"].text()
_LOCK = _SQL["lock"].text()
_BURY = _SQL["bury"].text()
_REMOVE_ITEMS = _SQL["remove_items"].text()
_REMOVE_EMPTY = _SQL["remove_empty"].text()
_REMOVE_KEYS = _SQL["remove_keys"].text()


class PurgedRows(NamedTuple):
    """How many rows one transaction removed. `batches` counts those of which only the tombstone is left."""

    batches: int
    items: int


class Deleted(NamedTuple):
    """A batch that is due to be removed."""

    batch_id: str


def deleted_batches(connection: Connection, *, after: timedelta, aside: Sequence[str], max_batches: int) -> list[Deleted]:
    """Locks batches that were deleted longer ago than `after`, except for those in `aside`."""
    rows = connection.execute(_DUE, {"after": after, "aside": list(aside), "max_batches": max_batches})
    return [Deleted(batch_id) for batch_id in rows.scalars()]


def purge_batches(connection: Connection, due: Sequence[str], *, max_items: int) -> PurgedRows:
    """Removes at most `max_items` items of these deleted batches, and each of the batches that has no items left."""
    locked = connection.execute(_LOCK, {"batch_ids": arrays.plain(due)}).scalars()
    batches = {"batch_ids": arrays.plain(list(locked))}
    connection.execute(_BURY, batches)
    items = int(connection.execute(_REMOVE_ITEMS, {**batches, "max_items": max_items}).scalar_one())
    return PurgedRows(int(connection.execute(_REMOVE_EMPTY, batches).scalar_one()), items)


def expire_keys(connection: Connection, *, after: timedelta, max_keys: int) -> int:
    """Removes at most `max_keys` Idempotency-Keys that were first used longer ago than `after`. Returns how many."""
    return connection.execute(_REMOVE_KEYS, {"after": after, "max_keys": max_keys}).rowcount
