"""What the topic lifecycle has told of the ends of batches: whoever listens has nothing else."""

from collections import defaultdict

import orjson

from consumers.end_offsets import BrokerEndOffsets
from orchestrator.settings import Settings
from schemas.envelope import Topic
from schemas.events import BATCH_COMPLETED
from tests.chaos.history import Counts, Ends
from tests.support.kafka import reading

READ_WITHIN_S = 120.0
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
