"""Fills the tables with finished batches, in sets: in minutes, as much as a deployment holds after some years."""

from datetime import date

from sqlalchemy import Engine, text

from compose.bench.settling import settle
from compose.bench.target import ACTIVITY_TYPE, COORDINATOR, MENTORS, NOTES, ORGANIZATION, Days
from orchestrator.storage import arrays
from schemas.ids import DerivedIds, new_batch_id

BATCH_ITEMS = 25
_SET_BATCHES = 4_000

# The rows that the product leaves for a batch whose every item succeeded, with the ids that it would derive. The prefix is that of
# position 0; its last five digits are the position. Items are numbered through the set, and every mentor has one on each day.
_ITEMS = f"""
    WITH item AS MATERIALIZED (
        SELECT b.batch_id, p.position,
               CAST(left(CAST(b.item_id AS text), 31) || lpad(to_hex(p.position), 5, '0') AS uuid) AS item_id,
               CAST(left(CAST(b.activity_id AS text), 31) || lpad(to_hex(p.position), 5, '0') AS uuid) AS activity_id,
               'mentor-' || 1 + ((b.number - 1) * {BATCH_ITEMS} + p.position) % {MENTORS} AS mentor_id,
               CAST(:first_day AS date) + CAST(((b.number - 1) * {BATCH_ITEMS} + p.position) / {MENTORS} AS integer) AS day
        FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:item_ids AS uuid[]), CAST(:activity_ids AS uuid[]))
             WITH ORDINALITY AS b (batch_id, item_id, activity_id, number)
        CROSS JOIN generate_series(0, {BATCH_ITEMS - 1}) AS p (position)
    )
"""
_FILL = text(f"""
    {_ITEMS}, batches AS (
        INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items,
                                        pending, completed, version, content_hash, trace_id, submitted_at, changed_at, completed_at)
        SELECT batch_id, :org, :coordinator, :coordinator, 'api', 'benchmark', 'completed', {BATCH_ITEMS}, 0, {BATCH_ITEMS}, 2,
               CAST('' AS bytea), '00000000000000000000000000000001', now(), now(), now()
        FROM item WHERE position = 0
    ), items AS (
        INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                             duration_minutes, notes, override_duplicates, status, attempt_at, changed_version, activity_id)
        SELECT batch_id, position, item_id, :org, mentor_id, :type, day, 60, :notes, false, 'success', now(), 2, activity_id FROM item
    ), activities AS (
        INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,
                                           duration_minutes, notes, batch_id, item_id, created_at)
        SELECT activity_id, :org, mentor_id, :coordinator, :type, day, 60, :notes, batch_id, item_id, now() FROM item
    ), audits AS (
        INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id,
                                        channel, at, activity_type, activity_date, duration_minutes, item_id, attempt)
        SELECT :org, 'registered', activity_id, :coordinator, mentor_id, :coordinator, batch_id, 'api', now(), :type, day, 60, item_id, 1
        FROM item
    )
    INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, activity_id, created_at)
    SELECT batch_id, position, 1, :org, 'success', activity_id, now() FROM item
""")


def count_activities(engine: Engine) -> int:
    """Returns the number of activities."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM registration.activity")).scalar_one())


def fill(engine: Engine, days: Days, activities: int) -> None:
    """Adds finished batches up to that number of activities. Leaves the tables as autovacuum would: analysed, and flushed."""
    missing = activities - count_activities(engine)
    while missing > 0:
        batches = min(_SET_BATCHES, -(-missing // BATCH_ITEMS))
        _fill_set(engine, days.take(batches * BATCH_ITEMS), batches)
        missing -= batches * BATCH_ITEMS
    settle(engine)


def _fill_set(engine: Engine, first_day: date, batches: int) -> None:
    batch_ids = sorted(new_batch_id() for _ in range(batches))
    ids = [DerivedIds(batch_id) for batch_id in batch_ids]
    with engine.begin() as connection:
        connection.execute(
            _FILL,
            {
                "batch_ids": arrays.plain(batch_ids),
                "item_ids": arrays.plain([each.item_id(0) for each in ids]),
                "activity_ids": arrays.plain([each.activity_id(0) for each in ids]),
                "first_day": first_day,
                "org": ORGANIZATION,
                "coordinator": COORDINATOR,
                "type": ACTIVITY_TYPE,
                "notes": NOTES,
            },
        )
