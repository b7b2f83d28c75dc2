"""`PartStore` and `TemplateStore` in memory (`memory.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from orchestrator.batches.model import Actor, Measurement, NewBatch, Numbered, TemplateView
from orchestrator.batches.repository import KnownPart, PartHashes, PartKey, PartStore, TemplateStore, Tombstone
from orchestrator.batches.states import BatchStatus
from tests.support.memory_tables import Batch, Memory, Part, Tables, as_collected, new_items, new_view


class MemoryParts(PartStore):
    """`PartStore` in memory."""

    def __init__(self, storage: Memory) -> None:
        self._storage = storage

    @property
    def _tables(self) -> Tables:
        return self._storage.tables

    def known(self, parts: Sequence[PartKey]) -> Mapping[PartKey, KnownPart]:
        found: dict[PartKey, KnownPart] = {}
        for key in parts:
            batch_id = UUID(key[0])
            batch = self._tables.batches.get(batch_id)
            if batch is not None:
                part = self._tables.parts.get(batch_id, {}).get(key[1])
                hashes = (None, None) if part is None else (part.hashes.content_hash, part.hashes.public_hash)
                found[key] = KnownPart(batch.view.organization_id, batch.parts, batch.content_hash, *hashes)
        return found

    def tombstone(self, batch_id: UUID) -> Tombstone | None:
        return self._tables.tombstones.get(batch_id)

    def begin(self, actor: Actor, batch: NewBatch, *, content_hash: bytes, parts: int, total: int) -> None:
        view = new_view(actor, batch, BatchStatus.PENDING, total, self._storage.clock())
        self._tables.batches[batch.batch_id] = Batch(view, content_hash, parts)

    def add(self, organization_id: str, batch_id: UUID, hashes: PartHashes, items: Numbered, *, data_bytes: int) -> None:
        part = Part(hashes, self._storage.clock(), list(items), data_bytes)
        self._tables.parts.setdefault(batch_id, {})[hashes.part] = part

    def present(self, batch_id: UUID) -> tuple[int, int]:
        parts = self._tables.parts.get(batch_id, {}).values()
        return len(parts), sum(part.data_bytes for part in parts)

    def collected(self, batch_id: UUID, *, override: bool) -> Sequence[tuple[int, Numbered, datetime]]:
        return [
            (number, as_collected(part.items, with_notes=False), part.received_at)
            for number, part in sorted(self._tables.parts.get(batch_id, {}).items())
            if part.items
        ]

    def finish(self, batch_id: UUID, *, override: bool, at: datetime) -> None:
        batch, parts = self._tables.batches[batch_id], self._tables.parts[batch_id]
        version = batch.view.version + 1
        view = replace(batch.view, status=BatchStatus.PROCESSING, submitted_at=at, changed_at=at, version=version)
        view = replace(view, measurement=Measurement(at, view.counts.total, at))
        self._tables.batches[batch_id] = replace(batch, view=view)
        items = [item for part in parts.values() for item in part.items or ()]
        collected = as_collected(items, with_notes=True)
        self._tables.items[batch_id] = new_items(batch_id, collected, at, version=version)
        self._tables.parts[batch_id] = {number: replace(part, items=None) for number, part in parts.items()}

    def forget(self, batch_id: UUID) -> bool:
        batch = self._tables.batches.get(batch_id)
        if batch is None or batch.view.status is not BatchStatus.PENDING:
            return False
        del self._tables.batches[batch_id]
        self._tables.parts.pop(batch_id, None)
        return True


class MemoryTemplates(TemplateStore):
    """Templates in memory."""

    def __init__(self, storage: Memory) -> None:
        self._storage = storage

    def add(self, template: TemplateView) -> None:
        self._storage.tables.templates[template.template_id] = template

    def find(self, template_id: UUID) -> TemplateView | None:
        return self._storage.tables.templates.get(template_id)

    def lock(self, template_id: UUID) -> TemplateView | None:
        return self.find(template_id)

    def page(self, organization_id: str, coordinator_id: str | None, *, after: UUID | None, limit: int) -> Sequence[TemplateView]:
        found = [
            template
            for template in self._storage.tables.templates.values()
            if template.organization_id == organization_id and coordinator_id in (None, template.coordinator_id)
        ]
        found.sort(key=lambda template: template.template_id)
        return [template for template in found if after is None or template.template_id > after][:limit]

    def write(self, template: TemplateView) -> None:
        before = self._storage.tables.templates[template.template_id]
        self._storage.tables.templates[template.template_id] = replace(
            before, values=template.values, version=template.version, changed_at=template.changed_at
        )

    def remove(self, template_id: UUID) -> None:
        self._storage.tables.templates.pop(template_id, None)
