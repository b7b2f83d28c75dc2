"""Notaries for tests, and what is in their logs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, text

from consumers.notary.appending import Appender
from consumers.notary.notary import Notary
from consumers.notary.signing import Signer
from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import SignedCheckpoint
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.merkle import leaf_hash, node_hash
from orchestrator.storage.receipt_appending import _TURN_LOCK, split_hashes, unpacked_leaves

ORIGIN = "bulkreg.test"
KEY = SigningKey(ORIGIN, b"\x07" * 32)

NO_VALUES = "activity_type = NULL, activity_date = NULL, duration_minutes = NULL, item_id = NULL, attempt = NULL"
"""What an audit row has that was written by a version before its values were stored."""

_APPEND_ONLY = {"receipt_run": "runs", "receipt_batch": "batches", "receipt_node": "nodes", "receipt_checkpoint": "checkpoints"}


def signing(settings: Settings, **changes: Any) -> Settings:
    """Settings of the same deployment, for a notary that signs."""
    return Settings(
        **{
            **settings.model_dump(include=settings.model_fields_set),
            "receipts_origin": ORIGIN,
            "receipts_signing_key": KEY.secret_text(),
            **changes,
        }
    )


def notary(settings: Settings, engine: Engine, **named: Any) -> Notary:
    """A notary that signs, to be run turn by turn."""
    return Notary(signing(settings), engine, **named)


@contextmanager
def in_thread(notary: Notary) -> Iterator[Notary]:
    """Runs the notary until the block ends."""
    thread = threading.Thread(target=notary.run)
    thread.start()
    try:
        yield notary
    finally:
        notary.stop()
        thread.join()


def append(engine: Engine) -> None:
    """Does what a notary does that can't sign."""
    Appender(engine, name=ORIGIN, stopping=threading.Event(), passed=lambda _: None).append()


def append_and_sign(engine: Engine) -> None:
    """Does what a notary does, without the topic."""
    append(engine)
    announce_key(engine)
    Signer(engine, KEY, passed=lambda _: None).sign_due()


def announce_key(engine: Engine) -> None:
    """Does what a notary does when it starts."""
    Signer(engine, KEY, passed=lambda _: None).announce_key()


def turn_is(engine: Engine, *, granted: bool) -> bool:
    """Whether a transaction has the turn at the logs, or waits for it. Only looks at the lock: who found it taken would perhaps not wait, but
    return."""
    found = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = CAST(:space AS oid) AND objid = CAST(:which AS oid)"
        " AND granted = :granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    with engine.begin() as connection:
        return bool(connection.execute(found, {**_TURN_LOCK, "granted": granted}).scalar_one())


def leaves(engine: Engine, *, log: int = 1) -> list[dict[str, Any]]:
    """All leaves of an organization's log, in order. Checks that their hashes are theirs."""
    found: list[dict[str, Any]] = []
    with engine.begin() as connection:
        for row in connection.execute(
            text("SELECT * FROM orchestrator.receipt_run WHERE log = :log ORDER BY first_index"), {"log": log}
        ):
            raw = unpacked_leaves(row.leaves)
            assert row.first_index == len(found)
            assert [leaf_hash(each) for each in raw] == split_hashes(row.hashes)
            assert len(raw) == len(row.audit_ids)
            found += [orjson.loads(each) for each in raw]
    return found


def plain_root(hashes: list[bytes]) -> bytes:
    """The root of leaf hashes as RFC 9162 defines it."""
    if len(hashes) == 1:
        return hashes[0]
    middle = 1 << ((len(hashes) - 1).bit_length() - 1)
    return node_hash(plain_root(hashes[:middle]), plain_root(hashes[middle:]))


def all_hashes(engine: Engine, *, log: int = 1) -> list[bytes]:
    """The hashes of all leaves."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT hashes FROM orchestrator.receipt_run WHERE log = :log ORDER BY first_index"), {"log": log}
        )
        return [each for row in rows for each in split_hashes(row.hashes)]


def checkpoints(engine: Engine) -> list[SignedCheckpoint]:
    """The checkpoints, in their order. Checks their signatures."""
    with engine.begin() as connection:
        notes = connection.execute(text("SELECT note FROM orchestrator.receipt_checkpoint ORDER BY log, size")).scalars().all()
    signed = [SignedCheckpoint.parse(note) for note in notes]
    for each in signed:
        assert each.signers([KEY.verifier]) == (KEY.verifier,)
    return signed


@contextmanager
def as_owner(settings: Settings) -> Iterator[Connection]:
    """A transaction of the owner in which the triggers of append-only tables don't fire."""
    engine = create_engine(settings.owner_url)
    with engine.begin() as connection:
        switch = [("orchestrator." + table, f"receipt_{name}_are_append_only") for table, name in _APPEND_ONLY.items()]
        switch.append(("registration.audit", "audit_is_append_only"))
        for table, trigger in switch:
            connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}"))
        yield connection
        for table, trigger in switch:
            connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}"))
    engine.dispose()


def restored(settings: Settings, when: Callable[[], None]) -> None:
    """Takes the tables of the logs back to how they are now, after `when`: as a database that is restored from a copy."""
    tables = (
        "receipt_log",
        "receipt_run",
        "receipt_batch",
        "receipt_node",
        "receipt_checkpoint",
        "receipt_published",
        "receipt_cursor",
        "receipt_reading",
    )
    with as_owner(settings) as connection:
        for table in tables:
            connection.execute(text(f"CREATE TABLE public.copy_of_{table} AS SELECT * FROM orchestrator.{table}"))
    when()
    with as_owner(settings) as connection:
        for table in tables:
            connection.execute(text(f"DELETE FROM orchestrator.{table}"))
            connection.execute(text(f"INSERT INTO orchestrator.{table} SELECT * FROM public.copy_of_{table}"))
            connection.execute(text(f"DROP TABLE public.copy_of_{table}"))
