"""What the topics have announced: the completions of batches, which is all that a listener gets, and each event with one content."""

from collections import defaultdict
from collections.abc import Iterator, Set

import orjson

from consumers.upkeep.end_offsets import BrokerEndOffsets
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from schemas.events import BATCH_COMPLETED
from tests.chaos.history import Counts, Ends
from tests.chaos.judge import Finding, Rule
from tests.support.contents import ManyContents, said_by
from tests.support.kafka import Seen, reading

READ_WITHIN_S = 120.0
WRITTEN_BY_US = (Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.RESULTS, Topic.LIFECYCLE, Topic.DEAD_LETTER)
COUNTS = ("total_items", "pending", "completed", "failed", "cancelled")


def read_announced_ends(settings: Settings) -> Ends:
    """Reads the whole topic. Nobody may be writing to it."""
    ends: dict[tuple[str, int], set[tuple[str, Counts]]] = defaultdict(set)
    for seen in _records(settings, Topic.LIFECYCLE):
        if seen.headers["ce_type"].decode() == BATCH_COMPLETED:
            event = orjson.loads(seen.value)
            counts = Counts(*(event[name] for name in COUNTS))
            ends[event["batch_id"], event["retry_number"]].add((event["status"], counts))
    return ends


def read_differing_events(settings: Settings, told_twice: Set[str]) -> list[Finding]:
    """Ids that two different events have, on the topics to which only the product writes. Nobody may be writing to them.

    Batches that a restored database has forgotten (`told_twice`) are announced twice, and their events are left out.
    """
    contents = ManyContents()
    for _, event_id, said in _told(settings, told_twice):
        contents.add(event_id, said)
    differing = contents.with_two()
    if not differing:
        return []
    return [
        Finding(Rule.TWO_CONTENTS, f"topic {topic}", f"{event_id}: {said}")
        for topic, event_id, said in _told(settings, told_twice)
        if contents.is_among(event_id, differing)
    ]


def _told(settings: Settings, told_twice: Set[str]) -> Iterator[tuple[Topic, str, str]]:
    for topic in WRITTEN_BY_US:
        for seen in _records(settings, topic):
            found = said_by(seen.key, list(seen.headers.items()), seen.value)
            if found is not None and not (told_twice and seen.data.get("batch_id") in told_twice):
                yield topic, *found


def _records(settings: Settings, topic: Topic) -> Iterator[Seen]:
    written = sum(queue.next_offset - queue.first for queue in BrokerEndOffsets(settings)([topic]).values())
    with reading(settings, topic) as records:
        yield from records.each(written, within_s=READ_WITHIN_S)
