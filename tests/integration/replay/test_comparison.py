"""What a replay compares: each column, each kind of record and each contradiction by itself."""

from collections.abc import Callable
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, relabel_batch, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.replay.rebuild import ReadRecord, Replay
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.integration.corruptions import ASKED
from tests.support.forged import at, changed, completion, ours, rejection
from tests.support.pipeline import ADMIN, item, mentors
from tests.support.replaying import EXAMPLES, RecordingPipeline, compared, projection, replayed, run, written, written_at_ms
from tests.support.revoking import revoke
from tests.support.upstream import upstream

OF_BATCHES = {"coordinator_id": "'x'", "label": "'x'", "status": "'failed'", "completed_at": "NULL"}
OF_ITEMS = {
    "item_id": "gen_random_uuid()",
    "mentor_id": "'x'",
    "activity_type": "'x'",
    "activity_date": "'1999-01-01'",
    "duration_minutes": "7",
    "override_duplicates": "true",
    "client_reference": "'x'",
    "status": "'pending'",
    "activity_id": "gen_random_uuid()",
    "error": "'{}'",
}
# Values that are never reset. A difference is shown and not changed. With the value before.
KEPT = {
    "retry_number": ("batch", "7", "0"),
    "cancelled_at": ("batch", "now()", "NULL"),
    "deleted": ("batch", "now()", "NULL"),
    "attempt": ("batch_item", "attempt + 1", "1"),
}


def test_each_column_is_compared_and_restored(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    """Of a batch, and of its failed item."""
    batch_id = pipeline.submit([item("mentor-1")._replace(client_reference="row 1"), item("nobody")], label="a label")
    pipeline.drain()
    before = projection(owner)
    changes = [
        *((name, f"UPDATE orchestrator.batch SET {name} = {value}") for name, value in OF_BATCHES.items()),
        *((name, f"UPDATE orchestrator.batch_item SET {name} = {value} WHERE position = 1") for name, value in OF_ITEMS.items()),
        ("client_reference", "UPDATE orchestrator.batch_item SET client_reference = NULL"),
        ("item", "DELETE FROM orchestrator.batch_item WHERE position = 0"),
    ]
    for name, statement in changes:
        run(owner, statement)
        with replayed(pipeline.engine, pipeline.written) as (replay, connection):
            assert replay.compare(examples=EXAMPLES).by_field == {name: 1}
            assert promote(connection, batch_id) is Promoted.MERGED
            assert replay.compare(examples=EXAMPLES).differences == [], name
        assert projection(owner) == before, name
    assert verify(pipeline.engine, settings).breaches == []


def test_an_item_gets_the_organization_of_its_batch_back(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.drain()
    before = projection(owner)
    run(owner, "UPDATE orchestrator.batch_item SET organization_id = 'org-other'")
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):
        replay.compare(examples=EXAMPLES)
        assert promote(connection, batch_id) is Promoted.MERGED
    assert projection(owner) == before


@pytest.mark.parametrize("name", KEPT)
def test_a_value_that_is_never_reset_is_shown_and_kept(pipeline: RecordingPipeline, owner: Engine, name: str) -> None:
    table, value, was = KEPT[name]
    column = "deleted_at" if name == "deleted" else name
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    run(owner, f"UPDATE orchestrator.{table} SET {column} = {value}")
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):
        assert replay.compare(examples=EXAMPLES).by_field == {name: 1}
        promote(connection, batch_id)
        kept = text(f"SELECT {column} IS DISTINCT FROM {was} FROM orchestrator.{table}")
        assert connection.scalar(kept)


def test_an_item_that_the_topics_do_not_have_is_shown_and_kept(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    other = DerivedIds(batch_id).item_id(1)
    run(
        owner,
        "CREATE TEMPORARY TABLE another ON COMMIT DROP AS SELECT * FROM orchestrator.batch_item",
        f"UPDATE another SET position = 1, item_id = '{other}'",
        "INSERT INTO orchestrator.batch_item SELECT * FROM another",
    )
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):
        [shown] = replay.compare(examples=EXAMPLES).differences
        assert (shown.field, shown.item_id, shown.live, shown.rebuilt) == ("item", str(other), "failed", None)
        assert promote(connection, batch_id) is Promoted.MOVED
        assert connection.scalar(text("SELECT count(*) FROM orchestrator.batch_item")) == 2


def test_the_first_differences_are_shown(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = sorted(pipeline.submit(mentors(3, first=first)) for first in (1, 10, 20, 30, 40))
    pipeline.drain()
    run(
        owner,
        "UPDATE orchestrator.batch_item SET mentor_id = 'x', duration_minutes = 7",
        "UPDATE orchestrator.batch SET label = 'x'",
    )
    places = [
        (str(batch_id), field, None if position is None else str(DerivedIds(batch_id).item_id(position)))
        for batch_id in batches
        for position in (None, 0, 1, 2)
        for field in (["label"] if position is None else ["duration_minutes", "mentor_id"])
    ]
    with replayed(pipeline.engine, pipeline.written) as (replay, _):
        for most in (1, 8, len(places), len(places) + 1):
            comparison = replay.compare(examples=most)
            assert [(each.batch_id, each.field, each.item_id) for each in comparison.differences] == places[:most]
            assert list(comparison.by_field.items()) == [("duration_minutes", 15), ("label", 5), ("mentor_id", 15)]
            assert comparison.different_batches == batches
        shown = comparison.differences[1]
        assert (shown.live, shown.rebuilt) == (7, 60)


def test_what_is_known_of_a_batch_without_its_beginning_is_shown(pipeline: RecordingPipeline) -> None:
    counts = {"total_items": 2, "pending": 0, "completed": 0, "failed": 0, "cancelled": 2}
    about: list[Callable[[UUID], OutgoingEvent]] = [
        lambda b: ours(events.BATCH_RETRY_REQUESTED, b, retry_number=1, items=[{"position": 0, "attempt": 2}]),
        lambda b: ours(events.BATCH_CANCELLED, b, **counts, cancelled_positions=[[0, 1, 1]]),
        lambda b: ours(events.BATCH_RELABELLED, b, version=2, label="x"),
        lambda b: ours(events.BATCH_DELETED, b, version=2),
        lambda b: upstream(b, [0], part=1, parts=2, total=2),
        lambda b: ours(events.CANCELLED, b, item_id=DerivedIds(b).item_id(0), position=0, attempt=1),
    ]
    ids = [new_batch_id() for _ in about]
    told = compared(pipeline.engine, [(n, event(batch_id)) for n, (event, batch_id) in enumerate(zip(about, ids, strict=True))])
    assert (told.batches, told.not_covered) == (0, sorted(ids))


RUNS = {
    "none": ([], True),
    "one": ([[0, 0, 1]], True),
    "one after the other": ([[0, 1, 1], [2, 2, 3]], True),
    "backwards": ([[1, 0, 1]], False),
    "one twice": ([[0, 1, 1], [1, 2, 1]], False),
    "not in order": ([[2, 2, 1], [0, 0, 1]], False),
}


@pytest.mark.parametrize(("runs", "is_read"), RUNS.values(), ids=RUNS)
def test_cancelled_positions_are_runs_in_ascending_order(
    pipeline: RecordingPipeline, runs: list[list[int]], is_read: bool
) -> None:
    counts = {"total_items": 3, "pending": 0, "completed": 0, "failed": 0, "cancelled": 3}
    cancel = ours(events.BATCH_CANCELLED, new_batch_id(), **counts, cancelled_positions=runs)
    with replayed(pipeline.engine, [(0, cancel)]) as (replay, _):
        assert replay.unreadable == (0 if is_read else 1)


def test_of_two_contradicting_records_the_first_counts(pipeline: RecordingPipeline) -> None:
    batch_id = pipeline.submit([item("nobody"), item("no one"), item("mentor-1")], label="old")
    pipeline.drain()
    second = DerivedIds(batch_id).item_id(1)
    pipeline.call(
        retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[CorrectedItem(second, {"mentor_id": "nobody else"})])
    )
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "new")
    cancelled = pipeline.submit(mentors(3, first=10))
    pipeline.relay()
    pipeline.call(cancel_batch, ADMIN, cancelled, None)
    pipeline.drain()
    submitted, retried, failed, relabelled, stopped = (
        written(pipeline, *each)
        for each in (
            (events.BATCH_SUBMITTED, batch_id),
            (events.BATCH_RETRY_REQUESTED, batch_id),
            (events.FAILED, batch_id),
            (events.BATCH_RELABELLED, batch_id),
            (events.BATCH_CANCELLED, cancelled),
        )
    )
    items = orjson.loads(submitted.value)["items"]
    contradicting = {
        "other items": changed(submitted, items=[each | {"duration_minutes": 7} for each in items]),
        "another label": changed(submitted, label="x", items=[each | {"duration_minutes": 7} for each in items]),
        "another correction": changed(retried, items=[{"position": 1, "attempt": 2, "correction": {"mentor_id": "x"}}]),
        "another error": changed(failed, error={"code": "x", "message": "x", "retryable": False}),
        "another label of that version": changed(relabelled, label="x"),
        "another moment": at(stopped, "2026-03-26T10:00:00Z"),
    }
    for what, event in contradicting.items():
        behind = compared(pipeline.engine, [(100_000, event), *pipeline.written])
        assert behind.differences == [], what
        before = compared(pipeline.engine, [*pipeline.written, (-1, event)])
        assert before.differences != [], what


@pytest.mark.parametrize("comes_first", [0, 1])
def test_of_two_records_at_one_offset_the_one_of_the_first_partition_counts(
    pipeline: RecordingPipeline, comes_first: int
) -> None:
    """Whichever is read first."""
    batch_id = pipeline.submit([item("nobody"), item("no one"), item("mentor-1")], label="old")
    pipeline.drain()
    second = DerivedIds(batch_id).item_id(1)
    corrections = [CorrectedItem(second, {"mentor_id": "nobody else"})]
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=corrections))
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "new")
    pipeline.drain()
    items = orjson.loads(written(pipeline, events.BATCH_SUBMITTED, batch_id).value)["items"]
    cancelled = pipeline.submit(mentors(2, first=10))
    pipeline.call(cancel_batch, ADMIN, cancelled, None)
    revoke(pipeline, batch_id, item_ids=[DerivedIds(batch_id).item_id(2)])
    pipeline.drain()
    otherwise: dict[str, dict[str, object]] = {
        events.BATCH_SUBMITTED: {"items": [each | {"duration_minutes": 7} for each in items]},
        events.BATCH_RETRY_REQUESTED: {"items": [{"position": 1, "attempt": 2, "correction": {"mentor_id": "x"}}]},
        events.FAILED: {"error": {"code": "x", "message": "x", "retryable": False}},
        events.BATCH_RELABELLED: {"label": "x"},
        events.BATCH_CANCELLED: {"cancelled_positions": [[0, 1, 9]]},
        events.ACTIVITIES_REVOKED: {"reason": "x"},
    }
    contradicting = [
        (offset, changed(event, **otherwise[kind]))
        for offset, event in pipeline.written
        if (kind := dict(event.headers)["ce_type"].decode()) in otherwise
        and not (kind == events.BATCH_SUBMITTED and str(cancelled).encode() in event.value)
    ]
    partitions = [(0, pipeline.written), (1, contradicting)]
    with pipeline.engine.connect() as connection:
        replay = Replay(connection)
        for partition, records in sorted(partitions, key=lambda each: each[0] != comes_first):
            replay.add_results(
                [
                    (partition, offset, written_at_ms(event), event.value)
                    for offset, event in records
                    if event.topic is Topic.RESULTS
                ]
            )
            replay.add(
                [
                    ReadRecord(event.topic, partition, offset, written_at_ms(event), event.headers, event.value)
                    for offset, event in records
                    if event.topic in (Topic.BATCHES, Topic.LIFECYCLE)
                ]
            )
        replay.fold()
        assert replay.compare(examples=EXAMPLES).differences == []
        connection.invalidate()


def test_a_refused_batch_that_does_not_exist_is_covered(pipeline: RecordingPipeline) -> None:
    refused, running, unknown = (new_batch_id() for _ in range(3))
    first = {batch_id: upstream(batch_id, [0], part=1, parts=2, total=2) for batch_id in (refused, running, unknown)}
    pipeline.queues[Topic.BATCHES].append(first[running])
    pipeline.drain()
    read = [*first.values(), rejection(refused), rejection(running)]
    told = compared(pipeline.engine, list(enumerate(read)))
    # One was refused, but its batch exists. Of another, it is not known what became of it.
    assert told.not_covered == sorted([running, unknown])


def test_a_batch_of_which_only_results_were_read_is_lost(pipeline: RecordingPipeline, owner: Engine) -> None:
    lost, kept, purged = (pipeline.submit(mentors(2, first=first)) for first in (1, 10, 20))
    pipeline.drain()
    of_lost = " AND ".join(f"batch_id <> '{batch_id}'" for batch_id in (kept, purged))
    run(
        owner,
        f"INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, '', now() FROM orchestrator.batch WHERE batch_id = '{purged}'",
        f"DELETE FROM orchestrator.batch WHERE batch_id <> '{kept}'",
        *(f"DELETE FROM orchestrator.{table} WHERE {of_lost}" for table in ("batch_item", "batch_part", "outcome")),
    )
    results = [(offset, event) for offset, event in pipeline.written if event.topic is Topic.RESULTS]
    told = compared(pipeline.engine, results)
    assert (told.different_batches, told.by_field) == ([lost], {"batch": 1})
    assert told.not_covered == sorted([lost, kept])


def test_a_cancelled_batch_keeps_its_items_even_if_none_of_them_was_stopped(pipeline: RecordingPipeline, owner: Engine) -> None:
    """An external service has been asked for both, so its answers decide."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    with owner.begin() as connection:
        for position in (0, 1):
            connection.execute(text(ASKED.format(position)), {"b": batch_id})
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    pipeline.relay()
    assert compared(pipeline.engine, pipeline.written).differences == []
    # It has not ended, although it did before a restore that lost it.
    ended = completion(batch_id, "completed", 2)
    assert compared(pipeline.engine, [*pipeline.written, (100_000, ended)]).differences == []


def test_a_missing_part_leaves_its_batch_uncovered(pipeline: RecordingPipeline) -> None:
    batch_id = new_batch_id()
    parts = [upstream(batch_id, range(2 * n, 2 * n + 2), part=n + 1, parts=3, total=6) for n in range(3)]
    pipeline.queues[Topic.BATCHES] += parts
    pipeline.drain()
    assert compared(pipeline.engine, pipeline.written).not_covered == []
    for missing in parts:
        rest = [(offset, event) for offset, event in pipeline.written if event.value != missing.value]
        assert compared(pipeline.engine, rest).not_covered == [batch_id]
