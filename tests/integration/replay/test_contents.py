"""Which of several contents under one id a replay rebuilds, and which events tell that one of them was accepted."""

from typing import Any

import pytest
from sqlalchemy import Engine

from orchestrator.batches.model import NewBatch
from orchestrator.batches.operations import submit_bulk_registration
from schemas import events
from schemas.envelope import Topic
from schemas.ids import new_batch_id
from tests.support.forged import named
from tests.support.pipeline import ADMIN, COORDINATOR, mentors
from tests.support.refusals import PROOFS, Says, before_results, lose, named_like, one_by_one, refused, refused_once, says, tell
from tests.support.replaying import RecordingPipeline, compared
from tests.support.upstream import upstream

# What tells it so surely that the batch is compared.
COMPARED = {"a result", "a retry", "a cancel", "a completion"}


@pytest.mark.parametrize("name", PROOFS)
def test_a_batch_that_names_a_mentor_twice_is_not_passed_over_if_an_event_tells_that_it_was_accepted(
    pipeline: RecordingPipeline, owner: Engine, name: str
) -> None:
    """Somebody may cancel it before its last part comes and is refused."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, refused_once(batch_id))
    proof, expected = PROOFS[name]
    read = [*(event for _, event in pipeline.written), *proof(batch_id)]
    assert says(pipeline, list(enumerate(read))) is (Says.DIFFERENCE if name in COMPARED else expected)


def test_a_batch_of_the_product_that_names_a_mentor_twice_was_perhaps_accepted(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """Only what other services send is refused for that. The event of another service that was refused under its id has expired."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, one_by_one(refused(batch_id)))
    expired = [event for _, event in pipeline.written if event.topic is Topic.BATCHES]
    batch = NewBatch(batch_id, COORDINATOR, None, False, mentors(1) * 2, "1" * 32)
    pipeline.call(submit_bulk_registration, ADMIN, batch)
    pipeline.relay()
    lose(owner, batch_id)
    read = [each for each in pipeline.written if each[1] not in expired]
    assert says(pipeline, read) is Says.DIFFERENCE


def test_a_refusal_does_not_count_for_an_event_of_another_batch_with_the_same_id(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """Two services may number their events alike. The other batch is lost before its first result."""
    not_accepted, lost = new_batch_id(), new_batch_id()
    event = refused(not_accepted)
    other = named("/services/other", named_like(event, upstream(lost, [0], part=1, parts=1, total=1)))
    tell(pipeline, owner, lost, [[event, other]])
    assert pipeline.status(lost).batch.status == "completed"
    lose(owner, lost)
    found = compared(pipeline.engine, before_results(pipeline.written))
    assert (found.different_batches, found.not_covered) == ([lost], [])


def test_a_batch_has_the_header_of_the_content_that_counts(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Each was refused with an unknown coordinator before."""
    batches = [new_batch_id() for _ in range(12)]
    for number, batch_id in enumerate(batches):
        of_it: dict[str, Any] = {"part": 1, "parts": 1, "total": 1, "first_mentor": 600 + number, "label": f"label {number}"}
        wrong = upstream(batch_id, [0], **of_it, coordinator_id="nobody")
        tell(pipeline, owner, batch_id, one_by_one(wrong, upstream(batch_id, [0], **of_it)))
    found = compared(pipeline.engine, pipeline.written)
    assert (found.batches, found.differences) == (len(batches), [])


def test_of_two_batches_in_parts_under_one_id_the_one_that_began_first_counts(pipeline: RecordingPipeline) -> None:
    """It ended last. The parts of the other were refused, and their rejections have expired."""
    batch_id = new_batch_id()
    own = [upstream(batch_id, [n], part=n + 1, parts=2, total=2, label="own") for n in range(2)]
    other = [upstream(batch_id, [n], part=n + 1, parts=2, total=2, label="other") for n in range(2)]
    for event in (own[0], *other, own[1]):
        pipeline.queues[Topic.BATCHES].append(event)
        pipeline.drain()
    view = pipeline.status(batch_id).batch
    assert (view.status, view.label) == ("completed", "own")
    rejections = [each for each in pipeline.written if dict(each[1].headers)["ce_type"] == events.BATCH_REJECTED.encode()]
    assert len(rejections) == len(other)
    for written in (pipeline.written, [each for each in pipeline.written if each not in rejections]):
        found = compared(pipeline.engine, written)
        assert (found.batches, found.differences) == (1, [])
