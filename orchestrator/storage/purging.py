"""Statements of the purge: what is deleted for long and what has expired is removed for good, a bounded number of rows at a time.

The tombstone comes first, in the first transaction that touches a batch: from then on it is purged, whatever rows of it are left. Its own
row goes last, and so is found again by whoever goes on after a crash. In between an item and its outcomes go together: an item that
had lost its outcome would be registered anew by a redelivered command. Activities and audit are funding records and stay.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from orchestrator.storage import arrays

# Locks the rows of batches that nobody sees any more. It waits for nobody and has no order to keep: what a promotion or a fold of a late
# result holds right now is left for the next time. Those two may have to wait for it, for one chunk; they come to the rows of the items
# through this one, and so does it (docs/decisions/0029-one-lock-order.md).
_DUE = text("""
    SELECT batch_id::text FROM orchestrator.batch
    WHERE deleted_at < clock_timestamp() - :after AND NOT batch_id = ANY (CAST(:aside AS uuid[]))
    ORDER BY deleted_at LIMIT :max_batches FOR UPDATE SKIP LOCKED
""")

# What was found by an earlier transaction is locked anew, in the same way.
_LOCK = text("""
    SELECT batch_id::text FROM orchestrator.batch
    WHERE batch_id = ANY (CAST(:batch_ids AS uuid[])) AND deleted_at IS NOT NULL FOR UPDATE SKIP LOCKED
""")

_BURY = text("""
    INSERT INTO orchestrator.tombstone (batch_id, organization_id, content_hash, purged_at)
    SELECT batch_id, organization_id, content_hash, clock_timestamp() FROM orchestrator.batch
    WHERE batch_id = ANY (CAST(:batch_ids AS uuid[]))
    ON CONFLICT DO NOTHING
""")

_REMOVE_ITEMS = text("""
    WITH chosen AS (
        SELECT batch_id, position FROM orchestrator.batch_item
        WHERE batch_id = ANY (CAST(:batch_ids AS uuid[])) ORDER BY batch_id, position LIMIT :max_items
    ), items AS (
        DELETE FROM orchestrator.batch_item i USING chosen c WHERE (i.batch_id, i.position) = (c.batch_id, c.position)
    ), outcomes AS (
        DELETE FROM orchestrator.outcome o USING chosen c WHERE (o.batch_id, o.position) = (c.batch_id, c.position)
    ), history AS (
        DELETE FROM orchestrator.item_history h USING chosen c WHERE (h.batch_id, h.position) = (c.batch_id, c.position)
    ), dispatched AS (
        DELETE FROM orchestrator.dispatch d USING chosen c WHERE (d.batch_id, d.position) = (c.batch_id, c.position)
    )
    SELECT count(*) FROM chosen
""")

# A statement of its own, which sees what the one above has removed.
_REMOVE_EMPTY = text("""
    WITH batches AS (
        DELETE FROM orchestrator.batch b
        WHERE b.batch_id = ANY (CAST(:batch_ids AS uuid[]))
          AND NOT EXISTS (SELECT FROM orchestrator.batch_item i WHERE i.batch_id = b.batch_id)
        RETURNING b.batch_id
    ), parts AS (
        DELETE FROM orchestrator.batch_part p USING batches b WHERE p.batch_id = b.batch_id
    ), edits AS (
        DELETE FROM orchestrator.batch_edit e USING batches b WHERE e.batch_id = b.batch_id
    )
    SELECT count(*) FROM batches
""")

# A request that uses an expired key right now holds its row, or waits for the end of this one and takes the key for itself.
_REMOVE_KEYS = text("""
    DELETE FROM orchestrator.idempotency_key k
    USING (SELECT organization_id, subject, key FROM orchestrator.idempotency_key
           WHERE created_at < clock_timestamp() - :after ORDER BY created_at LIMIT :max_keys FOR UPDATE SKIP LOCKED) AS old
    WHERE (k.organization_id, k.subject, k.key) = (old.organization_id, old.subject, old.key)
""")


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
