"""The sweeper beside topics that were replaced, restored or have expired (docs/decisions/0024-incarnations.md)."""

import pytest
from sqlalchemy import text

from consumers.upkeep.sweeper import Sweeper, Swept
from orchestrator.storage.progress import UNKNOWN_ID
from schemas.envelope import Topic
from tests.support.pipeline import Pipeline
from tests.support.sweeping import COMMAND_TOPICS, Broker, queued, sweep


def replace_topics(broker: Broker, topic_id: str, *, end: int = 0) -> None:
    """Deletes all topics and creates them again. This many records have been written to the new ones."""
    broker.ids = dict.fromkeys(broker.ids, topic_id)
    broker.ends = dict.fromkeys(broker.ends, end)


@pytest.mark.parametrize("end", [2, 1_000, 5_000])
def test_row_50_progress_of_a_replaced_topic_does_not_count_for_the_new_one(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker, end: int
) -> None:
    """The new topic ends before, at or behind the old one's end: it was restored from a copy, or filled again."""
    batch_id = queued(pipeline, broker)
    replace_topics(broker, "second", end=end)
    total = sum((sweep(sweeper, pipeline.engine) for _ in range(20)), Swept())
    assert total == Swept(watched=2), "a queued command must not be sent again"
    broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_row_50_commands_lost_with_their_topic_are_sent_again_and_do_not_count_against_the_item(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The topics are replaced more often than an item may be sent again."""
    batch_id = queued(pipeline, broker)
    total = sweep(sweeper, pipeline.engine)
    for number in range(6):
        replace_topics(broker, f"incarnation-{number}")
        pipeline.queues.clear()
        for _ in range(3):
            total += sweep(sweeper, pipeline.engine)
        pipeline.relay()
        broker.ends = dict.fromkeys(broker.ends, 2)
        total += sweep(sweeper, pipeline.engine)
    assert (total.watched, total.resent, total.given_up) == (2, 12, 0)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_row_50_commands_lost_on_a_new_incarnation_are_given_up_as_on_the_first(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    queued(pipeline, broker)
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(2)), Swept()) == Swept(watched=2)
    replace_topics(broker, "second")
    total = Swept()
    for _ in range(20):
        total += sweep(sweeper, pipeline.engine)
        pipeline.relay()
        pipeline.queues.clear()
        broker.ends = dict.fromkeys(broker.ends, 7)
        broker.handled(Topic.BATCHES, *COMMAND_TOPICS)
    assert (total.resent, total.given_up) == (2 + 4, 2), "once because of its topic, and then as often as any item"


def test_a_missing_topic_is_waited_for(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    """It was deleted, and does not exist yet again. Its commands are not sent until it does."""
    queued(pipeline, broker)
    assert sweep(sweeper, pipeline.engine).watched == 2
    del broker.ids[Topic.COMMANDS]
    for _ in range(3):
        assert not sweep(sweeper, pipeline.engine)
    broker.ids[Topic.COMMANDS] = "second"
    broker.ends = dict.fromkeys(broker.ends, 0)
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(3)), Swept()) == Swept(resent=2)


def test_commands_that_expired_before_they_were_handled_are_sent_again(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    """The consumers were away for longer than the retention time, and nothing was written since. So they never get a record."""
    batch_id = queued(pipeline, broker)
    assert sweep(sweeper, pipeline.engine).watched == 2
    pipeline.queues.clear()
    broker.firsts = dict(broker.ends)
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(3)), Swept()) == Swept(resent=2)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_a_broker_without_topic_ids_shows_a_replaced_topic_by_its_end(
    pipeline: Pipeline, sweeper: Sweeper, broker: Broker
) -> None:
    broker.ids = dict.fromkeys(broker.ids, UNKNOWN_ID)
    batch_id = queued(pipeline, broker)
    broker.ends = dict.fromkeys(broker.ends, 2)
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(6)), Swept()) == Swept(watched=2)
    broker.ends = dict.fromkeys(broker.ends, 0)
    pipeline.queues.clear()
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(3)), Swept()) == Swept(resent=2), (
        "the topic's end is before the mark, so it was replaced"
    )
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"


def test_progress_of_the_previous_version_counts(pipeline: Pipeline, sweeper: Sweeper, broker: Broker) -> None:
    """It has no topic id. The consumer has not been upgraded yet, or the partition has been idle since."""
    queued(pipeline, broker)
    broker.handled(*COMMAND_TOPICS)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.consumer_progress SET topic_id = ''"))
    pipeline.queues.clear()
    assert sum((sweep(sweeper, pipeline.engine) for _ in range(3)), Swept()) == Swept(watched=2, resent=2)
