"""The topics as a replay reads them: from where they are asked for to where they end, outside of any consumer group."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from consumers.loop.handler import AGGREGATOR, SPLITTER
from consumers.loop.raw_record import RawRecord
from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.process.settings import Settings
from orchestrator.replay.rebuild import TOPICS, ReadRecord, Replay
from schemas.envelope import MAX_MESSAGE_BYTES, Topic

_HANDLED_BY = {Topic.BATCHES: SPLITTER, Topic.RESULTS: AGGREGATOR}


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """A record: what was written before it is not read, on any topic."""

    topic: Topic
    partition: int
    offset: int


Start = datetime | RecordPlace | None
"""From when: a time, that of a record, or the oldest that the topics hold."""


class ReplaySource:
    """A context manager, for one thread. Raises KafkaException if the broker does not respond."""

    def __init__(self, settings: Settings) -> None:
        self._reader = TopicReader(settings)

    def __enter__(self) -> "ReplaySource":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.__exit__(*exception)

    def spans(self, start: Start) -> Sequence[Span]:
        """What there is to read now. Raises LookupError when `start` names a record that is not there."""
        since = self._reader.time_of(start.topic, start.partition, start.offset) if isinstance(start, RecordPlace) else start
        return self._reader.spans(TOPICS, since=since)

    def handled(self) -> Mapping[tuple[Topic, int], int]:
        """Up to where the groups have come that take batches and results in, as Kafka knows it; no partition without a commit.

        The database may know less, when it was restored from an older copy: what the groups have passed does not come to it again.
        """
        return {
            (topic, partition): offset
            for topic, role in _HANDLED_BY.items()
            for partition, offset in self._reader.committed(role, topic).items()
        }

    def read_into(self, replay: Replay, spans: Sequence[Span], on_progress: Callable[[int], None]) -> int:
        """Adds everything to the replay. Returns the number of records. `on_progress` gets each chunk's number of offsets."""
        records = 0
        for chunk in self._reader.read(spans):
            replay.add_results([(raw.partition, raw.offset, raw.value) for topic, raw in chunk if topic is Topic.RESULTS])
            replay.add([_record(topic, raw) for topic, raw in chunk if topic is not Topic.RESULTS])
            records += len(chunk)
            on_progress(len(chunk))
        return records


def _record(topic: Topic, raw: RawRecord) -> ReadRecord:
    # What the roles did not read, because it is too large, counts here as a record without a value: unreadable, too.
    value = None if raw.bytes > MAX_MESSAGE_BYTES else raw.value
    return ReadRecord(topic, raw.partition, raw.offset, raw.timestamp_ms, raw.headers, value)
