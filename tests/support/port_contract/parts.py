"""The contract of `PartStore`."""

from dataclasses import replace
from uuid import uuid4

from orchestrator.batches.model import Actor, ItemView, Measurement, NewItem
from orchestrator.batches.parts import submitted_events
from orchestrator.batches.repository import KnownPart, NewAttempt, PartHashes, Tombstone
from orchestrator.batches.states import BatchStatus, Counts, ItemStatus
from schemas.ids import DerivedIds
from tests.support.pipeline import item, mentors
from tests.support.port_contract.common import TRACE, Contract, created, fail, fold_all, found, key, new_batch, now, to_create
from tests.support.storage import Storage


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
