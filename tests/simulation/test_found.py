"""Histories in which the simulation has found a bug, each in its shortest form."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.operations import cancel_batch, relabel_batch
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.support.pipeline import ADMIN
from tests.support.replaying import RecordingPipeline, compared, recording
from tests.support.sweeping import sweep
from tests.support.upstream import in_parts, is_unknown, submitted, upstream_item


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RecordingPipeline]:
    with recording(settings, engine) as pipeline:
        yield pipeline


def test_contradiction_beside_the_last_part_does_not_replace_the_first_part(pipeline: RecordingPipeline) -> None:
    """It has the number of an earlier part, and is refused. Once, the items of the earlier part were not expanded then."""
    batch_id = uuid4()
    first, last = in_parts(batch_id, [1, 1])
    contradiction = submitted(batch_id, [upstream_item(0, "mentor-9")], part=1, parts=2, total_items=2)
    pipeline.handle(pipeline.splitter, [first])
    pipeline.handle(pipeline.splitter, [contradiction, last])
    assert pipeline.refused == [("splitter", "batch_differs")]
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not pipeline.queues[Topic.BATCHES]


def test_rejection_that_is_repeated_after_a_cancel_has_the_same_bytes(pipeline: RecordingPipeline) -> None:
    """A part is invalid, the next one begins a new collection, which is cancelled, and the first one is delivered again."""
    batch_id = uuid4()
    wrong = submitted(batch_id, [upstream_item(7)], part=1, parts=2, total_items=2)
    _, last = in_parts(batch_id, [1, 1])
    pipeline.handle(pipeline.splitter, [wrong])
    pipeline.handle(pipeline.splitter, [last])
    pipeline.relay()
    [first] = pipeline.take(Topic.LIFECYCLE)
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    pipeline.relay()
    pipeline.take(Topic.LIFECYCLE)
    pipeline.handle(pipeline.splitter, [wrong])
    pipeline.relay()
    [again] = pipeline.take(Topic.LIFECYCLE)
    assert again == first


def test_replay_reports_no_batch_that_was_relabelled_and_then_refused_with_its_last_part(
    pipeline: RecordingPipeline,
) -> None:
    """A batch that still lacks a part can be relabelled. Once, the label was proof that the batch had been accepted."""
    batch_id = uuid4()
    first, _ = in_parts(batch_id, [1, 1])
    same_mentor = submitted(batch_id, [upstream_item(1, "mentor-1")], part=2, parts=2, total_items=2)
    pipeline.queues[Topic.BATCHES] += [first]
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "Monday")
    pipeline.queues[Topic.BATCHES] += [same_mentor]
    pipeline.drain()
    assert is_unknown(pipeline, batch_id)
    found = compared(pipeline.engine, pipeline.written)
    assert (found.differences, found.not_covered) == ([], [])


def test_replay_reports_no_batch_that_was_relabelled_and_then_given_up_with_each_of_its_parts(
    pipeline: RecordingPipeline,
) -> None:
    """Both parts are on the topic, and upstream was told each time that the batch is incomplete. Found at SEED=960002 STEPS=41478, where the
    first part was refused instead. If both were sent again and accepted, and the database had lost them, the topics could hold the same."""
    batch_id = uuid4()
    sweeper = Sweeper(SweepPolicy(timedelta(), timedelta(), 1, timedelta(), bulk_threshold_items=100), lambda _: {})
    for part in in_parts(batch_id, [1, 1]):
        pipeline.queues[Topic.BATCHES] += [part]
        pipeline.drain()
        pipeline.call(relabel_batch, ADMIN, batch_id, "Monday")
        pipeline.drain()
        assert compared(pipeline.engine, pipeline.written).differences == []
        sweep(sweeper, pipeline.engine)
        pipeline.drain()
        assert is_unknown(pipeline, batch_id)
    found = compared(pipeline.engine, pipeline.written)
    assert (found.differences, found.not_covered) == ([], [batch_id])
