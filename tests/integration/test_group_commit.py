"""Submissions that arrive together share a transaction, and nothing else (decision 14)."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

from sqlalchemy import text

from api.load.group_commit import MAX_ITEMS, GroupCommit
from orchestrator.batches.errors import ForbiddenError, InvalidRequestError, KeyReusedError
from orchestrator.batches.model import Idempotency, NewBatch, Role, Submitted
from orchestrator.batches.submit import SubmissionRequest, SubmissionResult, submit_bulk_registrations
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import TransientError
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.verification.verify import verify
from schemas.ids import new_batch_id
from tests.support.pipeline import COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, Pipeline, mentors
from tests.support.waiting import HELD_S, PATIENCE_S, eventually


def request(items: int = 2, *, coordinator: str = COORDINATOR, label: str | None = None, key: str = "") -> SubmissionRequest:
    batch = NewBatch(new_batch_id(), coordinator, label, False, mentors(items), "0" * 31 + "1")
    actor = replace(COORDINATOR_ACTOR, role=Role.SERVICE)
    return SubmissionRequest(actor, batch, Idempotency(key, f"hash of {label}".encode()) if key else None)


class Store:
    """Stores like the API does, and records which submissions shared a transaction. The first set waits for `go_on`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.sets: list[int] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.began = threading.Event()

    def __call__(self, organization_id: str, requests: Sequence[SubmissionRequest]) -> Sequence[SubmissionResult]:
        self.sets.append(len(requests))
        self.began.set()
        assert self.go_on.wait(HELD_S)
        return transact(
            self._pipeline.api,
            lambda connection: submit_bulk_registrations(PostgresActivityRepository(connection), requests),
            organizations=[organization_id],
        )


def stored(pipeline: Pipeline) -> set[UUID]:
    with pipeline.engine.begin() as connection:
        return set(connection.execute(text("SELECT batch_id FROM orchestrator.batch")).scalars())


def together(store: Store, requests: Sequence[SubmissionRequest]) -> list[Future[Submitted]]:
    """Submits the first, and the others while it is being stored, so that these are gathered. Returns the finished futures."""
    group = GroupCommit(store)
    store.go_on.clear()
    with ThreadPoolExecutor(len(requests)) as threads:
        submitting = [threads.submit(group.submit, requests[0])]
        assert store.began.wait(PATIENCE_S)
        submitting += [threads.submit(group.submit, each) for each in requests[1:]]
        eventually(lambda: len(group._gathering[ORGANIZATION]) == len(requests) - 1)
        store.go_on.set()
    return submitting


def test_a_single_submission_is_stored_at_once(pipeline: Pipeline) -> None:
    store = Store(pipeline)
    one = request()
    assert GroupCommit(store).submit(one).batch == pipeline.status(one.batch.batch_id).batch
    assert store.sets == [1]


def test_submissions_that_arrive_during_a_commit_share_the_next_transaction(pipeline: Pipeline) -> None:
    store = Store(pipeline)
    requests = [request(number) for number in range(1, 8)]
    submitted = [done.result().batch for done in together(store, requests)]
    assert store.sets == [1, 6]
    assert [batch.batch_id for batch in submitted] == [each.batch.batch_id for each in requests]
    assert [batch.counts.pending for batch in submitted] == list(range(1, 8))
    assert [pipeline.status(batch.batch_id).batch for batch in submitted] == submitted
    pipeline.drain()
    assert {pipeline.status(batch.batch_id).batch.counts.pending for batch in submitted} == {0}


def test_a_refused_submission_writes_nothing_and_affects_no_other(pipeline: Pipeline) -> None:
    early = request(label="early", key="used")
    pipeline_store = Store(pipeline)
    GroupCommit(pipeline_store).submit(early)
    reader = replace(request(), actor=replace(COORDINATOR_ACTOR, role=Role.AUDITOR))
    requests = [
        request(),
        request(coordinator="nobody"),
        reader,
        request(label="another", key="used"),
        request(label="early", key="used"),
        request(label="twice", key="new"),
        request(label="twice", key="new"),
        request(),
    ]
    answers = [done.exception() or done.result() for done in together(pipeline_store, requests)]
    kinds = [type(answer) for answer in answers]
    assert kinds == [Submitted, InvalidRequestError, ForbiddenError, KeyReusedError, Submitted, Submitted, Submitted, Submitted]
    replay, first, second = (answer for answer in answers[4:7] if isinstance(answer, Submitted))
    assert (replay.batch.batch_id, replay.replayed) == (early.batch.batch_id, True)
    assert first.batch.batch_id == second.batch.batch_id
    assert {first.replayed, second.replayed} == {False, True}
    assert len(stored(pipeline)) == 4


def test_a_submission_that_the_database_refuses_fails_alone(pipeline: Pipeline) -> None:
    store = Store(pipeline)
    requests = [request(), request(), request(label="a\x00b"), request()]
    failed = [done.exception() is not None for done in together(store, requests)]
    assert failed == [False, False, True, False]
    assert store.sets == [1, 3, 1, 1, 1]
    assert stored(pipeline) == {requests[index].batch.batch_id for index in (0, 1, 3)}


def test_an_outage_fails_all_and_the_next_submission_is_stored(pipeline: Pipeline) -> None:
    class Away(Store):
        def __call__(self, organization_id: str, requests: Sequence[SubmissionRequest]) -> Sequence[SubmissionResult]:
            answers = super().__call__(organization_id, requests)
            if len(requests) > 1:
                raise TransientError("the acknowledgement was lost")
            return answers

    store = Away(pipeline)
    submitting = together(store, [request() for _ in range(4)])
    assert [type(done.exception()) for done in submitting] == [type(None), *[TransientError] * 3]
    assert GroupCommit(store).submit(request()).batch.counts.pending == 2


def test_a_repetition_after_a_lost_acknowledgement_has_no_second_effect(pipeline: Pipeline, settings: Settings) -> None:
    store = Store(pipeline)
    requests = [request(), request(key="mine")]
    first = store(ORGANIZATION, requests)
    again = store(ORGANIZATION, requests)
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, Submitted)
        assert isinstance(other, Submitted)
        assert (other.batch, other.replayed) == (one.batch, False)
    pipeline.drain()
    assert verify(pipeline.engine, settings).breaches == []


def test_a_large_submission_has_its_own_transaction(pipeline: Pipeline) -> None:
    store = Store(pipeline)
    group = GroupCommit(store)
    store.go_on.clear()
    with ThreadPoolExecutor(2) as threads:
        small = threads.submit(group.submit, request())
        assert store.began.wait(PATIENCE_S)
        large = threads.submit(group.submit, request(MAX_ITEMS + 1))
        eventually(lambda: store.sets == [1, 1])
        store.go_on.set()
        assert {small.result().batch.counts.pending, large.result().batch.counts.pending} == {2, MAX_ITEMS + 1}
