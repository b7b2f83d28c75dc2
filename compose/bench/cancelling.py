"""Measures how long a cancel of a running batch takes, and checks that its result is final: events in flight must change nothing."""

import time
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from compose.bench.generator import Generator
from compose.bench.jobs import CancelRunning, SeenCancel
from consumers.upkeep.end_offsets import BrokerEndOffsets
from orchestrator.process.settings import Settings
from orchestrator.storage.sweeping import Queues
from schemas.envelope import Topic

# A role that handles an event on one stage produces to the next. So the ends of a stage are read after the stage before it has drained.
_STAGES = ((Topic.BATCHES,), (Topic.COMMANDS, Topic.COMMANDS_BULK), (Topic.RESULTS,))
_POLL_S = 0.02
_GIVE_UP_S = 120.0

_PROGRESS = text("SELECT topic, partition, next_offset FROM orchestrator.consumer_progress")

# The batch's rows, to compare with the response.
_NOW = text("""
    SELECT b.pending, b.completed, b.failed, b.cancelled,
           (SELECT count(*) FROM registration.activity a WHERE a.batch_id = b.batch_id) AS activities
    FROM orchestrator.batch b WHERE b.batch_id = :batch_id
""")


class NotFinalError(Exception):
    """A batch changed after its cancel had returned, or the cancel's result was wrong. `bulkreg verify` shows more."""


def measure_cancel(settings: Settings, engine: Engine, generator: Generator, items: int) -> float:
    """Seconds until a running batch's cancel returns. Raises NotFinalError, and TimeoutError when the topics are not drained."""
    seen = generator.cancel(CancelRunning(items))
    ends = BrokerEndOffsets(settings)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for topics in _STAGES:
            _wait_for_progress(connection, ends(topics))
        _check(connection, seen)
    return seen.answered_s


def _wait_for_progress(connection: Connection, ends: Queues) -> None:
    deadline = time.monotonic() + _GIVE_UP_S
    while left := _behind(connection, ends):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{left} partitions were not read to their end in {_GIVE_UP_S:g} s: does every role run?")
        time.sleep(_POLL_S)


def _behind(connection: Connection, ends: Queues) -> int:
    reached = {(row.topic, row.partition): row.next_offset for row in connection.execute(_PROGRESS)}
    return sum(
        reached.get((topic.value, partition), 0) < queue.next_offset
        for (topic, partition), queue in ends.items()
        if queue.next_offset > queue.first
    )


def _check(connection: Connection, seen: SeenCancel) -> None:
    returned = (seen.pending, seen.completed, seen.failed, seen.cancelled, seen.completed)
    found = tuple(connection.execute(_NOW, {"batch_id": UUID(seen.batch_id)}).one())
    if seen.cancelled == 0 or found != returned:
        raise NotFinalError(
            f"batch {seen.batch_id}: pending, completed, failed, cancelled, activities were {returned} in the response and are {found}"
        )
