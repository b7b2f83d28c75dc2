"""Appends the audit to the logs of receipts, a chunk in each transaction."""

import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine

from orchestrator.process.actions import Action, log_action
from orchestrator.process.failpoints import Failpoint
from orchestrator.storage.receipt_appending import Appended, append_rows, audit_writers, position, try_turn

MAX_ROWS = 2_000
"""The size of one transaction: about 0.2 s."""
# A transaction that writes audit rows takes some tens of milliseconds.
_LOOK_S = 0.02
# Longer ones are waited for in the next turn.
_WAIT_S = 2.0


class Appender:
    """Any number may run. While one appends, the others find the turn taken and append nothing."""

    def __init__(self, engine: Engine, *, name: str, stopping: threading.Event, passed: Callable[[Failpoint], None]) -> None:
        """`name` is what the origins of new logs begin with."""
        self._engine = engine
        self._name = name
        self._stopping = stopping
        self._passed = passed

    def append(self) -> int:
        """Appends what there is, in transactions of their own, and returns how many leaves. Raises DBAPIError."""
        total = 0
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                appended = self._chunk(connection)
                self._passed(Failpoint.NOTARY_BEFORE_COMMIT)
            if appended.leaves:
                self._passed(Failpoint.NOTARY_AFTER_COMMIT)
            for row in appended.lost:
                log_action(
                    Action.AUDIT_ROW_LEFT_OUT,
                    role="notary",
                    organization=row.organization_id,
                    audit_row=row.audit_id,
                    activity=row.activity_id,
                )
            total += appended.leaves
            if appended.leaves < MAX_ROWS:
                break
        return total

    def _chunk(self, connection: Connection) -> Appended:
        at = position(connection)
        if at.newest <= at.appended_through or not try_turn(connection):
            return Appended(0)
        # Another notary may have appended since.
        at = position(connection)
        if at.newest <= at.appended_through or not self._are_final(connection):
            return Appended(0)
        return append_rows(connection, at, at.newest, name=self._name, max_rows=MAX_ROWS)

    def _are_final(self, connection: Connection) -> bool:
        """Waits until each transaction that may have drawn an id below those that are visible has ended. Returns False if one takes long.

        A transaction locks the audit table before it draws an id. So those that may commit a lower id are among the ones that hold the lock now.
        """
        before = audit_writers(connection)
        deadline = time.monotonic() + _WAIT_S
        while before:
            if time.monotonic() > deadline or self._stopping.wait(_LOOK_S):
                return False
            before &= audit_writers(connection)
        return True
