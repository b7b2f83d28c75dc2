"""The contents of the database at a moment, as the checks read them: plain values, by key."""

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection

Key = tuple[str, int]
"""An item: batch id and position."""


class BatchRow(NamedTuple):
    """A row of `batch`, without times."""

    batch_id: str
    organization_id: str
    coordinator_id: str
    label: str | None
    status: str
    total: int
    pending: int
    completed: int
    failed: int
    cancelled: int
    retry_number: int
    version: int
    is_completed: bool
    is_cancelled: bool
    is_deleted: bool
    revoked: int
    is_dismissed: bool
    dismissals: int
    """How often somebody was done with its failed items."""

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Pending, completed, failed, cancelled."""
        return (self.pending, self.completed, self.failed, self.cancelled)


class Values(NamedTuple):
    """What is registered for one mentor."""

    mentor_id: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    notes: str | None
    override_duplicates: bool


class ItemRow(NamedTuple):
    """A row of `batch_item`."""

    batch_id: str
    position: int
    status: str
    attempt: int
    activity_id: str | None
    error: dict[str, Any] | None
    values: Values
    is_revoked: bool


class OutcomeRow(NamedTuple):
    """A row of the dedup table."""

    batch_id: str
    position: int
    attempt: int
    outcome: str
    activity_id: str | None
    error: dict[str, Any] | None
    created_at: float


class ActivityRow(NamedTuple):
    """A row of `registration.activity`, with the numbers of its audit rows."""

    activity_id: str
    organization_id: str
    mentor_id: str
    registered_by: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    notes: str | None
    batch_id: str
    position: int
    is_flagged: bool
    is_revoked: bool
    audits: int
    """The audit rows of its registration."""
    revocation_audits: int

    @property
    def once(self) -> tuple[str, str, str, date]:
        """The key for which at most one activity may be unflagged."""
        return (self.organization_id, self.mentor_id, self.activity_type, self.activity_date)


class Group(NamedTuple):
    """What a template holds."""

    name: str
    mentor_ids: tuple[str, ...]
    activity_type: str
    duration_minutes: int
    weekday: int | None


class TemplateRow(NamedTuple):
    """A row of `template`, without its time."""

    template_id: str
    organization_id: str
    coordinator_id: str
    version: int
    group: Group


class OutboxRow(NamedTuple):
    """A row of the outbox, by the id of its event."""

    batch_id: str
    topic: str
    key: str
    event_id: str


_STATEMENTS = {
    "batches": """
    SELECT batch_id::text, organization_id, coordinator_id, label, status, total_items, pending, completed, failed, cancelled,
           retry_number, version, completed_at IS NOT NULL, cancelled_at IS NOT NULL, deleted_at IS NOT NULL,
           revoked, dismissed_at IS NOT NULL,
           (SELECT count(*) FROM orchestrator.batch_dismissal d WHERE d.batch_id = b.batch_id)
    FROM orchestrator.batch b ORDER BY batch_id
""",
    "items": """
    SELECT batch_id::text, position, status, attempt, activity_id::text, error,
           mentor_id, activity_type, activity_date, duration_minutes, notes, override_duplicates, revoked_at IS NOT NULL
    FROM orchestrator.batch_item ORDER BY batch_id, position
""",
    "outcomes": """
    SELECT batch_id::text, position, attempt, outcome, activity_id::text, error, extract(epoch FROM created_at)::float
    FROM orchestrator.outcome ORDER BY created_at, batch_id, position, attempt
""",
    "activities": """
    SELECT activity_id::text, organization_id, attributed_to, registered_by, activity_type, activity_date, duration_minutes, notes,
           batch_id::text, ('x' || right(item_id::text, 5))::bit(20)::integer, overrides_duplicate, revoked_at IS NOT NULL,
           told.registered, told.revoked
    FROM registration.activity a
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE u.action = 'registered') AS registered, count(*) FILTER (WHERE u.action = 'revoked') AS revoked
        FROM registration.audit u
        WHERE (u.activity_id, u.activity_type, u.activity_date, u.duration_minutes, u.item_id)
              = (a.activity_id, a.activity_type, a.activity_date, a.duration_minutes, a.item_id)
    ) AS told
""",
    "templates": """
    SELECT template_id::text, organization_id, coordinator_id, version, name, mentor_ids, activity_type, duration_minutes, weekday
    FROM orchestrator.template ORDER BY template_id
""",
    "purged": "SELECT batch_id::text FROM orchestrator.tombstone",
    "closed": "SELECT organization_id, closed_through FROM registration.organization WHERE closed_through IS NOT NULL",
    "outbox": """
    SELECT batch_id::text, topic, key, (SELECT h ->> 1 FROM jsonb_array_elements(headers) AS h WHERE h ->> 0 = 'ce_id')
    FROM orchestrator.outbox ORDER BY outbox_id
""",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the checks read."""

    batches: dict[str, BatchRow]
    items: dict[Key, ItemRow]
    outcomes: dict[tuple[str, int, int], OutcomeRow]
    activities: dict[Key, ActivityRow]
    outbox: list[OutboxRow]
    purged: frozenset[str]
    """Batches that are purged, or partly so."""
    templates: dict[str, TemplateRow]
    closed: dict[str, date]
    """The last closed day of each organization that has closed a period."""

    def is_closed(self, organization_id: str, day: date) -> bool:
        """Whether this day is in a closed period."""
        return organization_id in self.closed and day <= self.closed[organization_id]

    def items_of(self, batch_id: str) -> list[ItemRow]:
        """The items of a batch, by position."""
        return [item for (owner, _), item in self.items.items() if owner == batch_id]

    def without(self, batch_ids: Set[str]) -> "Snapshot":
        """Everything but these batches and what belongs to them. The outbox stays."""
        return replace(
            self,
            batches={batch_id: batch for batch_id, batch in self.batches.items() if batch_id not in batch_ids},
            items={key: item for key, item in self.items.items() if key[0] not in batch_ids},
            outcomes={key: outcome for key, outcome in self.outcomes.items() if key[0] not in batch_ids},
            activities={key: activity for key, activity in self.activities.items() if key[0] not in batch_ids},
        )


EMPTY = Snapshot({}, {}, {}, {}, [], frozenset(), {}, {})


def take_snapshot(connection: Connection) -> Snapshot:
    """Reads everything. Nobody writes meanwhile, so consecutive statements see one state.

    The statements are prepared, and go to the driver: read by SQLAlchemy, snapshots took a fifth of the simulation's time.
    """
    rows = partial(_rows, connection)
    activities = [ActivityRow(*row) for row in rows("activities")]
    by_item = {(activity.batch_id, activity.position): activity for activity in activities}
    assert len(by_item) == len(activities), "two activities of one item"
    return Snapshot(
        {row[0]: BatchRow(*row) for row in rows("batches")},
        {
            (row[0], row[1]): ItemRow(row[0], row[1], row[2], row[3], row[4], row[5], Values(*row[6:12]), row[12])
            for row in rows("items")
        },
        {(row[0], row[1], row[2]): OutcomeRow(*row) for row in rows("outcomes")},
        by_item,
        [OutboxRow(*row) for row in rows("outbox")],
        frozenset(batch_id for (batch_id,) in rows("purged")),
        {
            row[0]: TemplateRow(row[0], row[1], row[2], row[3], Group(row[4], tuple(row[5]), row[6], row[7], row[8]))
            for row in rows("templates")
        },
        {row[0]: row[1] for row in rows("closed")},
    )


def _rows(connection: Connection, name: str) -> list[tuple[Any, ...]]:
    prepared: set[str] = connection.info.setdefault("snapshot", set())
    cursor = connection.connection.cursor()
    try:
        if name not in prepared:
            cursor.execute(f"PREPARE snapshot_{name} AS {_STATEMENTS[name]}")
            prepared.add(name)
        cursor.execute(f"EXECUTE snapshot_{name}")
        return list(cursor.fetchall())
    finally:
        cursor.close()
