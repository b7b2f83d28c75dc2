"""The limits of upstream events at their edges, what is stored about the sender, and when relays are woken."""

from typing import Any
from uuid import uuid4

import orjson
import pytest

from consumers.splitter import SplitterHandler
from orchestrator.batches.model import upstream_channel
from orchestrator.process.settings import Settings
from schemas.envelope import SOURCE as OUR_SOURCE
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import MAX_PART_BYTES
from tests.integration.test_intake import NOTHING, assert_completed, take_in
from tests.support.pipeline import Pipeline
from tests.support.relay_wakeup import is_woken, relay
from tests.support.upstream import answers, in_parts, is_unknown, places, submitted, upstream_item, upstream_items


def limit(pipeline: Pipeline, **limits: Any) -> None:
    splitter = SplitterHandler(bulk_threshold_items=100, **{"max_items": 10_000, **limits})
    pipeline.handlers = (splitter, *pipeline.handlers[1:])


def of_size(event: OutgoingEvent, size: int) -> OutgoingEvent:
    """The event with exactly this many bytes of data. An unknown field fills it up."""
    data = orjson.loads(event.value)
    padding = size - len(orjson.dumps(data | {"invented": ""}))
    return event._replace(value=orjson.dumps(data | {"invented": "x" * padding}))


def refused(pipeline: Pipeline, *events: OutgoingEvent) -> list[set[tuple[str, str]]]:
    take_in(pipeline, *events)
    return [places(rejection) for rejection in answers(pipeline)]


def test_a_batch_may_have_the_largest_number_of_items_and_no_more(pipeline: Pipeline) -> None:
    limit(pipeline, max_items=3)
    batch_id = uuid4()
    assert refused(pipeline, submitted(uuid4(), upstream_items(4)), submitted(batch_id, upstream_items(3))) == [
        {("/total_items", "too_many_items")}
    ]
    assert_completed(pipeline, batch_id, 3)


def test_a_part_may_have_the_largest_number_of_bytes_and_no_more(pipeline: Pipeline) -> None:
    fits, does_not = uuid4(), uuid4()
    events = [
        of_size(submitted(fits, upstream_items(1)), MAX_PART_BYTES),
        of_size(submitted(does_not, upstream_items(1)), MAX_PART_BYTES + 1),
    ]
    assert [len(event.value) - MAX_PART_BYTES for event in events] == [0, 1]
    assert refused(pipeline, *events) == [{("", "too_large")}]
    assert_completed(pipeline, fits, 1)
    assert is_unknown(pipeline, does_not)


def test_a_batch_may_have_the_largest_number_of_bytes_and_no_more(pipeline: Pipeline) -> None:
    whole = uuid4()
    event = submitted(whole, [upstream_item(0, "mentor-9")])
    limit(pipeline, max_batch_bytes=len(event.value) - 1)
    assert refused(pipeline, event) == [{("", "too_large")}]
    limit(pipeline, max_batch_bytes=len(event.value))
    assert refused(pipeline, event) == []
    assert_completed(pipeline, whole, 1)
    in_two = uuid4()
    parts = in_parts(in_two, [2, 1])
    limit(pipeline, max_batch_bytes=sum(len(part.value) for part in parts))
    assert refused(pipeline, *parts) == []
    # A part of another batch does not count.
    assert refused(pipeline, in_parts(uuid4(), [2, 1])[0]) == []
    assert_completed(pipeline, in_two, 3)


def test_positions_that_no_part_has_are_named_after_the_last_part(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    first, last = (submitted(batch_id, upstream_items(2, at), part=part, parts=2, total_items=5) for part, at in ((1, 0), (2, 2)))
    assert take_in(pipeline, first) == NOTHING
    assert refused(pipeline, last) == [{("/items", "missing_positions")}]
    assert is_unknown(pipeline, batch_id)


@pytest.mark.parametrize(
    "last",
    [
        upstream_item(2, "mentor-9"),
        upstream_item(2, activity_type="call"),
        upstream_item(2, activity_date="2026-03-24"),
        upstream_item(3),
    ],
    ids=str,
)
def test_a_part_with_another_value_is_another_part(pipeline: Pipeline, last: dict[str, Any]) -> None:
    batch_id = uuid4()
    fields: dict[str, Any] = {"part": 1, "parts": 2, "total_items": 4}
    take_in(pipeline, submitted(batch_id, [*upstream_items(2), upstream_item(2)], **fields))
    assert refused(pipeline, submitted(batch_id, [*upstream_items(2), last], **fields)) == [{("/batch_id", "batch_differs")}]
    take_in(pipeline, submitted(batch_id, upstream_items(1, 3), part=2, parts=2, total_items=4))
    assert_completed(pipeline, batch_id, 4)


def test_two_exchanged_positions_make_another_batch(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    take_in(pipeline, submitted(batch_id, upstream_items(2)))
    turned = [upstream_item(0, "mentor-2"), upstream_item(1, "mentor-1")]
    assert refused(pipeline, submitted(batch_id, turned)) == [{("/batch_id", "batch_differs")}]
    assert [one.values.mentor_id for one in pipeline.status(batch_id).items] == ["mentor-1", "mentor-2"]


def without_trace(event: OutgoingEvent) -> OutgoingEvent:
    return event._replace(headers=tuple(header for header in event.headers if header[0] != "traceparent"))


def test_a_batch_without_a_trace_gets_one_derived_from_its_id(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    take_in(pipeline, without_trace(submitted(batch_id, upstream_items(1))))
    assert pipeline.status(batch_id).batch.trace_id == batch_id.hex


@pytest.mark.parametrize(
    ("source", "channel"),
    [
        ("/services/attendance", "/services/attendance"),
        ("apis", "apis"),
        ("api", "upstream:api"),
        (" API ", "upstream: API "),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}PI", "upstream:\N{FULLWIDTH LATIN SMALL LETTER A}PI"),
        (OUR_SOURCE, f"upstream:{OUR_SOURCE}"),
        (OUR_SOURCE.upper(), f"upstream:{OUR_SOURCE.upper()}"),
    ],
)
def test_no_sender_is_mistaken_for_the_api_or_the_product(source: str, channel: str) -> None:
    assert upstream_channel(source) == channel


# --- When relays are woken ------------------------------------------------------------------------------------------------------------


def test_relays_are_woken_for_events_of_the_roles(pipeline: Pipeline, settings: Settings) -> None:
    """Otherwise rejections and completions would wait until a relay polls."""
    batch_id = uuid4()
    first, second = in_parts(batch_id, [1, 1])
    with relay(settings) as listener:
        take_in(pipeline, submitted(uuid4(), upstream_items(1), coordinator_id="nobody"))
        assert is_woken(listener), "a rejection woke no relay"
        take_in(pipeline, first)
        assert not is_woken(listener), "a relay was woken although nothing was written"
        take_in(pipeline, second)
        assert is_woken(listener), "a part that is published again woke no relay"
        pipeline.relay()
        take_in(pipeline, *pipeline.take(Topic.BATCHES))
        results = pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)).events
        pipeline.handle(pipeline.aggregator, results[:1])
        assert not is_woken(listener), "a relay was woken although nothing was completed"
        pipeline.handle(pipeline.aggregator, results[1:])
        assert is_woken(listener), "a completion woke no relay"
    assert_completed(pipeline, batch_id, 2)
