"""What a cancel does to a batch in each state, and who may cancel (docs/states.md)."""

from dataclasses import replace

import pytest

from orchestrator.batches.errors import ConflictError, NotFoundError
from orchestrator.batches.operations import cancel_batch
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, COORDINATOR_ACTOR, mentors


def test_cancelling_twice_is_a_no_op(flow: MemoryFlow) -> None:
    batch_id = flow.submit(mentors(3))
    first = flow.call(cancel_batch, ADMIN, batch_id, "first")
    second = flow.call(cancel_batch, COORDINATOR_ACTOR, batch_id, "second")
    assert second.batch == first.batch


def test_cancelling_a_finished_batch_is_a_conflict_even_before_the_fold(flow: MemoryFlow) -> None:
    batch_id = flow.submit(mentors(2))
    flow.register(batch_id)
    with pytest.raises(ConflictError):
        flow.call(cancel_batch, ADMIN, batch_id, None)
    flow.drain()
    assert flow.status(batch_id).batch.status == "completed"


def test_a_colleagues_batch_is_not_found(flow: MemoryFlow) -> None:
    batch_id = flow.submit(mentors(1))
    with pytest.raises(NotFoundError):
        flow.call(cancel_batch, replace(COORDINATOR_ACTOR, subject="coord-2"), batch_id, None)
