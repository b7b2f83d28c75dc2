"""A submission whose commit is uncertain is run again, and returns the result that it had, whatever has changed since."""

from dataclasses import replace

import pytest

from orchestrator.batches.errors import ConflictError, InvalidRequestError, KeyReusedError
from orchestrator.batches.model import Actor, Idempotency, NewBatch, Submitted
from orchestrator.batches.operations import delete_batch, submit_bulk_registration
from orchestrator.batches.submit import SubmissionRequest, submit_bulk_registrations
from schemas.ids import new_batch_id
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, item, mentors


def new_batch(*mentor_ids: str) -> NewBatch:
    return NewBatch(new_batch_id(), COORDINATOR, "label", False, [item(each) for each in mentor_ids], "1" * 32)


def accepted(flow: MemoryFlow, *requests: SubmissionRequest) -> list[object]:
    return flow.call(lambda repository, _: list[object](submit_bulk_registrations(repository, requests)), ADMIN)


def test_a_stored_submission_is_not_refused_because_of_later_changes(flow: MemoryFlow) -> None:
    stored, new = SubmissionRequest(ADMIN, new_batch("mentor-1")), SubmissionRequest(ADMIN, new_batch("mentor-2"))
    [first] = accepted(flow, stored)
    flow.storage.forget_coordinator(ORGANIZATION, COORDINATOR)
    again, refused = accepted(flow, stored, new)
    assert again == first
    assert isinstance(refused, InvalidRequestError)


def test_a_stored_submission_is_not_compared_with_its_plan_again(flow: MemoryFlow) -> None:
    batch = new_batch("mentor-1")
    still_holds = True

    def hold_to_plan(planned: NewBatch) -> NewBatch:
        assert still_holds
        return planned

    flow.call(submit_bulk_registration, ADMIN, batch, None, hold_to_plan)
    flow.drain()
    still_holds = False
    flow.call(submit_bulk_registration, ADMIN, batch, None, hold_to_plan)
    assert flow.status(batch.batch_id).batch.counts.total == 1


@pytest.mark.parametrize("key", [None, Idempotency("key", b"hash")])
def test_a_batch_is_stored_once_and_returned_as_it_is_now(flow: MemoryFlow, key: Idempotency | None) -> None:
    request = SubmissionRequest(ADMIN, new_batch("mentor-1"), key)
    [first] = accepted(flow, request)
    flow.drain()
    [again] = accepted(flow, request)
    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    # It is the same call, and not a repetition by the client.
    assert (first.replayed, again.replayed) == (False, False)
    assert again.batch == flow.status(request.batch.batch_id).batch
    assert again.batch.status == "completed"


def test_the_first_submission_under_a_key_counts(flow: MemoryFlow) -> None:
    key = Idempotency("key", b"hash")
    first = SubmissionRequest(ADMIN, new_batch("mentor-1"), key)
    others = [
        replace(first, batch=new_batch("mentor-1")),
        replace(first, batch=new_batch("mentor-2"), idempotency=Idempotency("key", b"another")),
        replace(first, batch=new_batch("mentor-3"), actor=Actor(ORGANIZATION, "somebody else", ADMIN.role)),
    ]
    made, replayed, reused, own = accepted(flow, first, *others)
    assert isinstance(made, Submitted)
    assert isinstance(replayed, Submitted)
    assert isinstance(own, Submitted)
    assert isinstance(reused, KeyReusedError)
    assert (replayed.batch.batch_id, replayed.replayed, own.replayed) == (made.batch.batch_id, True, False)
    flow.drain()
    flow.call(delete_batch, ADMIN, first.batch.batch_id)
    [gone] = accepted(flow, others[0])
    assert isinstance(gone, ConflictError)
    assert gone.code == "batch_deleted"


def test_the_returned_new_batch_is_the_stored_one(flow: MemoryFlow) -> None:
    requests = [
        SubmissionRequest(replace(ADMIN, channel="here"), replace(new_batch(), items=mentors(n, first=10 * n))) for n in (1, 2, 3)
    ]
    answers = accepted(flow, *requests)
    assert answers == [Submitted(flow.status(each.batch.batch_id).batch, replayed=False) for each in requests]
