"""The splitter role: reads batch events and produces one command for each item.

Large batches travel as parts of at most 500 items. Each part is an event of its own in the bulk lane, so that the splitter can serve
other batches in between.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from consumers.loop.handler import SPLITTER, Handled, Lane, Record, RefusedError
from orchestrator.batches.repository import OutcomeKey
from orchestrator.registration.commands import commands_for
from orchestrator.storage.blame import kind_of
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.upstream.intake import Intake
from orchestrator.upstream.part import Part, malformed_part, submitted_part
from schemas.envelope import Topic
from schemas.events import MAX_BATCH_BYTES, BatchRetryRequested, BatchSubmitted, EventData, MalformedSubmission
from schemas.mistakes import Mistake


class SplitterHandler:
    """Expands batches into commands, with values from the database. First takes in batches of upstream services."""

    name = SPLITTER
    topics: tuple[Topic, ...] = (Topic.BATCHES,)

    def __init__(self, *, bulk_threshold_items: int, max_items: int, max_batch_bytes: int = MAX_BATCH_BYTES) -> None:
        self._bulk_threshold_items = bulk_threshold_items
        self._max_items = max_items
        self._max_batch_bytes = max_batch_bytes

    def lane(self, topic: Topic, data: EventData) -> Lane:
        """Returns the bulk lane for a part of a large batch and for a large retry, and the small lane otherwise."""
        return Lane.BULK if self._is_bulk(data) else Lane.SMALL

    def _is_bulk(self, data: EventData) -> bool:
        if isinstance(data, BatchSubmitted):
            return (data.total_items or len(data.items)) > self._bulk_threshold_items
        return isinstance(data, BatchRetryRequested) and (data.part > 1 or len(data.items) > self._bulk_threshold_items)

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        """Returns commands for every item that an event names and that is pending in that attempt."""
        repository = PostgresActivityRepository(connection)
        intake = Intake(repository, CollectedParts(connection), max_items=self._max_items, max_batch_bytes=self._max_batch_bytes)
        parts = [(index, part) for index, record in enumerate(records) if (part := _part(record)) is not None]
        refused = intake.take(parts)
        keys: list[OutcomeKey] = []
        bulk: list[bool] = []
        for index, record in enumerate(records):
            if index in refused:
                continue
            named = _named(record.data)
            keys += named
            bulk += [self._is_bulk(record.data)] * len(named)
        commands = commands_for(connection, keys, is_bulk=bulk.__getitem__)
        return Handled([event for _, event in commands], [(index, _refusal(problems)) for index, problems in refused.items()])

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        """Puts an event aside that can't be expanded. The sweeper sends again the items of its batch that the database holds."""
        return Handled((), [(0, RefusedError("internal_error", kind_of(error)))])


def _part(record: Record[EventData]) -> Part | None:
    written_at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    if isinstance(record.data, BatchSubmitted):
        return submitted_part(record.data, record.envelope, written_at)
    if isinstance(record.data, MalformedSubmission):
        return malformed_part(record.data, record.envelope, written_at)
    return None


def _refusal(problems: Sequence[Mistake]) -> RefusedError:
    """Returns a refusal for the dead letter, which names the first mistakes. `BatchRejected` tells the sender all of them."""
    return RefusedError(problems[0].code, "; ".join(f"{problem.pointer} {problem.detail}" for problem in problems[:20]))


def _named(data: EventData) -> list[OutcomeKey]:
    """Returns the attempts that an event asks for. Events that take effect without a consumer ask for none."""
    if isinstance(data, BatchSubmitted):
        batch_id = str(data.batch_id)
        return [OutcomeKey(batch_id, item.position, 1) for item in data.items]
    if isinstance(data, BatchRetryRequested):
        batch_id = str(data.batch_id)
        return [OutcomeKey(batch_id, item.position, item.attempt) for item in data.items]
    return []
