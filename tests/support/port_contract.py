"""Tests that every implementation of the storage ports passes. Each has a test module with a class that inherits a contract and has a
`storage`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchFilter,
    BatchView,
    Idempotency,
    ItemError,
    ItemFilter,
    ItemView,
    Measurement,
    NewBatch,
    NewItem,
    Revocation,
    Role,
    TemplateValues,
    TemplateView,
)
from orchestrator.batches.parts import submitted_events
from orchestrator.batches.repository import (
    ActivityRepository,
    BatchChange,
    BatchToCreate,
    EventOf,
    KeyUse,
    KnownPart,
    NewAttempt,
    OutcomeKey,
    PartHashes,
    Tombstone,
    UsedKey,
)
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus, Outcome
from orchestrator.storage.dispatch import DispatchState
from schemas.corrections import Correction
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.pipeline import DAY, item, mentors
from tests.support.storage import Decided, Storage

COORDINATOR = "coord-1"
TRACE = "ab" * 16
ERROR = ItemError("mentor_not_found", "No such mentor", retryable=False, field="mentor_id")
OTHER_ERROR = ItemError("out_of_scope", "Not theirs", retryable=True, conflicting_activity_id="another")


class Contract(ABC):
    """The common base of both ports' tests. Each test has an organization of its own, so that all can share a database."""

    @pytest.fixture
    @abstractmethod
    def storage(self) -> Storage:
        """Returns a storage that holds nothing of the test's organization."""

    @pytest.fixture
    def actor(self) -> Actor:
        """Returns a person of the test's own organization."""
        return Actor(f"org-{uuid4()}", "the-sender", Role.SERVICE, channel="the-channel")


def new_batch(items: Sequence[NewItem], **fields: Any) -> NewBatch:
    batch = NewBatch(new_batch_id(), COORDINATOR, "the label", False, items, TRACE)
    return replace(batch, **fields)


def to_create(actor: Actor, batch: NewBatch, at: datetime) -> BatchToCreate:
    header, parts, events = submitted_events(actor, batch, submitted_at=at)
    return BatchToCreate(actor, batch, at, header, parts, events)


def created(storage: Storage, actor: Actor, items: Sequence[NewItem], **fields: Any) -> UUID:
    """Creates a batch of these items and drops its events."""
    batch = new_batch(items, **fields)
    with storage.transaction() as (repository, _):
        repository.create_batches([to_create(actor, batch, repository.clock())])
    storage.take_outbox()
    return batch.batch_id


def now(storage: Storage) -> datetime:
    with storage.transaction() as (repository, _):
        return repository.clock()


def found(storage: Storage, batch_id: UUID) -> BatchView:
    with storage.transaction() as (repository, _):
        batch = repository.find_batch(batch_id, or_deleted=True)
    assert batch is not None
    return batch


def items_of(storage: Storage, batch_id: UUID) -> Sequence[ItemView]:
    with storage.transaction() as (repository, _):
        return repository.items_at(batch_id, range(100))


def states(storage: Storage, batch_id: UUID) -> list[tuple[str, int]]:
    return [(each.status, each.attempt) for each in items_of(storage, batch_id)]


def succeed(storage: Storage, batch_id: UUID, *positions: int, attempt: int = 1) -> None:
    at = now(storage)
    for position in positions:
        storage.decide(batch_id, position, attempt, Decided(Outcome.SUCCESS, at, activity_id=uuid4()))


def fail(storage: Storage, batch_id: UUID, *positions: int, attempt: int = 1, error: ItemError = ERROR) -> None:
    at = now(storage)
    for position in positions:
        storage.decide(batch_id, position, attempt, Decided(Outcome.FAILED, at, error=error))


def fold_all(storage: Storage, batch_id: UUID) -> None:
    """Folds decided outcomes, and writes the resulting counts."""
    with storage.transaction() as (repository, _):
        batch = repository.lock_batch(batch_id)
        assert batch is not None
        counts = batch.counts
        for status, count in repository.fold_batch(batch_id).items():
            counts = counts.moved(ItemStatus.PENDING, status, count)
        repository.change_batches([BatchChange(batch_id, counts, BatchStatus.PROCESSING, repository.clock(), None)])


def key(batch_id: UUID, position: int, attempt: int = 1) -> OutcomeKey:
    return OutcomeKey(str(batch_id), position, attempt)


def event(batch_id: UUID, number: int) -> OutgoingEvent:
    return OutgoingEvent(Topic.BATCHES, str(batch_id), (("ce_id", str(number).encode()), ("ce_type", b"Test")), b"{}")


class ActivityRepositoryContract(Contract):
    """What every `ActivityRepository` does."""

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


class PartStoreContract(Contract):
    """What every `PartStore` does."""

    def test_a_batch_is_collected_and_finished(self, storage: Storage, actor: Actor) -> None:
        batch = new_batch([], label=None)
        hashes = [PartHashes(number, f"content {number}".encode(), f"public {number}".encode()) for number in (1, 2)]
        keys = [(str(batch.batch_id), number) for number in (1, 2)]
        flags = (True, False, True)
        values = [each.values._replace(override_duplicates=flag) for each, flag in zip(mentors(3), flags, strict=True)]
        noted = NewItem(values[0]._replace(notes="noted"), "row 1")
        with storage.transaction() as (repository, parts):
            assert parts.known(keys) == {}
            parts.begin(actor, batch, content_hash=b"header", parts=2, total=3)
            assert parts.present(batch.batch_id) == (0, 0)
            begun = repository.find_batch(batch.batch_id)
            parts.add(actor.organization_id, batch.batch_id, hashes[1], [(2, NewItem(values[2]))], data_bytes=30)
            assert parts.present(batch.batch_id) == (1, 30)
            owner = actor.organization_id
            assert parts.known([*keys, (str(uuid4()), 1)]) == {
                keys[0]: KnownPart(owner, 2, b"header", None, None),
                keys[1]: KnownPart(owner, 2, b"header", b"content 2", b"public 2"),
            }
            parts.add(owner, batch.batch_id, hashes[0], [(1, NewItem(values[1])), (0, noted)], data_bytes=12)
            assert parts.present(batch.batch_id) == (2, 42)
            assert repository.items_at(batch.batch_id, range(9)) == []
        assert begun
        assert (begun.status, begun.counts, begun.version, begun.label) == (BatchStatus.PENDING, Counts(pending=3), 1, None)
        assert (begun.submitted_by, begun.channel, begun.trace_id) == ("the-sender", "the-channel", TRACE)
        with storage.transaction() as (repository, parts):
            first, second = parts.collected(batch.batch_id, override=True)
            at = repository.clock()
            parts.finish(batch.batch_id, override=True, at=at)
            assert parts.collected(batch.batch_id, override=True) == []
            assert parts.present(batch.batch_id) == (2, 42)
            finished, items = repository.find_batch(batch.batch_id), repository.items_at(batch.batch_id, range(9))
            assert repository.positions_changed_since(batch.batch_id, 1) == [0, 1, 2], "they are of the version that has them"
        assert (first[0], list(first[1])) == (1, [(1, NewItem(values[1])), (0, NewItem(values[0], "row 1"))]), "without notes"
        assert (second[0], list(second[1])) == (2, [(2, NewItem(values[2]))])
        assert begun.submitted_at < second[2] < first[2] < at
        measured = Measurement(at, 3, at)
        assert finished == replace(
            begun, status=BatchStatus.PROCESSING, submitted_at=at, changed_at=at, version=2, measurement=measured
        )
        ids = DerivedIds(batch.batch_id)
        assert items == [
            ItemView(ids.item_id(0), 0, noted.values, "row 1", ItemStatus.PENDING, 1, None, None),
            ItemView(ids.item_id(1), 1, values[1], None, ItemStatus.PENDING, 1, None, None),
            ItemView(ids.item_id(2), 2, values[2], None, ItemStatus.PENDING, 1, None, None),
        ]

    def test_only_what_is_collected_is_forgotten(self, storage: Storage, actor: Actor) -> None:
        collecting, running = new_batch([]), created(storage, actor, mentors(1))
        hashes = PartHashes(1, b"content", b"public")
        with storage.transaction() as (repository, parts):
            parts.begin(actor, collecting, content_hash=b"header", parts=2, total=2)
            parts.add(actor.organization_id, collecting.batch_id, hashes, [(0, item("mentor-1"))], data_bytes=9)
            assert [parts.forget(each) for each in (running, uuid4(), collecting.batch_id)] == [False, False, True]
            assert repository.find_batch(collecting.batch_id, or_deleted=True) is None
            assert parts.present(collecting.batch_id) == (0, 0)
            assert not parts.forget(collecting.batch_id)
            parts.begin(actor, collecting, content_hash=b"another", parts=3, total=3)
            known = parts.known([(str(collecting.batch_id), 1)])
        assert list(known.values()) == [KnownPart(actor.organization_id, 3, b"another", None, None)]
        assert found(storage, running).counts == Counts(pending=1)

    def test_parts_of_a_batch_that_is_cancelled_before_all_have_come_lose_their_items(
        self, storage: Storage, actor: Actor
    ) -> None:
        cancelled, other = new_batch([]), new_batch([])
        hashes = PartHashes(1, b"content", b"public")
        with storage.transaction() as (repository, parts):
            for batch in (cancelled, other):
                parts.begin(actor, batch, content_hash=b"header", parts=2, total=2)
                parts.add(actor.organization_id, batch.batch_id, hashes, [(0, item("mentor-1"))], data_bytes=9)
            repository.mark_cancelled(cancelled.batch_id, at=repository.clock(), by="boss", reason=None)
            assert parts.collected(cancelled.batch_id, override=False) == []
            [(number, [(position, _)], _)] = parts.collected(other.batch_id, override=False)
            assert (number, position) == (1, 0)
            known = parts.known([(str(cancelled.batch_id), 1)])
        assert [each.content_hash for each in known.values()] == [b"content"]

    def test_parts_of_what_was_created_whole_are_known(self, storage: Storage, actor: Actor) -> None:
        batch = new_batch(mentors(1))
        with storage.transaction() as (repository, parts):
            wanted = to_create(actor, batch, repository.clock())
            repository.create_batches([wanted])
            known = parts.known([(str(batch.batch_id), 1)])
            assert parts.present(batch.batch_id) == (1, 0)
            assert parts.collected(batch.batch_id, override=False) == []
            repository.mark_deleted(batch.batch_id, repository.clock())
            assert parts.known([(str(batch.batch_id), 1)]) == known, "until it is purged"
        storage.take_outbox()
        [hashes] = wanted.parts
        expected = KnownPart(actor.organization_id, 1, wanted.content_hash, hashes.content_hash, hashes.public_hash)
        assert known == {(str(batch.batch_id), 1): expected}

    def test_a_tombstone_is_left_of_a_purged_batch(self, storage: Storage, actor: Actor) -> None:
        batch = new_batch(mentors(1))
        header, *_ = submitted_events(actor, batch, submitted_at=now(storage))
        created(storage, actor, batch.items, batch_id=batch.batch_id)
        fail(storage, batch.batch_id, 0)
        fold_all(storage, batch.batch_id)
        with storage.transaction() as (repository, parts):
            assert parts.tombstone(batch.batch_id) is None
            failed = repository.lock_batch(batch.batch_id)
            assert failed
            repository.begin_attempts(failed, [NewAttempt(0, batch.items[0].values, None)], by="boss", at=repository.clock())
        storage.purge(batch.batch_id)
        with storage.transaction() as (repository, parts):
            assert parts.tombstone(batch.batch_id) == Tombstone(actor.organization_id, header)
            assert parts.tombstone(uuid4()) is None
            assert parts.known([(str(batch.batch_id), 1)]) == {}
            assert repository.find_batch(batch.batch_id, or_deleted=True) is None
            assert repository.fold([key(batch.batch_id, 0)], {}).unknown == [0]
            assert repository.history(batch.batch_id, 0) == []


class TemplateStoreContract(Contract):
    """`TemplateStore`."""

    VALUES = TemplateValues('Mondays, "north"', ("m-1", "m,2", "m\\3"), "visit", 60, 1)

    def template(self, actor: Actor, **fields: Any) -> TemplateView:
        at = datetime(2026, 3, 25, 12, tzinfo=UTC)
        return replace(TemplateView(new_batch_id(), actor.organization_id, COORDINATOR, self.VALUES, 1, at), **fields)

    def test_what_is_added_is_found(self, storage: Storage, actor: Actor) -> None:
        templates = [self.template(actor), self.template(actor, values=replace(self.VALUES, weekday=None))]
        with storage.template_transaction() as (_, store):
            for each in templates:
                store.add(each)
        with storage.template_transaction() as (_, store):
            for each in templates:
                assert store.find(each.template_id) == store.lock(each.template_id) == each
            assert store.find(uuid4()) is store.lock(uuid4()) is None

    def test_only_what_may_change_is_written(self, storage: Storage, actor: Actor) -> None:
        template, other = self.template(actor), self.template(actor)
        values = TemplateValues("Tuesdays", ("m-9",), "training", 90, 7)
        with storage.template_transaction() as (repository, store):
            store.add(template)
            store.add(other)
            changed = replace(template, values=values, version=2, changed_at=repository.clock())
            store.write(replace(changed, coordinator_id="another", organization_id="another"))
            assert store.find(template.template_id) == changed
            assert store.find(other.template_id) == other
            store.remove(template.template_id)
            assert store.find(template.template_id) is None
            assert store.find(other.template_id) == other

    def test_pages_are_of_an_organization_or_a_coordinator_by_id(self, storage: Storage, actor: Actor) -> None:
        ours = [self.template(actor, coordinator_id=f"coord-{n % 2}") for n in range(5)]
        ours.sort(key=lambda each: each.template_id)
        theirs = self.template(actor, organization_id=f"{actor.organization_id}-2")
        with storage.template_transaction() as (_, store):
            for each in reversed([*ours, theirs]):
                store.add(each)
            assert store.page(actor.organization_id, None, after=None, limit=9) == ours
            for coordinator_id in ("coord-0", "coord-1", "coord-2"):
                own = [each for each in ours if each.coordinator_id == coordinator_id]
                assert store.page(actor.organization_id, coordinator_id, after=None, limit=9) == own
            for place, each in enumerate(ours, start=1):
                for limit in (1, 2, 9):
                    rest = store.page(actor.organization_id, None, after=each.template_id, limit=limit)
                    assert rest == ours[place : place + limit]
