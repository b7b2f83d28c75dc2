"""The same Idempotency-Key on two connections at once: the request has one effect, and both responses say so (docs/http.md)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, event, text

from orchestrator.batches.errors import KeyReusedError
from orchestrator.batches.model import Actor, Idempotency, NewBatch, RetryRequest, Role
from orchestrator.batches.operations import cancel_batch, retry_failed_items, submit_bulk_registration
from orchestrator.batches.repository import KeyUse, UsedKey
from orchestrator.storage.purging import expire_keys
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.ids import batch_lock_key, new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, mentors
from tests.support.waiting import eventually

Told = tuple[str, int, bool]
"""The batch, how many items were retried, and whether the response is a repetition."""

SAME, OTHER = Idempotency("key", b"request"), Idempotency("key", b"another request")


def told(call: Callable[[], Told]) -> Told | str:
    try:
        return call()
    except KeyReusedError as error:
        return error.code


def at_once(pipeline: Pipeline, gate: Callable[[Connection], None], *calls: Callable[[], Told]) -> list[Told | str]:
    """The results of calls that have all reached the gate before any of them continues."""
    with ThreadPoolExecutor(len(calls)) as threads:
        with closed(pipeline, gate):
            answers = [threads.submit(told, call) for call in calls]
            eventually(lambda: waiting(pipeline) == len(calls))
        return [answer.result() for answer in answers]


@contextmanager
def closed(pipeline: Pipeline, gate: Callable[[Connection], None]) -> Iterator[None]:
    with pipeline.engine.connect() as connection:
        gate(connection)
        yield
        connection.rollback()


def waiting(pipeline: Pipeline) -> int:
    with pipeline.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


def hold_key(connection: Connection) -> None:
    """Uses the key in a transaction that is rolled back."""
    connection.execute(
        text("INSERT INTO orchestrator.idempotency_key VALUES (:org, :subject, 'key', '', gen_random_uuid(), NULL, now())"),
        {"org": ADMIN.organization_id, "subject": ADMIN.subject},
    )


def hold_batch(batch_id: UUID) -> Callable[[Connection], None]:
    def lock(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": batch_lock_key(batch_id)})

    return lock


def rows(pipeline: Pipeline, query: str) -> int:
    with pipeline.engine.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {query}")).scalar_one())


def published(event_type: str) -> str:
    return f"orchestrator.outbox WHERE headers::text LIKE '%{event_type}%'"


def another_call(idempotency: Idempotency) -> Idempotency:
    return replace(idempotency, call_id=uuid4())


def submission(pipeline: Pipeline, idempotency: Idempotency) -> Callable[[], Told]:
    def submit() -> Told:
        batch = NewBatch(new_batch_id(), COORDINATOR, None, False, mentors(2), "1" * 32)
        answer = pipeline.call(submit_bulk_registration, ADMIN, batch, idempotency)
        return str(answer.batch.batch_id), 0, answer.replayed

    return submit


def test_two_submissions_under_one_key_are_one_batch(pipeline: Pipeline) -> None:
    first, second = at_once(pipeline, hold_key, submission(pipeline, SAME), submission(pipeline, SAME))
    assert first[0] == second[0]
    assert sorted([first[2], second[2]]) == [False, True]
    assert rows(pipeline, "orchestrator.batch") == rows(pipeline, "orchestrator.outbox") == 1


def test_two_different_submissions_under_one_key_are_one_batch_and_one_refusal(pipeline: Pipeline) -> None:
    answers = at_once(pipeline, hold_key, submission(pipeline, SAME), submission(pipeline, OTHER))
    assert answers.count("idempotency_key_reused") == 1
    assert rows(pipeline, "orchestrator.batch") == rows(pipeline, "orchestrator.outbox") == 1


def retrying(pipeline: Pipeline, batch_id: UUID, idempotency: Idempotency) -> Callable[[], Told]:
    def retry() -> Told:
        answer = pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(), another_call(idempotency))
        return str(answer.batch.batch_id), answer.retried, answer.replayed

    return retry


def cancelling(pipeline: Pipeline, batch_id: UUID, idempotency: Idempotency) -> Callable[[], Told]:
    def cancel() -> Told:
        answer = pipeline.call(cancel_batch, ADMIN, batch_id, None, idempotency=another_call(idempotency))
        return str(answer.batch.batch_id), 0, answer.replayed

    return cancel


@pytest.mark.parametrize("second", [SAME, OTHER], ids=["same", "other"])
def test_two_retries_under_one_key_begin_one_attempt(pipeline: Pipeline, second: Idempotency) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.drain()
    calls = retrying(pipeline, batch_id, SAME), retrying(pipeline, batch_id, second)
    answers = at_once(pipeline, hold_batch(batch_id), *calls)
    if second is SAME:
        assert sorted(answers) == [(str(batch_id), 1, False), (str(batch_id), 1, True)]
    else:
        assert answers.count("idempotency_key_reused") == 1
    assert [one.attempt for one in pipeline.status(batch_id).items] == [1, 2]
    assert rows(pipeline, published("BatchRetryRequested")) == 1


@pytest.mark.parametrize("second", [SAME, OTHER], ids=["same", "other"])
def test_two_cancels_under_one_key_are_one(pipeline: Pipeline, second: Idempotency) -> None:
    batch_id = pipeline.submit(mentors(2))
    calls = cancelling(pipeline, batch_id, SAME), cancelling(pipeline, batch_id, second)
    answers = at_once(pipeline, hold_batch(batch_id), *calls)
    if second is SAME:
        assert sorted(answers) == [(str(batch_id), 0, False), (str(batch_id), 0, True)]
    else:
        assert answers.count("idempotency_key_reused") == 1
    assert pipeline.status(batch_id).batch.counts.cancelled == 2
    assert rows(pipeline, published("BatchCancelled")) == 1


@contextmanager
def expiring_before_it_is_read(pipeline: Pipeline) -> Iterator[list[int]]:
    """Lets the key expire once: after a request has found it in use, and before that request reads its result."""
    expired: list[int] = []

    def expire(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if not expired and "SELECT u.batch_id::text AS wanted_by" in statement:
            with pipeline.engine.begin() as connection:
                expired.append(expire_keys(connection, after=timedelta(0), max_keys=10))

    event.listen(pipeline.api, "before_cursor_execute", expire)
    yield expired
    event.remove(pipeline.api, "before_cursor_execute", expire)


@pytest.mark.parametrize("second", [SAME, OTHER], ids=["the same request", "another request"])
def test_submission_whose_key_expires_before_it_is_read_claims_the_key(pipeline: Pipeline, second: Idempotency) -> None:
    old = submission(pipeline, SAME)()
    submit = submission(pipeline, second)
    with expiring_before_it_is_read(pipeline) as expired:
        new = submit()
    assert expired == [1]
    assert new[0] != old[0], "the key had expired, so a new batch must be created"
    assert submit() == (new[0], 0, True), "the repeated request was mistaken for another one"


def test_retry_whose_key_expires_before_it_is_read_claims_the_key(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()

    def retry() -> int:
        return pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(), idempotency=SAME).retried

    assert retry() == 1
    pipeline.drain()
    with expiring_before_it_is_read(pipeline) as expired:
        assert retry() == 1
    assert expired == [1]
    pipeline.drain()
    assert retry() == 1, "the repetition must return the same count"
    assert pipeline.status(batch_id).items[0].attempt == 3, "the repetition must not begin another attempt"


def test_a_key_belongs_to_its_subject_in_its_organization(pipeline: Pipeline) -> None:
    """The same key of another subject or organization, and another key, are separate uses. Each has its own result."""
    actors = [Actor(organization, subject, Role.ADMIN) for organization in ("org-1", "org-2") for subject in ("boss", "aide")]
    uses = [
        KeyUse(actor, Idempotency(key, f"{actor.organization_id} {actor.subject} {key}".encode()), new_batch_id())
        for actor in actors
        for key in ("key", "other")
    ]
    again = [replace(use, batch_id=new_batch_id()) for use in uses]
    with pipeline.engine.begin() as connection:
        repository = PostgresActivityRepository(connection)
        for use in uses[:-1]:
            assert repository.used_key(use.actor, use.idempotency) is None
            assert repository.use_keys([use]) == {}
            repository.store_result(use.actor, use.idempotency, {"of": str(use.batch_id)})
        assert repository.used_key(uses[-1].actor, uses[-1].idempotency) is None
        expected = {
            repeated.batch_id: UsedKey(use.idempotency.request_hash, use.batch_id, {"of": str(use.batch_id)})
            for use, repeated in zip(uses[:-1], again, strict=False)
        }
        assert repository.use_keys(again) == expected, "all keys but the last one must be in use"
        for use, used in zip(uses, expected.values(), strict=False):
            assert repository.used_key(use.actor, use.idempotency) == used
        last = repository.used_key(uses[-1].actor, uses[-1].idempotency)
        assert last == UsedKey(uses[-1].idempotency.request_hash, again[-1].batch_id, None)


def test_the_first_of_several_uses_in_one_set_gets_the_key(pipeline: Pipeline) -> None:
    for ids in permutations([new_batch_id() for _ in range(3)]):
        uses = [KeyUse(ADMIN, SAME, batch_id) for batch_id in ids]
        with pipeline.engine.connect() as connection:
            used = PostgresActivityRepository(connection).use_keys(uses)
        assert used == {batch_id: UsedKey(SAME.request_hash, ids[0], None) for batch_id in ids[1:]}


def test_the_oldest_keys_expire_first_and_keys_in_use_are_left(pipeline: Pipeline) -> None:
    ages = {"a": 3, "b": 5, "c": 1, "d": 4}
    with pipeline.engine.begin() as connection:
        for organization in ("org-1", "org-2"):
            for key, days in ages.items():
                connection.execute(
                    text(
                        "INSERT INTO orchestrator.idempotency_key VALUES (:org, 'boss', :key, '', gen_random_uuid(), NULL, "
                        "now() - make_interval(days => :days))"
                    ),
                    {"org": organization, "key": key, "days": days + (organization == "org-2") * 10},
                )

    def left() -> set[tuple[str, str]]:
        with pipeline.engine.begin() as connection:
            found = connection.execute(text("SELECT organization_id, key FROM orchestrator.idempotency_key"))
            return {(row.organization_id, row.key) for row in found}

    def expire(days: int, max_keys: int) -> int:
        with pipeline.engine.begin() as connection:
            return expire_keys(connection, after=timedelta(days=days), max_keys=max_keys)

    assert expire(10, 3) == 3
    assert left() == {("org-1", key) for key in ages} | {("org-2", "c")}
    with pipeline.engine.connect() as using:
        using.execute(text("SELECT FROM orchestrator.idempotency_key WHERE key = 'b' FOR UPDATE"))
        assert expire(4, 10) == 2, "the key in use must not expire"
        assert left() == {("org-1", "a"), ("org-1", "b"), ("org-1", "c")}
    assert expire(4, 10) == 1
    assert left() == {("org-1", "a"), ("org-1", "c")}
