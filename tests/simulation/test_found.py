"""Histories in which the simulation has found a bug, each in its shortest form."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from orchestrator.batches.operations import cancel_batch
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.support.pipeline import ADMIN, Pipeline, standard_directory
from tests.support.upstream import in_parts, submitted, upstream_item


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    yield pipeline
    pipeline.close()


def test_contradiction_beside_the_last_part_does_not_replace_the_first_part(pipeline: Pipeline) -> None:
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


def test_rejection_that_is_repeated_after_a_cancel_has_the_same_bytes(pipeline: Pipeline) -> None:
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
