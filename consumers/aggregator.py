"""The aggregator role: reads results and folds their outcomes into the projection of the batches."""

from collections.abc import Sequence
from functools import partial
from typing import cast

from sqlalchemy import Connection

from consumers.loop.handler import AGGREGATOR, Handled, Lane, Record, RefusedError
from orchestrator.batches.projection import Ended, fold_outcomes
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process import metrics
from orchestrator.storage.blame import kind_of
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.tombstones import purged_among
from schemas.envelope import Topic
from schemas.events import EventData, Result


class AggregatorHandler:
    """Folds the outcomes that results announce. It takes the outcome from the dedup table, never from the result."""

    name = AGGREGATOR
    topics: tuple[Topic, ...] = (Topic.RESULTS,)

    def __init__(self, *, bulk_threshold_items: int) -> None:
        self._bulk_threshold_items = bulk_threshold_items

    def lane(self, topic: Topic, data: EventData) -> Lane:
        """Returns the lane that the item's command took."""
        return Lane.BULK if cast("Result", data).bulk else Lane.SMALL

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        """Folds the outcomes. Refuses a result that names no outcome, unless its batch was purged: then the result only came late."""
        results = [cast("Result", record.data) for record in records]
        keys = [OutcomeKey(str(result.batch_id), result.position, result.attempt) for result in results]
        unknown, ended = fold_outcomes(PostgresActivityRepository(connection), keys)
        count = partial(self._count, ended)
        if not unknown:
            return Handled((), count=count)
        purged = purged_among(connection, {keys[index].batch_id for index in unknown})
        nameless = RefusedError("no_such_outcome", "the result names no outcome in the dedup table")
        return Handled((), [(index, nameless) for index in unknown if keys[index].batch_id not in purged], count)

    def _count(self, ended: Sequence[Ended]) -> None:
        for items, took in ended:
            lane = Lane.BULK if items > self._bulk_threshold_items else Lane.SMALL
            metrics.BATCH_COMPLETION_SECONDS.labels(lane).observe(took.total_seconds())

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        """Puts a result aside that can't be folded. The sweeper folds its outcome from the dedup table later."""
        return Handled((), [(0, RefusedError("internal_error", kind_of(error)))])
