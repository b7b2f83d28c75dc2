"""Replays of what the flow has written, and what tests compare before and after them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from consumers.loop.handler import Record
from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, relabel_batch, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.replay.rebuild import Comparison, ReadRecord, Replay
from orchestrator.storage.people import ForgettingKey
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import EventData
from schemas.ids import DerivedIds, new_batch_id
from tests.support.pipeline import ADMIN, TIMESTAMP_MS, Pipeline, item, mentors, standard_directory
from tests.support.upstream import upstream

EXAMPLES = 1_000

Written = Sequence[tuple[int, OutgoingEvent]]
"""Events with their offsets. Each topic has one partition here."""


class RecordingPipeline(Pipeline):
    """The flow, which keeps every event that reached a topic."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings, engine)
        self._taken: list[OutgoingEvent] = []

    def take(self, *topics: Topic) -> list[OutgoingEvent]:
        taken = super().take(*topics)
        self._taken += taken
        return taken

    def read(self, event: OutgoingEvent, offset: int) -> Record[EventData]:
        return super().read(event, offset)._replace(timestamp_ms=written_at_ms(event))

    @property
    def written(self) -> Written:
        waiting = [event for queue in self.queues.values() for event in queue]
        return list(enumerate([*self._taken, *waiting]))


@contextmanager
def recording(settings: Settings, engine: Engine, *, mentor_count: int = 100) -> Iterator[RecordingPipeline]:
    """The flow with the standard directory, without a broker."""
    standard_directory(engine, mentor_count=mentor_count)
    pipeline = RecordingPipeline(settings, engine)
    yield pipeline
    pipeline.close()


def written_at_ms(event: OutgoingEvent) -> int:
    """When the broker stored the record of an event: at the time that the event says, if it says one. Handlers and replays get the same."""
    said = dict(event.headers).get("ce_time")
    return TIMESTAMP_MS if said is None else int(datetime.fromisoformat(said.decode()).timestamp() * 1000)


@contextmanager
def replayed(
    engine: Engine, written: Written, *, only: UUID | None = None, key: ForgettingKey | None = None
) -> Iterator[tuple[Replay, Connection]]:
    """A replay of these events in this order, folded."""
    with engine.connect() as connection:
        replay = Replay(connection, batch_id=only, key=key)
        replay.add_results(
            [(0, offset, written_at_ms(event), event.value) for offset, event in written if event.topic is Topic.RESULTS]
        )
        replay.add(
            [
                ReadRecord(event.topic, 0, offset, written_at_ms(event), event.headers, event.value)
                for offset, event in written
                if event.topic in (Topic.BATCHES, Topic.LIFECYCLE)
            ]
        )
        replay.fold()
        yield replay, connection
        # A connection that goes back to the pool would keep the session's tables, and the next replay would find them.
        connection.invalidate()


def compared(engine: Engine, written: Written, *, only: UUID | None = None, key: ForgettingKey | None = None) -> Comparison:
    with replayed(engine, written, only=only, key=key) as (replay, _):
        return replay.compare(examples=EXAMPLES)


def promoted(engine: Engine, written: Written, *, key: ForgettingKey | None = None) -> tuple[dict[UUID, Promoted], Comparison]:
    """The verdict on each batch that differed, and the differences that are left."""
    with replayed(engine, written, key=key) as (replay, connection):
        before = replay.compare(examples=EXAMPLES)
        verdicts = {batch_id: promote(connection, batch_id) for batch_id in before.different_batches}
        return verdicts, replay.compare(examples=EXAMPLES)


def projection(engine: Engine, *, with_notes: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that people see, and the dedup table, as it is now. Without versions, which only rise."""
    tables = {
        "batch": "batch_id::text, organization_id, coordinator_id, submitted_by, channel, label, status, total_items, pending, completed,"
        " failed, cancelled, retry_number, edit_version, parts, content_hash, trace_id, completed_at, cancelled_at, cancelled_by,"
        " cancellation_reason, deleted_at, revoked",
        "batch_item": "batch_id::text, position, item_id::text, organization_id, mentor_id, activity_type, activity_date, duration_minutes,"
        " client_reference, override_duplicates, status, attempt, activity_id::text, error, revoked_at, revoked_by, revocation_reason"
        + (", notes" if with_notes else ""),
        "item_history": "batch_id::text, position, attempt, error, attempt_at, retried_by, retried_at, "
        + ("submitted, correction" if with_notes else "submitted - 'notes', correction - 'notes'"),
        "batch_part": "batch_id::text, part, organization_id, content_hash, public_hash",
        "outcome": "batch_id::text, position, attempt, organization_id, outcome, activity_id::text, error, created_at",
    }
    with engine.connect() as connection:
        return {
            table: [
                tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
                for row in connection.execute(text(f"SELECT {columns} FROM orchestrator.{table} ORDER BY 1, 2, 3"))
            ]
            for table, columns in tables.items()
        }


def versions(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            row.batch_id: row.version
            for row in connection.execute(text("SELECT batch_id::text, version FROM orchestrator.batch"))
        }


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def everything(pipeline: RecordingPipeline) -> dict[str, UUID]:
    """One batch for each thing that can happen to a batch."""
    batches = {"completed": pipeline.submit([item("mentor-1", notes="a note"), item("mentor-2")], label="a\\b\tc")}
    batches["corrected"] = pipeline.submit([item("mentor-3"), item("nobody", notes="no one"), item("nobody", kind="unknown")])
    batches["large"] = pipeline.submit(mentors(510, first=100))
    pipeline.drain()
    second, third = map(DerivedIds(batches["corrected"]).item_id, (1, 2))
    corrections = [
        CorrectedItem(second, {"mentor_id": "mentor-4"}),
        CorrectedItem(third, {"mentor_id": "mentor-6", "notes": "new"}),
    ]
    pipeline.call(retry_failed_items, ADMIN, batches["corrected"], RetryRequest(corrections=corrections))
    pipeline.drain()
    pipeline.call(
        retry_failed_items,
        ADMIN,
        batches["corrected"],
        RetryRequest(corrections=[CorrectedItem(third, {"activity_type": "visit", "mentor_id": "mentor-5"})]),
    )
    batches["cancelled"] = pipeline.submit(mentors(4, first=10))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:2])
    pipeline.call(cancel_batch, ADMIN, batches["cancelled"], "a mistake")
    batches["scattered"] = pipeline.submit(mentors(6, first=70))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[::2])
    # Three runs of positions, which are more than one event holds here.
    pipeline.call(cancel_batch, ADMIN, batches["scattered"], "in parts")
    batches["deleted"] = pipeline.submit(mentors(2, first=20))
    batches["relabelled"] = pipeline.submit(mentors(2, first=30), label="old")
    batches["upstream"] = new_batch_id()
    pipeline.queues[Topic.BATCHES] += [
        upstream(batches["upstream"], range(3, 5), part=2, parts=2, total=5),
        upstream(batches["upstream"], range(3), part=1, parts=2, total=5),
    ]
    batches["stopped"] = new_batch_id()
    pipeline.queues[Topic.BATCHES] += [upstream(batches["stopped"], range(2), part=1, parts=2, total=4, first_mentor=650)]
    batches["rejected"] = new_batch_id()
    pipeline.queues[Topic.BATCHES] += [upstream(batches["rejected"], [0], part=1, parts=1, total=1, coordinator_id="nobody")]
    pipeline.drain()
    pipeline.call(cancel_batch, ADMIN, batches["stopped"], None)
    pipeline.relay()
    pipeline.queues[Topic.BATCHES] += [upstream(batches["stopped"], range(2, 4), part=2, parts=2, total=4, first_mentor=650)]
    pipeline.call(delete_batch, ADMIN, batches["deleted"])
    pipeline.call(relabel_batch, ADMIN, batches["relabelled"], "new")
    pipeline.call(relabel_batch, ADMIN, batches["relabelled"], "newest")
    batches["failed"] = pipeline.submit([item("nobody")])
    pipeline.drain()
    batches["running"] = pipeline.submit(mentors(2, first=50))
    pipeline.relay()
    return batches


def small(pipeline: RecordingPipeline) -> dict[str, UUID]:
    """Finished batches: one without corrections, one with a corrected item, and one that was cancelled half-way."""
    batches = {"completed": pipeline.submit([item("mentor-1", notes="a note"), item("mentor-2")])}
    batches["corrected"] = pipeline.submit([item("mentor-3"), item("nobody")])
    pipeline.drain()
    second = DerivedIds(batches["corrected"]).item_id(1)
    request = RetryRequest(corrections=[CorrectedItem(second, {"mentor_id": "mentor-4", "notes": "the right one"})])
    pipeline.call(retry_failed_items, ADMIN, batches["corrected"], request)
    batches["cancelled"] = pipeline.submit(mentors(4, first=10))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:2])
    pipeline.call(cancel_batch, ADMIN, batches["cancelled"], "a mistake")
    pipeline.drain()
    return batches


def written(pipeline: RecordingPipeline, event_type: str, batch_id: UUID) -> OutgoingEvent:
    """The first event of this type about a batch."""
    return next(
        event
        for _, event in pipeline.written
        if str(batch_id).encode() in event.value and dict(event.headers)["ce_type"] == event_type.encode()
    )
