"""The records that the broker was given: the same event always has the same bytes, a key's records of a topic are in order, and none is
private."""

from collections import defaultdict
from dataclasses import dataclass

import orjson

from schemas.envelope import SOURCE, OutgoingEvent, Topic
from tests.simulation.model import CANARY
from tests.simulation.snapshot import Snapshot
from tests.support.contents import Contents

Attempt = tuple[str, int, int]
"""Batch id, position, attempt."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a record is about."""

    event_id: str
    source: str
    type: str
    batch_id: str
    attempts: tuple[Attempt, ...]


def named(event: OutgoingEvent) -> Named:
    """Reads as much of a record as the checks need."""
    header = {name: value.decode() for name, value in event.headers}
    data = orjson.loads(event.value)
    kind = header["ce_type"].split(".")[-2]
    batch_id = data.get("batch_id", "")
    attempts: list[Attempt] = []
    if kind in ("BatchSubmitted", "BatchRetryRequested"):
        attempts = [(batch_id, item["position"], item.get("attempt", 1)) for item in data["items"]]
    elif "position" in data:
        attempts = [(batch_id, data["position"], data["attempt"])]
    return Named(header["ce_id"], header["ce_source"], kind, batch_id, tuple(attempts))


class Ledger:
    """Checks each record when it is stored."""

    def __init__(self) -> None:
        self.published: set[tuple[str, str]] = set()
        """By topic, because a revocation is on two of them."""
        self.completions: dict[tuple[str, int], dict[str, object]] = {}
        self.rejections: set[str] = set()
        self.forged: set[str] = set()
        """Ids of events that only claim to be the product's."""
        self._contents = Contents()
        self._names: dict[int, Named] = {}
        self._order: dict[tuple[str, str], list[str]] = defaultdict(list)
        """The ids of the events of a topic and a stream of the outbox, in the order in which they were decided."""
        self._streams: dict[str, str] = {}
        """The stream of each event. A batch is one, and so are an organization's period and its log of records."""
        self._decided: set[tuple[str, str]] = set()

    def stored(self, event: OutgoingEvent) -> None:
        """Raises AssertionError if this record must not exist, comes too early, or has wrong content."""
        name = self.named(event)
        if name.source != SOURCE or name.event_id in self.forged:
            return
        self._judge_content(event, name)
        published = (event.topic.value, name.event_id)
        if published not in self.published:
            self._judge_order(event, name)
        self.published.add(published)
        if event.topic is Topic.LIFECYCLE:
            data = orjson.loads(event.value)
            if name.type == "BatchCompleted":
                self.completions[name.batch_id, data["retry_number"]] = data
            elif name.type == "BatchRejected":
                self.rejections.add(data["rejected_event_id"])

    def named(self, event: OutgoingEvent) -> Named:
        """What a record is about. Each record is read once."""
        return self._names.get(id(event)) or self._names.setdefault(id(event), named(event))

    def _judge_content(self, event: OutgoingEvent, name: Named) -> None:
        difference = self._contents.difference(event.key, event.headers, event.value)
        assert difference is None, difference
        assert event.topic is Topic.DEAD_LETTER or CANARY.encode() not in event.value, f"{name.type} carries notes"

    def _judge_order(self, event: OutgoingEvent, name: Named) -> None:
        order = self._order[event.topic, self._streams.get(name.event_id, "")]
        if name.event_id in order:
            before = order[: order.index(name.event_id)]
            early = [event_id for event_id in before if (event.topic.value, event_id) not in self.published]
            assert not early, (
                f"{name.type} of {name.batch_id} was published before {len(early)} events that were decided before it"
            )

    def decided(self, snapshot: Snapshot) -> None:
        """Reads the outbox. Raises AssertionError if a row has left it unpublished."""
        present = {(row.topic, row.event_id) for row in snapshot.outbox}
        vanished = self._decided - present - self.published
        assert not vanished, f"{len(vanished)} events left the outbox without having been published"
        for row in snapshot.outbox:
            stream = self._order[row.topic, row.batch_id]
            if row.event_id not in stream:
                stream.append(row.event_id)
                self._streams[row.event_id] = row.batch_id
        self._decided = present
