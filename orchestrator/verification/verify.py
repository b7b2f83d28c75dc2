"""Runs all checks in one snapshot of a live database."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from orchestrator.batches.states import BatchStatus, Counts, derive_batch_status
from orchestrator.process.settings import Settings
from orchestrator.storage.observing import RESTARTS_WITHIN
from orchestrator.storage.statements import read_statements
from orchestrator.verification.checks import CHECKS
from schemas.ids import DerivedIds

# What is decided is folded within a second; the sweeper makes up for lost results within a minute of the queue having passed them.
STUCK_AFTER = timedelta(minutes=5)

# So many breaches of one kind show what is wrong; a list of millions would not be read.
MAX_BREACHES_PER_CHECK = 1_000

_SQL = read_statements("orchestrator/verification/sql/verify.sql")

_STATUSES = _SQL["statuses"].text()
_ITEM_IDS = _SQL["item_ids"].text()
_COUNTED = {
    "batches": "orchestrator.batch",
    "items": "orchestrator.batch_item",
    "outcomes": "orchestrator.outcome",
    "activities": "registration.activity",
}


@dataclass(frozen=True, slots=True)
class Breach:
    """A row that an invariant forbids. `detail` names the check and never quotes notes."""

    invariant: int
    batch_id: str | None
    item_id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and how much was looked at."""

    breaches: list[Breach]
    checked: dict[str, int]


def verify(engine: Engine, settings: Settings) -> Report:
    """Checks everything, read only and without blocking anybody. Needs the worker's or the owner's rights."""
    # A reader of whole tables takes longer than any statement of the product may.
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with snapshot.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # A crash of the server makes autovacuum forget which tables it was to analyze. Without statistics the planner compares whole
        # tables row by row: one check of 55,000 activities took more than 3 minutes, and without nested loops all of them 17 s.
        connection.execute(text("SET LOCAL enable_nestloop = off"))
        checked = {
            name: int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()) for name, table in _COUNTED.items()
        }
        breaches = [*_sql_breaches(connection, settings), *_wrong_statuses(connection), *_wrong_item_ids(connection)]
        connection.rollback()
    return Report(breaches, checked)


def _sql_breaches(connection: Connection, settings: Settings) -> Iterator[Breach]:
    parameters: dict[str, Any] = {
        "stuck_after": STUCK_AFTER,
        "max_resends": settings.sweep_max_resends,
        "parts_patience": timedelta(hours=settings.parts_timeout_hours),
        "trouble_after": timedelta(milliseconds=settings.trouble_after_ms),
        "batch_stuck_after": timedelta(minutes=settings.batch_stuck_after_minutes),
        "max_restarts": settings.max_restarts,
        "restarts_within": RESTARTS_WITHIN,
    }
    for check in CHECKS:
        statement = text(
            f"SELECT batch_id::text, item_id::text, detail FROM ({check.sql}) AS breach LIMIT {MAX_BREACHES_PER_CHECK}"
        )
        used = {name: parameters[name] for name in check.parameters}
        for row in connection.execute(statement, used):
            yield Breach(check.invariant, row.batch_id, row.item_id, f"{check.name}: {row.detail}")


def _wrong_statuses(connection: Connection) -> Iterator[Breach]:
    """Invariant 3, second half: by the same function that derives the status."""
    for row in connection.execute(_STATUSES):
        if min(row.pending, row.completed, row.failed, row.cancelled) < 0:
            continue  # counts that can't be have been reported as differing from the items
        counts = Counts(row.pending, row.completed, row.failed, row.cancelled)
        derived = derive_batch_status(counts, was_cancelled=row.was_cancelled, has_all_parts=row.has_items)
        if derived != BatchStatus(row.status):
            yield Breach(3, row.batch_id, None, f"status_differs: the batch is {row.status}, and its items make it {derived}")


def _wrong_item_ids(connection: Connection) -> Iterator[Breach]:
    """Ids are derived (docs/decisions/0004-ids.md). An item whose id is not can't be found by it."""
    batch_id, ids = "", DerivedIds(UUID(int=0))
    for row in connection.execution_options(yield_per=10_000).execute(_ITEM_IDS):
        if row.batch_id != batch_id:
            batch_id, ids = row.batch_id, DerivedIds(UUID(row.batch_id))
        if str(ids.item_id(row.position)) != row.item_id:
            yield Breach(1, row.batch_id, row.item_id, f"item_id_not_derived: at position {row.position}")
