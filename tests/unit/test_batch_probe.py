"""The probe for the batch behind a damaged one, with a client that stands in for Kafka's."""

import threading

import pytest
from confluent_kafka import KafkaError, TopicPartition

from consumers.loop import batch_probe
from orchestrator.process.settings import Settings


class Report:
    """What a client says of a place."""

    def __init__(self, code: int, offset: int) -> None:
        self._error, self._offset = KafkaError(code), offset

    def error(self) -> KafkaError:
        return self._error

    def offset(self) -> int:
        return self._offset


class StuckConsumer:
    """A client for a partition with a damaged batch at the offsets 3 to 7. It never returns from its close."""

    closing = threading.Event()

    def __init__(self, *_: object, **__: object) -> None:
        self._offset = 0

    def assign(self, places: list[TopicPartition]) -> None:
        self._offset = places[0].offset

    def poll(self, _timeout_s: float) -> Report:
        return Report(KafkaError._BAD_MSG, 3) if 3 <= self._offset <= 7 else Report(KafkaError._PARTITION_EOF, 8)

    def close(self) -> None:
        self.closing.set()
        threading.Event().wait()


def test_row_39_client_that_never_closes_does_not_stop_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_probe, "Consumer", StuckConsumer)
    monkeypatch.setattr(batch_probe, "_CLOSE_S", 0.01)
    assert batch_probe.BatchProbe(Settings(), "splitter").next_batch("topic", 0, 3) == 8
    assert StuckConsumer.closing.is_set()
