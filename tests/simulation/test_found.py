"""What the simulation has found: each history in its shortest form, for good."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from orchestrator.settings import Settings
from schemas.envelope import Topic
from tests.support.pipeline import Pipeline, standard_directory
from tests.support.upstream import in_parts, submitted, upstream_item


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    yield pipeline
    pipeline.close()


def test_contradiction_beside_the_last_part_does_not_stand_in_for_the_first(pipeline: Pipeline) -> None:
    """It has the number of a part that came before, and is refused: the items of that one were expanded by nobody."""
    batch_id = uuid4()
    first, last = in_parts(batch_id, [1, 1])
    contradiction = submitted(batch_id, [upstream_item(0, "mentor-9")], part=1, parts=2, total_items=2)
    pipeline.handle(pipeline.splitter, [first])
    pipeline.handle(pipeline.splitter, [contradiction, last])
    assert pipeline.refused == [("splitter", "batch_differs")]
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert not pipeline.queues[Topic.BATCHES]
