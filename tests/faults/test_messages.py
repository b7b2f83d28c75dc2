"""Row 13 of the fault catalogue: nothing is accepted that a topic would refuse."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from orchestrator.settings import Settings
from producers.client import MAX_MESSAGE_BYTES
from schemas.envelope import Topic
from tests.faults.roles import count, running_relay
from tests.support.kafka import reading
from tests.support.pipeline import Pipeline, item
from tests.support.waiting import eventually

# JSON writes each as six bytes: the most that a character can come to.
COSTLY = "\x1f"


@pytest.mark.usefixtures("topics")
def test_row_13_the_largest_that_is_accepted_fits_every_message(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    """Each text as long and as costly as it may be. What is longer is refused before it is accepted (tests/contract)."""
    items = [
        replace(item(f"{number:04}".ljust(100, COSTLY), kind=COSTLY * 100, notes=COSTLY * 10_000), client_reference=COSTLY * 100)
        for number in range(1_000)
    ]
    batch_id = pipeline.submit(items, label=COSTLY * 200)
    with running_relay(settings), reading(settings, Topic.BATCHES) as batches:
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
        parts = batches.wait_for(2)
    told = [part.data["items"] for part in parts]
    assert sum(len(each) for each in told if isinstance(each, list)) == 1_000
    assert max(len(part.value) for part in parts) < MAX_MESSAGE_BYTES
    assert {part.data["batch_id"] for part in parts} == {str(batch_id)}
