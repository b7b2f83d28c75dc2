"""Statements on `batch_part` while an upstream batch is collected."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import orjson
from sqlalchemy import Connection

from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Numbered
from orchestrator.batches.repository import KnownPart, PartHashes, PartKey, PartStore, Tombstone
from orchestrator.storage import arrays, watching
from orchestrator.storage.creating import item_id_parts
from orchestrator.storage.statements import read_statements
from orchestrator.storage.tombstones import tombstones_among

_SQL = read_statements("orchestrator/storage/sql/parts.sql")

_KNOWN_PARTS = _SQL["known_parts"].prepared()
_CREATE = _SQL["create"].text()
_ADD = _SQL["add"].text()
_PRESENT = _SQL["present"].text()
_COLLECTED = _SQL["collected"].text()
_INSERT_ITEMS = _SQL["insert_items"].text()
_FINISH = _SQL["finish"].text()
_DROP_ITEMS = _SQL["drop_items"].text()
_FORGET_PARTS = _SQL["forget_parts"].text()
_FORGET_EDITS = _SQL["forget_edits"].text()
_FORGET_BATCH = _SQL["forget_batch"].text()


class CollectedParts(PartStore):
    """Implements `PartStore` in the transaction of its connection."""

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
                item.values.override_duplicates,
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
            flag = override if row.override_duplicates is None else row.override_duplicates
            values = ItemValues(row.mentor_id, row.activity_type, row.activity_date, row.duration_minutes, None, flag)
            _, items, _ = parts.setdefault(row.part, (row.part, [], row.received_at))
            items.append((row.position, NewItem(values, row.client_reference)))
        return list(parts.values())

    def finish(self, batch_id: UUID, *, override: bool, at: datetime) -> None:
        self._connection.execute(_FINISH, {"batch_id": batch_id, "at": at})
        prefix, tail = item_id_parts(batch_id)
        # After the batch has its new version, which the items get, too.
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
