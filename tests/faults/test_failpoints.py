"""The relay's crash windows, except for that of row 8. docs/faults.md names the test of each."""

import pytest
from sqlalchemy import Engine

from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import Settings
from producers.producer import EventProducer
from producers.relay import OutboxRelay
from schemas.envelope import Topic
from tests.faults.roles import count, running_relay
from tests.support.kafka import reading
from tests.support.pipeline import Pipeline, mentors
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("failpoint", "is_published"), [(Failpoint.RELAY_BEFORE_PUBLISH, False), (Failpoint.RELAY_AFTER_DELETE, True)]
)
def test_relay_that_dies_before_publishing_or_after_deleting_publishes_once(
    pipeline: Pipeline, settings: Settings, engine: Engine, publisher: EventProducer, failpoint: Failpoint, is_published: bool
) -> None:
    pipeline.submit(mentors(1))
    with pytest.raises(InjectedError):
        OutboxRelay(settings.model_copy(update={"failpoints": f"{failpoint}=raise"}), publisher).run()
    assert count(engine, "orchestrator.outbox") == (0 if is_published else 1)
    with running_relay(settings) as relay, reading(settings, Topic.BATCHES) as batches:
        eventually(lambda: relay.slots and count(engine, "orchestrator.outbox") == 0)
        assert len(batches.wait_for(1)) == 1
