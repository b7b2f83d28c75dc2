"""Statements by which relays share the slots of the outbox. A slot is an advisory lock of the relay's session, and ends with it.

The locks are a lease. If a relay has sent nothing to the database for the duration of the lease, another relay ends its session, and it loses
its slots. Only the database's clock decides, and nothing is written for it: PostgreSQL knows when a session was last active.

These locks have the form with two numbers, batch locks that with one (schemas.ids.batch_lock_key), so they can't collide. None of these
statements waits.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

from orchestrator.process.actions import Action, log_action
from orchestrator.storage.outbox import SLOTS

# Arbitrary, and next to the migration lock's (0x62756C6B).
_SLOT = 0x62756C6C
_PRESENCE = 0x62756C6D

_ANNOUNCE = text(f"SELECT pg_advisory_lock_shared({_PRESENCE}, 0)")
# Only advisory locks have such a class, and nobody waits for one of these.
_OURS = f"""l.classid IN ({_SLOT}, {_PRESENCE}) AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
# `state_change` is when the session's last statement began or ended. It is NULL for another role's session.
_HELD = text(f"""
    SELECT CAST(l.classid AS bigint) AS kind, CAST(l.objid AS bigint) AS number, l.pid,
           coalesce(a.state_change < clock_timestamp() - :lease, false) AND l.pid <> pg_backend_pid() AS is_silent
    FROM pg_locks l LEFT JOIN LATERAL pg_stat_get_activity(l.pid) a ON true
    WHERE {_OURS}
""")
# Every connected relay, including those without a slot.
_HOLDERS = text(f"""
    SELECT l.pid, host(a.client_addr) AS address, count(*) FILTER (WHERE l.classid = {_SLOT}) AS slots,
           coalesce(extract(epoch FROM clock_timestamp() - a.state_change), 0) AS silent_s
    FROM pg_locks l LEFT JOIN LATERAL pg_stat_get_activity(l.pid) a ON true
    WHERE {_OURS}
    GROUP BY l.pid, a.client_addr, a.state_change ORDER BY l.pid
""")
_END = text("SELECT pg_terminate_backend(pid) FROM unnest(CAST(:pids AS integer[])) AS pid")
_TAKE = text(f"SELECT slot FROM unnest(CAST(:slots AS integer[])) AS slot WHERE pg_try_advisory_lock({_SLOT}, slot)")
_RELEASE = text(f"SELECT pg_advisory_unlock({_SLOT}, slot) FROM unnest(CAST(:slots AS integer[])) AS slot")


class SlotHolder(NamedTuple):
    """A relay as the database sees it: its session's process id and client, its slots, and how long it has been silent."""

    pid: int
    address: str | None
    """None if PostgreSQL does not show it, or if the client is on the database's machine."""
    slots: int
    silent_s: float


def slot_holders(connection: Connection) -> Sequence[SlotHolder]:
    """Every relay that is connected."""
    return [SlotHolder(row.pid, row.address, row.slots, float(row.silent_s)) for row in connection.execute(_HOLDERS)]


def announce(connection: Connection) -> None:
    """Makes this session count as a relay. The lock is shared, and only relays take it."""
    connection.execute(_ANNOUNCE)


def balance(connection: Connection, owned: Collection[int], *, lease: timedelta, busy: Collection[int] = ()) -> frozenset[int]:
    """Takes free slots or gives some back, so that this relay has its share. Returns the slots that it owns now.

    Never gives back a busy slot, because the next owner would publish the events again that are being sent.

    Ends the sessions of relays that have been silent for the lease. After a relay has started or ended, every slot has an owner again when each
    of the others has called this twice.
    """
    held = connection.execute(_HELD, {"lease": lease}).all()
    silent = {row.pid for row in held if row.is_silent}
    if silent:
        log_action(Action.SILENT_RELAYS_ENDED, role="relay", sessions=sorted(silent))
        connection.execute(_END, {"pids": sorted(silent)})
    held = [row for row in held if row.pid not in silent]
    relays = sum(row.kind == _PRESENCE for row in held)
    share = -(-SLOTS // max(1, relays))
    if len(owned) > share:
        given_back = sorted(set(owned) - set(busy))[share - len(owned) :]
        if given_back:
            connection.execute(_RELEASE, {"slots": given_back})
        return frozenset(owned) - frozenset(given_back)
    free = sorted(set(range(SLOTS)) - {row.number for row in held if row.kind == _SLOT})
    return frozenset(owned) | _take(connection, free[: share - len(owned)])


def _take(connection: Connection, slots: Sequence[int]) -> frozenset[int]:
    if not slots:
        return frozenset()
    return frozenset(connection.scalars(_TAKE, {"slots": list(slots)}))
