"""Stores new batches with everything that belongs to them in one statement, so that many small batches cost one round trip."""

from collections.abc import Sequence, Set
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.batches.model import NewBatch
from orchestrator.batches.repository import BatchToCreate
from orchestrator.storage import arrays, outbox
from orchestrator.storage.prepared import Prepared
from schemas.ids import DerivedIds

# `fresh` has one row for each batch, with its number in the set. Item ids are built here, from the prefix and the tail plus the position.
_INSERT_ITEMS = """
    INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                         duration_minutes, notes, client_reference, override_duplicates, planned, attempt_at,
                                         changed_version)
    SELECT f.batch_id, i.position, CAST(f.item_prefix || lpad(to_hex(f.item_tail + i.position), 16, '0') AS uuid),
           f.organization_id, i.mentor_id, i.activity_type, i.activity_date, i.duration_minutes, i.notes, i.client_reference,
           i.override_duplicates, i.planned, f.at, f.version
    FROM unnest(
        CAST(:numbers AS integer[]), CAST(:positions AS integer[]), CAST(:mentors AS text[]), CAST(:types AS text[]),
        CAST(:dates AS date[]), CAST(:durations AS integer[]), CAST(:notes AS text[]), CAST(:references AS text[]),
        CAST(:overrides AS boolean[]), CAST(:planned AS text[])
    ) AS i (number, position, mentor_id, activity_type, activity_date, duration_minutes, notes, client_reference, override_duplicates,
            planned)
    JOIN fresh f USING (number)
"""

_CREATE = Prepared(f"""
    WITH new AS MATERIALIZED (
        SELECT * FROM unnest(
            CAST(:batch_ids AS uuid[]), CAST(:organizations AS text[]), CAST(:coordinators AS text[]), CAST(:submitters AS text[]),
            CAST(:channels AS text[]), CAST(:labels AS text[]), CAST(:totals AS integer[]), CAST(:hashes AS bytea[]),
            CAST(:traces AS text[]), CAST(:at AS timestamptz[]), CAST(:item_prefixes AS text[]), CAST(:item_tails AS bigint[]),
            CAST(:slots AS smallint[])
        ) WITH ORDINALITY AS n (batch_id, organization_id, coordinator_id, submitted_by, channel, label, total, content_hash, trace_id,
                                at, item_prefix, item_tail, slot, number)
    ), created AS (
        INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items,
                                        pending, content_hash, trace_id, submitted_at, changed_at)
        SELECT batch_id, organization_id, coordinator_id, submitted_by, channel, label, 'processing', total, total, content_hash,
               trace_id, at, at
        FROM new
        ON CONFLICT DO NOTHING
        RETURNING batch_id, version
    ), fresh AS MATERIALIZED (
        SELECT new.*, created.version FROM new JOIN created USING (batch_id)
    ), items AS (
        {_INSERT_ITEMS}
    ), parts AS (
        INSERT INTO orchestrator.batch_part (batch_id, part, organization_id, content_hash, public_hash, received_at)
        SELECT f.batch_id, p.part, f.organization_id, p.content_hash, p.public_hash, f.at
        FROM unnest(CAST(:part_numbers AS integer[]), CAST(:parts AS integer[]), CAST(:contents AS bytea[]), CAST(:publics AS bytea[]))
             AS p (number, part, content_hash, public_hash)
        JOIN fresh f USING (number)
    ), published AS (
        {outbox.INSERT_SQL}
    )
    SELECT batch_id FROM created
""")


def create_batches(connection: Connection, batches: Sequence[BatchToCreate]) -> Set[UUID]:
    """Stores batches, their items, parts and events. Returns the ids of the new batches. The others are left unchanged."""
    ids = [item_id_parts(new.batch.batch_id) for new in batches]
    parts = [(number, part) for number, new in enumerate(batches, start=1) for part in new.parts]
    created = _CREATE.scalars(
        connection,
        {
            "batch_ids": arrays.plain([new.batch.batch_id for new in batches]),
            "organizations": arrays.texts([new.actor.organization_id for new in batches]),
            "coordinators": arrays.texts([new.batch.coordinator_id for new in batches]),
            "submitters": arrays.texts([new.actor.subject for new in batches]),
            "channels": arrays.texts([new.actor.channel for new in batches]),
            "labels": arrays.texts([new.batch.label for new in batches]),
            "totals": arrays.plain([len(new.batch.items) for new in batches]),
            "hashes": [new.content_hash for new in batches],
            "traces": arrays.texts([new.batch.trace_id for new in batches]),
            "at": [new.submitted_at for new in batches],
            "item_prefixes": arrays.texts([prefix for prefix, _ in ids]),
            "item_tails": arrays.plain([tail for _, tail in ids]),
            "slots": arrays.plain([outbox.slot_of(new.batch.batch_id) for new in batches]),
            **_items([new.batch for new in batches]),
            "part_numbers": arrays.plain([number for number, _ in parts]),
            "parts": arrays.plain([part.part for _, part in parts]),
            "contents": [part.content_hash for _, part in parts],
            "publics": [part.public_hash for _, part in parts],
            **outbox.event_arrays([(number, event) for number, new in enumerate(batches, start=1) for event in new.events]),
        },
    )
    return frozenset(created)


def item_id_parts(batch_id: UUID) -> tuple[str, int]:
    """The first half of all item ids of a batch, and the second half of the first item's id as a signed number. Adding a position to it
    gives the second half of that item's id."""
    first = DerivedIds(batch_id).item_id(0).hex
    return first[:16], int(first[16:], 16) - (1 << 64)


def _items(batches: Sequence[NewBatch]) -> dict[str, Any]:
    items = [item for batch in batches for item in batch.items]
    values = [item.values for item in items]
    return {
        "numbers": arrays.plain([number for number, batch in enumerate(batches, start=1) for _ in batch.items]),
        "positions": arrays.plain([position for batch in batches for position in range(len(batch.items))]),
        "mentors": arrays.texts([value.mentor_id for value in values]),
        "types": arrays.texts([value.activity_type for value in values]),
        "dates": arrays.plain([value.activity_date.isoformat() for value in values]),
        "durations": arrays.plain([value.duration_minutes for value in values]),
        "notes": arrays.long_texts([value.notes for value in values]),
        "references": arrays.texts([item.client_reference for item in items]),
        "overrides": arrays.plain([value.override_duplicates for value in values]),
        "planned": arrays.texts([item.planned for item in items]),
    }
