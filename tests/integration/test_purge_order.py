"""Which keys expire, and which deleted batches are purged first."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, text

from orchestrator.storage import purging
from tests.support.pipeline import Pipeline, mentors
from tests.support.sweeping import run


@contextmanager
def keys(pipeline: Pipeline, *aged: tuple[str, str, str, int]) -> Iterator[list[tuple[str, str, str]]]:
    """Keys of these organizations, subjects and names, with their ages in days. Which are left is known at the end."""
    left: list[tuple[str, str, str]] = []
    for organization, subject, key, days in aged:
        put = "INSERT INTO orchestrator.idempotency_key VALUES (:o, :s, :k, '', gen_random_uuid(), NULL, now() - :d * interval '1 day')"
        run(pipeline, put, o=organization, s=subject, k=key, d=days)
    yield left
    with pipeline.engine.begin() as connection:
        columns = "organization_id, subject, key"
        left += sorted((*row,) for row in connection.execute(text(f"SELECT {columns} FROM orchestrator.idempotency_key")))


def expire(engine: Engine, most: int) -> int:
    with engine.begin() as connection:
        return purging.expire_keys(connection, after=timedelta(days=7), max_keys=most)


def test_a_key_expires_by_itself_beside_others_of_the_same_name(pipeline: Pipeline) -> None:
    aged = [("o", "s", "k", 8), ("p", "s", "k", 6), ("o", "t", "k", 6), ("o", "s", "l", 6)]
    with keys(pipeline, *aged) as left:
        assert expire(pipeline.engine, 9) == 1
    assert left == [("o", "s", "l"), ("o", "t", "k"), ("p", "s", "k")]


def test_the_oldest_keys_expire_first(pipeline: Pipeline) -> None:
    with keys(pipeline, ("o", "s", "a", 9), ("o", "s", "b", 11), ("o", "s", "c", 10)) as left:
        assert expire(pipeline.engine, 2) == 2
    assert left == [("o", "s", "a")]


def test_the_oldest_deletions_are_purged_first(pipeline: Pipeline) -> None:
    batches = [pipeline.submit(mentors(1, first=first)) for first in (1, 2, 3)]
    for batch_id, days in zip(batches, (8, 10, 9), strict=True):
        run(
            pipeline,
            "UPDATE orchestrator.batch SET deleted_at = now() - :d * interval '1 day' WHERE batch_id = :b",
            d=days,
            b=batch_id,
        )

    def due(aside: Sequence[UUID], most: int) -> list[str]:
        with pipeline.engine.begin() as connection:
            found = purging.deleted_batches(connection, after=timedelta(days=7), aside=list(map(str, aside)), max_batches=most)
        return [each.batch_id for each in found]

    in_order = [str(batches[index]) for index in (1, 2, 0)]
    assert [due([], most) for most in (1, 2, 3, 4)] == [in_order[:1], in_order[:2], in_order, in_order]
    assert due([batches[2]], 9) == [in_order[0], in_order[2]]
