"""The contents of the tables at the end, batch by batch."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from tests.chaos.history import Counts, Values

BATCHES_AT_ONCE = 500


@dataclass(slots=True)
class ItemRow:
    """An item, with its outcomes."""

    position: int
    values: Values
    status: str
    attempt: int
    activity_id: str | None
    error_code: str | None
    outcomes: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    """By attempt, outcome and activity."""
    activities: list["ActivityRow"] = field(default_factory=list)
    is_revoked: bool = False


@dataclass(slots=True)
class ActivityRow:
    """A record that an auditor would count."""

    activity_id: str
    values: Values
    registered_by: str
    audits: int
    """The audit rows of its registration."""
    is_revoked: bool = False
    revocation_audits: int = 0


@dataclass(slots=True)
class BatchRow:
    """A batch and its items."""

    batch_id: str
    label: str | None
    status: str
    counts: Counts
    is_deleted: bool
    is_completed: bool
    retry_number: int
    items: list[ItemRow] = field(default_factory=list)
    revoked: int = 0
    dismissals: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows of whole tables, which shows rows that belong to no batch."""

    items: int
    outcomes: int
    activities: int
    audits: int


@dataclass(frozen=True, slots=True)
class Periods:
    """The last closed days that the history of the period has, in order; and records that were made or revoked while their period was closed."""

    changes: Sequence[str | None] = ()
    late: Sequence[str] = ()


_LATE = """
    SELECT a.activity_id || ' of ' || a.activity_date || ', closed at ' || p.changed_at
    FROM registration.period_change p
    LEFT JOIN registration.period_change later ON (later.organization_id, later.number) = (p.organization_id, p.number + 1)
    JOIN registration.activity a ON a.organization_id = p.organization_id AND a.activity_date <= p.closed_through
    CROSS JOIN LATERAL (VALUES (a.created_at), (a.revoked_at)) AS happened (at)
    WHERE happened.at > p.changed_at AND (later.changed_at IS NULL OR happened.at < later.changed_at)
    LIMIT 100
"""


def read_periods(url: str) -> Periods:
    """By the times of the tables: the clock of this machine is never set back."""
    connection = psycopg2.connect(url)
    changes = _rows(connection, "SELECT closed_through::text FROM registration.period_change ORDER BY organization_id, number")
    late = _rows(connection, _LATE)
    connection.close()
    return Periods([row[0] for row in changes], [row[0] for row in late])


def read_batches(url: str) -> Iterator[BatchRow]:
    """Every batch. Needs the owner's rights, and nobody may be changing anything."""
    with psycopg2.connect(url) as connection, connection.cursor("batches") as cursor:
        cursor.execute(
            "SELECT batch_id::text, label, status, total_items, pending, completed, failed, cancelled, deleted_at IS NOT NULL,"
            " completed_at IS NOT NULL, retry_number, revoked,"
            " (SELECT count(*) FROM orchestrator.batch_dismissal d WHERE d.batch_id = b.batch_id) FROM orchestrator.batch b"
        )
        rows = (
            BatchRow(i, label, status, Counts(*row[:5]), row[5], row[6], row[7], revoked=row[8], dismissals=row[9])
            for i, label, status, *row in cursor
        )
        while batches := list(islice(rows, BATCHES_AT_ONCE)):
            _fill(connection, batches)
            yield from batches
    connection.close()


def read_totals(url: str) -> Totals:
    """Counts the rows."""
    connection = psycopg2.connect(url)
    tables = ("orchestrator.batch_item", "orchestrator.outcome", "registration.activity", "registration.audit")
    counts = [_rows(connection, f"SELECT count(*) FROM {table}")[0][0] for table in tables]
    connection.close()
    return Totals(*counts)


def _fill(connection: Connection, batches: Sequence[BatchRow]) -> None:
    ids = ([batch.batch_id for batch in batches],)
    outcomes: dict[tuple[str, int], dict[int, tuple[str, str | None]]] = defaultdict(dict)
    for batch_id, position, attempt, outcome, activity_id in _rows(
        connection,
        "SELECT batch_id::text, position, attempt, outcome, activity_id::text FROM orchestrator.outcome WHERE batch_id = ANY(%s::uuid[])",
        ids,
    ):
        outcomes[batch_id, position][attempt] = (outcome, activity_id)
    by_id = {batch.batch_id: batch for batch in batches}
    by_item: dict[str, ItemRow] = {}
    for batch_id, item_id, *values, position, status, attempt, activity_id, error_code, is_revoked in _rows(
        connection,
        "SELECT batch_id::text, item_id::text, mentor_id, activity_type, activity_date::text, duration_minutes,"
        " override_duplicates, position, status, attempt,"
        " activity_id::text, error->>'code', revoked_at IS NOT NULL"
        " FROM orchestrator.batch_item WHERE batch_id = ANY(%s::uuid[]) ORDER BY batch_id, position",
        ids,
    ):
        decided = outcomes[batch_id, position]
        item = by_item[item_id] = ItemRow(position, Values(*values), status, attempt, activity_id, error_code, decided)
        item.is_revoked = is_revoked
        by_id[batch_id].items.append(item)
    # By item, because that has an index. Rows that belong to no item are missing in the totals.
    for item_id, activity_id, *values, registered_by, audits, is_revoked, revocation_audits in _rows(
        connection,
        "SELECT a.item_id::text, a.activity_id::text, attributed_to, activity_type, activity_date::text, duration_minutes, a.registered_by,"
        " coalesce(u.registered, 0), a.revoked_at IS NOT NULL, coalesce(u.revoked, 0) FROM registration.activity a"
        " LEFT JOIN (SELECT activity_id, count(*) FILTER (WHERE action = 'registered') AS registered,"
        " count(*) FILTER (WHERE action = 'revoked') AS revoked"
        " FROM registration.audit WHERE batch_id = ANY(%s::uuid[]) GROUP BY 1) u"
        " USING (activity_id) WHERE item_id = ANY(%s::uuid[])",
        (*ids, list(by_item)),
    ):
        by_item[item_id].activities.append(
            ActivityRow(activity_id, Values(*values), registered_by, audits, is_revoked, revocation_audits)
        )


def _rows(connection: Connection, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()
