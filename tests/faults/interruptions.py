"""A broker that stops responding in the middle of something."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import pytest

from compose.embedded.infrastructure import Infrastructure
from consumers.notary import published
from consumers.reading.topic_reader import Span, TopicReader


@contextlib.contextmanager
def interrupted_readings(own_kafka: Infrastructure, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While the block runs, the broker stops responding as soon as a reading knows where the partitions end, until the reading is closed. The
    event is set when it has stopped."""
    broker = psutil.Process(own_kafka.pids["kafka"])
    has_stopped, is_over = threading.Event(), threading.Event()

    class Interrupted(TopicReader):
        def read(self, spans: Sequence[Span]) -> Iterator[list[Any]]:
            if not is_over.is_set():
                broker.suspend()
                has_stopped.set()
            return super().read(spans)

        def __exit__(self, *exception: object) -> None:
            broker.resume()
            super().__exit__(*exception)

    monkeypatch.setattr(published, "TopicReader", Interrupted)
    try:
        yield has_stopped
    finally:
        is_over.set()
        broker.resume()
