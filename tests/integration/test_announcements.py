"""The followers of a batch are told of each of its changes, after the commit, and of no other batch's."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, dismiss_batch, relabel_batch, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.storage import watching
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.envelope import Topic
from tests.support.announcements import Heard, following
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, Pipeline, item, mentors
from tests.support.revoking import revoke
from tests.support.upstream import in_parts


@pytest.fixture
def said() -> list[watching.Announced]:
    """All announcements that `heard` has received, in their order."""
    return []


@pytest.fixture
def heard(settings: Settings, pipeline: Pipeline, said: list[watching.Announced]) -> Iterator[Heard]:
    """The announcements since the last call, each batch once."""
    with following(settings, pipeline.engine, said) as heard:
        yield heard


def test_each_change_is_announced(pipeline: Pipeline, heard: Heard) -> None:
    batch_id, other = pipeline.submit([item("mentor-1", notes="notes"), item("nobody")]), pipeline.submit(mentors(1, first=5))
    assert heard() == [], "a submission must not be announced"
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS))
    assert heard() == [], "an outcome must not be announced before it is folded"
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    assert heard() == sorted([str(batch_id), str(other)])
    for change in (
        lambda: pipeline.call(relabel_batch, ADMIN, batch_id, "another"),
        lambda: pipeline.call(dismiss_batch, ADMIN, batch_id),
        lambda: erase(pipeline, batch_id),
        lambda: revoke(pipeline, batch_id, actor=ADMIN),
        lambda: pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest()),
        lambda: pipeline.call(cancel_batch, ADMIN, batch_id, None),
        lambda: pipeline.call(delete_batch, ADMIN, batch_id),
    ):
        change()
        assert heard() == [str(batch_id)]


def test_an_announcement_says_whether_the_batch_goes_on(pipeline: Pipeline, heard: Heard, said: list[watching.Announced]) -> None:
    running, ended = pipeline.submit(mentors(2)), pipeline.submit(mentors(1, first=5))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    last = next(one for one in commands if str(running).encode() in one.value)
    first_results = pipeline.handle(pipeline.registration, [one for one in commands if one is not last]).events
    pipeline.handle(pipeline.aggregator, first_results)
    assert heard() == sorted([str(running), str(ended)])
    assert set(said) == {(str(running), True), (str(ended), False)}
    said.clear()
    # A person's change of a running batch is told at once.
    pipeline.call(relabel_batch, ADMIN, running, "another")
    pipeline.handle(pipeline.aggregator, pipeline.handle(pipeline.registration, [last]).events)
    assert heard() == [str(running)]
    assert said == [(str(running), False)] * 2


def test_a_collected_batch_is_announced_when_it_is_complete_or_forgotten(pipeline: Pipeline, heard: Heard) -> None:
    whole, forgotten = uuid4(), uuid4()
    first, last = in_parts(whole, [1, 1])
    pipeline.handle(pipeline.splitter, [first, in_parts(forgotten, [1, 1])[0]])
    assert heard() == []
    pipeline.handle(pipeline.splitter, [last])
    assert heard() == [str(whole)]

    def forget(batch_id: UUID) -> bool:
        with pipeline.engine.begin() as connection:
            return CollectedParts(connection).forget(batch_id)

    assert forget(forgotten)
    assert heard() == [str(forgotten)]
    assert not forget(whole)
    assert heard() == []


def test_a_follower_gets_the_items_that_changed_after_its_version(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody"), *mentors(3)])
    other = pipeline.submit([item("nobody"), *mentors(3, first=10)])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    versions = [pipeline.status(batch_id).batch.version]
    commands = [one for one in pipeline.take(Topic.COMMANDS) if str(batch_id).encode() in one.value]
    for chosen in (commands[2:], commands[:2]):
        pipeline.handle(pipeline.aggregator, pipeline.handle(pipeline.registration, chosen).events)
        versions.append(pipeline.status(batch_id).batch.version)
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    versions.append(pipeline.status(batch_id).batch.version)

    with pipeline.engine.begin() as connection:
        repository = PostgresActivityRepository(connection)
        found = [repository.positions_changed_since(batch_id, version) for version in (0, *versions)]
        seen = watching.versions(connection, [str(batch_id), str(uuid4())])
        both = watching.versions(connection, [str(batch_id), str(other)])
    assert found == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [0], []]
    assert seen == {str(batch_id): versions[-1]}
    assert both == {str(batch_id): versions[-1], str(other): 1}
