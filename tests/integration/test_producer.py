from uuid import uuid4

import pytest

from orchestrator.batches.publishing import DeliveryError
from orchestrator.process.settings import Settings
from producers.producer import EventProducer
from producers.topics import create_topics
from schemas.envelope import MAX_DEAD_LETTER_BYTES, OutgoingEvent, Topic
from tests.support.kafka import reading


def event(value: bytes = b"{}", *, key: str = "key", topic: Topic = Topic.RESULTS) -> OutgoingEvent:
    return OutgoingEvent(topic, key, (("ce_id", str(uuid4()).encode()), ("content-type", b"application/json")), value)


def test_publish_returns_after_every_event_is_on_its_topic_unchanged(settings: Settings, publisher: EventProducer) -> None:
    events = [event(b'{"number": %d}' % number) for number in range(200)]
    publisher.publish(events)
    with reading(settings, Topic.RESULTS) as topic:
        found = topic.wait_for(200)
    assert [(seen.key, seen.headers, seen.value) for seen in found] == [(e.key, dict(e.headers), e.value) for e in events]


def test_an_unknown_result_is_reported_so_that_the_same_events_are_published_again(
    settings: Settings, publisher: EventProducer
) -> None:
    """No broker listens on port 1."""
    nowhere = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    producer = EventProducer(nowhere, {"delivery.timeout.ms": 300, "request.timeout.ms": 200, "message.timeout.ms": 300})
    assert not producer.is_reachable()
    with pytest.raises(DeliveryError) as caught:
        producer.publish([event(), event()])
    assert sorted(caught.value.troubles) == [0, 1]


def test_a_too_large_event_is_named_and_the_others_arrive(settings: Settings, publisher: EventProducer) -> None:
    """Row 13, in case a too large event was accepted."""
    with pytest.raises(DeliveryError) as caught:
        publisher.publish([event(b"1"), event(b"x" * (MAX_DEAD_LETTER_BYTES + 1)), event(b"2")])
    assert sorted(caught.value.troubles) == [1]
    with reading(settings, Topic.RESULTS) as topic:
        assert [seen.value for seen in topic.wait_for(2)] == [b"1", b"2"]


def test_topics_are_created_once_and_differences_are_reported(settings: Settings, topics: None) -> None:
    again = create_topics(settings)
    assert len(again) == len(Topic)
    assert not any(report.created or report.differences for report in again)
    other = create_topics(settings.model_copy(update={"topic_partitions": 7, "topic_retention_hours": 1}))
    # The dead-letter topic has one partition, whatever the setting.
    assert {len(report.differences) for report in other} == {1, 2}
    assert any(f"partitions is {settings.topic_partitions}, planned 7" in difference for difference in other[0].differences)
