"""Signs checkpoints of the logs that are due, and publishes them on the lifecycle topic."""

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Connection, Engine

from orchestrator.batches.repository import EventOf
from orchestrator.process.failpoints import Failpoint
from orchestrator.receipts.checkpoint import Checkpoint, sign
from orchestrator.receipts.keys import SigningKey
from orchestrator.storage.outbox import insert_events
from orchestrator.storage.receipt_appending import try_turn
from orchestrator.storage.receipt_checkpoints import DueLog, add_key, clock, due_logs, store_checkpoint
from schemas.event_builders import checkpoint_signed
from schemas.ids import receipt_stream

SIGNED_AT_LEAST_EVERY = timedelta(days=1)
"""A log that grows is signed this often even while none of its batches ends."""


class Signer:
    """Signs with one key."""

    def __init__(self, engine: Engine, key: SigningKey, *, passed: Callable[[Failpoint], None]) -> None:
        self._engine = engine
        self._key = key
        self._passed = passed

    def announce_key(self) -> None:
        """Makes the public key known, so that it stays listed after the key is replaced. Raises DBAPIError."""
        with self._engine.begin() as connection:
            add_key(connection, str(self._key.verifier))

    def sign_due(self) -> int:
        """Signs the logs that are due, in one transaction with their events. Returns how many. Raises DBAPIError."""
        with self._engine.begin() as connection:
            due = due_logs(connection, older_than=SIGNED_AT_LEAST_EVERY)
            if not due or not try_turn(connection):
                return 0
            # Read again: another notary may have signed since.
            due = due_logs(connection, older_than=SIGNED_AT_LEAST_EVERY)
            insert_events(connection, [self._sign(connection, each) for each in due])
            self._passed(Failpoint.NOTARY_BEFORE_SIGNED_COMMIT)
        return len(due)

    def _sign(self, connection: Connection, due: DueLog) -> EventOf:
        at = clock(connection)
        note = sign(Checkpoint(due.origin, due.size, due.root), self._key)
        store_checkpoint(connection, due, note, at)
        stream = receipt_stream(due.organization_id)
        event = checkpoint_signed(
            organization_id=due.organization_id,
            log=due.log,
            origin=due.origin,
            size=due.size,
            root=due.root,
            checkpoint=note,
            time=at,
            trace_id=stream.hex,
        )
        return EventOf(due.organization_id, stream, event)
