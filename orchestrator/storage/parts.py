"""Statements on `batch_part` while an upstream batch is collected."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Numbered
from orchestrator.batches.repository import KnownPart, PartHashes, PartKey, PartStore, Tombstone
from orchestrator.storage import arrays, watching
from orchestrator.storage.creating import item_id_parts
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.tombstones import tombstones_among

_KNOWN_PARTS = Prepared("""
    SELECT b.batch_id::text, b.organization_id, b.parts, b.content_hash AS header_hash, n.part, p.content_hash, p.public_hash
    FROM unnest(CAST(:batch_ids AS uuid[]), CAST(:parts AS integer[])) AS n (batch_id, part)
    JOIN orchestrator.batch b ON b.batch_id = n.batch_id
    LEFT JOIN orchestrator.batch_part p ON (p.batch_id, p.part) = (n.batch_id, n.part)
""")
_CREATE = text("""
    INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items,
                                    pending, parts, content_hash, trace_id, submitted_at, changed_at)
    VALUES (:batch_id, :organization_id, :coordinator_id, :submitted_by, :channel, :label, 'pending', :total,
            :total, :parts, :content_hash, :trace_id, clock_timestamp(), clock_timestamp())
""")
_ADD = text("""
    INSERT INTO orchestrator.batch_part (batch_id, part, organization_id, content_hash, public_hash, items, data_bytes, received_at)
    VALUES (:batch_id, :part, :organization_id, :content_hash, :public_hash, CAST(:items AS jsonb), :data_bytes, clock_timestamp())
""")
_PRESENT = text("""
    SELECT count(*) AS parts, coalesce(sum(data_bytes), 0) AS data_bytes FROM orchestrator.batch_part WHERE batch_id = :batch_id
""")
_COLLECTED = text("""
    SELECT p.part, p.received_at, CAST(e.item ->> 0 AS integer) AS position, e.item ->> 1 AS mentor_id, e.item ->> 2 AS activity_type,
           CAST(e.item ->> 3 AS date) AS activity_date, CAST(e.item ->> 4 AS integer) AS duration_minutes,
           e.item ->> 6 AS client_reference
    FROM orchestrator.batch_part p CROSS JOIN LATERAL jsonb_array_elements(p.items) WITH ORDINALITY AS e (item, place)
    WHERE p.batch_id = :batch_id
    ORDER BY p.part, e.place
""")
_INSERT_ITEMS = text("""
    INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                         duration_minutes, notes, client_reference, override_duplicates, attempt_at, changed_version)
    SELECT b.batch_id, i.position, CAST(:item_prefix || lpad(to_hex(CAST(:item_tail AS bigint) + i.position), 16, '0') AS uuid),
           b.organization_id, e.item ->> 1, e.item ->> 2, CAST(e.item ->> 3 AS date), CAST(e.item ->> 4 AS integer), e.item ->> 5,
           e.item ->> 6, :override, :at, b.version
    FROM orchestrator.batch b
    JOIN orchestrator.batch_part p USING (batch_id)
    CROSS JOIN LATERAL jsonb_array_elements(p.items) AS e (item)
    CROSS JOIN LATERAL CAST(e.item ->> 0 AS integer) AS i (position)
    WHERE b.batch_id = :batch_id
""")
_FINISH = text("""
    UPDATE orchestrator.batch SET status = 'processing', submitted_at = :at, changed_at = :at, version = version + 1
    WHERE batch_id = :batch_id
""")
_DROP_ITEMS = text("UPDATE orchestrator.batch_part SET items = NULL WHERE batch_id = :batch_id")
_FORGET_PARTS = text("DELETE FROM orchestrator.batch_part WHERE batch_id = :batch_id")
_FORGET_EDITS = text("DELETE FROM orchestrator.batch_edit WHERE batch_id = :batch_id")
_FORGET_BATCH = text("DELETE FROM orchestrator.batch WHERE batch_id = :batch_id AND status = 'pending'")


class CollectedParts(PartStore):
    """The parts of upstream batches, in the transaction of the connection it is given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def known(self, parts: Sequence[PartKey]) -> Mapping[PartKey, KnownPart]:
        rows = _KNOWN_PARTS.named(
            self._connection,
            {"batch_ids": arrays.plain([batch for batch, _ in parts]), "parts": arrays.plain([part for _, part in parts])},
        )
        return {
            (row.batch_id, row.part): KnownPart(
                row.organization_id, row.parts, bytes(row.header_hash), _bytes(row.content_hash), _bytes(row.public_hash)
            )
            for row in rows
        }

    def tombstone(self, batch_id: UUID) -> Tombstone | None:
        return tombstones_among(self._connection, [str(batch_id)]).get(str(batch_id))

    def begin(self, actor: Actor, batch: NewBatch, *, content_hash: bytes, parts: int, total: int) -> None:
        self._connection.execute(
            _CREATE,
            {
                "batch_id": batch.batch_id,
                "organization_id": actor.organization_id,
                "coordinator_id": batch.coordinator_id,
                "submitted_by": actor.subject,
                "channel": actor.channel,
                "label": batch.label,
                "total": total,
                "parts": parts,
                "content_hash": content_hash,
                "trace_id": batch.trace_id,
            },
        )

    def add(
        self,
        organization_id: str,
        batch_id: UUID,
        hashes: PartHashes,
        items: Numbered,
        *,
        data_bytes: int,
    ) -> None:
        rows = [
            (
                position,
                item.values.mentor_id,
                item.values.activity_type,
                item.values.activity_date,
                item.values.duration_minutes,
                item.values.notes,
                item.client_reference,
            )
            for position, item in items
        ]
        self._connection.execute(
            _ADD,
            {
                "batch_id": batch_id,
                "part": hashes.part,
                "organization_id": organization_id,
                "content_hash": hashes.content_hash,
                "public_hash": hashes.public_hash,
                "items": orjson.dumps(rows).decode(),
                "data_bytes": data_bytes,
            },
        )

    def present(self, batch_id: UUID) -> tuple[int, int]:
        row = self._connection.execute(_PRESENT, {"batch_id": batch_id}).one()
        return int(row.parts), int(row.data_bytes)

    def collected(self, batch_id: UUID, *, override: bool) -> Sequence[tuple[int, Numbered, datetime]]:
        parts: dict[int, tuple[int, list[tuple[int, NewItem]], datetime]] = {}
        for row in self._connection.execute(_COLLECTED, {"batch_id": batch_id}):
            values = ItemValues(row.mentor_id, row.activity_type, row.activity_date, row.duration_minutes, None, override)
            _, items, _ = parts.setdefault(row.part, (row.part, [], row.received_at))
            items.append((row.position, NewItem(values, row.client_reference)))
        return list(parts.values())

    def finish(self, batch_id: UUID, *, override: bool, at: datetime) -> None:
        self._connection.execute(_FINISH, {"batch_id": batch_id, "at": at})
        prefix, tail = item_id_parts(batch_id)
        # After the batch has its new version, which the items are of.
        self._connection.execute(
            _INSERT_ITEMS, {"batch_id": batch_id, "item_prefix": prefix, "item_tail": tail, "override": override, "at": at}
        )
        self._connection.execute(_DROP_ITEMS, {"batch_id": batch_id})
        watching.announce(self._connection, [batch_id])

    def forget(self, batch_id: UUID) -> bool:
        if not self._connection.execute(_FORGET_BATCH, {"batch_id": batch_id}).rowcount:
            return False
        self._connection.execute(_FORGET_PARTS, {"batch_id": batch_id})
        self._connection.execute(_FORGET_EDITS, {"batch_id": batch_id})
        watching.announce(self._connection, [batch_id])
        return True


def _bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
