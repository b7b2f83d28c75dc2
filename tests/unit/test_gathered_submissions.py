"""Submissions that arrive while others are being stored: which are stored together, and which fail together."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest

from api.load.group_commit import MAX_ITEMS, GroupCommit
from orchestrator.batches.model import Actor, NewBatch, Role, Submitted
from orchestrator.batches.submit import SubmissionRequest, SubmissionResult
from orchestrator.storage.blame import TransientError
from schemas.ids import new_batch_id
from tests.support.api_parts import VIEW, of_database
from tests.support.pipeline import mentors
from tests.support.waiting import HELD_S, eventually


def a_request(organization: str = "o", items: int = 1) -> SubmissionRequest:
    return SubmissionRequest(
        Actor(organization, "s", Role.SERVICE), NewBatch(new_batch_id(), "c", None, False, mentors(items), "0" * 32)
    )


class Sets:
    """Records which requests were stored together, and for which organization. The first set of each organization waits for `go_on`."""

    def __init__(self, fail: Callable[[int], Exception | None] = lambda size: None) -> None:
        self.stored: list[tuple[str, list[UUID]]] = []
        self.go_on = threading.Event()
        self._fail = fail

    def __call__(self, organization_id: str, requests: Sequence[SubmissionRequest]) -> Sequence[SubmissionResult]:
        self.stored.append((organization_id, [each.batch.batch_id for each in requests]))
        assert self.go_on.wait(HELD_S)
        if (failure := self._fail(len(requests))) is not None:
            raise failure
        return [Submitted(replace(VIEW, batch_id=each.batch.batch_id), replayed=False) for each in requests]

    def submit_all(self, requests: Sequence[SubmissionRequest], *, alone: int) -> list[UUID | str]:
        """The first request of each organization is being stored when the others arrive, `alone` of which go alone. Returns the results."""
        group = GroupCommit(self)
        firsts = {each.actor.organization_id: each for each in reversed(requests)}
        others = [each for each in requests if each not in firsts.values()]
        with ThreadPoolExecutor(len(requests)) as threads:
            submitting = {each.batch.batch_id: threads.submit(group.submit, each) for each in firsts.values()}
            eventually(lambda: len(self.stored) == len(firsts))
            submitting |= {each.batch.batch_id: threads.submit(group.submit, each) for each in others}
            eventually(lambda: sum(map(len, group._gathering.values())) == len(others) - alone)
            eventually(lambda: len(self.stored) == len(firsts) + alone)
            self.go_on.set()
        done = [submitting[each.batch.batch_id] for each in requests]
        return [type(future.exception()).__name__ if future.exception() else future.result().batch.batch_id for future in done]


def test_submissions_of_one_organization_are_gathered() -> None:
    sets = Sets()
    requests = [a_request(organization) for organization in "opoppo"]
    assert sets.submit_all(requests, alone=0) == [each.batch.batch_id for each in requests]
    ids = {
        organization: [each.batch.batch_id for each in requests if each.actor.organization_id == organization]
        for organization in "op"
    }
    stored = {organization: [set(some) for named, some in sets.stored if named == organization] for organization in "op"}
    assert stored == {organization: [{first}, set(others)] for organization, (first, *others) in ids.items()}


def test_a_submission_of_more_than_a_hundred_items_goes_alone() -> None:
    sets = Sets()
    requests = [a_request(), a_request(items=MAX_ITEMS), a_request(items=MAX_ITEMS + 1), a_request()]
    assert sets.submit_all(requests, alone=1) == [each.batch.batch_id for each in requests]
    first, largest, too_large, last = (each.batch.batch_id for each in requests)
    assert [some for _, some in sets.stored[:2]] == [[first], [too_large]]
    assert set(sets.stored[2][1]) == {largest, last}


@pytest.mark.parametrize(
    ("failure", "alone"),
    [
        # The statement took too long. One after the other, these would delay the next one for minutes.
        (of_database("57014"), False),
        (of_database("40001"), False),
        (of_database(None, lost=True), False),
        (TransientError("x"), False),
        (of_database("22001"), True),
        (of_database("42501"), True),
        (ValueError("a bug"), True),
    ],
    ids=["timeout", "conflict", "lost", "rival", "data", "right", "bug"],
)
def test_a_faulty_submission_fails_alone_and_an_outage_fails_all(failure: Exception, alone: bool) -> None:
    sets = Sets(lambda size: failure if size > 1 else None)
    requests = [a_request() for _ in range(4)]
    answers = sets.submit_all(requests, alone=0)
    first, *others = (each.batch.batch_id for each in requests)
    assert answers == [first, *(others if alone else [type(failure).__name__] * 3)]
    assert [len(some) for _, some in sets.stored] == [1, 3, *([1] * 3 if alone else [])]
