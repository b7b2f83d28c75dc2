"""Row 57 of the fault catalogue: a pooler in front of the database. (What else poolers do: tests/integration/test_poolers.py.)"""

import signal

import pytest
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from tests.faults.roles import assert_exactly_once, count, running_flow, wait_until_completed
from tests.support.pipeline import Pipeline, mentors
from tests.support.pooler import running_pooler
from tests.support.waiting import eventually

BATCHES, ITEMS = 4, 25


@pytest.mark.usefixtures("topics")
def test_row_57_pooler_that_ends_and_starts_again_under_load(settings: Settings, engine: Engine, pipeline: Pipeline) -> None:
    """The restart ends all sessions, and with them the relay's slots, prepared statements and LISTENs. The roles make new ones."""
    with running_pooler(settings, pool_mode="session") as (through, pooler), running_flow(through):
        batches = []
        for number, how in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
            batches.append(pipeline.submit(mentors(ITEMS, first=1 + number * ITEMS)))
            eventually(lambda number=number: count(engine, "orchestrator.outcome") > number * ITEMS)  # type: ignore[misc]
            pooler.end(how)
            pooler.start()
        batches.append(pipeline.submit(mentors(ITEMS, first=1 + 3 * ITEMS)))
        wait_until_completed(engine, batches)
    assert_exactly_once(engine, settings, activities=BATCHES * ITEMS)
