"""The topics after their creation, and what is reported about topics with other settings."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from producers import topics as module
from producers.topics import MISSING, create_topics, inspect_topics, planned_topics
from schemas.envelope import MAX_DEAD_LETTER_BYTES, MAX_MESSAGE_BYTES, Topic
from tests.support.log_lines import logged
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"topic_retention_hours": 30, "topic_partitions": 3})


@pytest.fixture
def admin(settings: Settings) -> Iterator[AdminClient]:
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    yield admin
    for future in admin.delete_topics([plan.name for plan in planned_topics(settings)]).values():
        future.result()


def name_of(settings: Settings, topic: Topic) -> str:
    return topic.on_cluster(settings.topic_prefix)


def test_created_topics_have_the_settings_that_the_product_needs(
    settings: Settings, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert all(report.differences == MISSING for report in inspect_topics(settings))
    assert not any(report.created for report in inspect_topics(settings)), "a check must create no topics"
    reports = create_topics(settings)
    assert {(report.name, report.created, tuple(report.differences)) for report in reports} == {
        (name_of(settings, topic), True, ()) for topic in Topic
    }
    assert {line["cluster_topic"] for line in logged(caplog, Action.TOPIC_CREATED)} == {
        name_of(settings, topic) for topic in Topic
    }
    for topic in Topic:
        name = name_of(settings, topic)
        assert len(admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions) == (
            1 if topic is Topic.DEAD_LETTER else 3
        )
        [described] = admin.describe_configs([ConfigResource("topic", name)]).values()
        found = described.result()
        largest = MAX_DEAD_LETTER_BYTES if topic is Topic.DEAD_LETTER else MAX_MESSAGE_BYTES
        expected = {
            "cleanup.policy": "delete",
            "retention.ms": str(30 * 60 * 60 * 1000),
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(largest),
            "min.insync.replicas": "1",
            "unclean.leader.election.enable": "false",
            "compression.type": "uncompressed" if topic is Topic.BATCHES else "producer",
        }
        assert {key: found[key].value for key in expected} == expected
    assert not any(report.differences for report in inspect_topics(settings))


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2")])
def test_one_broker_of_several_may_be_down(settings: Settings, replicas: int, in_sync: str) -> None:
    plans = planned_topics(settings.model_copy(update={"topic_replication_factor": replicas}))
    assert {plan.config["min.insync.replicas"] for plan in plans} == {in_sync}
    assert {plan.replication_factor for plan in plans} == {replicas}


def test_several_processes_that_create_the_topics_create_each_once(settings: Settings, admin: AdminClient) -> None:
    with ThreadPoolExecutor(2) as threads:
        both = [report for reports in threads.map(create_topics, [settings, settings]) for report in reports]
    assert sorted(report.name for report in both if report.created) == sorted(name_of(settings, topic) for topic in Topic)


class LateClient(AdminClient):
    """A client whose broker knows of no topic at the second look, because it has not heard of those that were just created."""

    looks = 0

    def list_topics(self, *arguments: Any, **named: Any) -> Any:
        found = super().list_topics(*arguments, **named)
        self.looks += 1
        if self.looks == 2:
            found.topics.clear()
        return found


def test_a_topic_that_the_broker_does_not_know_yet_is_waited_for(
    settings: Settings, admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topics(settings)
    monkeypatch.setattr(module, "AdminClient", LateClient)
    assert [(report.created, report.differences) for report in create_topics(settings)] == [(False, [])] * len(Topic)


def test_a_topic_with_other_settings_is_reported_and_not_changed(settings: Settings, admin: AdminClient) -> None:
    odd = name_of(settings, Topic.RESULTS)
    config = {"cleanup.policy": "compact", "retention.ms": "5", "message.timestamp.type": "CreateTime"}
    [made] = admin.create_topics([NewTopic(odd, 5, replication_factor=1, config=config)]).values()
    made.result()
    for _ in range(2):
        by_name = {report.name: report for report in create_topics(settings)}
        differences = by_name.pop(odd).differences
        assert sorted(difference.partition(" is ")[0] for difference in differences) == [
            "cleanup.policy",
            "max.message.bytes",
            "message.timestamp.type",
            "partitions",
            "retention.ms",
        ]
        assert "partitions is 5, planned 3" in differences
        assert "retention.ms is 5, planned 108000000" in differences
        assert not any(report.differences for report in by_name.values())
    more = settings.model_copy(update={"topic_replication_factor": 2})
    assert any("replication factor is 1, planned 2" in difference for difference in inspect_topics(more)[0].differences)
