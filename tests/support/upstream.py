"""Events that upstream services write to the batches topic (docs/events.md)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, Protocol
from uuid import UUID, uuid4

import orjson

from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import StatusView
from schemas.envelope import Header, OutgoingEvent, Topic, rfc3339
from schemas.events import BATCH_REJECTED, BATCH_SUBMITTED
from tests.support.pipeline import COORDINATOR, DAY, ORGANIZATION

SOURCE = "/services/attendance"
TRACE = "0af7651916cd43dd8448eb211c80319c"
_TIMES_MS = count(1_790_000_000_000)

Data = dict[str, Any]


def upstream_item(position: int, mentor: str | None = None, **values: object) -> Data:
    """Returns an item of an upstream service: for `mentor-1` at position 0, and so on."""
    return {
        "position": position,
        "mentor_id": mentor or f"mentor-{position + 1}",
        "activity_type": "visit",
        "activity_date": DAY.isoformat(),
        "duration_minutes": 60,
        **values,
    }


def upstream_items(count: int, first: int = 0) -> list[Data]:
    return [upstream_item(position) for position in range(first, first + count)]


def submitted(batch_id: UUID, items: Sequence[object], *, event_id: str = "", **fields: object) -> OutgoingEvent:
    """Returns a `BatchSubmitted` as an upstream service writes it, in binary mode."""
    data = {
        "batch_id": str(batch_id),
        "organization_id": ORGANIZATION,
        "coordinator_id": COORDINATOR,
        "label": "Monday group",
        "items": items,
        **fields,
    }
    return OutgoingEvent(Topic.BATCHES, str(batch_id), binary_headers(event_id or uuid4().hex), orjson.dumps(data))


def binary_headers(event_id: str) -> tuple[Header, ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id.encode()),
        ("ce_source", SOURCE.encode()),
        ("ce_type", BATCH_SUBMITTED.encode()),
        ("ce_time", b"2026-03-26T10:00:00Z"),
        ("content-type", b"application/json"),
        ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode()),
    )


def structured(event: OutgoingEvent) -> OutgoingEvent:
    """Returns the same event in structured mode."""
    document = {name.removeprefix("ce_"): value.decode() for name, value in event.headers if name != "content-type"}
    document |= {"datacontenttype": "application/json", "data": orjson.loads(event.value)}
    return event._replace(headers=(("content-type", b"application/cloudevents+json"),), value=orjson.dumps(document))


def in_parts(batch_id: UUID, sizes: Sequence[int], **fields: Any) -> list[OutgoingEvent]:
    """Returns a batch in parts of these sizes."""
    total, first, events = sum(sizes), 0, []
    for part, size in enumerate(sizes, start=1):
        items = upstream_items(size, first)
        events.append(submitted(batch_id, items, part=part, parts=len(sizes), total_items=total, **fields))
        first += size
    return events


class Flow(Protocol):
    """A flow that publishes: `Pipeline` or `MemoryFlow`."""

    def relay(self) -> None:
        """Publishes the contents of the outbox."""

    def take(self, *topics: Topic) -> list[OutgoingEvent]:
        """Empties the queues of these topics and returns their events."""

    def status(self, batch_id: UUID) -> StatusView:
        """Returns the batch with all its items. Raises NotFoundError."""


def answers(flow: Flow, event_type: str = BATCH_REJECTED) -> list[Data]:
    """Returns the data of the lifecycle events of a type that were published since the last call. Drops other events."""
    return [orjson.loads(event.value) for event in answer_events(flow, event_type)]


def answer_events(flow: Flow, event_type: str = BATCH_REJECTED) -> list[OutgoingEvent]:
    flow.relay()
    return [event for event in flow.take(Topic.LIFECYCLE) if dict(event.headers)["ce_type"] == event_type.encode()]


def places(rejection: Data) -> set[tuple[str, str]]:
    return {(problem["pointer"], problem["code"]) for problem in rejection["problems"]}


def is_unknown(flow: Flow, batch_id: UUID) -> bool:
    """Whether GET returns 404."""
    try:
        flow.status(batch_id)
    except NotFoundError:
        return True
    return False


def written_again(event: OutgoingEvent) -> OutgoingEvent:
    """The same event in a later record."""
    time = rfc3339(datetime.fromtimestamp(next(_TIMES_MS) / 1000, UTC)).encode()
    return event._replace(headers=tuple((name, time if name == "ce_time" else value) for name, value in event.headers))


def upstream(
    batch_id: UUID, positions: Sequence[int], *, part: int, parts: int, total: int, first_mentor: int = 640, **fields: object
) -> OutgoingEvent:
    """A part as another service writes it, at a time of its own."""
    data = {
        "batch_id": batch_id,
        "organization_id": ORGANIZATION,
        "coordinator_id": COORDINATOR,
        "part": part,
        "parts": parts,
        "total_items": total,
        "items": [
            {
                "position": position,
                "mentor_id": f"mentor-{first_mentor + position}",
                "activity_type": "visit",
                "activity_date": DAY,
                "duration_minutes": 30,
                "notes": f"seen at home {position}",
            }
            for position in positions
        ],
    } | fields
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", uuid4().hex.encode()),
        ("ce_source", b"/services/attendance"),
        ("ce_type", BATCH_SUBMITTED.encode()),
        ("ce_time", rfc3339(datetime.fromtimestamp(next(_TIMES_MS) / 1000, UTC)).encode()),
        ("content-type", b"application/json"),
    )
    return OutgoingEvent(Topic.BATCHES, str(batch_id), headers, orjson.dumps(data))
