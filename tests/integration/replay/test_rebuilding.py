"""A replay rebuilds from the topics what the tables have, whatever the order of reading, and restores what the tables have lost."""

import random
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import CorrectedItem, NewBatch, RetryRequest
from orchestrator.batches.operations import delete_batch, retry_failed_items, submit_bulk_registration
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.closing import close
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, item, mentors
from tests.support.replaying import RecordingPipeline, compared, everything, projection, promoted, replayed, run, small, versions
from tests.support.revoking import revoke
from tests.support.upstream import upstream


def outbox(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM orchestrator.outbox")).scalar_one())


def test_the_topics_agree_with_the_tables_in_any_order_and_number(pipeline: RecordingPipeline, settings: Settings) -> None:
    everything(pipeline)
    before = projection(pipeline.engine)
    order = random.Random(5)
    for _ in range(4):
        shuffled = [*pipeline.written, *order.choices(pipeline.written, k=300)]
        order.shuffle(shuffled)
        comparison = compared(pipeline.engine, shuffled)
        assert comparison.differences == []
        assert comparison.in_motion == []
    assert (comparison.batches, comparison.items) == (11, 537)
    assert projection(pipeline.engine) == before
    assert verify(pipeline.engine, settings).breaches == []


# What a bad restore, a bug or a manual change may do to the projection. None of it touches outcomes or activities.
DESTROYED = {
    "statuses": "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL, error = NULL",
    "counts": "UPDATE orchestrator.batch SET status = 'processing', pending = total_items, completed = 0, failed = 0, cancelled = 0,"
    " completed_at = NULL",
    "attempts": "UPDATE orchestrator.batch_item SET attempt = 1, status = 'pending', activity_id = NULL, error = NULL",
    "wrong answers": "UPDATE orchestrator.batch_item SET status = 'failed', activity_id = NULL, error = '{\"code\": \"x\"}'",
    "wrong successes": "UPDATE orchestrator.batch_item SET status = 'success', activity_id = gen_random_uuid(), error = NULL",
    "values": "UPDATE orchestrator.batch_item SET mentor_id = 'x', activity_date = '1999-01-01', item_id = gen_random_uuid()",
    "edits": "UPDATE orchestrator.batch SET label = 'x', coordinator_id = 'x', cancelled_at = NULL, deleted_at = NULL, retry_number = 0,"
    " status = 'partial', completed_at = NULL",
    "some items": "DELETE FROM orchestrator.batch_item WHERE position % 2 = 1",
    "items": "TRUNCATE orchestrator.batch_item",
    "batches": "TRUNCATE orchestrator.batch",
    "both": "TRUNCATE orchestrator.batch, orchestrator.batch_item",
    "history too": "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history",
}


@pytest.mark.parametrize("statement", DESTROYED.values(), ids=DESTROYED)
def test_a_destroyed_projection_is_rebuilt(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, statement: str
) -> None:
    everything(pipeline)
    before, versions_before = projection(owner, with_notes=False), versions(owner)
    run(owner, statement)
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert set(verdicts.values()) == {Promoted.MERGED}
    assert (after.differences, after.in_motion) == ([], [])
    assert projection(owner, with_notes=False) == before
    assert {batch: version for batch, version in versions(owner).items() if version < versions_before[batch]} == {}
    assert verify(pipeline.engine, settings).breaches == []
    assert outbox(owner) == 0, "the promotion must publish nothing"
    pipeline.drain()
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE orchestrator.batch_item SET revoked_at = NULL, revoked_by = NULL, revocation_reason = NULL",
        "UPDATE orchestrator.batch_item SET revocation_reason = 'another' WHERE revoked_at IS NOT NULL",
        "UPDATE orchestrator.batch_item SET revoked_by = 'another' WHERE revoked_at IS NOT NULL",
        "UPDATE orchestrator.batch_item SET revoked_at = revoked_at + interval '1 microsecond'",
        "UPDATE orchestrator.batch_item SET revoked_at = now(), revoked_by = 'boss', revocation_reason = 'none' WHERE position = 1",
        "UPDATE orchestrator.batch SET revoked = 0",
    ],
)
def test_a_damaged_revocation_is_detected_and_restored(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, damage: str
) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(0), ids.item_id(2)])
    pipeline.drain()
    before = projection(owner)
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {}
    run(owner, damage)
    assert verify(pipeline.engine, settings).breaches != []
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize(
    "lost", ["orchestrator.batch_item", "orchestrator.batch, orchestrator.batch_item, orchestrator.item_history"]
)
def test_a_replay_brings_no_erased_notes_back_and_reports_no_difference(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, lost: str
) -> None:
    """Upstream events carry notes into the topic. Of the items, two were registered, and two failed twice. One of each keeps its notes. In
    another batch, the notes of the last item were erased."""
    batch_id, other = new_batch_id(), new_batch_id()
    for each, first_mentor in ((batch_id, 699), (other, 710)):
        event = upstream(each, range(4), part=1, parts=1, total=4, first_mentor=first_mentor)
        pipeline.queues[Topic.BATCHES].append(event)
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    for erased, position in ((batch_id, 0), (batch_id, 2), (other, 3)):
        assert erase(pipeline, erased, position)
    assert compared(pipeline.engine, pipeline.written).differences == []
    run(owner, f"TRUNCATE {lost}")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == (dict.fromkeys([batch_id, other], Promoted.MERGED), [])
    assert sorted(notes_of(owner, batch_id)) == ["seen at home 1", *["seen at home 3"] * 2]
    assert verify(pipeline.engine, settings).breaches == []


def notes_of(engine: Engine, batch_id: UUID) -> Sequence[str]:
    with engine.connect() as connection:
        held = text(
            "SELECT notes FROM orchestrator.batch_item WHERE batch_id = :batch_id AND notes IS NOT NULL UNION ALL"
            " SELECT submitted ->> 'notes' FROM orchestrator.item_history WHERE batch_id = :batch_id AND submitted ->> 'notes' IS NOT NULL"
        )
        return connection.execute(held, {"batch_id": batch_id}).scalars().all()


def test_a_replay_does_not_judge_anew_what_a_period_closed_since_then_covers(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    registered, revoked = pipeline.submit(mentors(3)), pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    revoke(pipeline, revoked)
    close(pipeline, DAY)
    refused = pipeline.submit(mentors(2, first=20))
    pipeline.drain()
    close(pipeline, None)
    pipeline.drain()
    before = projection(owner)
    assert compared(pipeline.engine, pipeline.written).differences == []
    close(pipeline, DAY)
    run(owner, DESTROYED["both"])
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == (dict.fromkeys((registered, revoked, refused), Promoted.MERGED), [])
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []


def test_a_batch_that_the_database_does_not_confirm_is_not_restored(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    batches = everything(pipeline)
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history, orchestrator.batch_part")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    missing = {batches["running"], batches["stopped"]}
    assert {batch for batch, verdict in verdicts.items() if verdict is Promoted.NOT_BORNE_OUT} == missing
    assert set(after.different_batches) == missing
    assert verify(pipeline.engine, settings).breaches == []


def test_promoting_any_part_of_the_topics_any_number_of_times_changes_nothing(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    small(pipeline)
    before, versions_before = projection(owner), versions(owner)
    written = list(pipeline.written)
    order = random.Random(7)
    parts = [
        written[: len(written) // 3],
        written[len(written) // 3 :],
        *(order.sample(written, k=len(written) // 2) for _ in range(3)),
    ]
    for part in parts:
        verdicts, _ = promoted(pipeline.engine, part)
        assert set(verdicts.values()) <= {Promoted.UNCHANGED}
    assert (projection(owner), versions(owner)) == (before, versions_before)


def test_promoting_again_changes_nothing(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    with replayed(pipeline.engine, pipeline.written) as (_, connection):
        assert {promote(connection, batch) for batch in batches.values()} == {Promoted.MERGED}
        before = (projection(owner), versions(owner))
        assert {promote(connection, batch) for batch in batches.values()} == {Promoted.UNCHANGED}
    assert (projection(owner), versions(owner)) == before


def test_an_attempt_that_waits_for_its_outcome_is_not_reset(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    batch_id = pipeline.submit([item("nobody"), item("mentor-1")])
    pipeline.drain()
    request = RetryRequest(corrections=[CorrectedItem(DerivedIds(batch_id).item_id(0), {"mentor_id": "mentor-2"})])
    pipeline.call(retry_failed_items, ADMIN, batch_id, request)
    pipeline.relay()
    before = projection(owner)
    # Only the live row and the topics know of the attempt now.
    run(owner, "TRUNCATE orchestrator.item_history", "UPDATE orchestrator.batch SET label = 'x'")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert projection(owner) == before
    # Only the history knows of it.
    run(owner, "TRUNCATE orchestrator.batch_item")
    promoted(pipeline.engine, pipeline.written)
    assert projection(owner) == before
    # Nothing knows of it. The decided attempt is left, and has to be retried again.
    run(owner, "TRUNCATE orchestrator.batch_item, orchestrator.item_history")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert [one.attempt for one in pipeline.status(batch_id).items] == [1, 1]
    assert {each.field for each in after.differences} >= {"attempt", "status"}
    assert verify(pipeline.engine, settings).breaches == []


def test_notes_are_in_no_difference_and_are_restored(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    batches["upstream"] = new_batch_id()
    refused = upstream(batches["upstream"], [0], part=1, parts=1, total=1, first_mentor=9_000)
    pipeline.queues[Topic.BATCHES].append(refused)
    pipeline.drain()
    before = projection(owner)["batch_item"]
    run(owner, "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL, error = NULL, mentor_id = 'x'")
    assert "a note" not in str(compared(pipeline.engine, pipeline.written))
    promoted(pipeline.engine, pipeline.written)
    assert projection(owner)["batch_item"] == before, "the live rows must keep their notes"
    run(owner, "TRUNCATE orchestrator.batch_item")
    comparison = compared(pipeline.engine, pipeline.written)
    assert "a note" not in str(comparison)
    assert "seen at home" not in str(comparison)
    promoted(pipeline.engine, pipeline.written)
    # From the activity, from the history, and from the service that sent them.
    assert projection(owner)["batch_item"] == before


@pytest.mark.parametrize("of_all", [False, True])
def test_an_items_own_flag_is_rebuilt(pipeline: RecordingPipeline, owner: Engine, of_all: bool) -> None:
    flags = (True, False)
    items = [
        each._replace(values=each.values._replace(override_duplicates=flag)) for each, flag in zip(mentors(2), flags, strict=True)
    ]
    batch = NewBatch(new_batch_id(), COORDINATOR, None, of_all, items, "1" * 32)
    pipeline.call(submit_bulk_registration, ADMIN, batch)
    pipeline.drain()
    before = projection(owner)
    run(owner, "UPDATE orchestrator.batch_item SET override_duplicates = NOT override_duplicates")
    _, left = promoted(pipeline.engine, pipeline.written)
    assert left.differences == []
    assert projection(owner) == before


def test_one_batch_alone_and_batches_that_are_not_covered(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    run(owner, "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL, error = NULL")
    only = batches["corrected"]
    comparison = compared(pipeline.engine, pipeline.written, only=only)
    assert (comparison.batches, comparison.different_batches, comparison.not_covered) == (1, [only], [])
    without = [
        (offset, event)
        for offset, event in pipeline.written
        if events.BATCH_SUBMITTED.encode() not in dict(event.headers)["ce_type"]
    ]
    comparison = compared(pipeline.engine, without)
    assert (comparison.batches, comparison.differences) == (0, [])
    assert set(comparison.not_covered) == set(batches.values())
    assert compared(pipeline.engine, without, only=only).not_covered == [only]


def test_purged_batches_are_not_restored(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    pipeline.call(delete_batch, ADMIN, batches["completed"])
    pipeline.drain()
    run(
        owner,
        "INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, content_hash, now() FROM orchestrator.batch"
        " WHERE deleted_at IS NOT NULL",
        *(
            f"DELETE FROM orchestrator.{table} WHERE batch_id = '{batches['completed']}'"
            for table in ("batch", "batch_item", "batch_part", "outcome")
        ),
    )
    comparison = compared(pipeline.engine, pipeline.written)
    assert comparison.differences == []
    assert batches["completed"] not in comparison.not_covered
    with replayed(pipeline.engine, pipeline.written) as (_, connection):
        run(owner, f"DELETE FROM orchestrator.batch WHERE batch_id = '{batches['corrected']}'")
        run(owner, f"INSERT INTO orchestrator.tombstone VALUES ('{batches['corrected']}', '{ORGANIZATION}', '', now())")
        assert promote(connection, batches["corrected"]) is Promoted.PURGED
