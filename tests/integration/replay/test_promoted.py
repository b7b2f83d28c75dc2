"""What a promotion writes: the last values of each item, numbers that only rise, and what a reader needs to notice it."""

from uuid import UUID

from sqlalchemy import Engine, text

from orchestrator.batches.model import Actor, CorrectedItem, RetryRequest
from orchestrator.batches.operations import relabel_batch, retry_failed_items
from orchestrator.batches.repository import ActivityRepository
from orchestrator.replay.promote import Promoted, promote
from schemas.corrections import Correction
from schemas.ids import DerivedIds
from tests.support.pipeline import ADMIN, item, mentors
from tests.support.replaying import EXAMPLES, RecordingPipeline, compared, projection, promoted, replayed, run, versions
from tests.support.revoking import revoke


def test_an_item_that_was_corrected_twice_has_its_last_values(pipeline: RecordingPipeline, owner: Engine) -> None:
    """While the attempt waits for its outcome, and afterwards."""
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    for mentor in ("no one", "mentor-1"):
        corrections = [CorrectedItem(DerivedIds(batch_id).item_id(0), {"mentor_id": mentor})]
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=corrections))
        pipeline.relay()
        assert compared(pipeline.engine, pipeline.written).differences == []
        pipeline.drain()
    before = projection(owner)
    run(owner, "UPDATE orchestrator.batch_item SET mentor_id = 'no one'")
    assert compared(pipeline.engine, pipeline.written).by_field == {"mentor_id": 1}
    assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
    assert projection(owner) == before


def test_the_number_of_edits_becomes_that_of_the_edits_and_never_decreases(pipeline: RecordingPipeline, owner: Engine) -> None:
    pipeline.submit(mentors(1))
    batch_id = pipeline.submit(mentors(1, first=9))
    pipeline.drain()
    for label in ("newer", "newest"):
        pipeline.call(relabel_batch, ADMIN, batch_id, label)
    pipeline.drain()
    found = text(f"SELECT edit_version FROM orchestrator.batch WHERE batch_id = '{batch_id}'")
    for version, expected in ((1, 3), (3, 3), (9, 9)):
        run(owner, f"UPDATE orchestrator.batch SET edit_version = {version}, coordinator_id = 'x' WHERE batch_id = '{batch_id}'")
        assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
        with owner.connect() as connection:
            assert connection.scalar(found) == expected


def test_the_corrections_in_the_history_count_before_those_on_the_topics(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Only the history has their notes. Each item failed twice, and every second one three times. Those of another batch did not fail."""
    count = 12
    other = pipeline.submit(mentors(count, first=20))
    batch_id = pipeline.submit([item(f"nobody-{n}") for n in range(count)])
    pipeline.drain()
    ids = [DerivedIds(batch_id).item_id(n) for n in range(count)]
    noted: list[Correction] = [{"notes": f"note {n}"} for n in range(count)]
    named: list[Correction] = [{"mentor_id": f"{('mentor', 'no one')[n % 2]}-{n + 1}"} for n in range(count)]
    for changes in (noted, named):
        corrections = [CorrectedItem(item_id, change) for item_id, change in zip(ids, changes, strict=True)]
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=corrections))
        pipeline.drain()
    before = projection(owner)
    run(owner, "TRUNCATE orchestrator.batch_item", "DELETE FROM orchestrator.item_history WHERE attempt = 2")
    assert promoted(pipeline.engine, pipeline.written)[0] == dict.fromkeys([batch_id, other], Promoted.MERGED)
    assert projection(owner) == before


def changed_since(repository: ActivityRepository, _: Actor, batch_id: UUID, version: int) -> list[int]:
    return list(repository.positions_changed_since(batch_id, version))


CHANGED = {
    "a value": ("client_reference = 'x' WHERE position = 0", 0),
    "an outcome": ("status = 'pending', activity_id = NULL WHERE position = 2", 2),
    "a revocation": ("revoked_by = 'x' WHERE position = 1", 1),
}


def test_readers_are_told_which_items_a_promotion_has_changed(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    revoke(pipeline, batch_id, item_ids=[DerivedIds(batch_id).item_id(1)])
    pipeline.drain()
    damages = {name: (f"UPDATE orchestrator.batch_item SET {change}", position) for name, (change, position) in CHANGED.items()}
    for name, (damage, position) in (
        damages | {"a lost item": ("DELETE FROM orchestrator.batch_item WHERE position = 2", 2)}
    ).items():
        version, changed_at = versions(owner)[str(batch_id)], pipeline.status(batch_id).batch.changed_at
        run(owner, damage)
        assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
        assert pipeline.call(changed_since, ADMIN, batch_id, version) == [position], name
        assert versions(owner)[str(batch_id)] > version
        assert pipeline.status(batch_id).batch.changed_at > changed_at


def test_a_batch_that_was_promoted_is_compared_again(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Also if two edits of it wait in the outbox. Its label may be newer than what the topics have, so it stays."""
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    for label in ("newer", "newest"):
        pipeline.call(relabel_batch, ADMIN, batch_id, label)
    run(owner, "UPDATE orchestrator.batch SET label = 'mine', coordinator_id = 'x'")
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):
        assert replay.compare(examples=EXAMPLES).in_motion == [batch_id]
        assert promote(connection, batch_id) is Promoted.MERGED
        found = replay.compare(examples=EXAMPLES)
    assert (found.in_motion, found.by_field) == ([], {"label": 1})
    assert pipeline.status(batch_id).batch.label == "mine"
