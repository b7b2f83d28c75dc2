"""Which lane the events of a batch wait in, and so which lane its commands take."""

from uuid import uuid4

import orjson
import pytest

from consumers.aggregator import AggregatorHandler
from consumers.loop.handler import Lane
from consumers.registration import RegistrationHandler
from consumers.splitter import SplitterHandler
from orchestrator.registration.external import ExternalRegistrationService
from schemas.envelope import Topic
from schemas.events import BatchRetryRequested, EventData, RegistrationSucceeded
from tests.support.pipeline import record
from tests.support.upstream import in_parts, submitted, upstream_items

THRESHOLD = 4
SPLITTER = SplitterHandler(bulk_threshold_items=THRESHOLD, max_items=100)


def lane(data: EventData) -> Lane:
    return SPLITTER.lane(Topic.BATCHES, data)


@pytest.mark.parametrize(("items", "expected"), [(3, Lane.SMALL), (4, Lane.SMALL), (5, Lane.BULK)])
def test_a_submission_is_bulk_when_it_has_more_items_than_the_threshold(items: int, expected: Lane) -> None:
    assert lane(record(submitted(uuid4(), upstream_items(items))).data) is expected


@pytest.mark.parametrize(("sizes", "expected"), [([2, 2], Lane.SMALL), ([2, 3], Lane.BULK), ([1, 5], Lane.BULK)])
def test_each_part_is_in_the_lane_of_its_batch(sizes: list[int], expected: Lane) -> None:
    assert {lane(record(part).data) for part in in_parts(uuid4(), sizes)} == {expected}


def retry(items: int, part: int) -> EventData:
    asked = [{"item_id": uuid4(), "position": position, "attempt": 2} for position in range(items)]
    document = {
        "batch_id": uuid4(),
        "organization_id": "org",
        "retry_number": 1,
        "items": asked,
        "part": part,
    }
    return BatchRetryRequested.model_validate_json(orjson.dumps(document))


@pytest.mark.parametrize(
    ("items", "part", "expected"),
    [(3, 1, Lane.SMALL), (4, 1, Lane.SMALL), (5, 1, Lane.BULK), (1, 2, Lane.BULK)],
)
def test_a_retry_is_bulk_by_its_items_and_so_is_every_later_part(items: int, part: int, expected: Lane) -> None:
    assert lane(retry(items, part)) is expected


@pytest.mark.parametrize(("topic", "expected"), [(Topic.COMMANDS, Lane.SMALL), (Topic.COMMANDS_BULK, Lane.BULK)])
def test_commands_wait_in_the_lane_of_their_topic(topic: Topic, expected: Lane) -> None:
    handler = RegistrationHandler(ExternalRegistrationService())
    assert set(handler.topics) == {Topic.COMMANDS, Topic.COMMANDS_BULK}
    assert handler.lane(topic, retry(1, 1)) is expected


@pytest.mark.parametrize(("bulk", "expected"), [(False, Lane.SMALL), (True, Lane.BULK)])
def test_results_are_in_the_lane_of_their_commands(bulk: bool, expected: Lane) -> None:
    result = RegistrationSucceeded(
        batch_id=uuid4(), item_id=uuid4(), position=0, attempt=1, organization_id="org", bulk=bulk, activity_id=uuid4()
    )
    assert AggregatorHandler(bulk_threshold_items=200).lane(Topic.RESULTS, result) is expected
