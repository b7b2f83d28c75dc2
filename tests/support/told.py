"""A batch in memory whose fields all differ, and what is published about it."""

from typing import Any
from uuid import UUID

import orjson

from orchestrator.batches.model import Actor, NewBatch, NewItem, Role
from orchestrator.batches.operations import submit_bulk_registration
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import COORDINATOR, ORGANIZATION, item

SENDER = Actor(ORGANIZATION, "the-sender", Role.SERVICE, channel="the-channel")
TRACE = "ab" * 16


def the_batch(*items: NewItem, override: bool = False) -> NewBatch:
    return NewBatch(new_batch_id(), COORDINATOR, "the label", override, items, TRACE)


def published(flow: MemoryFlow, *topics: Topic) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of what was published on these topics since the last call. Checks that the trace is the batch's."""
    flow.relay()
    return [read(event) for event in flow.take(*topics)]


def read(event: OutgoingEvent) -> tuple[str, dict[str, Any]]:
    headers = {name: value.decode() for name, value in event.headers}
    assert headers["traceparent"].split("-")[1] == TRACE
    return headers["ce_type"].split(".")[2], orjson.loads(event.value)


def submit(flow: MemoryFlow, batch: NewBatch) -> UUID:
    flow.call(submit_bulk_registration, SENDER, batch)
    return batch.batch_id


def finish(flow: MemoryFlow) -> None:
    """Handles everything, and drops what was published about it."""
    flow.drain()
    flow.take(Topic.BATCHES, Topic.LIFECYCLE)


def failing(count: int) -> list[NewItem]:
    return [item(f"nobody-{number}") for number in range(count)]
