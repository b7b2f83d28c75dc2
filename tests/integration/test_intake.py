"""Batches that upstream services send as events. Each sentence of docs/events.md about them has a test, here or in
tests/unit/test_intake.py."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from consumers.loop.handler import Handled
from consumers.splitter import SplitterHandler
from consumers.upkeep.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items
from orchestrator.batches.states import Counts
from orchestrator.process.settings import Settings
from orchestrator.storage.backlog import read_backlog
from orchestrator.storage.database import transact
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import BATCH_COMPLETED, MAX_PART_BYTES, MAX_PART_ITEMS
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, mentors, record
from tests.support.sweeping import sweep
from tests.support.upstream import (
    SOURCE,
    TRACE,
    answer_events,
    answers,
    in_parts,
    is_unknown,
    places,
    structured,
    submitted,
    upstream_item,
    upstream_items,
)
from tests.support.waiting import eventually

NOTHING = Handled([], [])


def take_in(pipeline: Pipeline, *events: OutgoingEvent) -> Handled:
    """Passes these to the splitter, as one micro-batch."""
    return pipeline.handle(pipeline.splitter, events)


def assert_completed(pipeline: Pipeline, batch_id: UUID, total: int) -> None:
    """Checks that every item was registered once."""
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts) == ("completed", Counts(completed=total))
    assert [one.position for one in view.items] == list(range(total))
    with pipeline.engine.begin() as connection:
        found = connection.execute(text("SELECT count(*) FROM registration.activity WHERE batch_id = :id"), {"id": batch_id})
        assert found.scalar_one() == total


# --- The envelope, and what comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [lambda event: event, structured], ids=["binary", "structured"])
def test_an_upstream_batch_is_registered_and_its_completion_announced(
    pipeline: Pipeline, mode: Callable[[OutgoingEvent], OutgoingEvent]
) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, [upstream_item(0, notes="a note"), upstream_item(1, client_reference="row 7")])
    assert not take_in(pipeline, mode(event)).refused
    assert_completed(pipeline, batch_id, 2)
    view = pipeline.status(batch_id)
    assert (view.batch.coordinator_id, view.batch.label) == (COORDINATOR, "Monday group")
    assert (view.batch.submitted_by, view.batch.channel, view.batch.trace_id) == (SOURCE, SOURCE, f"{TRACE}-01")
    assert (view.items[0].values.notes, view.items[1].client_reference) == ("a note", "row 7")
    [completed] = answer_events(pipeline, BATCH_COMPLETED)
    headers = dict(completed.headers)
    assert completed.key == str(batch_id)
    assert headers["traceparent"].decode().split("-")[1] == TRACE
    data = orjson.loads(completed.value)
    assert (data["batch_id"], data["status"], data["completed"], data["retry_number"]) == (str(batch_id), "completed", 2, 0)


def test_completion_is_announced_once_and_again_after_a_retry(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, [upstream_item(0), upstream_item(1, "nobody")])
    take_in(pipeline, event)
    commands = pipeline.take(Topic.COMMANDS)
    results = pipeline.handle(pipeline.registration, commands).events
    pipeline.handle(pipeline.aggregator, results)
    [first] = answer_events(pipeline, BATCH_COMPLETED)
    # Delivers everything once more, as after a crash of each role.
    take_in(pipeline, event)
    pipeline.handle(pipeline.registration, commands)
    pipeline.handle(pipeline.aggregator, results)
    pipeline.drain()
    assert answer_events(pipeline, BATCH_COMPLETED) == []
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    [second] = answer_events(pipeline, BATCH_COMPLETED)
    assert [orjson.loads(each.value)["retry_number"] for each in (first, second)] == [0, 1]
    assert dict(first.headers)["ce_id"] != dict(second.headers)["ce_id"]


# --- Idempotency by the batch id ------------------------------------------------------------------------------------------------


def test_the_same_batch_again_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    items = upstream_items(3)
    take_in(pipeline, submitted(batch_id, items, invented="ignored"), submitted(batch_id, items))
    assert_completed(pipeline, batch_id, 3)
    before = pipeline.status(batch_id).batch
    spelt_out = submitted(batch_id, items[::-1], part=1, parts=1, total_items=3, override_duplicates=False)
    for event in (submitted(batch_id, items), structured(submitted(batch_id, items)), spelt_out):
        assert take_in(pipeline, event) == NOTHING
    assert pipeline.status(batch_id).batch.version == before.version
    assert answers(pipeline) == []


def purge(pipeline: Pipeline, batch_id: UUID) -> None:
    """Purges the batch. Only a tombstone is left."""
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("""INSERT INTO orchestrator.tombstone
                    SELECT batch_id, organization_id, content_hash, now() FROM orchestrator.batch WHERE batch_id = :id"""),
            {"id": batch_id},
        )
        for table in ("outcome", "batch_item", "batch_part", "batch"):
            connection.execute(text(f"DELETE FROM orchestrator.{table} WHERE batch_id = :id"), {"id": batch_id})


def test_a_purged_batch_is_never_created_again(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, upstream_items(3))
    take_in(pipeline, event)
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batch_id)
    assert take_in(pipeline, event) == NOTHING, "the batch is deleted, but not yet purged"
    purge(pipeline, batch_id)
    pipeline.drain()
    answers(pipeline)
    assert take_in(pipeline, event) == NOTHING
    assert answers(pipeline) == []
    for foreign, code in (({"label": "another"}, "batch_differs"), ({"organization_id": "org-other"}, "batch_id_taken")):
        [(_, refusal)] = take_in(pipeline, submitted(batch_id, upstream_items(3), **foreign)).refused
        assert refusal.reason == code
    assert is_unknown(pipeline, batch_id)


# --- Parts ------------------------------------------------------------------------------------------------------------------------


def test_a_batch_counts_in_the_backlog_only_after_all_its_parts_have_come(pipeline: Pipeline) -> None:
    *first, last = in_parts(uuid4(), [2, 2, 1])
    take_in(pipeline, *first)
    assert transact(pipeline.api, read_backlog).pending == 0
    take_in(pipeline, last)
    assert transact(pipeline.api, read_backlog).pending == 5
    with pytest.raises(ProgrammingError, match="permission denied"):
        transact(pipeline.engine, read_backlog)


def test_parts_that_come_together_are_expanded_together(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    handled = take_in(pipeline, *reversed(in_parts(batch_id, [2, 2, 1])))
    assert len(handled.events) == 5
    pipeline.relay()
    assert pipeline.take(Topic.BATCHES) == [], "nothing must be left to publish again"
    assert_completed(pipeline, batch_id, 5)


def test_parts_are_published_again_without_their_notes(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    noted = [upstream_item(position, notes=f"canary {position}") for position in range(3)]
    for part in (1, 2, 3):
        take_in(pipeline, submitted(batch_id, noted[part - 1 : part], part=part, parts=3, total_items=3))
    pipeline.relay()
    again = pipeline.take(Topic.BATCHES)
    assert [orjson.loads(event.value)["part"] for event in again] == [1, 2]
    assert not any(b"canary" in event.value for event in again)
    assert len(take_in(pipeline, *again).events) == 2
    assert_completed(pipeline, batch_id, 3)
    assert [one.values.notes for one in pipeline.status(batch_id).items] == ["canary 0", "canary 1", "canary 2"]


def handle_beside(pipeline: Pipeline, mine: Sequence[OutgoingEvent], rivals: Sequence[OutgoingEvent]) -> None:
    """One transaction takes in some events. Before its commit, another one takes in others: it has to wait, and decides after the commit."""

    def rival(connection: Connection) -> Handled:
        return pipeline.splitter.handle(connection, [record(event) for event in rivals])

    with ThreadPoolExecutor(1) as threads:
        with pipeline.engine.begin() as connection:
            handled = [pipeline.splitter.handle(connection, [record(event) for event in mine])]
            waiting = threads.submit(transact, pipeline.engine, rival)
            eventually(lambda: _waits_for_a_lock(pipeline))
        handled.append(waiting.result())
    for each in handled:
        pipeline.queues[Topic.COMMANDS] += each.events


def _waits_for_a_lock(pipeline: Pipeline) -> bool:
    with pipeline.engine.begin() as connection:
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = "
        waiting += "(SELECT oid FROM pg_database WHERE datname = current_database()))"
        return bool(connection.execute(text(waiting)).scalar_one())


@pytest.mark.parametrize(("mine", "rivals"), [([0], [1]), ([1], [0]), ([0], [0, 1]), ([0, 1], [0]), ([0, 1], [0, 1])], ids=str)
def test_parts_taken_in_at_the_same_time_make_one_batch(pipeline: Pipeline, mine: list[int], rivals: list[int]) -> None:
    batch_id = uuid4()
    parts = in_parts(batch_id, [2, 1])
    handle_beside(pipeline, [parts[index] for index in mine], [parts[index] for index in rivals])
    assert_completed(pipeline, batch_id, 3)
    assert len(answers(pipeline, BATCH_COMPLETED)) == 1


def test_complete_batches_taken_in_at_the_same_time_are_one(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, upstream_items(3))
    handle_beside(pipeline, [event], [event])
    assert_completed(pipeline, batch_id, 3)


def test_splitters_that_take_in_the_same_batches_in_another_order_do_not_deadlock(pipeline: Pipeline) -> None:
    batches = [uuid4() for _ in range(20)]
    halves = [[in_parts(batch_id, [1, 1], label=str(batch_id))[half] for batch_id in batches[:: 1 - 2 * half]] for half in (0, 1)]
    barrier = threading.Barrier(2)

    def work(events: Sequence[OutgoingEvent]) -> Handled:
        barrier.wait()
        # Not `transact`, which would try again after a deadlock.
        with pipeline.engine.begin() as connection:
            return pipeline.splitter.handle(connection, [record(event) for event in events])

    with ThreadPoolExecutor(2) as threads:
        for handled in threads.map(work, halves):
            assert not handled.refused
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"processing"}


# --- Mistakes in a part -----------------------------------------------------------------------------------------------------------


def test_a_refused_part_is_put_aside_and_none_of_it_is_expanded(pipeline: Pipeline) -> None:
    """tests/unit/test_intake.py covers the other refusals and their reasons."""
    wrong, right = submitted(uuid4(), [upstream_item(0), upstream_item(9)]), submitted(uuid4(), upstream_items(2))
    handled = take_in(pipeline, right, wrong)
    [(index, refusal)] = handled.refused
    assert (index, refusal.reason) == (1, "out_of_range")
    assert len(handled.events) == 2
    assert [places(rejection) for rejection in answers(pipeline)] == [{("/items/1/position", "out_of_range")}]


def test_a_batch_whose_parts_are_too_large_together_is_rejected_and_may_be_sent_again(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    parts = in_parts(batch_id, [2, 1])
    handler = SplitterHandler(
        bulk_threshold_items=100, max_items=10, max_batch_bytes=len(parts[0].value) + len(parts[1].value) - 1
    )
    pipeline.handlers = (handler, *pipeline.handlers[1:])
    take_in(pipeline, *parts)
    [rejection] = answers(pipeline)
    assert (places(rejection), rejection["batch_continues"]) == ({("", "too_large")}, False)
    assert is_unknown(pipeline, batch_id)
    take_in(pipeline, submitted(uuid4(), [upstream_item(0, notes="n" * len(parts[0].value) * 2)]))
    assert places(answers(pipeline)[-1]) == {("", "too_large")}
    pipeline.handlers = (SplitterHandler(bulk_threshold_items=100, max_items=10), *pipeline.handlers[1:])
    take_in(pipeline, *parts)
    assert_completed(pipeline, batch_id, 3)


# --- Batches whose parts never all come -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age_hours", "is_ended"), [(23, False), (25, True)])
def test_a_batch_ends_after_a_day_without_its_missing_parts(
    pipeline: Pipeline, settings: Settings, age_hours: int, is_ended: bool
) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    take_in(pipeline, first)
    with pipeline.engine.begin() as connection:
        aged = "UPDATE orchestrator.batch SET submitted_at = submitted_at - CAST(:age AS interval)"
        connection.execute(text(aged), {"age": timedelta(hours=age_hours)})
    swept = sweep(Sweeper(SweepPolicy.of(settings), lambda _topics: {}), pipeline.engine)
    assert swept == Swept(batches_ended=int(is_ended))
    assert is_unknown(pipeline, batch_id) == is_ended
    assert [places(rejection) for rejection in answers(pipeline)] == [{("/parts", "incomplete")}] * is_ended
    take_in(pipeline, second, first)
    assert_completed(pipeline, batch_id, 3)


def test_a_part_that_comes_during_the_cancel_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    take_in(pipeline, first)
    with ThreadPoolExecutor(1) as threads:
        with pipeline.engine.begin() as connection:
            pipeline.splitter.handle(connection, [record(second)])
            cancelling = threads.submit(pipeline.call, cancel_batch, ADMIN, batch_id, None)
            eventually(lambda: _waits_for_a_lock(pipeline))
        cancelling.result()
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts) == ("cancelled", Counts(cancelled=3))
    assert [one.status for one in view.items] == ["cancelled"] * 3, "the batch was complete when the cancel got the lock"


# --- Our own events ---------------------------------------------------------------------------------------------------------------


def test_our_own_events_are_parts_of_at_most_500_items_and_512_kb(pipeline: Pipeline) -> None:
    long = "\N{PERSON WITH HEADSCARF}" * 94
    items = [item(f"{long}{position:06}", kind=long)._replace(client_reference=long) for position in range(1_100)]
    batch_id = pipeline.submit(items, label=long)
    pipeline.relay()
    parts = pipeline.queues[Topic.BATCHES]
    sizes = [len(orjson.loads(event.value)["items"]) for event in parts]
    assert sum(sizes) == 1_100
    assert max(sizes) < MAX_PART_ITEMS
    assert MAX_PART_BYTES * 0.9 < max(len(event.value) for event in parts) <= MAX_PART_BYTES
    assert not any(take_in(pipeline, event).refused for event in pipeline.take(Topic.BATCHES))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts == Counts(failed=1_100)


def test_short_items_travel_in_parts_of_500(pipeline: Pipeline) -> None:
    pipeline.submit(mentors(1_001))
    pipeline.relay()
    assert [len(orjson.loads(event.value)["items"]) for event in pipeline.queues[Topic.BATCHES]] == [500, 500, 1]
