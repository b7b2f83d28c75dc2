"""The contract of `ActivityRepository`: new batches, their keys, locks and lists."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.batches.model import Actor, BatchFilter, BatchView, Idempotency, ItemFilter, ItemView, Measurement, NewItem
from orchestrator.batches.repository import ActivityRepository, BatchChange, EventOf, KeyUse, UsedKey
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus, Outcome
from orchestrator.storage.dispatch import DispatchState
from schemas.ids import DerivedIds
from tests.support.pipeline import item, mentors
from tests.support.port_contract.common import (
    COORDINATOR,
    OTHER_ERROR,
    TRACE,
    Contract,
    created,
    fail,
    fold_all,
    found,
    items_of,
    new_batch,
    now,
    states,
    succeed,
    to_create,
)
from tests.support.storage import Decided, Storage


class BatchContract(Contract):
    """What every `ActivityRepository` does with batches."""

    # --- Clock, coordinators, transactions ----------------------------------------------------------------------------------------

    def test_the_clock_goes_on_within_a_transaction(self, storage: Storage) -> None:
        with storage.transaction() as (repository, _):
            assert repository.clock() < repository.clock()

    def test_a_clock_that_was_set_back_is_not_before_what_was_decided_or_asked(self, storage: Storage, actor: Actor) -> None:
        decided, asked, neither = (created(storage, actor, mentors(2)) for _ in range(3))
        future = now(storage) + timedelta(hours=1)
        storage.decide(decided, 1, 1, Decided(Outcome.CANCELLED, future))
        storage.dispatch(asked, 1, DispatchState.ASKED, future)
        with storage.transaction() as (repository, _):
            assert [repository.clock_after_decisions(each) for each in (decided, asked)] == [future, future]
            assert repository.clock() < repository.clock_after_decisions(neither) < future

    def test_coordinators_are_known_in_their_organization(self, storage: Storage, actor: Actor) -> None:
        storage.know_coordinator(actor.organization_id, COORDINATOR)
        storage.know_coordinator(actor.organization_id, 'coord, "3"')
        storage.know_coordinator(f"{actor.organization_id}-2", "coord-2")
        asked = {COORDINATOR, "coord-2", "nobody", 'coord, "3"'}
        with storage.transaction() as (repository, _):
            assert repository.known_coordinators(actor.organization_id, asked) == {COORDINATOR, 'coord, "3"'}
            assert repository.known_coordinators(actor.organization_id, {COORDINATOR}) == {COORDINATOR}
            before = repository.clock()
            at, known = repository.clock_and_coordinators(f"{actor.organization_id}-2", asked)
            assert (known, before < at < repository.clock()) == ({"coord-2"}, True)

    def test_a_transaction_that_raises_has_changed_nothing(self, storage: Storage, actor: Actor) -> None:
        batch_id, idempotency = created(storage, actor, mentors(2)), Idempotency("key", b"hash")
        succeed(storage, batch_id, 0)
        before, lost = found(storage, batch_id), new_batch(mentors(1))

        def change_all() -> None:
            with storage.transaction() as (repository, parts):
                repository.create_batches([to_create(actor, lost, repository.clock())])
                repository.use_keys([KeyUse(actor, idempotency, lost.batch_id)])
                repository.fold_batch(batch_id)
                repository.cancel_pending(batch_id, repository.clock())
                repository.relabel(batch_id, "another", repository.clock())
                parts.begin(actor, replace(lost, batch_id=uuid4()), content_hash=b"hash", parts=2, total=3)
                raise LookupError

        with pytest.raises(LookupError):
            change_all()
        assert found(storage, batch_id) == before
        assert states(storage, batch_id) == [("pending", 1)] * 2
        with storage.transaction() as (repository, _):
            assert repository.used_key(actor, idempotency) is None
            assert repository.find_batch(lost.batch_id) is None
            assert repository.list_batches(actor.organization_id, BatchFilter()).total == 1
            assert repository.fold_batch(batch_id) == {ItemStatus.SUCCESS: 1}, "the second was not cancelled"
        assert storage.take_outbox() == []

    # --- Idempotency-Keys ---------------------------------------------------------------------------------------------------------

    def test_a_key_stands_for_its_first_use(self, storage: Storage, actor: Actor) -> None:
        first, again = (KeyUse(actor, Idempotency("key", hash_), uuid4()) for hash_ in (b"first", b"again"))
        with storage.transaction() as (repository, _):
            assert repository.used_key(actor, first.idempotency) is None
            assert repository.use_keys([first]) == {}
        used = UsedKey(b"first", first.batch_id, None)
        with storage.transaction() as (repository, _):
            assert repository.use_keys([again]) == {again.batch_id: used}
            assert repository.used_key(actor, again.idempotency) == used
            repository.store_result(actor, again.idempotency, {"retried": 3})
        with storage.transaction() as (repository, _):
            assert repository.used_key(actor, first.idempotency) == replace(used, result={"retried": 3})

    def test_of_several_uses_in_one_set_the_first_has_the_key(self, storage: Storage, actor: Actor) -> None:
        uses = [KeyUse(actor, Idempotency("key", b"hash"), uuid4()) for _ in range(3)]
        other = KeyUse(actor, Idempotency("another", b"hash"), uuid4())
        with storage.transaction() as (repository, _):
            used = repository.use_keys([uses[0], other, *uses[1:]])
        assert used == {use.batch_id: UsedKey(b"hash", uses[0].batch_id, None) for use in uses[1:]}

    def test_a_key_belongs_to_its_subject_in_its_organization(self, storage: Storage, actor: Actor) -> None:
        actors = [actor, replace(actor, subject="another"), replace(actor, organization_id=f"{actor.organization_id}-2")]
        uses = [KeyUse(each, Idempotency("key", b"hash"), uuid4()) for each in actors]
        with storage.transaction() as (repository, _):
            assert repository.use_keys(uses) == {}
            repository.store_result(actor, uses[0].idempotency, {})
            answers = [repository.used_key(use.actor, use.idempotency) for use in uses]
        assert [(used.batch_id, used.result) for used in answers if used] == [
            (uses[0].batch_id, {}),
            (uses[1].batch_id, None),
            (uses[2].batch_id, None),
        ]

    # --- New batches --------------------------------------------------------------------------------------------------------------

    def test_a_new_batch_is_stored_with_its_items_and_events(self, storage: Storage, actor: Actor) -> None:
        values = item("mentor-1", day=date(2026, 3, 24), kind="call", minutes=61, notes='a, "note"')
        first = NewItem(values.values._replace(override_duplicates=True), "row 1", planned="success")
        batch = new_batch([first, item("mentor-2")], override_duplicates=True)
        with storage.transaction() as (repository, _):
            wanted = to_create(actor, batch, repository.clock())
            assert repository.create_batches([wanted]) == {batch.batch_id}
        stored = found(storage, batch.batch_id)
        assert stored == BatchView(
            batch_id=batch.batch_id,
            organization_id=actor.organization_id,
            coordinator_id=COORDINATOR,
            submitted_by="the-sender",
            channel="the-channel",
            label="the label",
            status=BatchStatus.PROCESSING,
            counts=Counts(pending=2),
            retry_number=0,
            version=1,
            edit_version=1,
            submitted_at=wanted.submitted_at,
            changed_at=wanted.submitted_at,
            completed_at=None,
            cancelled_at=None,
            cancelled_by=None,
            cancellation_reason=None,
            trace_id=TRACE,
            measurement=Measurement(wanted.submitted_at, 2, wanted.submitted_at),
        )
        assert stored.measurement.read_at > wanted.submitted_at
        ids = DerivedIds(batch.batch_id)
        assert items_of(storage, batch.batch_id) == [
            ItemView(ids.item_id(0), 0, first.values, "row 1", ItemStatus.PENDING, 1, None, None, "success"),
            ItemView(ids.item_id(1), 1, batch.items[1].values, None, ItemStatus.PENDING, 1, None, None, None),
        ]
        assert storage.take_outbox() == [EventOf(actor.organization_id, batch.batch_id, each) for each in wanted.events]

    def test_what_exists_already_is_left_as_it_is(self, storage: Storage, actor: Actor) -> None:
        old, new = new_batch(mentors(1)), new_batch(mentors(2))
        created(storage, actor, old.items, batch_id=old.batch_id)
        before = found(storage, old.batch_id)
        with storage.transaction() as (repository, _):
            at = repository.clock()
            again = to_create(actor, replace(old, label="another", items=mentors(3)), at)
            assert repository.create_batches([again, to_create(actor, new, at)]) == {new.batch_id}
            assert repository.create_batches([again]) == set()
        assert found(storage, old.batch_id) == before
        assert states(storage, old.batch_id) == [("pending", 1)]
        assert {each.batch_id for each in storage.take_outbox()} == {new.batch_id}

    # --- Locks and reading --------------------------------------------------------------------------------------------------------

    def test_what_is_deleted_is_found_only_when_asked_for(self, storage: Storage, actor: Actor) -> None:
        deleted, other = created(storage, actor, mentors(1)), created(storage, actor, mentors(1))
        with storage.transaction() as (repository, _):
            repository.mark_deleted(deleted, repository.clock())
        with storage.transaction() as (repository, _):
            assert repository.find_batch(deleted) is None
            assert repository.find_batch(deleted, or_deleted=True) is not None
            assert repository.status(deleted, ItemFilter()) is None
            assert repository.status(deleted, ItemFilter(limit=None)) is None
            assert repository.lock_batch(deleted) is None
            locked = repository.lock_batch(deleted, or_deleted=True)
            assert locked is not None
            assert locked.batch_id == deleted
            assert repository.lock_for_fold(sorted([deleted, other])).keys() == {deleted, other}, "results may still come"
            repository.lock_batches([deleted, other])
            assert repository.lock_batch(other) == found(storage, other)

    def test_there_is_nothing_of_an_unknown_batch(self, storage: Storage) -> None:
        unknown = uuid4()
        with storage.transaction() as (repository, _):
            assert repository.find_batch(unknown, or_deleted=True) is None
            assert repository.lock_batch(unknown) is None
            assert repository.lock_for_fold([unknown]) == {}
            assert repository.status(unknown, ItemFilter()) is None
            assert repository.items_at(unknown, [0]) == []
            assert repository.history(unknown, 0) == []
            assert repository.create_batches([]) == set()

    def test_errors_are_counted_for_those_who_read_and_not_for_those_who_lock(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(4))
        fail(storage, batch_id, 0, 1)
        fail(storage, batch_id, 2, error=OTHER_ERROR)
        fold_all(storage, batch_id)
        expected = {"mentor_not_found": 2, "out_of_scope": 1}
        assert found(storage, batch_id).errors_by_code == expected
        with storage.transaction() as (repository, _):
            [listed] = repository.list_batches(actor.organization_id, BatchFilter()).batches
            status = repository.status(batch_id, ItemFilter(limit=1))
            locked = repository.lock_batch(batch_id)
        assert status
        assert locked
        assert (listed.errors_by_code, status.batch.errors_by_code, locked.errors_by_code) == (expected, expected, {})

    def test_items_come_in_pages_by_position(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(5))
        fail(storage, batch_id, 1, 2, 4)
        fold_all(storage, batch_id)

        def page(**wanted: Any) -> tuple[list[int], int | None]:
            with storage.transaction() as (repository, _):
                view = repository.status(batch_id, ItemFilter(**wanted))
            assert view is not None
            assert view.batch == found(storage, batch_id)
            return [each.position for each in view.items], view.next_after_position

        assert page() == ([0, 1, 2, 3, 4], None)
        assert page(limit=5) == ([0, 1, 2, 3, 4], None)
        assert page(limit=2) == ([0, 1], 1)
        assert page(limit=2, after_position=1) == ([2, 3], 3)
        assert page(limit=2, after_position=3) == ([4], None)
        assert page(after_position=4) == ([], None)
        assert page(status=ItemStatus.FAILED, limit=2) == ([1, 2], 2)
        assert page(status=ItemStatus.FAILED, limit=2, after_position=2) == ([4], None)
        assert page(status=ItemStatus.SUCCESS) == ([], None)
        assert page(limit=None) == ([], None)

    def test_items_are_found_by_state_position_and_identity(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, [*mentors(3), item("mentor-1", kind="call")])
        created(storage, actor, mentors(3))
        fail(storage, batch_id, 2, 0)
        fold_all(storage, batch_id)
        with storage.transaction() as (repository, _):
            assert [each.position for each in repository.items_by_status(batch_id, ItemStatus.FAILED)] == [0, 2]
            assert [each.position for each in repository.items_by_status(batch_id, ItemStatus.PENDING)] == [1, 3]
            assert [each.position for each in repository.items_at(batch_id, [3, 0, 9, 1])] == [0, 1, 3]
            wanted = [item("mentor-2", minutes=5).values, item("mentor-1").values, item("mentor-9").values]
            assert repository.positions_of_identities(batch_id, wanted) == [(0, wanted[1]), (1, wanted[0])]

    # --- Lists --------------------------------------------------------------------------------------------------------------------

    def test_each_filter_selects_and_counts(self, storage: Storage, actor: Actor) -> None:
        at, hour, moment = now(storage), timedelta(hours=1), timedelta(microseconds=1)
        fields: Sequence[dict[str, Any]] = (
            {"label": "Alpha"},
            {"label": "Be\u00e9ta"},
            {"label": "alphabet", "coordinator_id": "coord-2"},
            {"label": None},
        )
        batches = [new_batch(mentors(1), **each) for each in fields]
        foreign, deleted = new_batch(mentors(1), label="Alpha"), created(storage, actor, mentors(1), label="Alpha")
        with storage.transaction() as (repository, _):
            repository.create_batches([to_create(actor, each, at + hour * place) for place, each in enumerate(batches)])
            repository.create_batches([to_create(replace(actor, organization_id=f"{actor.organization_id}-2"), foreign, at)])
            repository.mark_deleted(deleted, at)
        succeed(storage, batches[1].batch_id, 0)
        with storage.transaction() as (repository, _):
            repository.change_batches([BatchChange(batches[1].batch_id, Counts(completed=1), BatchStatus.COMPLETED, at, at)])
        cases: Sequence[tuple[BatchFilter, list[int]]] = (
            (BatchFilter(), [3, 2, 1, 0]),
            (BatchFilter(statuses=(BatchStatus.COMPLETED,)), [1]),
            (BatchFilter(statuses=(BatchStatus.CANCELLED,)), []),
            (BatchFilter(statuses=(BatchStatus.CANCELLED, BatchStatus.COMPLETED)), [1]),
            (BatchFilter(statuses=tuple(BatchStatus)), [3, 2, 1, 0]),
            (BatchFilter(coordinator_id="coord-2"), [2]),
            (BatchFilter(label_contains="ALPHA"), [2, 0]),
            (BatchFilter(label_contains="BEE\u0301"), [1]),
            (BatchFilter(label_contains="\u200bbe\u00e9\u00ad"), [1]),
            (BatchFilter(label_contains="%"), []),
            (BatchFilter(label_contains=""), [2, 1, 0]),
            (BatchFilter(submitted_from=at + hour), [3, 2, 1]),
            (BatchFilter(submitted_from=at + hour + moment), [3, 2]),
            (BatchFilter(submitted_to=at + hour), [0]),
            (BatchFilter(submitted_to=at + hour + moment), [1, 0]),
            (BatchFilter(statuses=(BatchStatus.PROCESSING,), coordinator_id=COORDINATOR, label_contains="a"), [0]),
        )
        for wanted, places in cases:
            expected = [batches[place].batch_id for place in places]
            for page in (wanted, replace(wanted, limit=1), replace(wanted, limit=1, page=2), replace(wanted, page=9)):
                with storage.transaction() as (repository, _):
                    listed = repository.list_batches(actor.organization_id, page)
                first = (page.page - 1) * page.limit
                shown = expected[first : first + page.limit]
                assert ([each.batch_id for each in listed.batches], listed.total) == (shown, len(expected)), page
                assert (listed.next_after is not None) == (first + page.limit < len(expected)), page

    def test_a_list_of_what_needs_attention(self, storage: Storage, actor: Actor) -> None:
        ends = (
            (Counts(completed=1), BatchStatus.COMPLETED),
            (Counts(pending=1, failed=1), BatchStatus.PROCESSING),
            (Counts(failed=1), BatchStatus.FAILED),
            (Counts(completed=1, failed=1), BatchStatus.PARTIAL),
            (Counts(failed=1, cancelled=1), BatchStatus.CANCELLED),
        )
        at = now(storage)
        batches = [new_batch(mentors(counts.total)) for counts, _ in ends]
        with storage.transaction() as (repository, _):
            for n, each in enumerate(batches):
                repository.create_batches([to_create(actor, each, at + timedelta(seconds=n))])
            repository.change_batches(
                [
                    BatchChange(each.batch_id, counts, status, at, None if counts.pending else at)
                    for each, (counts, status) in zip(batches, ends, strict=True)
                ]
            )
            listed = repository.list_batches(actor.organization_id, BatchFilter(needs_attention=True))
            everything = repository.list_batches(actor.organization_id, BatchFilter())
        assert ([each.batch_id for each in listed.batches], listed.total) == ([batches[n].batch_id for n in (3, 2, 1)], 3)
        assert [each.needs_attention for each in everything.batches] == [False, True, True, True, False]

    def test_a_dismissed_batch_needs_attention_again_when_another_item_fails(self, storage: Storage, actor: Actor) -> None:
        batch_id = created(storage, actor, mentors(4))

        def change(counts: Counts) -> bool:
            with storage.transaction() as (repository, _):
                at = repository.clock()
                repository.change_batches([BatchChange(batch_id, counts, BatchStatus.PROCESSING, at, None)])
                return self._listed(repository, actor, batch_id)

        assert change(Counts(pending=2, completed=1, failed=1))
        before = found(storage, batch_id)
        with storage.transaction() as (repository, _):
            at = repository.clock()
            repository.dismiss(batch_id, at=at, by="ingrid")
            assert not self._listed(repository, actor, batch_id)
        after = found(storage, batch_id)
        assert after == replace(
            before, dismissed_at=at, version=before.version + 1, changed_at=at, measurement=after.measurement
        ), "and the edit version stays"
        # Fewer or as many failed items are no news.
        assert not change(Counts(pending=1, completed=2, failed=1))
        assert not change(Counts(pending=2, completed=2))
        assert change(Counts(pending=1, completed=2, failed=1))
        assert found(storage, batch_id).dismissed_at is None

    @staticmethod
    def _listed(repository: ActivityRepository, actor: Actor, batch_id: UUID) -> bool:
        """Whether the list of what needs attention has the batch, which says the same of itself."""
        listed = repository.list_batches(actor.organization_id, BatchFilter(needs_attention=True))
        batch = repository.find_batch(batch_id)
        assert batch is not None
        assert [each.batch_id for each in listed.batches] == ([batch_id] if batch.needs_attention else [])
        return batch.needs_attention

    def test_a_list_goes_on_after_its_last_batch(self, storage: Storage, actor: Actor) -> None:
        at = now(storage)
        batches = [new_batch(mentors(1)) for _ in range(5)]
        with storage.transaction() as (repository, _):
            # The last three come at the same moment, so their ids decide the order.
            repository.create_batches(
                [to_create(actor, each, at + timedelta(seconds=min(n, 2))) for n, each in enumerate(batches)]
            )
        expected = [*sorted([each.batch_id for each in batches[2:]], reverse=True), batches[1].batch_id, batches[0].batch_id]
        seen: list[UUID] = []
        wanted = BatchFilter(limit=2, page=7)  # a page number is ignored beside a cursor
        after: tuple[datetime, UUID] | None = (at + timedelta(days=1), uuid4())
        while after is not None:
            with storage.transaction() as (repository, _):
                page = repository.list_batches(actor.organization_id, replace(wanted, after=after))
            assert page.total == 5
            seen += [each.batch_id for each in page.batches]
            after = page.next_after
        assert seen == expected
