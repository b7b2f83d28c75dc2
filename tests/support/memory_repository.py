"""`ActivityRepository` in memory (`memory.py`)."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchFilter,
    BatchPage,
    BatchView,
    Idempotency,
    ItemFilter,
    ItemValues,
    ItemView,
    Measurement,
    Revocation,
    StatusView,
)
from orchestrator.batches.repository import (
    ActivityRepository,
    BatchChange,
    BatchToCreate,
    EventOf,
    Folded,
    KeyUse,
    NewAttempt,
    OutcomeKey,
    UsedKey,
)
from orchestrator.batches.states import BatchStatus, ItemStatus, Outcome
from orchestrator.storage.dispatch import DispatchState
from schemas.corrections import CORRECTION
from schemas.envelope import OutgoingEvent
from schemas.spelling import canonical
from tests.support.memory_tables import Batch, Item, Key, Memory, Part, Tables, new_items, new_view
from tests.support.storage import Decided

_IN_DOUBT = frozenset({DispatchState.ASKED, DispatchState.REGISTERED})


class MemoryRepository(ActivityRepository):
    """`ActivityRepository` in memory."""

    def __init__(self, storage: Memory) -> None:
        self._storage = storage

    @property
    def _tables(self) -> Tables:
        return self._storage.tables

    # --- Clock, coordinators, keys ------------------------------------------------------------------------------------------------

    def clock(self) -> datetime:
        return self._storage.clock()

    def clock_after_decisions(self, batch_id: UUID) -> datetime:
        decided = [each.at for each in self._tables.outcomes.get(batch_id, {}).values()]
        asked = [at for _, at in self._tables.dispatches.get(batch_id, {}).values()]
        return max(self.clock(), *decided, *asked) if decided or asked else self.clock()

    def known_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> Set[str]:
        return frozenset(each for each in coordinator_ids if (organization_id, each) in self._tables.coordinators)

    def clock_and_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> tuple[datetime, Set[str]]:
        return self.clock(), self.known_coordinators(organization_id, coordinator_ids)

    def use_keys(self, uses: Sequence[KeyUse]) -> Mapping[UUID, UsedKey]:
        used: dict[UUID, UsedKey] = {}
        for use in uses:
            new = UsedKey(use.idempotency.request_hash, use.batch_id, None)
            earlier = self._tables.keys.setdefault(_key(use.actor, use.idempotency), new)
            if earlier is not new:
                used[use.batch_id] = earlier
        return used

    def used_key(self, actor: Actor, idempotency: Idempotency) -> UsedKey | None:
        return self._tables.keys.get(_key(actor, idempotency))

    def store_result(self, actor: Actor, idempotency: Idempotency, result: Mapping[str, Any]) -> None:
        key = _key(actor, idempotency)
        if key in self._tables.keys:
            self._tables.keys[key] = replace(self._tables.keys[key], result=_through_json(result))

    # --- Batches ------------------------------------------------------------------------------------------------------------------

    def create_batches(self, batches: Sequence[BatchToCreate]) -> Set[UUID]:
        new = [each for each in batches if each.batch.batch_id not in self._tables.batches]
        for each in new:
            batch, at = each.batch, each.submitted_at
            total = len(batch.items)
            view = new_view(each.actor, batch, BatchStatus.PROCESSING, total, at)
            self._tables.batches[batch.batch_id] = Batch(view, each.content_hash)
            self._tables.items[batch.batch_id] = new_items(batch.batch_id, list(enumerate(batch.items)), at, version=1)
            self._tables.parts[batch.batch_id] = {hashes.part: Part(hashes, at) for hashes in each.parts}
            self.publish(each.actor.organization_id, batch.batch_id, each.events)
        return frozenset(each.batch.batch_id for each in new)

    def lock_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        batch = self._tables.batches.get(batch_id)
        return None if batch is None or (batch.deleted_at is not None and not or_deleted) else self._read(batch)

    def lock_batches(self, batch_ids: Collection[UUID]) -> None:
        """Does nothing, because one transaction runs at a time."""

    def lock_for_fold(self, batch_ids: Sequence[UUID]) -> Mapping[UUID, BatchView]:
        found = sorted(set(batch_ids) & self._tables.batches.keys())
        return {batch_id: self._read(self._tables.batches[batch_id]) for batch_id in found}

    def change_batches(self, changes: Sequence[BatchChange]) -> None:
        for change in changes:
            view = self._tables.batches[change.batch_id].view
            self._change(
                change.batch_id,
                dismissed_at=None if change.counts.failed > view.counts.failed else view.dismissed_at,
                counts=change.counts,
                status=change.status,
                changed_at=change.now,
                completed_at=change.completed_at,
                version=view.version + 1,
            )

    def mark_cancelled(self, batch_id: UUID, *, at: datetime, by: str, reason: str | None) -> None:
        edit_version = self._tables.batches[batch_id].view.edit_version + 1
        self._change(batch_id, cancelled_at=at, cancelled_by=by, cancellation_reason=reason, edit_version=edit_version)
        parts = self._tables.parts.get(batch_id, {})
        self._tables.parts[batch_id] = {
            number: part if part.items is None else replace(part, items=[]) for number, part in parts.items()
        }

    def relabel(self, batch_id: UUID, label: str | None, at: datetime) -> None:
        self._edit(batch_id, at, label=label)

    def mark_revoked(self, batch_id: UUID, positions: Sequence[int], revocation: Revocation) -> None:
        view, items = self._tables.batches[batch_id].view, self._tables.items.get(batch_id, {})
        marked = [items[position] for position in positions if position in items]
        for item in marked:
            self._change_item(batch_id, item, view.version + 1, revocation=revocation, revocation_request=None)
        self._edit(batch_id, revocation.at, revoked=view.revoked + len(marked))

    def mark_requests(self, batch_id: UUID, requests: Mapping[int, str], revocation: Revocation) -> None:
        version = self._tables.batches[batch_id].view.version + 1
        for position, request in requests.items():
            self._change_item(batch_id, self._tables.items[batch_id][position], version, revocation_request=request)
        self._edit(batch_id, revocation.at)

    def dismiss(self, batch_id: UUID, *, at: datetime, by: str) -> None:
        version = self._tables.batches[batch_id].view.version + 1
        self._change(batch_id, dismissed_at=at, version=version, changed_at=at)
        self._tables.dismissals[batch_id, version] = by

    def mark_deleted(self, batch_id: UUID, at: datetime) -> None:
        self._edit(batch_id, at)
        self._tables.batches[batch_id] = replace(self._tables.batches[batch_id], deleted_at=at)

    def _edit(self, batch_id: UUID, at: datetime, **changes: Any) -> None:
        view = self._tables.batches[batch_id].view
        self._change(batch_id, version=view.version + 1, edit_version=view.edit_version + 1, changed_at=at, **changes)

    def _change(self, batch_id: UUID, **changes: Any) -> None:
        batch = self._tables.batches[batch_id]
        self._tables.batches[batch_id] = replace(batch, view=replace(batch.view, **changes))

    def publish(self, organization_id: str, batch_id: UUID, events: Sequence[OutgoingEvent]) -> None:
        self.publish_all([EventOf(organization_id, batch_id, event) for event in events])

    def publish_all(self, events: Sequence[EventOf]) -> None:
        self._tables.outbox.extend(events)

    def wake_relays(self, *, hurried: bool = True) -> None:
        """Does nothing, because there are no relays."""

    def find_batch(self, batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
        batch = self._tables.batches.get(batch_id)
        if batch is None or (batch.deleted_at is not None and not or_deleted):
            return None
        return self._shown(batch)

    def list_batches(self, organization_id: str, wanted: BatchFilter) -> BatchPage:
        found = [
            batch
            for batch in self._tables.batches.values()
            if batch.view.organization_id == organization_id and batch.deleted_at is None and _matches(batch.view, wanted)
        ]
        found.sort(key=lambda batch: _newness(batch.view), reverse=True)
        if wanted.after is None:
            rest = found[(wanted.page - 1) * wanted.limit :]
        else:
            rest = [batch for batch in found if _newness(batch.view) < wanted.after]
        shown = [self._shown(batch) for batch in rest[: wanted.limit]]
        return BatchPage(shown, len(found), _newness(shown[-1]) if len(rest) > wanted.limit else None)

    def _read(self, batch: Batch) -> BatchView:
        return replace(batch.view, measurement=replace(batch.view.measurement, read_at=self.clock()))

    def _shown(self, batch: Batch) -> BatchView:
        items = self._tables.items.get(batch.view.batch_id, {}).values()
        errors = [item.view.error for item in items if item.view.status is ItemStatus.FAILED]
        return replace(self._read(batch), errors_by_code=Counter(error.code for error in errors if error is not None))

    # --- Items and outcomes -------------------------------------------------------------------------------------------------------

    def fold(self, keys: Sequence[OutcomeKey], batches: Mapping[UUID, BatchView]) -> Folded:
        changed: dict[UUID, Counter[ItemStatus]] = {}
        unknown: list[int] = []
        for index, key in enumerate(keys):
            batch_id = UUID(key.batch_id)
            if (key.position, key.attempt) not in self._tables.outcomes.get(batch_id, {}):
                unknown.append(index)
            elif batch_id in batches:
                status = self._take_outcome(batch_id, key.position, key.attempt, batches[batch_id].version + 1)
                if status is not None:
                    changed.setdefault(batch_id, Counter())[status] += 1
        return Folded(changed, unknown, self.clock() if changed else None)

    def fold_batch(self, batch_id: UUID) -> Mapping[ItemStatus, int]:
        version = self._tables.batches[batch_id].view.version + 1
        taken = [self._take_outcome(batch_id, *key, version) for key in self._tables.outcomes.get(batch_id, {})]
        return Counter(status for status in taken if status is not None)

    def _take_outcome(self, batch_id: UUID, position: int, attempt: int, version: int) -> ItemStatus | None:
        """Returns the item's new state. None: it is not pending in this attempt."""
        decided = self._tables.outcomes[batch_id][position, attempt]
        status = ItemStatus(decided.outcome)
        item = self._tables.items.get(batch_id, {}).get(position)
        if item is None or item.view.attempt != attempt or item.view.status is not ItemStatus.PENDING:
            return None
        self._change_item(batch_id, item, version, status=status, activity_id=decided.activity_id, error=decided.error)
        return status

    def _change_item(self, batch_id: UUID, item: Item, version: int, **changes: Any) -> None:
        changed = replace(item, view=replace(item.view, **changes), changed_version=version)
        self._tables.items[batch_id][item.view.position] = changed

    def cancel_pending(self, batch_id: UUID, at: datetime) -> Sequence[tuple[int, int]]:
        version = self._tables.batches[batch_id].view.version + 1
        cancelled: list[tuple[int, int]] = []
        for item in self._items_of(batch_id):
            if item.view.status is ItemStatus.PENDING and not self.positions_in_doubt(batch_id, [item.view.position]):
                self._change_item(batch_id, item, version, status=ItemStatus.CANCELLED)
                self._storage.decide(batch_id, item.view.position, item.view.attempt, Decided(Outcome.CANCELLED, at))
                cancelled.append((item.view.position, item.view.attempt))
        return cancelled

    def positions_in_doubt(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[int]:
        dispatches = self._tables.dispatches.get(batch_id, {})
        return sorted(each for each in set(positions) & dispatches.keys() if dispatches[each][0] in _IN_DOUBT)

    def _items_of(self, batch_id: UUID) -> list[Item]:
        return [item for _, item in sorted(self._tables.items.get(batch_id, {}).items())]

    def items_by_status(self, batch_id: UUID, status: ItemStatus) -> Sequence[ItemView]:
        return [item.view for item in self._items_of(batch_id) if item.view.status is status]

    def items_at(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[ItemView]:
        wanted = set(positions)
        return [item.view for item in self._items_of(batch_id) if item.view.position in wanted]

    def positions_changed_since(self, batch_id: UUID, version: int) -> Sequence[int]:
        return [item.view.position for item in self._items_of(batch_id) if item.changed_version > version]

    def positions_of_identities(self, batch_id: UUID, values: Sequence[ItemValues]) -> Sequence[tuple[int, ItemValues]]:
        return [
            (item.view.position, each)
            for item in self._items_of(batch_id)
            for each in values
            if each.identity == item.view.values.identity
        ]

    def begin_attempts(self, batch: BatchView, attempts: Sequence[NewAttempt], *, by: str, at: datetime) -> int:
        items = self._tables.items[batch.batch_id]
        for new in attempts:
            item = items[new.position]
            self._keep_history(batch.batch_id, item, new, by=by, at=at)
            begun = replace(
                item.view,
                status=ItemStatus.PENDING,
                attempt=item.view.attempt + 1,
                error=None,
                planned=None,
                values=new.values,
            )
            items[new.position] = Item(begun, at, batch.version + 1)
        view = self._tables.batches[batch.batch_id].view
        measurement = Measurement(at, view.counts.pending + len(attempts), at)
        self._change(batch.batch_id, retry_number=view.retry_number + 1, measurement=measurement)
        return view.retry_number + 1

    def _keep_history(self, batch_id: UUID, item: Item, new: NewAttempt, *, by: str, at: datetime) -> None:
        assert item.view.error is not None, "only a failed item begins a new attempt"
        past = AttemptView(
            attempt=item.view.attempt,
            values=_through_json(item.view.values._asdict()),
            error=item.view.error,
            attempted_at=item.attempt_at,
            correction=None if new.correction is None else CORRECTION.validate_python(_through_json(new.correction)),
            retried_by=by,
            retried_at=at,
        )
        key = (batch_id, item.view.position)
        self._tables.history[key] = (*self._tables.history.get(key, ()), past)

    def status(self, batch_id: UUID, items: ItemFilter) -> StatusView | None:
        batch = self.find_batch(batch_id)
        if batch is None or items.limit is None:
            return None if batch is None else StatusView(batch, (), None)
        found = [
            item.view
            for item in self._items_of(batch_id)
            if item.view.position > items.after_position and items.status in (None, item.view.status)
        ]
        shown = found[: items.limit]
        return StatusView(batch, shown, shown[-1].position if len(found) > items.limit else None)

    def history(self, batch_id: UUID, position: int) -> Sequence[AttemptView]:
        return list(self._tables.history.get((batch_id, position), ()))


def _matches(view: BatchView, wanted: BatchFilter) -> bool:
    return (
        (not wanted.statuses or view.status in wanted.statuses)
        and (not wanted.needs_attention or view.needs_attention)
        and wanted.coordinator_id in (None, view.coordinator_id)
        and (wanted.submitted_from is None or view.submitted_at >= wanted.submitted_from)
        and (wanted.submitted_to is None or view.submitted_at < wanted.submitted_to)
        and (
            wanted.label_contains is None
            or (view.label is not None and canonical(wanted.label_contains).lower() in canonical(view.label).lower())
        )
    )


def _newness(view: BatchView) -> tuple[datetime, UUID]:
    return view.submitted_at, view.batch_id


def _key(actor: Actor, idempotency: Idempotency) -> Key:
    return actor.organization_id, actor.subject, idempotency.key


def _through_json(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the value as a JSON column would return it."""
    read: Mapping[str, Any] = orjson.loads(orjson.dumps(value))
    return read
