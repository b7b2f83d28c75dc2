"""Counting the errors of one batch waits neither for a slow count of another batch, nor for a dead connection."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Event, Lock

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ProgrammingError

from orchestrator.batches.model import BatchView
from orchestrator.storage import error_counts
from orchestrator.storage.error_counts import ErrorCounts, NotCountedError
from tests.support.pipeline import Pipeline, item
from tests.support.waiting import HELD_S, PATIENCE_S


@pytest.mark.parametrize("other", ["another batch", "the same batch"])
def test_a_hanging_count_delays_nobody(pipeline: Pipeline, engine: Engine, other: str) -> None:
    batches = [pipeline.submit([item("nobody")]) for _ in range(2)]
    pipeline.drain()
    first, second = (pipeline.status(batch_id).batch for batch_id in batches)
    counts = ErrorCounts()
    hangs, goes_on = Event(), Event()

    def hang(*_: object) -> None:
        hangs.set()
        assert goes_on.wait(HELD_S)

    def count(connection: Connection) -> None:
        counts.fill(connection, [first])

    with engine.connect() as silent, engine.connect() as connection, ThreadPoolExecutor(2) as threads:
        event.listen(silent, "before_cursor_execute", hang)
        hanging = threads.submit(count, silent)
        try:
            assert hangs.wait(PATIENCE_S)
            wanted = second if other == "another batch" else first
            reading = threads.submit(counts.fill, connection, [wanted])
            assert reading.result(PATIENCE_S)[0].errors_by_code == {"mentor_not_found": 1}
            assert not hanging.done()
        finally:
            goes_on.set()
        hanging.result(PATIENCE_S)


def statements(connection: Connection) -> list[str]:
    """Collects the statements that the connection executes from now on."""
    seen: list[str] = []
    event.listen(connection, "before_cursor_execute", lambda *called: seen.append(called[2]))
    return seen


def failing(pipeline: Pipeline, *mentors: str) -> BatchView:
    batch_id = pipeline.submit([item(mentor) for mentor in mentors])
    pipeline.drain()
    return pipeline.status(batch_id).batch


def test_each_batch_has_its_own_counts_and_is_counted_once(pipeline: Pipeline, engine: Engine) -> None:
    one, two, good = (
        failing(pipeline, "nobody", "mentor-1", "no one"),
        failing(pipeline, "mentor-1"),
        failing(pipeline, "mentor-2"),
    )
    batches = [replace(batch, errors_by_code={}) for batch in (good, two, one)]
    counts = ErrorCounts()
    with pytest.raises(NotCountedError):
        counts.fill_from_memory(batches)
    assert counts.fill_from_memory([good]) == [good], "a batch without failed items must not be counted"
    expected = [{}, {"duplicate_activity": 1}, {"mentor_not_found": 2}]
    with engine.connect() as connection:
        seen = statements(connection)
        assert [batch.errors_by_code for batch in counts.fill(connection, batches)] == expected
        assert len(seen) == 1, "all batches must be counted in one statement"
        assert [batch.errors_by_code for batch in counts.fill(connection, batches)] == expected
        assert len(seen) == 1, "unchanged batches must not be counted again"
    assert [batch.errors_by_code for batch in counts.fill_from_memory(batches)] == expected


def test_who_has_waited_for_a_count_does_not_count_again(
    pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_counts, "_PATIENCE_S", HELD_S)
    batch, counts = failing(pipeline, "nobody"), ErrorCounts()
    counting, waits, goes_on = Event(), Event(), Event()

    class Turn:
        """The lock that one thread counts under. Says when somebody waits for it."""

        def __init__(self) -> None:
            self._lock = Lock()

        def acquire(self, timeout: float) -> bool:
            if counting.is_set():
                waits.set()
            return self._lock.acquire(timeout=timeout)

        def release(self) -> None:
            self._lock.release()

    def hang(*_: object) -> None:
        counting.set()
        assert goes_on.wait(HELD_S)

    monkeypatch.setattr(counts, "_counting", Turn())
    with engine.connect() as one, engine.connect() as other, ThreadPoolExecutor(2) as threads:
        event.listen(one, "before_cursor_execute", hang)
        seen = statements(other)
        first = threads.submit(counts.fill, one, [batch])
        try:
            assert counting.wait(PATIENCE_S)
            second = threads.submit(counts.fill, other, [batch])
            assert waits.wait(PATIENCE_S)
        finally:
            goes_on.set()
        assert first.result(PATIENCE_S) == second.result(PATIENCE_S) == [batch]
        assert seen == []


def test_a_changed_batch_is_counted_again(pipeline: Pipeline, engine: Engine) -> None:
    """Also if a restored projection has reached the same version with other contents."""
    batch = failing(pipeline, "nobody")
    counts = ErrorCounts()
    with engine.connect() as connection:
        counts.fill(connection, [batch])
        seen = statements(connection)
        for other in (
            replace(batch, version=batch.version + 1),
            replace(batch, changed_at=batch.changed_at + timedelta(microseconds=1)),
        ):
            with pytest.raises(NotCountedError):
                counts.fill_from_memory([other])
            counts.fill(connection, [other])
        assert len(seen) == 2


def test_the_newest_counts_are_cached(pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_counts, "_MAX_REMEMBERED", 2)
    batches = [failing(pipeline, f"nobody-{number}") for number in range(3)]
    counts = ErrorCounts()
    with engine.connect() as connection:
        for batch in batches:
            counts.fill(connection, [batch])
    assert counts.fill_from_memory(batches[1:]) == batches[1:]
    with pytest.raises(NotCountedError):
        counts.fill_from_memory(batches[:1])


def test_a_failed_count_delays_nobody(pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_counts, "_PATIENCE_S", HELD_S)
    batch, counts = failing(pipeline, "nobody"), ErrorCounts()
    with engine.connect() as broken:
        event.listen(broken, "before_cursor_execute", lambda *_: ("SELECT nonsense", {}), retval=True)
        with pytest.raises(ProgrammingError):
            counts.fill(broken, [batch])
    with engine.connect() as connection, ThreadPoolExecutor(1) as threads:
        assert threads.submit(counts.fill, connection, [batch]).result(PATIENCE_S) == [batch]
        other = failing(pipeline, "no one")
        assert threads.submit(counts.fill, connection, [other]).result(PATIENCE_S) == [other]
