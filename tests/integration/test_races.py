"""Overriding a duplicate, and results in any order and number. tests/faults/test_rivals.py has the races."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count, groupby
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from consumers.loop.handler import Record
from orchestrator.batches.model import NewBatch
from orchestrator.batches.operations import submit_bulk_registration
from orchestrator.batches.states import Counts
from orchestrator.process.settings import EARLIEST_YEAR
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.port import Candidate, Decision
from orchestrator.storage.blame import TransientError
from orchestrator.storage.database import transact
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import EventData
from schemas.ids import new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, record

Records = list[Record[EventData]]


def commands_of(pipeline: Pipeline, *batches: UUID) -> list[Records]:
    """The commands of each batch, decoded, in the order of the batches."""
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    by_key = groupby(sorted(pipeline.take(Topic.COMMANDS), key=_batch), key=_batch)
    decoded = {batch: [record(event) for event in events] for batch, events in by_key}
    return [decoded[str(batch)] for batch in batches]


def _batch(event: OutgoingEvent) -> str:
    return str(orjson.loads(event.value)["batch_id"])


def register(pipeline: Pipeline, records: Records) -> Sequence[OutgoingEvent]:
    """Handles commands in a transaction of its own."""
    return transact(pipeline.engine, partial(pipeline.registration.handle, records=records)).events


def test_a_vanished_item_is_tried_again_and_not_mistaken_for_registered(pipeline: Pipeline) -> None:
    batch_id = str(pipeline.submit([item("mentor-1")]))
    with pipeline.engine.begin() as connection:
        item_id = connection.execute(text("SELECT item_id::text FROM orchestrator.batch_item")).scalar_one()
    there = Candidate(batch_id, 0, item_id, str(uuid4()))
    gone = Candidate(batch_id, 1, str(uuid4()), str(uuid4()))
    service = InProcessRegistrationService(EARLIEST_YEAR)
    with pytest.raises(TransientError, match="vanished between two statements"), pipeline.engine.begin() as connection:
        service.register(connection, [there, gone], datetime.now(UTC))
    with pipeline.engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM registration.activity")).scalar_one() == 0
        assert service.register(connection, [there], datetime.now(UTC)) == [Decision(there.activity_id, None)]


def test_an_override_is_flagged_only_if_there_is_a_duplicate(pipeline: Pipeline) -> None:
    def submit_overriding() -> str:
        values = item("mentor-1").values._replace(override_duplicates=True)
        batch = NewBatch(new_batch_id(), COORDINATOR, None, True, [item("mentor-1")._replace(values=values)], "1" * 32)
        pipeline.call(submit_bulk_registration, ADMIN, batch)
        pipeline.drain()
        return pipeline.status(batch.batch_id).batch.status

    assert submit_overriding() == "completed"
    plain = pipeline.submit([item("mentor-1")])
    pipeline.drain()
    assert pipeline.status(plain).batch.errors_by_code == {"duplicate_activity": 1}
    assert submit_overriding() == "completed"
    with pipeline.engine.begin() as connection:
        flags = connection.execute(text("SELECT overrides_duplicate FROM registration.activity ORDER BY created_at")).scalars()
        assert list(flags) == [False, True]


_fresh_days = (date(1990, 1, 1) + timedelta(days=number) for number in count())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_results_in_any_order_with_repetitions_fold_the_same(pipeline: Pipeline, data: st.DataObject) -> None:
    # Hypothesis stops an example when its data runs out. Remove what such an example left behind.
    pipeline.relay()
    pipeline.queues.clear()
    day = next(_fresh_days)
    batches = [
        pipeline.submit([item("mentor-1", day=day), item("nobody", day=day), item("mentor-2", day=day)]),
        pipeline.submit([item("mentor-2", day=day), item("mentor-3", day=day)]),
        pipeline.submit([item("nobody", day=day)]),
    ]
    for records in commands_of(pipeline, *batches):
        pipeline.queues[Topic.RESULTS].extend(register(pipeline, records))
    results = pipeline.take(Topic.RESULTS)
    shuffled = data.draw(st.permutations(results + data.draw(st.lists(st.sampled_from(results), max_size=8))))
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        pipeline.handle(pipeline.aggregator, shuffled[:size])
        shuffled = shuffled[size:]
    folded = [pipeline.status(batch) for batch in batches]
    assert [(view.batch.status, view.batch.counts) for view in folded] == [
        ("partial", Counts(completed=2, failed=1)),
        ("partial", Counts(completed=1, failed=1)),
        ("failed", Counts(failed=1)),
    ]
    assert [[one.status for one in view.items] for view in folded] == [
        ["success", "failed", "success"],
        ["failed", "success"],
        ["failed"],
    ]
    pipeline.relay()
    assert len(pipeline.take(Topic.LIFECYCLE)) == 3, "each batch must have one completion event"
