"""Statements that merge one rebuilt batch (`replay/shadow_tables.py`) into the live tables, under the batch's lock."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from orchestrator.batches.states import BatchStatus, Counts
from orchestrator.storage import watching
from orchestrator.storage.locks import take_batches
from orchestrator.storage.people import wait_for_imports
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/replay/sql/batch_merge.sql")

_LOCK_ROW = _SQL["lock_row"].text()
_REBUILT = _SQL["rebuilt"].text()
_PEOPLE = _SQL["people"].text()
_EVIDENCE = _SQL["evidence"].text()
_EDITS = _SQL["edits"].text()
_COMPLETED_AT = _SQL["completed_at"].text()
_INSERT_BATCH = _SQL["insert_batch"].text()
_INSERT_PARTS = _SQL["insert_parts"].text()
_MERGE_ITEMS = _SQL["merge_items"].text()
_UNDECIDED = _SQL["undecided"].text()
_FOLD = _SQL["fold"].text()
_MERGE_REVOCATIONS = _SQL["merge_revocations"].text()
_MERGE_HISTORY = _SQL["merge_history"].text()
_COUNTS = _SQL["counts"].text()
_MERGE_BATCH = _SQL["merge_batch"].text()
_REMEMBER = _SQL["remember"].text()


@dataclass(frozen=True, slots=True)
class MergedBatch:
    """The new values of a batch's row. The label is written only if `is_label_known`."""

    is_label_known: bool
    label: str | None
    counts: Counts
    revoked: int
    status: BatchStatus
    retry_number: int
    completed_at: datetime | None
    cancelled_at: datetime | None
    deleted_at: datetime | None


class BatchMerge:
    """The statements for one batch, in the caller's transaction."""

    def __init__(self, connection: Connection, batch_id: UUID) -> None:
        self._connection = connection
        self._batch_id = batch_id
        self.version = 0
        """The batch's version if anything changes."""

    def _execute(self, statement: Any, **parameters: Any) -> Any:
        return self._connection.execute(statement, {"batch_id": self._batch_id, **parameters})

    def rebuilt(self) -> Row[Any] | None:
        """The batch as rebuilt from the topics; None if they don't cover it."""
        row: Row[Any] | None = self._execute(_REBUILT).one_or_none()
        return row

    def people(self, organization_id: str) -> Row[Any]:
        """Whether the rebuilt batch may name people differently from the live one: whether somebody is being forgotten, and whether somebody was
        forgotten or readmitted since the replay began. Neither changes until the commit."""
        wait_for_imports(self._connection)
        row: Row[Any] = self._connection.execute(_PEOPLE, {"organization_id": organization_id}).one()
        return row

    def lock(self) -> Row[Any] | None:
        """Locks the batch until the commit. Returns its row, or None if there is none."""
        take_batches(self._connection, [self._batch_id])
        row: Row[Any] | None = self._execute(_LOCK_ROW).one_or_none()
        return row

    def evidence(self, rebuilt: Row[Any], version: int | None) -> Row[Any]:
        """What the rest of the database has about the rebuilt batch."""
        row: Row[Any] = self._execute(
            _EVIDENCE, header_hash=rebuilt.header_hash, organization_id=rebuilt.organization_id, version=version
        ).one()
        return row

    def edits(self) -> Row[Any]:
        """The edits that people have made to the batch."""
        row: Row[Any] = self._execute(_EDITS).one()
        return row

    def insert_batch(self, rebuilt: Row[Any], edits: Row[Any], now: datetime) -> int:
        """Creates the missing row, as `processing`, with all items pending. Returns its version."""
        label = edits.label if edits.is_relabelled else rebuilt.submitted_label
        parameters = {"label": label, "edits": edits.edits, "edited_version": edits.version, "now": now}
        return int(self._execute(_INSERT_BATCH, **parameters).scalar_one())

    def merge_items(self, rebuilt: Row[Any]) -> Row[Any]:
        """Creates and repairs items, their parts and their history. No item loses an outcome. Returns how many items changed, and how many
        missing ones are not created because their activities have other values."""
        self._execute(_INSERT_PARTS, header_hash=rebuilt.header_hash)
        at = {"submitted_at": rebuilt.submitted_at}
        merged: Row[Any] = self._execute(_MERGE_ITEMS, organization_id=rebuilt.organization_id, version=self.version, **at).one()
        self._execute(_MERGE_HISTORY, **at)
        return merged

    def announced_at(self, rebuilt: Row[Any], retry_number: int) -> datetime | None:
        """When the completion after the last retry was announced. `retry_number` is that of the live row."""
        parameters = {"organization_id": rebuilt.organization_id, "retry_number": retry_number}
        at: datetime | None = self._execute(_COMPLETED_AT, **parameters).scalar_one()
        return at

    def undecided(self) -> int:
        """How many items have no outcome of their present attempt."""
        return int(self._execute(_UNDECIDED).scalar_one())

    def fold(self, *, folds_pending: bool, is_cancelled: bool) -> int:
        """Moves every item to the state of its outcome. Returns how many changed."""
        return int(self._execute(_FOLD, folds_pending=folds_pending, is_cancelled=is_cancelled, version=self.version).rowcount)

    def merge_revocations(self) -> int:
        """Copies the revocations of activities into their items. Returns how many items changed."""
        return int(self._execute(_MERGE_REVOCATIONS, version=self.version).rowcount)

    def counts(self) -> tuple[Counts, int, int]:
        """The counts of the items, how many retries their history has, and how many items are revoked."""
        row = self._execute(_COUNTS).one()
        return Counts(row.pending, row.completed, row.failed, row.cancelled), row.retries, row.revoked

    def merge_batch(self, merged: MergedBatch, edits: Row[Any], *, has_changed: bool, now: datetime) -> bool:
        """Writes the batch's row if it differs, and notifies the batch's followers. Returns whether it was written."""
        written = self._execute(
            _MERGE_BATCH,
            status=merged.status,
            pending=merged.counts.pending,
            completed=merged.counts.completed,
            failed=merged.counts.failed,
            cancelled=merged.counts.cancelled,
            revoked=merged.revoked,
            retry_number=merged.retry_number,
            completed_at=merged.completed_at,
            cancelled_at=merged.cancelled_at,
            deleted_at=merged.deleted_at,
            version=self.version,
            is_label_known=merged.is_label_known,
            label=merged.label,
            edits=edits.edits,
            cancelled_by=edits.cancelled_by,
            cancellation_reason=edits.cancellation_reason,
            has_changed=has_changed,
            now=now,
        ).rowcount
        if written:
            watching.announce(self._connection, [self._batch_id])
        self._execute(_REMEMBER)
        return bool(written)
