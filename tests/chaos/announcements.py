"""What the topics have told: the ends of batches, which is all that a listener has, and each event in one content."""

from collections import defaultdict

import orjson

from consumers.end_offsets import BrokerEndOffsets
from orchestrator.settings import Settings
from schemas.envelope import Topic
from schemas.events import BATCH_COMPLETED
from tests.chaos.history import Counts, Ends
from tests.chaos.judge import Finding, Rule
from tests.support.contents import Contents
from tests.support.kafka import reading

READ_WITHIN_S = 120.0
WRITTEN_BY_US = (Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.RESULTS, Topic.LIFECYCLE, Topic.DEAD_LETTER)
COUNTS = ("total_items", "pending", "completed", "failed", "cancelled")


def read_announced_ends(settings: Settings) -> Ends:
    """The whole topic. Nobody may be writing to it."""
    written = sum(queue.next_offset for queue in BrokerEndOffsets(settings)([Topic.LIFECYCLE]).values())
    ends: dict[tuple[str, int], set[tuple[str, Counts]]] = defaultdict(set)
    with reading(settings, Topic.LIFECYCLE) as topic:
        for seen in topic.wait_for(written, within_s=READ_WITHIN_S):
            if seen.headers["ce_type"].decode() == BATCH_COMPLETED:
                event = orjson.loads(seen.value)
                counts = Counts(*(event[name] for name in COUNTS))
                ends[event["batch_id"], event["retry_number"]].add((event["status"], counts))
    return ends


def read_differing_events(settings: Settings) -> list[Finding]:
    """Ids that two different events have, on the topics that only the product writes. Nobody may be writing to them."""
    contents = Contents()
    found: list[Finding] = []
    for topic in WRITTEN_BY_US:
        written = sum(queue.next_offset - queue.first for queue in BrokerEndOffsets(settings)([topic]).values())
        with reading(settings, topic) as records:
            for seen in records.wait_for(written, within_s=READ_WITHIN_S):
                difference = contents.difference(seen.key, list(seen.headers.items()), seen.value)
                if difference is not None:
                    found.append(Finding(Rule.TWO_CONTENTS, f"topic {topic}", difference))
    return found
