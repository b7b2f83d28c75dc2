"""A replay beside the running flow: what is in motion is left to its consumers, and a replay publishes nothing."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import orjson
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.event import listen, remove

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import relabel_batch, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.storage.database import transact
from orchestrator.storage.locks import share_batches
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.support.audit import tampering
from tests.support.forged import as_written_by, completion
from tests.support.pipeline import ADMIN, item, mentors, record
from tests.support.replaying import EXAMPLES, RecordingPipeline, compared, projection, promoted, replayed, run
from tests.support.upstream import upstream
from tests.support.waiting import eventually


def test_a_batch_in_motion_is_not_compared(pipeline: RecordingPipeline, owner: Engine) -> None:
    finished, queued = (pipeline.submit(mentors(2, first=first)) for first in (1, 3))
    pipeline.drain()
    run(owner, f"UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL WHERE batch_id = '{queued}'")
    last = max(offset for offset, event in pipeline.written if event.topic is Topic.RESULTS)
    # The aggregator has not handled the last result.
    run(owner, f"INSERT INTO orchestrator.consumer_progress VALUES ('results', 0, {last}, now())")
    waiting = pipeline.submit(mentors(2, first=5))
    with replayed(pipeline.engine, pipeline.written) as (replay, _):
        meanwhile = pipeline.submit(mentors(2, first=7))
        pipeline.call(relabel_batch, ADMIN, finished, "edited meanwhile")
        comparison = replay.compare(examples=EXAMPLES)
    assert comparison.differences == []
    assert set(comparison.in_motion) == {finished, queued}
    assert comparison.not_covered == [waiting], "an event in the outbox is on no topic yet"
    assert meanwhile not in comparison.not_covered
    # The batch is at rest after the consumers have passed its events.
    run(owner, f"UPDATE orchestrator.consumer_progress SET next_offset = {last + 1}")
    pipeline.relay()
    assert compared(pipeline.engine, pipeline.written).different_batches == [queued]
    # An edit of it waits in the outbox.
    pipeline.call(relabel_batch, ADMIN, finished, "edited again")
    comparison = compared(pipeline.engine, pipeline.written)
    assert (comparison.different_batches, comparison.in_motion) == ([queued], [finished])


def test_a_batch_that_changes_while_it_is_compared_is_as_it_was(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    meanwhile: list[str] = []
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):

        def change(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "CREATE TEMPORARY TABLE replay_compared" in statement:
                meanwhile.append(statement)
                pipeline.call(relabel_batch, ADMIN, batch_id, "edited meanwhile")
                run(owner, "UPDATE orchestrator.batch_item SET attempt = 9")

        listen(connection, "after_cursor_execute", change)
        comparison = replay.compare(examples=EXAMPLES)
        remove(connection, "after_cursor_execute", change)
    assert (len(meanwhile), comparison.differences, comparison.in_motion) == (1, [], [])


def test_a_completion_that_was_never_announced_is_left_to_the_aggregator(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """A replay publishes nothing. If it folded what the aggregator had not, the completion event would be lost."""
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain_until_registered()
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {batch_id: Promoted.MERGED}
    assert after.by_field["status"] == 4, "three items and their batch must wait"
    assert verify(pipeline.engine, settings).breaches == []
    pipeline.drain()
    completions = [
        event for event in pipeline.take(Topic.LIFECYCLE) if dict(event.headers)["ce_type"] == events.BATCH_COMPLETED.encode()
    ]
    assert len(completions) == 1
    assert pipeline.status(batch_id).batch.status == "completed"
    assert compared(pipeline.engine, pipeline.written).differences == []


def test_promotion_races_with_folding(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    batches = [pipeline.submit([*mentors(20, first=1 + 20 * number), item("nobody")]) for number in range(5)]
    pipeline.drain_until_registered()
    results = pipeline.take(Topic.RESULTS)
    pipeline.handle(pipeline.aggregator, results[::3])
    run(owner, f"DELETE FROM orchestrator.batch_item WHERE position % 2 = 1 AND batch_id = '{batches[0]}'")
    run(owner, f"DELETE FROM orchestrator.batch WHERE batch_id = '{batches[1]}'")
    barrier = threading.Barrier(3)

    def fold(chosen: Sequence[OutgoingEvent]) -> None:
        barrier.wait()
        for first in range(0, len(chosen), 4):
            records = [record(event) for event in chosen[first : first + 4]]
            transact(pipeline.engine, partial(pipeline.aggregator.handle, records=records))

    def promote_all() -> list[Promoted]:
        with replayed(pipeline.engine, pipeline.written) as (_, connection):
            barrier.wait()
            return [promote(connection, batch) for _ in range(5) for batch in batches]

    with ThreadPoolExecutor(3) as threads:
        folding = [threads.submit(fold, random.Random(seed).sample(results, k=len(results))) for seed in (1, 2)]
        promoting = threads.submit(promote_all)
        for done in folding:
            done.result()
        assert set(promoting.result()) <= {Promoted.MERGED, Promoted.UNCHANGED}
    # The sweeper folds what was folded before its row was restored. Here the results come once more instead.
    pipeline.handle(pipeline.aggregator, results)
    views = [pipeline.status(batch).batch for batch in batches]
    assert {(view.status, view.counts.completed, view.counts.failed) for view in views} == {("partial", 20, 1)}
    pipeline.relay()
    completions = [event.key for event in pipeline.take(Topic.LIFECYCLE)]
    assert sorted(completions) == sorted(map(str, batches)), "each batch must have one completion event"
    assert verify(pipeline.engine, settings).breaches == []


def test_promotion_locks_the_batch_exclusively(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    run(owner, "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL")
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with (
        replayed(pipeline.engine, pipeline.written) as (_, connection),
        ThreadPoolExecutor(1) as threads,
        owner.connect() as looking,
        pipeline.engine.connect() as registering,
    ):
        share_batches(registering, [str(batch_id)])
        promoting = threads.submit(promote, connection, batch_id)
        eventually(lambda: looking.scalar(waiting) == 1, what="a promotion that waits for the registration")
        registering.rollback()
        assert promoting.result() is Promoted.MERGED


def test_promotion_waits_for_a_fold_that_has_begun(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    """A fold locks only the batch's row. A promotion that did not wait for it would write the counts from before it."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain_until_registered()
    [first, _] = pipeline.take(Topic.RESULTS)
    run(owner, "UPDATE orchestrator.batch SET coordinator_id = 'x'")
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype IN ('transactionid', 'tuple') AND NOT granted")
    with (
        replayed(pipeline.engine, pipeline.written) as (_, connection),
        ThreadPoolExecutor(1) as threads,
        owner.connect() as looking,
        pipeline.engine.connect() as folding,
    ):
        pipeline.aggregator.handle(folding, [record(first)])
        promoting = threads.submit(promote, connection, batch_id)
        eventually(lambda: looking.scalar(waiting), what="a promotion that waits for the fold")
        folding.commit()
        assert promoting.result() is Promoted.MERGED
    counts = pipeline.status(batch_id).batch.counts
    assert (counts.pending, counts.completed) == (1, 1)
    assert verify(pipeline.engine, settings).breaches == []


def test_a_batch_that_the_database_lost_completely_is_taken_in_again_by_its_consumers(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """After a restore to an earlier time, a replay invents nothing. The consumers' groups are set back instead."""
    kept = pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    forgotten = pipeline.submit([*mentors(2), item("nobody")], label="Monday group")
    pipeline.drain()
    run(
        owner,
        *(
            tampering(f"DELETE FROM {table} WHERE batch_id = '{forgotten}'")
            for table in (
                "orchestrator.batch",
                "orchestrator.batch_item",
                "orchestrator.batch_part",
                "orchestrator.outcome",
                "registration.activity",
                "registration.audit",
            )
        ),
    )
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {forgotten: Promoted.NOT_BORNE_OUT}
    pipeline.forget_what_was_published()
    pipeline.queues[Topic.BATCHES] += [event for _, event in pipeline.written if event.topic is Topic.BATCHES]
    pipeline.drain()
    views = [pipeline.status(batch).batch for batch in (kept, forgotten)]
    assert [(view.status, view.label, view.counts.completed) for view in views] == [
        ("completed", None, 2),
        ("partial", "Monday group", 2),
    ]
    assert verify(pipeline.engine, settings).breaches == []
    assert compared(pipeline.engine, pipeline.written).differences == []
    # Both completions of the batch are on the topic. The second one counts.
    before = projection(owner)
    run(owner, "TRUNCATE orchestrator.batch")
    promoted(pipeline.engine, pipeline.written)
    assert projection(owner) == before


def test_a_batch_whose_parts_are_still_collected_is_left_to_its_consumer(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = new_batch_id()
    first, second = (
        upstream(batch_id, positions, part=n, parts=2, total=4) for n, positions in ((1, range(2)), (2, range(2, 4)))
    )
    pipeline.queues[Topic.BATCHES].append(first)
    pipeline.drain()
    before = projection(owner)
    verdicts, _ = promoted(pipeline.engine, [*pipeline.written, (100, second)])
    assert verdicts == {batch_id: Promoted.MOVED}
    assert projection(owner) == before
    pipeline.queues[Topic.BATCHES].append(second)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


FIRST_ATTEMPT = """UPDATE orchestrator.batch_item i SET attempt = h.attempt, status = 'failed', error = h.error
                   FROM orchestrator.item_history h WHERE (h.batch_id, h.position) = (i.batch_id, i.position)"""


@pytest.mark.parametrize("what_is_left", ["the row", "the history", "the first attempt"])
def test_a_retrys_completion_that_was_not_announced_is_left_to_the_aggregator(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, what_is_left: str
) -> None:
    """The completion of the first attempts was announced, and another writer has announced one of the second.

    The retried item waits without an error, also where a restore has brought its first attempt back.
    """
    batch_id = pipeline.submit([item("nobody"), *mentors(1)])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain_until_registered()
    run(
        owner,
        *(["TRUNCATE orchestrator.batch"] if what_is_left == "the history" else ["UPDATE orchestrator.batch SET label = 'x'"]),
    )
    run(owner, *(["TRUNCATE orchestrator.item_history"] if what_is_left == "the row" else []))
    run(owner, *([FIRST_ATTEMPT] if what_is_left == "the first attempt" else []))
    forged = as_written_by("org-other", completion(batch_id, "partial", 2, retry_number=1))
    verdicts, _ = promoted(pipeline.engine, [*pipeline.written, (-1, forged)])
    assert verdicts == {batch_id: Promoted.MERGED}
    found = pipeline.status(batch_id)
    batch, retried = found.batch, found.items[0]
    assert (batch.status, batch.counts.pending, batch.completed_at, batch.retry_number) == ("processing", 1, None, 1)
    assert (retried.attempt, retried.status, retried.error) == (2, "pending", None)
    pipeline.drain()
    ends = [
        orjson.loads(event.value)["retry_number"]
        for event in pipeline.take(Topic.LIFECYCLE)
        if dict(event.headers)["ce_type"] == events.BATCH_COMPLETED.encode()
    ]
    assert ends == [0, 1]
    assert pipeline.status(batch_id).batch.status == "partial"
    assert verify(pipeline.engine, settings).breaches == []


def test_a_replay_publishes_nothing_and_notifies_the_followers(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    run(owner, "UPDATE orchestrator.batch SET label = 'x'")
    listening = create_engine(settings.owner_url, isolation_level="AUTOCOMMIT")
    with listening.connect() as connection:
        connection.exec_driver_sql("LISTEN bulkreg_batches")
        promoted(pipeline.engine, pipeline.written)
        promoted(pipeline.engine, pipeline.written)
        driver = connection.connection.driver_connection
        assert driver is not None
        connection.exec_driver_sql("SELECT 1")
        driver.poll()
        assert [notice.payload for notice in driver.notifies] == [str(batch_id)]
    listening.dispose()
