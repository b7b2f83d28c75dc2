"""The one order in which a transaction takes locks, so that transactions can't deadlock (docs/decisions/0029-one-lock-order.md).

1. the advisory locks of its batches, shared or exclusive, all at once, sorted by key
2. the rows of batches, sorted by batch id; the advisory locks of periods, shared or exclusive, all at once, sorted by key
3. rows of items and dispatches, by batch id and position; a transaction that holds the rows of their batches needs no order here
4. activities, sorted by the unique key on which rivals conflict; outcomes, by batch id, position and attempt
5. Idempotency-Keys, sorted; a transaction that holds a batch uses at most one key

A transaction that closes or reopens a period takes no batch, so it does not matter whether others take its lock before or after the rows of
batches (docs/decisions/0040-closed-periods.md).

A transaction may skip a step, but never returns to an earlier one. The exception: one that holds its only batch alone may write that
batch's items and its key at any time, because nobody else can hold them or wait for them. Only this module takes the advisory locks. They
queue fairly: a cancel does not starve behind overlapping micro-batches (decision 8). A batch without a row is locked by its key, too.
"""

from collections.abc import Iterable
from functools import lru_cache
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements
from schemas.ids import batch_lock_key, period_lock_key

_SQL = read_statements("orchestrator/storage/sql/locks.sql")

_SHARE = _SQL["share"].prepared()
_ALONE = _SQL["alone"].prepared()


def share_batches(connection: Connection, batch_ids: Iterable[UUID | str]) -> None:
    """Takes the shared locks of these batches until the commit. Decisions under them come before or after a cancel, not during one."""
    _SHARE.later(connection, {"keys": arrays.plain(_sorted_keys(batch_ids))})


def share_batches_and_periods(connection: Connection, batch_ids: Iterable[UUID | str], organization_ids: Iterable[str]) -> None:
    """As `share_batches`, and then as `share_periods`, in one statement."""
    _SHARE.later(connection, {"keys": arrays.plain([*_sorted_keys(batch_ids), *_sorted_periods(organization_ids)])})


def share_periods(connection: Connection, organization_ids: Iterable[str]) -> None:
    """Takes the shared locks of these organizations' periods until the commit. Later statements see what is closed, and it stays so."""
    _SHARE.later(connection, {"keys": arrays.plain(_sorted_periods(organization_ids))})


def take_periods(connection: Connection, organization_ids: Iterable[str]) -> None:
    """Takes the exclusive locks of these organizations' periods until the commit. Meanwhile nothing is registered or revoked there; everything
    that was is committed."""
    _ALONE.rows(connection, {"keys": arrays.plain(_sorted_periods(organization_ids))})


def take_batches(connection: Connection, batch_ids: Iterable[UUID | str]) -> None:
    """Takes the exclusive locks of these batches until the commit. Meanwhile no other transaction decides about, cancels, retries, deletes,
    takes in or promotes one of them."""
    _ALONE.rows(connection, {"keys": arrays.plain(_sorted_keys(batch_ids))})


def _sorted_keys(batch_ids: Iterable[UUID | str]) -> list[int]:
    return sorted({_key(str(batch_id)) for batch_id in set(batch_ids)})


def _sorted_periods(organization_ids: Iterable[str]) -> list[int]:
    return sorted({_period_key(organization_id) for organization_id in set(organization_ids)})


# Cached, because the items of a batch come in several sets, and each set takes the batch's lock.
@lru_cache(maxsize=4_096)
def _key(batch_id: str) -> int:
    return batch_lock_key(UUID(batch_id))


@lru_cache(maxsize=4_096)
def _period_key(organization_id: str) -> int:
    return period_lock_key(organization_id)
