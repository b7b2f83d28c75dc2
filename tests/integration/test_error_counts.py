"""Readers of failed batches: the count of one waits neither for the count of another that takes long, nor for a dead connection."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Event

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ProgrammingError

from orchestrator.batches.model import BatchView
from orchestrator.storage import error_counts
from orchestrator.storage.error_counts import ErrorCounts, NotCountedError
from tests.support.pipeline import Pipeline, item
from tests.support.waiting import HELD_S, PATIENCE_S


@pytest.mark.parametrize("other", ["another batch", "the same batch"])
def test_a_count_that_hangs_holds_nobody_up(pipeline: Pipeline, engine: Engine, other: str) -> None:
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
    """What is executed on the connection from now on."""
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
    assert counts.fill_from_memory([good]) == [good], "there is nothing to count"
    expected = [{}, {"duplicate_activity": 1}, {"mentor_not_found": 2}]
    with engine.connect() as connection:
        seen = statements(connection)
        assert [batch.errors_by_code for batch in counts.fill(connection, batches)] == expected
        assert len(seen) == 1, "all in one statement"
        assert [batch.errors_by_code for batch in counts.fill(connection, batches)] == expected
        assert len(seen) == 1, "nothing has changed"
    assert [batch.errors_by_code for batch in counts.fill_from_memory(batches)] == expected


def test_another_state_of_a_batch_is_counted_anew(pipeline: Pipeline, engine: Engine) -> None:
    """Also when a restored projection has come to the same version by another way."""
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


def test_the_newest_counts_are_remembered(pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_counts, "_MAX_REMEMBERED", 2)
    batches = [failing(pipeline, f"nobody-{number}") for number in range(3)]
    counts = ErrorCounts()
    with engine.connect() as connection:
        for batch in batches:
            counts.fill(connection, [batch])
    assert counts.fill_from_memory(batches[1:]) == batches[1:]
    with pytest.raises(NotCountedError):
        counts.fill_from_memory(batches[:1])


def test_a_count_that_failed_holds_nobody_up(pipeline: Pipeline, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
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
