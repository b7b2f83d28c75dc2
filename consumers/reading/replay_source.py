"""Reads the topics for a replay, from a given start to their present end, outside any consumer group."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from consumers.loop.handler import AGGREGATOR, SPLITTER
from consumers.loop.raw_record import RawRecord
from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.process.settings import Settings
from orchestrator.replay.rebuild import TOPICS, ReadRecord, Replay
from orchestrator.storage.consumer_groups import read_generation
from schemas.envelope import MAX_MESSAGE_BYTES, Topic

_HANDLED_BY = {Topic.BATCHES: SPLITTER, Topic.RESULTS: AGGREGATOR}


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """A record. A replay that starts there skips what was written before it, on every topic."""

    topic: Topic
    partition: int
    offset: int


Start = datetime | RecordPlace | None
"""Where a replay starts: at a time, at the time of a record, or (None) at the oldest record that the topics hold."""


class ReplaySource:
    """A context manager, for one thread. Raises KafkaException if the broker does not respond."""

    def __init__(self, settings: Settings) -> None:
        self._reader = TopicReader(settings)

    def __enter__(self) -> "ReplaySource":
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.__exit__(*exception)

    def spans(self, start: Start) -> Sequence[Span]:
        """Returns the spans to read now. Raises LookupError when `start` names a record that is not there."""
        since = self._reader.time_of(start.topic, start.partition, start.offset) if isinstance(start, RecordPlace) else start
        return self._reader.spans(TOPICS, since=since)

    def handled(self, connection: Connection) -> Mapping[tuple[Topic, int], int]:
        """Returns, from Kafka, how far the groups that read batches and results have come. Partitions without a commit are left out.

        The database may know less, when it was restored from an older copy: the groups do not receive again what they have passed.
        """
        # Kafka may take longer than the database lets a transaction wait. So it is asked afterwards.
        with connection.begin():
            generations = {role: read_generation(connection, role) for role in _HANDLED_BY.values()}
        return {
            (topic, partition): offset
            for topic, role in _HANDLED_BY.items()
            for partition, offset in self._reader.committed(role, topic, generations[role]).items()
        }

    def read_into(self, replay: Replay, spans: Sequence[Span], on_progress: Callable[[int], None]) -> int:
        """Adds all records to the replay and returns their number. Calls `on_progress` with each chunk's number of offsets."""
        records = 0
        # Of a result, only the value and the time are used.
        for results in self._reader.read_values([span for span in spans if span.topic is Topic.RESULTS]):
            replay.add_results(results)
            records += len(results)
            on_progress(len(results))
        for chunk in self._reader.read([span for span in spans if span.topic is not Topic.RESULTS]):
            replay.add([_record(topic, raw) for topic, raw in chunk])
            records += len(chunk)
            on_progress(len(chunk))
        return records


def _record(topic: Topic, raw: RawRecord) -> ReadRecord:
    # The roles do not read a record that is too large. Without a value it is unreadable here, too.
    value = None if raw.bytes > MAX_MESSAGE_BYTES else raw.value
    return ReadRecord(topic, raw.partition, raw.offset, raw.timestamp_ms, raw.headers, value)
