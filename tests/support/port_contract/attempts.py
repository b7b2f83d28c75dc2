"""The contract of `ActivityRepository`: outcomes, cancels, edits, retries and events."""

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import uuid4

from orchestrator.batches.model import Actor, AttemptView, Measurement, Revocation
from orchestrator.batches.repository import BatchChange, EventOf, NewAttempt
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from orchestrator.storage.dispatch import DispatchState
from schemas.corrections import Correction
from tests.support.pipeline import DAY, item, mentors
from tests.support.port_contract.common import (
    ERROR,
    Contract,
    created,
    event,
    fail,
    fold_all,
    found,
    items_of,
    key,
    now,
    states,
    succeed,
)
from tests.support.storage import Storage


class AttemptContract(Contract):
    """What every `ActivityRepository` does with what happens to a batch and its items."""

    # --- Outcomes -----------------------------------------------------------------------------------------------------------------

    def test_only_a_pending_item_of_the_very_attempt_takes_an_outcome(self, storage: Storage, actor: Actor) -> None:
        batch_id, unlocked = created(storage, actor, mentors(3)), created(storage, actor, mentors(1))
        succeed(storage, batch_id, 0)
        fail(storage, batch_id, 1)
        fail(storage, batch_id, 2, attempt=2)
        succeed(storage, unlocked, 0)
        keys = [key(batch_id, 1, 2), key(batch_id, 1), key(uuid4(), 0), key(batch_id, 0), key(batch_id, 0), key(unlocked, 0)]
        keys += [key(batch_id, 2, 2), key(batch_id, 2)]
        with storage.transaction() as (repository, _):
            folded = repository.fold(keys, repository.lock_for_fold([batch_id]))
            assert folded.changed == {batch_id: {ItemStatus.SUCCESS: 1, ItemStatus.FAILED: 1}}
            assert folded.unknown == [0, 2, 7]
        with storage.transaction() as (repository, _):
            again = repository.fold(keys, repository.lock_for_fold([batch_id]))
            assert (again.changed, again.unknown) == ({}, [0, 2, 7])
        shown = [(one.status, one.activity_id is not None, one.error) for one in items_of(storage, batch_id)]
        assert shown == [("success", True, None), ("failed", False, ERROR), ("pending", False, None)]
        assert states(storage, unlocked) == [("pending", 1)]

    def test_a_whole_batch_is_folded_once(self, storage: Storage, actor: Actor) -> None:
        batch_id, other = created(storage, actor, mentors(4)), created(storage, actor, mentors(1))
        succeed(storage, batch_id, 0, 3)
        fail(storage, batch_id, 1)
        succeed(storage, other, 0)
        with storage.transaction() as (repository, _):
            assert repository.fold_batch(batch_id) == {ItemStatus.SUCCESS: 2, ItemStatus.FAILED: 1}
            assert repository.fold_batch(batch_id) == {}
        assert [status for status, _ in states(storage, batch_id)] == ["success", "failed", "pending", "success"]
        assert found(storage, batch_id).counts == Counts(pending=4), "the counts are written by themselves"
        assert states(storage, other) == [("pending", 1)]

    def test_new_counts_raise_the_version_and_no_edit_version(self, storage: Storage, actor: Actor) -> None:
        first, second = created(storage, actor, mentors(2)), created(storage, actor, mentors(2))
        before, at = found(storage, first), now(storage)
        changes = [
            BatchChange(first, Counts(completed=1, failed=1), BatchStatus.PARTIAL, at, at),
            BatchChange(second, Counts(pending=1, completed=1), BatchStatus.PROCESSING, at, None),
        ]
        with storage.transaction() as (repository, _):
            repository.change_batches(changes)
            repository.change_batches([])
        expected = replace(
            before, counts=changes[0].counts, status=BatchStatus.PARTIAL, changed_at=at, completed_at=at, version=2
        )
        assert found(storage, first) == expected
        assert (found(storage, second).completed_at, found(storage, second).version) == (None, 2)

    def test_who_has_seen_a_version_finds_the_items_that_changed_after_it(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(4))
        versions = [found(storage, batch_id).version]
        for positions in ((3, 2), (1, 0)):
            fail(storage, batch_id, *positions)
            fold_all(storage, batch_id)
            versions.append(found(storage, batch_id).version)
        with storage.transaction() as (repository, _):
            batch = repository.find_batch(batch_id)
            assert batch
            values = item("mentor-1").values
            repository.begin_attempts(batch, [NewAttempt(0, values, None)], by="boss", at=repository.clock())
            changed = [repository.positions_changed_since(batch_id, version) for version in (0, *versions)]
            assert repository.positions_changed_since(uuid4(), 0) == []
        assert changed == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [0]]

    # --- Cancel -------------------------------------------------------------------------------------------------------------------

    def test_a_cancel_takes_what_is_pending_and_in_no_doubt(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(7))
        succeed(storage, batch_id, 0)
        fold_all(storage, batch_id)
        at = now(storage)
        for position, state in enumerate(DispatchState, start=2):
            storage.dispatch(batch_id, position, state, at)
        storage.dispatch(batch_id, 0, DispatchState.REGISTERED, at)
        version = found(storage, batch_id).version
        with storage.transaction() as (repository, _):
            assert repository.positions_in_doubt(batch_id, [5, 4, 3, 2, 1]) == [2, 3]
            assert repository.positions_in_doubt(batch_id, [3]) == [3]
            assert repository.positions_in_doubt(uuid4(), [3]) == []
            assert repository.cancel_pending(batch_id, at) == [(1, 1), (4, 1), (5, 1), (6, 1)]
            assert repository.positions_changed_since(batch_id, version) == [1, 4, 5, 6]
            assert repository.cancel_pending(batch_id, at) == []
        expected = ["success", "cancelled", "pending", "pending", "cancelled", "cancelled", "cancelled"]
        assert [status for status, _ in states(storage, batch_id)] == expected
        # The attempt is decided, so a later decision of the registration has no effect.
        with storage.transaction() as (repository, _):
            assert repository.fold([key(batch_id, 1), key(batch_id, 6)], {}).unknown == []
        succeed(storage, batch_id, 1, 6)
        with storage.transaction() as (repository, _):
            assert repository.fold([key(batch_id, 1), key(batch_id, 6)], repository.lock_for_fold([batch_id])).unknown == []
        assert [status for status, _ in states(storage, batch_id)] == expected

    def test_who_cancelled_is_noted_as_an_edit_whose_version_comes_with_the_counts(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(1))
        before, at = found(storage, batch_id), now(storage)
        with storage.transaction() as (repository, _):
            repository.mark_cancelled(batch_id, at=at, by="boss", reason="wrong week")
        assert found(storage, batch_id) == replace(
            before, cancelled_at=at, cancelled_by="boss", cancellation_reason="wrong week", edit_version=2
        )

    # --- Edits --------------------------------------------------------------------------------------------------------------------

    def test_an_edit_raises_both_versions(self, storage: Storage, actor: Actor) -> None:
        batch_id, other = created(storage, actor, mentors(1)), created(storage, actor, mentors(1))
        before, at = found(storage, batch_id), now(storage)
        with storage.transaction() as (repository, _):
            repository.relabel(batch_id, None, at)
        relabelled = replace(before, label=None, version=2, edit_version=2, changed_at=at)
        assert found(storage, batch_id) == relabelled
        later = now(storage)
        with storage.transaction() as (repository, _):
            repository.mark_deleted(batch_id, later)
        assert found(storage, batch_id) == replace(relabelled, version=3, edit_version=3, changed_at=later)
        assert found(storage, other).version == 1

    def test_revoked_items_stay_what_they_are_and_are_counted(self, storage: Storage, actor: Actor) -> None:
        batch_id, other = created(storage, actor, mentors(4)), created(storage, actor, mentors(1))
        succeed(storage, batch_id, 0, 1, 2, 3)
        fold_all(storage, batch_id)
        before, items = found(storage, batch_id), items_of(storage, batch_id)
        first, second = (Revocation(now(storage), by, "wrong date") for by in ("coord-1", "boss"))
        with storage.transaction() as (repository, _):
            repository.mark_revoked(batch_id, [0, 2], first)
        with storage.transaction() as (repository, _):
            repository.mark_revoked(batch_id, [3], second)
            assert repository.positions_changed_since(batch_id, before.version) == [0, 2, 3]
            assert repository.positions_changed_since(batch_id, before.version + 1) == [3]
        version, edit_version = before.version + 2, before.edit_version + 2
        revoked = replace(before, revoked=3, version=version, edit_version=edit_version, changed_at=second.at)
        assert found(storage, batch_id) == revoked
        assert items_of(storage, batch_id) == [
            replace(each, revocation=revocation) for each, revocation in zip(items, (first, None, first, second), strict=True)
        ]
        assert found(storage, other).revoked == 0

    # --- Retry --------------------------------------------------------------------------------------------------------------------

    def test_a_new_attempt_has_new_values_and_a_past(self, storage: Storage, actor: Actor) -> None:
        items = [each._replace(client_reference=f"row {place}", planned="success") for place, each in enumerate(mentors(3))]
        batch_id = created(storage, actor, items)
        fail(storage, batch_id, 0, 1)
        fold_all(storage, batch_id)
        before, batch, at = items_of(storage, batch_id), found(storage, batch_id), now(storage)
        corrected = before[1].values._replace(mentor_id="mentor-9", activity_date=date(2026, 3, 1), notes="now right")
        correction: Correction = {"mentor_id": "mentor-9", "activity_date": date(2026, 3, 1), "notes": "now right"}
        attempts = [NewAttempt(0, before[0].values, None), NewAttempt(1, corrected, correction)]
        with storage.transaction() as (repository, _):
            assert repository.begin_attempts(batch, attempts, by="boss", at=at) == 1
            assert [repository.history(batch_id, position) for position in (2, 3)] == [[], []]
            [first], [second] = repository.history(batch_id, 0), repository.history(batch_id, 1)
        begun: dict[str, Any] = {"status": ItemStatus.PENDING, "attempt": 2, "error": None, "planned": None}
        assert items_of(storage, batch_id) == [
            replace(before[0], **begun),
            replace(before[1], values=corrected, **begun),
            before[2],
        ]
        submitted = {**before[1].values._asdict(), "activity_date": DAY.isoformat()}
        assert second == AttemptView(1, submitted, ERROR, batch.submitted_at, correction, "boss", at)
        assert (first.values["mentor_id"], first.correction) == ("mentor-1", None)
        # The version is raised together with the counts.
        assert found(storage, batch_id) == replace(
            batch, retry_number=1, measurement=Measurement(at, batch.counts.pending + 2, at), errors_by_code={}
        )

    def test_attempts_that_are_over_come_oldest_first(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(1))
        begun = [found(storage, batch_id).submitted_at]
        for attempt in (1, 2, 3):
            fail(storage, batch_id, 0, attempt=attempt, error=replace(ERROR, message=str(attempt)))
            fold_all(storage, batch_id)
            begun.append(now(storage))
            with storage.transaction() as (repository, _):
                batch = repository.lock_batch(batch_id)
                assert batch
                new = NewAttempt(0, item("mentor-1").values, None)
                assert repository.begin_attempts(batch, [new], by="boss", at=begun[-1]) == attempt
                counts = batch.counts.moved(ItemStatus.FAILED, ItemStatus.PENDING)
                repository.change_batches([BatchChange(batch_id, counts, BatchStatus.PROCESSING, begun[-1], None)])
        with storage.transaction() as (repository, _):
            past = repository.history(batch_id, 0)
        assert [(each.attempt, each.error.message, each.attempted_at, each.retried_at) for each in past] == [
            (attempt, str(attempt), begun[attempt - 1], begun[attempt]) for attempt in (1, 2, 3)
        ]

    # --- Events -------------------------------------------------------------------------------------------------------------------

    def test_events_are_published_in_their_order(self, storage: Storage, actor: Actor) -> None:
        first, second = uuid4(), uuid4()
        organization_id = actor.organization_id
        events = [
            EventOf(organization_id, each, event(each, number)) for number, each in enumerate([first, second, first, second])
        ]
        with storage.transaction() as (repository, _):
            repository.publish_all(events)
            repository.publish_all([])
            repository.publish(organization_id, first, [event(first, 4), event(first, 5)])
            repository.publish(organization_id, first, [])
            repository.wake_relays()
        taken = storage.take_outbox()
        more = [EventOf(organization_id, first, event(first, number)) for number in (4, 5)]
        assert taken == [*events, *more]
        assert storage.take_outbox() == []
