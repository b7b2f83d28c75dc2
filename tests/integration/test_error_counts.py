"""Readers of failed batches: the count of one waits neither for the count of another that takes long, nor for a dead connection."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy import Connection, Engine, event

from orchestrator.storage.error_counts import ErrorCounts
from tests.support.pipeline import Pipeline, item


@pytest.mark.parametrize("other", ["another batch", "the same batch"])
def test_a_count_that_hangs_holds_nobody_up(pipeline: Pipeline, engine: Engine, other: str) -> None:
    batches = [pipeline.submit([item("nobody")]) for _ in range(2)]
    pipeline.drain()
    first, second = (pipeline.status(batch_id).batch for batch_id in batches)
    counts = ErrorCounts()
    hangs, goes_on = Event(), Event()

    def hang(*_: object) -> None:
        hangs.set()
        assert goes_on.wait(60)

    def count(connection: Connection) -> None:
        counts.fill(connection, [first])

    with engine.connect() as silent, engine.connect() as connection, ThreadPoolExecutor(2) as threads:
        event.listen(silent, "before_cursor_execute", hang)
        hanging = threads.submit(count, silent)
        try:
            assert hangs.wait(15)
            wanted = second if other == "another batch" else first
            reading = threads.submit(counts.fill, connection, [wanted])
            assert reading.result(15)[0].errors_by_code == {"mentor_not_found": 1}
            assert not hanging.done()
        finally:
            goes_on.set()
        hanging.result(15)
