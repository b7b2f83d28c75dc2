"""Runs all checks in one snapshot of a live database."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg2.errors import ReadOnlySqlTransaction
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import InternalError

from orchestrator.batches.states import BatchStatus, Counts, derive_batch_status
from orchestrator.process.settings import Settings
from orchestrator.storage.observing import RESTARTS_WITHIN, note_verification
from orchestrator.storage.statements import read_statements
from orchestrator.verification.checks import CHECKS
from schemas.ids import derived_ids

# Outcomes are folded within a second. The sweeper publishes a lost result again within a minute after the queue has passed it.
STUCK_AFTER = timedelta(minutes=5)

# This many breaches of one kind show what is wrong; nobody would read a list of millions.
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
    """The breaches, and how many rows were checked, by name."""

    breaches: list[Breach]
    checked: dict[str, int]


def verify(engine: Engine, settings: Settings) -> Report:
    """Runs all checks, read-only and without blocking other transactions. Needs the worker's or the owner's rights."""
    # Reading whole tables takes longer than the product's statements are allowed to.
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with snapshot.connect() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        # After a crash of the server, autovacuum no longer knows which tables to analyze. Without statistics the planner chooses nested
        # loops over whole tables: one check of 55,000 activities took more than 3 minutes. Without nested loops all checks took 17 s.
        connection.execute(text("SET LOCAL enable_nestloop = off"))
        checked = {
            name: int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()) for name, table in _COUNTED.items()
        }
        breaches = [*_sql_breaches(connection, settings), *_wrong_statuses(connection), *_wrong_item_ids(connection)]
        connection.rollback()
    return Report(breaches, checked)


def keep_result(engine: Engine, report: Report) -> bool:
    """Stores the result for the metrics. Returns False if the database is read-only, like a standby."""
    try:
        with engine.begin() as connection:
            note_verification(connection, breaches=len(report.breaches))
    except InternalError as error:
        if not isinstance(error.orig, ReadOnlySqlTransaction):
            raise
        return False
    return True


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
    """Compares each batch's status with the one that `derive_batch_status` derives (invariant 3)."""
    for row in connection.execute(_STATUSES):
        if min(row.pending, row.completed, row.failed, row.cancelled) < 0:
            continue  # impossible counts: `counts_differ_from_items` reports them
        counts = Counts(row.pending, row.completed, row.failed, row.cancelled)
        derived = derive_batch_status(counts, was_cancelled=row.was_cancelled, has_all_parts=row.has_items)
        if derived != BatchStatus(row.status):
            yield Breach(3, row.batch_id, None, f"status_differs: the batch is {row.status}, but its items make it {derived}")


def _wrong_item_ids(connection: Connection) -> Iterator[Breach]:
    """Item ids are derived (docs/decisions/0004-ids.md). An item with any other id can't be found by its id."""
    for row in connection.execution_options(yield_per=10_000).execute(_ITEM_IDS):
        if derived_ids(row.batch_id).item_id_text(row.position) != row.item_id:
            yield Breach(
                1, row.batch_id, row.item_id, f"item_id_not_derived: the id of position {row.position} is not the derived one"
            )
