"""The port to the parts of upstream batches: what the intake asks of storage. Each method is part of the caller's transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from orchestrator.batches.model import Actor, NewBatch
from orchestrator.batches.repository import KnownPart, PartHashes, PartKey, Tombstone
from orchestrator.upstream.part import Numbered


class PartStore(Protocol):
    """Batches whose parts have not all come, and what is known of the others."""

    def known(self, parts: Sequence[PartKey]) -> Mapping[PartKey, KnownPart]:
        """What the database has, by part; batches that it does not know are absent."""

    def tombstone(self, batch_id: UUID) -> Tombstone | None:
        """What is left of a batch that was purged."""

    def begin(self, actor: Actor, batch: NewBatch, *, content_hash: bytes, parts: int, total: int) -> None:
        """Stores a batch whose parts have not all come: counted as pending, without items."""

    def add(self, organization_id: str, batch_id: UUID, hashes: PartHashes, items: Numbered, *, data_bytes: int) -> None:
        """Keeps a part, with its notes, until the others have come."""

    def present(self, batch_id: UUID) -> tuple[int, int]:
        """How many parts have come, and how many bytes their events had."""

    def collected(self, batch_id: UUID, *, override: bool) -> Sequence[tuple[int, Numbered, datetime]]:
        """The parts that have come, without their notes: number, items, and when each came."""

    def finish(self, batch_id: UUID, *, override: bool, at: datetime) -> None:
        """Moves a complete batch to `processing` and makes its items of what was collected."""

    def forget(self, batch_id: UUID) -> bool:
        """Removes a batch that has no items yet, with its parts; False when there is none."""
