"""Statements of the replay: fold the records of the topics into shadow tables, and compare these with the live tables.

All tables here are temporary. They belong to one session, need only the right to create them, are never written to the write-ahead log, and
are dropped with the session however it ends. (Records of upstream services may contain notes.)

The result does not depend on the order or number of deliveries. If two records contradict each other, the one with the lower offset counts,
as it did when they arrived.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import psycopg2
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the driver's class has a small name
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from orchestrator.batches.states import BatchStatus, Counts, derive_batch_status
from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements

# Runs before the session's first temporary table. Scanning all tables takes longer than the product's statements are allowed to.
_SESSION = ("SET temp_buffers = '128MB'", "SET work_mem = '64MB'", "SET statement_timeout = 0")

_SQL = read_statements("orchestrator/replay/sql/shadow_tables.sql")

_TABLES = _SQL["tables"].sql
_REMEMBER_LIVE = _SQL["remember_live"].sql
_FOLD = _SQL["fold"].sql
_COUNTS = _SQL["counts"].text()
_SET_STATUS = _SQL["set_status"].text()
_NOTE_SKIPPED = _SQL["note_skipped"].text()
_NOTE_HANDLED = _SQL["note_handled"].text()
_COMPARED = _SQL["compared"].sql
_BATCH_DIFFERENCES = _SQL["batch_differences"].sql
_LOST_BATCHES = _SQL["lost_batches"].sql
_ITEM_DIFFERENCES = _SQL["item_differences"].sql
_BY_FIELD = _SQL["by_field"].text()
_EXAMPLES = _SQL["examples"].text()
_DIFFERENT_BATCHES = _SQL["different_batches"].text()
_IN_MOTION = _SQL["in_motion"].text()
_FOLDED = _SQL["folded"].text()
_NOT_COVERED = _SQL["not_covered"].text()

Row = Sequence[object]

COLUMNS = {
    "replay_part": (
        "batch_id, part, parts, total_items, organization_id, coordinator_id, label, override_duplicates, submitted_by, channel, is_ours,"
        " event_id, trace_id, header_hash, content_hash, public_hash, first_item_id, at, written_at, partition, record_offset,"
        " item_count, items"
    ),
    "replay_malformed": "event_id, written_at, partition, record_offset",
    "replay_retry_read": "batch_id, position, attempt, correction, retry_number, retried_by, at, organization_id, partition, record_offset",
    "replay_cancel": "batch_id, part, reason, cancelled_by, at, cancelled, runs, partition, record_offset",
    "replay_relabel": "batch_id, version, label, partition, record_offset",
    "replay_revocation_read": "batch_id, organization_id, at, revoked_by, reason, runs, partition, record_offset",
    "replay_delete": "batch_id",
    "replay_completion": "batch_id, retry_number, completed_at, organization_id",
    "replay_rejection": "batch_id, event_id, batch_continues, at",
    "replay_result": "batch_id, position, attempt, outcome, activity_id, error, partition, record_offset",
}
"""The columns that are copied into each table, in this order."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A live value that differs from the rebuilt one. With the field `batch` or `item`, one side has no such row, and the other side's value
    is the status of its row."""

    batch_id: str
    item_id: str | None
    field: str
    live: Any
    rebuilt: Any


class ShadowTables:
    """The shadow tables of one session. They need `connection` until the end, and leave no transaction open between calls."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        for statement in _SESSION:
            self._run(statement)
        self._run(_TABLES)
        self._run(_REMEMBER_LIVE)

    def _run(self, statements: str) -> None:
        with self.connection.begin():
            self.connection.exec_driver_sql(statements, execution_options={"no_parameters": True})

    def copy(self, table: str, lines: Sequence[str]) -> int:
        """Adds rows (`copy_line`). Returns how many were skipped, because the table's types or checks reject them, or because a text
        has an unpaired surrogate. Their batches are not covered, unless they are rebuilt and compared."""
        if not lines:
            return 0
        try:
            with self.connection.begin():
                cursor = cast("Cursor", self.connection.connection.cursor())
                data = io.BytesIO("\n".join((*lines, "")).encode())
                cursor.copy_expert(f"COPY {table} ({COLUMNS[table]}) FROM STDIN", data, size=1 << 18)
        except psycopg2.OperationalError as error:
            raise OperationalError(f"COPY {table}", None, error, connection_invalidated=True) from error
        except (psycopg2.DataError, psycopg2.IntegrityError, UnicodeEncodeError):
            if len(lines) == 1:
                self._note_skipped(table, lines[0])
                return 1
            half = len(lines) // 2
            return self.copy(table, lines[:half]) + self.copy(table, lines[half:])
        return 0

    def _note_skipped(self, table: str, line: str) -> None:
        if not COLUMNS[table].startswith("batch_id"):
            return
        try:
            batch_id = UUID(line.partition("\t")[0])
        except ValueError:
            return
        with self.connection.begin():
            self.connection.execute(_NOTE_SKIPPED, {"batch_id": batch_id})

    def note_handled(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Sets how far the consumers have come in these partitions. All others keep the progress in the tables."""
        with self.connection.begin():
            self.connection.execute(
                _NOTE_HANDLED,
                {
                    "topics": [topic for topic, _ in offsets],
                    "partitions": [partition for _, partition in offsets],
                    "offsets": list(offsets.values()),
                },
            )

    def fold(self) -> None:
        """Builds batches and items from the records. Call it once, after the last `copy`."""
        self._run(_FOLD)
        with self.connection.begin():
            rows = self.connection.execute(_COUNTS).all()
            statuses = [
                derive_batch_status(Counts(r.pending, r.completed, r.failed, r.cancelled), was_cancelled=r.was_cancelled)
                for r in rows
            ]
            self.connection.execute(
                _SET_STATUS,
                {
                    "pending": arrays.plain([row.pending for row in rows]),
                    "completed": arrays.plain([row.completed for row in rows]),
                    "failed": arrays.plain([row.failed for row in rows]),
                    "cancelled": arrays.plain([row.cancelled for row in rows]),
                    "was_cancelled": arrays.plain([row.was_cancelled for row in rows]),
                    "statuses": arrays.plain([BatchStatus(status).value for status in statuses]),
                },
            )

    def compare(self) -> None:
        """Finds the differences from the live tables, in one snapshot of them."""
        with self.connection.begin():
            self.connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for statements in (_COMPARED, _BATCH_DIFFERENCES, _LOST_BATCHES, _ITEM_DIFFERENCES):
                self.connection.exec_driver_sql(statements, execution_options={"no_parameters": True})

    def folded(self) -> tuple[int, int]:
        """How many batches and items were rebuilt."""
        with self.connection.begin():
            row = self.connection.execute(_FOLDED).one()
            return row.batches, row.items

    def by_field(self) -> dict[str, int]:
        """How many differences there are, by field."""
        with self.connection.begin():
            return {row.field: row.differences for row in self.connection.execute(_BY_FIELD)}

    def examples(self, limit: int) -> list[Difference]:
        """The first differences, by batch and position."""
        with self.connection.begin():
            rows = self.connection.execute(_EXAMPLES, {"limit": limit})
            return [Difference(row.batch_id, row.item_id, row.field, row.live, row.rebuilt) for row in rows]

    def different_batches(self) -> list[UUID]:
        """The batches with a difference."""
        return self._ids(_DIFFERENT_BATCHES)

    def in_motion(self) -> list[UUID]:
        """The batches that were not compared, because they changed meanwhile or have records waiting in a queue."""
        return self._ids(_IN_MOTION)

    def not_covered(self, batch_id: UUID | None) -> list[UUID]:
        """The known batches of which not all parts were read, or that were refused and perhaps accepted later. Looks only at `batch_id` if it
        is given."""
        return self._ids(_NOT_COVERED, {"batch_id": batch_id})

    def _ids(self, statement: Any, parameters: dict[str, Any] | None = None) -> list[UUID]:
        with self.connection.begin():
            return [UUID(batch_id) for batch_id in self.connection.execute(statement, parameters or {}).scalars()]


def copy_line(values: Iterable[object]) -> str:
    """A row in COPY's text format."""
    return "\t".join(map(_copy_field, values))


def _copy_field(value: object) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    return escaped(str(value))


def escaped(value: str) -> str:
    """A text in COPY's text format."""
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
