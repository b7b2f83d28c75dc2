"""Statements of the purge: what is deleted for long and what has expired is removed for good, a bounded number of rows at a time.

The tombstone comes first, in the first transaction that touches a batch: from then on it is purged, whatever rows of it are left. Its own
row goes last, and so is found again by whoever goes on after a crash. In between an item and its outcomes go together: an item that
had lost its outcome would be registered anew by a redelivered command. Activities and audit are funding records and stay.
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


class Chunk(NamedTuple):
    """What one transaction removed; `batches` are those of which nothing but the tombstone is left."""

    batches: int
    items: int


class Deleted(NamedTuple):
    """A batch that is due to be removed."""

    batch_id: str


def deleted_batches(connection: Connection, *, after: timedelta, aside: Sequence[str], max_batches: int) -> list[Deleted]:
    """Locks batches that were deleted longer ago than `after`, but for those `aside`."""
    rows = connection.execute(_DUE, {"after": after, "aside": list(aside), "max_batches": max_batches})
    return [Deleted(batch_id) for batch_id in rows.scalars()]


def purge_batches(connection: Connection, due: Sequence[str], *, max_items: int) -> Chunk:
    """Removes up to so many items of deleted batches, and every one of those that has none left."""
    locked = connection.execute(_LOCK, {"batch_ids": arrays.plain(due)}).scalars()
    batches = {"batch_ids": arrays.plain(list(locked))}
    connection.execute(_BURY, batches)
    items = int(connection.execute(_REMOVE_ITEMS, {**batches, "max_items": max_items}).scalar_one())
    return Chunk(int(connection.execute(_REMOVE_EMPTY, batches).scalar_one()), items)


def expire_keys(connection: Connection, *, after: timedelta, max_keys: int) -> int:
    """Removes up to so many Idempotency-Keys that were first used longer ago than `after`; answers how many."""
    return connection.execute(_REMOVE_KEYS, {"after": after, "max_keys": max_keys}).rowcount
