"""Statements by which relays share the slots of the outbox: advisory locks of the session, which end with it.

The two-number form; batch locks are of the one-number form (schemas.ids.batch_lock_key), so neither can be taken for the other. None
of these statements waits.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, text

from orchestrator.storage.outbox import SLOTS

# Arbitrary, and next to the migration lock's (0x62756C6B).
_SLOT = 0x62756C6C
_PRESENCE = 0x62756C6D

_ANNOUNCE = text(f"SELECT pg_advisory_lock_shared({_PRESENCE}, 0)")
_HELD = text(f"""
    SELECT CAST(classid AS bigint) AS kind, CAST(objid AS bigint) AS number FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid IN ({_SLOT}, {_PRESENCE})
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")
_TAKE = text(f"SELECT slot FROM unnest(CAST(:slots AS integer[])) AS slot WHERE pg_try_advisory_lock({_SLOT}, slot)")
_RELEASE = text(f"SELECT pg_advisory_unlock({_SLOT}, slot) FROM unnest(CAST(:slots AS integer[])) AS slot")


def announce(connection: Connection) -> None:
    """Makes this session count as a relay. The lock is shared and nobody takes it otherwise."""
    connection.execute(_ANNOUNCE)


def balance(connection: Connection, owned: Collection[int]) -> frozenset[int]:
    """Takes free slots or gives some back, so that this relay has its share, and answers what it owns now.

    After a relay has come or gone, every slot has an owner again when each of the others has done this twice.
    """
    held = connection.execute(_HELD).all()
    relays = sum(kind == _PRESENCE for kind, _ in held)
    share = -(-SLOTS // max(1, relays))
    if len(owned) > share:
        kept = sorted(owned)[:share]
        connection.execute(_RELEASE, {"slots": sorted(set(owned) - set(kept))})
        return frozenset(kept)
    free = sorted(set(range(SLOTS)) - {number for kind, number in held if kind == _SLOT})
    return frozenset(owned) | _take(connection, free[: share - len(owned)])


def _take(connection: Connection, slots: Sequence[int]) -> frozenset[int]:
    if not slots:
        return frozenset()
    return frozenset(connection.scalars(_TAKE, {"slots": list(slots)}))
