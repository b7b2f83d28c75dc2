"""Row 51 of the fault catalogue: a batch that can't be swept, or never comes to rest, and a step that fails, stop nothing else."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import create_engine, text

from consumers.upkeep.purger import PurgePolicy, Purger
from consumers.upkeep.sweep_loop import SweepLoop
from consumers.upkeep.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import delete_batch, relabel_batch, retry_failed_items
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.sweeping import Queues
from schemas.envelope import Topic
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, Pipeline, item, mentors
from tests.support.shown import shown
from tests.support.sweeping import COMMAND_TOPICS, Broker, sweep
from tests.support.upstream import in_parts
from tests.support.waiting import eventually

# --- One batch among many ----------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(settings: Settings) -> Iterator[Callable[[str, UUID], None]]:
    """Makes every change of a batch's rows in a table fail."""
    owner = create_engine(settings.owner_url)

    def breaks(table: str, batch_id: UUID) -> None:
        with owner.begin() as connection:
            connection.execute(
                text(
                    "CREATE FUNCTION orchestrator.breaks() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'broken'; END $$"
                )
            )
            for event, row in (("INSERT OR UPDATE", "NEW"), ("DELETE", "OLD")):
                connection.execute(
                    text(
                        f"CREATE TRIGGER breaks_{row} BEFORE {event} ON {table} FOR EACH ROW"
                        f" WHEN ({row}.batch_id = '{batch_id}') EXECUTE FUNCTION orchestrator.breaks()"
                    )
                )

    yield breaks
    owner.dispose()


def set_aside(step: str) -> float:
    return shown(metrics.SWEEP_SET_ASIDE.labels(step))


def test_row_51_a_batch_that_can_not_be_folded_does_not_stop_others(
    pipeline: Pipeline, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    """Its counts are damaged, so that any move of an item would make them negative."""
    batches = [pipeline.submit(mentors(3, first=first)) for first in range(1, 22, 3)]
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    pipeline.take(Topic.RESULTS)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET pending = 0, failed = 3 WHERE batch_id = :b"), {"b": batches[3]})
    before = set_aside("fold")
    assert sweep(sweeper, pipeline.engine) == Swept(folded=18)
    assert set_aside("fold") == before + 1
    assert [(line["batch"], line["step"]) for line in logged(caplog, Action.BATCH_SET_ASIDE)] == [(str(batches[3]), "fold")]
    assert {pipeline.status(each).batch.status for each in batches if each != batches[3]} == {"completed"}


def test_row_51_a_batch_that_can_not_be_sent_again_does_not_stop_others(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, broken: Callable[[str, UUID], None]
) -> None:
    batches = [pipeline.submit(mentors(2, first=first)) for first in range(1, 10, 2)]
    pipeline.relay()
    pipeline.queues.clear()
    broken("orchestrator.outbox", batches[1])
    total = Swept()
    for _ in range(4):
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(sweeper, pipeline.engine)
    assert total == Swept(watched=10, resent=8)
    pipeline.drain()
    assert [pipeline.status(each).batch.status for each in batches] == [
        "processing" if each == batches[1] else "completed" for each in batches
    ]


def test_row_51_a_batch_that_can_not_be_given_up_does_not_stop_others(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, broken: Callable[[str, UUID], None]
) -> None:
    batches = [pipeline.submit(mentors(2, first=first)) for first in range(1, 10, 2)]
    broken("orchestrator.outcome", batches[1])
    total = Swept()
    for _ in range(12):
        pipeline.relay()
        pipeline.queues.clear()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(sweeper, pipeline.engine)
    assert total.given_up == 8
    assert [pipeline.status(each).batch.status for each in batches] == [
        "processing" if each == batches[1] else "failed" for each in batches
    ]


def test_row_51_a_collection_that_can_not_be_ended_does_not_stop_others(
    pipeline: Pipeline, settings: Settings, broker: Broker, broken: Callable[[str, UUID], None]
) -> None:
    collecting = [uuid4() for _ in range(5)]
    for batch_id in collecting:
        pipeline.queues[Topic.BATCHES] += in_parts(batch_id, [2, 2])[:1]
    pipeline.drain()
    broken("orchestrator.batch_part", collecting[2])
    sweeper = Sweeper(replace(SweepPolicy.of(settings), parts_patience=timedelta(0)), broker)
    assert sweep(sweeper, pipeline.engine).batches_ended == 4


# --- Batches that never come to rest -------------------------------------------------------------------------------------------


def long_ago(pipeline: Pipeline, batch_id: UUID) -> None:
    """Makes the batch's items two hours older, as if nobody had touched them since. Events contain these times, so those sent again differ."""
    pipeline.forget_what_was_published()
    with pipeline.engine.begin() as connection:
        for statement in (
            "UPDATE orchestrator.batch SET changed_at = changed_at - interval '2 hours' WHERE batch_id = :b",
            "UPDATE orchestrator.batch_item SET attempt_at = attempt_at - interval '2 hours' WHERE batch_id = :b",
            "UPDATE orchestrator.outcome SET created_at = created_at - interval '2 hours' WHERE batch_id = :b",
        ):
            connection.execute(text(statement), {"b": batch_id})


def test_row_51_a_batch_that_is_edited_all_the_time_is_swept(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.queues.clear()
    long_ago(pipeline, batch_id)
    total = Swept()
    for number in range(4):
        pipeline.call(relabel_batch, ADMIN, batch_id, f"label {number}")
        pipeline.relay()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(patient_sweeper, pipeline.engine)
    assert total == Swept(watched=2, resent=2)


def test_row_51_lost_results_of_a_batch_that_is_edited_all_the_time_are_folded(
    pipeline: Pipeline, patient_sweeper: Sweeper
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain_until_registered()
    pipeline.queues.clear()
    long_ago(pipeline, batch_id)
    pipeline.call(relabel_batch, ADMIN, batch_id, "again")
    assert sweep(patient_sweeper, pipeline.engine).folded == 2


def test_row_51_a_lost_item_is_sent_again_although_other_items_are_retried_all_the_time(
    pipeline: Pipeline, patient_sweeper: Sweeper, broker: Broker
) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    failing = [each for each in commands if orjson.loads(each.value)["mentor_id"] == "nobody"]
    pipeline.handle(pipeline.registration, failing)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    long_ago(pipeline, batch_id)
    total = Swept()
    for _ in range(4):
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
        pipeline.drain()
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
        total += sweep(patient_sweeper, pipeline.engine)
    assert total == Swept(watched=1, resent=1)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts.completed == 1


# --- The loop ------------------------------------------------------------------------------------------------------------------


def test_row_51_a_failing_step_does_not_stop_other_steps(
    pipeline: Pipeline, sweeper: Sweeper, settings: Settings, broken: Callable[[str, UUID], None]
) -> None:
    """The broker is away, and one deleted batch can't be purged. Results are folded, and another deleted batch is purged."""
    deleted = [pipeline.submit(mentors(1, first=first)) for first in (1, 2, 3)]
    pipeline.drain()
    for each in deleted:
        pipeline.call(delete_batch, ADMIN, each)
    broken("orchestrator.batch_item", deleted[1])
    batch_id = pipeline.submit(mentors(2, first=10))
    pipeline.drain_until_registered()
    pipeline.queues.clear()

    def no_broker(_topics: Sequence[Topic]) -> Queues:
        raise RuntimeError("a bug, or a client that can't go on")

    sweeper._end_offsets = no_broker
    purger = Purger(PurgePolicy(purge_after=timedelta(0), keys_after=timedelta(days=7)))
    loop = SweepLoop(sweeper, purger, pipeline.engine, interval_s=0.001)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        eventually(lambda: pipeline.status(batch_id).batch.status == "completed")
        with pipeline.engine.connect() as connection:
            count = text("SELECT count(*) FROM orchestrator.batch WHERE deleted_at IS NOT NULL")
            eventually(lambda: connection.execute(count).scalar_one() == 1)
        assert thread.is_alive()
        eventually(lambda: loop.health.failing)
        check = loop.health.check(max_loop_age_s=30)
        assert not check.ok
        assert "drive_on" in (check.detail or "")
        sweeper._end_offsets = lambda _topics: {}
        eventually(lambda: loop.health.check(max_loop_age_s=30).ok)
    finally:
        loop.stop()
        thread.join()
