"""The topics as a replay reads them: from where they are asked for to where they end, outside of any consumer group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Message

from consumers.decoding import raw_headers
from consumers.topic_reader import Span, TopicReader
from orchestrator.replay import TOPICS, ReadRecord, Replay
from orchestrator.settings import Settings
from schemas.envelope import Topic


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """A record: what was written before it is not read, on any topic."""

    topic: Topic
    partition: int
    offset: int


Start = datetime | RecordPlace | None
"""From when: a time, that of a record, or the oldest that the topics hold."""


class ReplaySource:
    """A context manager, for one thread. Raises KafkaException on a broker that does not answer."""

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

    def read_into(self, replay: Replay, spans: Sequence[Span], on_progress: Callable[[int], None]) -> int:
        """Adds everything to the replay; answers how many records that were. `on_progress` gets each chunk's number of offsets."""
        records = 0
        for chunk in self._reader.read(spans):
            replay.add_results([(m.partition(), m.offset(), m.value()) for topic, m in chunk if topic is Topic.RESULTS])
            replay.add([_record(topic, message) for topic, message in chunk if topic is not Topic.RESULTS])
            records += len(chunk)
            on_progress(len(chunk))
        return records


def _record(topic: Topic, message: Message) -> ReadRecord:
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return ReadRecord(topic, partition, offset, message.timestamp()[1], raw_headers(message), message.value())
