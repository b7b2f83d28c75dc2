"""What a promotion believes: each piece of evidence and each contradiction by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, dismiss_batch, relabel_batch, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.erasing import erase
from tests.support.forged import as_written_by, changed, whole
from tests.support.pipeline import ADMIN, item, mentors
from tests.support.replaying import (
    EXAMPLES,
    RecordingPipeline,
    projection,
    promoted,
    replayed,
    run,
    versions,
    written,
    written_at_ms,
)
from tests.support.upstream import upstream


@dataclass(frozen=True)
class Lost:
    """What is destroyed of a batch, and the verdict."""

    destroyed: tuple[str, ...]
    verdict: Promoted


EVIDENCE: dict[str, Lost] = {
    "its items": Lost(("TRUNCATE orchestrator.batch, orchestrator.batch_part",), Promoted.MERGED),
    "its parts": Lost(("TRUNCATE orchestrator.batch, orchestrator.batch_item",), Promoted.MERGED),
    "nothing": Lost(("TRUNCATE orchestrator.batch, orchestrator.batch_part, orchestrator.batch_item",), Promoted.NOT_BORNE_OUT),
}


@pytest.mark.parametrize("lost", EVIDENCE.values(), ids=EVIDENCE)
def test_the_rest_of_a_waiting_batch_confirms_it(pipeline: RecordingPipeline, owner: Engine, lost: Lost) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    run(owner, *lost.destroyed)
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {batch_id: lost.verdict}


def test_a_batch_is_restored_with_all_its_rows(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Column by column, except those that only rise, and those that are stored nowhere else."""
    batch_id = pipeline.submit(
        [item("mentor-1", notes="a note")._replace(planned="success"), item("nobody"), item("no one")], label="old"
    )
    pipeline.drain()
    second = DerivedIds(batch_id).item_id(1)
    pipeline.call(
        retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[CorrectedItem(second, {"mentor_id": "mentor-2"})])
    )
    pipeline.relay()
    for label in ("newer", "newest"):
        pipeline.call(relabel_batch, ADMIN, batch_id, label)
    pipeline.call(cancel_batch, ADMIN, batch_id, "a reason")
    pipeline.call(delete_batch, ADMIN, batch_id)
    pipeline.drain()

    def rows() -> dict[str, list[dict[str, Any]]]:
        left_out = {"version", "changed_at", "changed_version", "measured_from", "measured_items", "planned", "data_bytes"}
        with owner.connect() as connection:
            return {
                table: [
                    {
                        name: bytes(value) if isinstance(value, memoryview) else value
                        for name, value in row.items()
                        if name not in left_out
                    }
                    for row in connection.execute(text(f"SELECT * FROM orchestrator.{table} ORDER BY {order}")).mappings()
                ]
                for table, order in (
                    ("batch", "1"),
                    ("batch_part", "part"),
                    ("batch_item", "position"),
                    ("item_history", "position, attempt"),
                    ("outcome", "position, attempt"),
                )
            }

    before = rows()
    assert before["batch"][0]["label"] == "newest"
    for tables in (
        "orchestrator.batch, orchestrator.batch_item",
        "orchestrator.batch, orchestrator.batch_item, orchestrator.batch_part",
        "orchestrator.batch_item, orchestrator.batch_part, orchestrator.item_history",
    ):
        run(owner, f"TRUNCATE {tables}")
        verdicts, after = promoted(pipeline.engine, pipeline.written)
        assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
        assert rows() == before, tables


EDITED = {
    "never": (0, 0, 0),
    "before its results": (1, 0, 0),
    "often": (0, 0, 9),
    "by an erasure": (0, 4, 0),
    "twice after an erasure": (0, 4, 2),
}


@pytest.mark.parametrize(("before", "erased", "after"), EDITED.values(), ids=EDITED)
def test_a_batch_that_is_created_again_has_no_lower_version(
    pipeline: RecordingPipeline, owner: Engine, before: int, erased: int, after: int
) -> None:
    """Its label is changed this often before and after its results, and this many notes are erased between.

    With a lower version, a reader's older copy would count as the newest, and the next edit would have the version of an earlier one.
    """
    other = pipeline.submit([item("mentor-9", notes="a note")])
    pipeline.drain()
    for number in range(30):
        pipeline.call(relabel_batch, ADMIN, other, f"label {number}")
    assert erase(pipeline, other)
    batch_id = pipeline.submit([item(f"mentor-{number}", notes="a note") for number in range(1, 5)])
    for number in range(before):
        pipeline.call(relabel_batch, ADMIN, batch_id, f"label {number}")
    pipeline.drain_until_registered()
    for result in pipeline.take(Topic.RESULTS):
        pipeline.handle(pipeline.aggregator, [result])
    for position in range(erased):
        assert erase(pipeline, batch_id, position)
    for number in range(after):
        pipeline.call(relabel_batch, ADMIN, batch_id, f"later label {number}")
    pipeline.drain()
    old = versions(owner)
    run(owner, f"DELETE FROM orchestrator.batch WHERE batch_id = '{batch_id}'")
    verdicts, left = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, left.differences) == ({batch_id: Promoted.MERGED}, [])
    new = versions(owner)
    assert old[str(batch_id)] <= new[str(batch_id)] < new[str(other)]


def test_for_other_batches_the_time_of_the_record_counts(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = new_batch_id()
    event = upstream(batch_id, range(2), part=1, parts=1, total=2)
    pipeline.queues[Topic.BATCHES].append(event)
    pipeline.drain()
    run(owner, "TRUNCATE orchestrator.batch")
    promoted(pipeline.engine, pipeline.written)
    assert pipeline.status(batch_id).batch.submitted_at.timestamp() == written_at_ms(event) / 1000


def test_a_plan_stays_with_its_attempt(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item("nobody")._replace(planned="success"), item("mentor-1")._replace(planned="out_of_scope")])
    pipeline.drain()
    run(owner, "UPDATE orchestrator.batch_item SET client_reference = 'x'")
    promoted(pipeline.engine, pipeline.written)
    assert [(one.planned, one.client_reference) for one in pipeline.status(batch_id).items] == [
        ("success", None),
        ("out_of_scope", None),
    ]


def test_an_item_that_gets_its_attempt_back_has_no_plan_and_begins_with_the_retry(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """A plan is of the first attempt."""
    batch_id = pipeline.submit([item("nobody")._replace(planned="success"), item("mentor-1")])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()

    def shown() -> tuple[object, ...]:
        with owner.connect() as connection:
            found = text("SELECT attempt, planned, attempt_at FROM orchestrator.batch_item WHERE position = 0")
            return tuple(connection.execute(found).one())

    before = shown()
    assert before[:2] == (2, None)
    first = "(SELECT submitted_at FROM orchestrator.batch)"
    run(owner, f"UPDATE orchestrator.batch_item SET attempt = 1, planned = 'success', attempt_at = {first} WHERE position = 0")
    assert shown() != before
    promoted(pipeline.engine, pipeline.written)
    assert shown() == before


@pytest.mark.parametrize("are_lost", [True, False])
def test_a_dismissal_ends_where_a_promotion_finds_more_failed_items(
    pipeline: RecordingPipeline, owner: Engine, *, are_lost: bool
) -> None:
    batch_id = pipeline.submit([item("nobody"), item("no one"), item("mentor-1")])
    pipeline.drain()
    pipeline.call(dismiss_batch, ADMIN, batch_id)
    assert pipeline.status(batch_id).batch.dismissed_at is not None
    run(
        owner,
        f"UPDATE orchestrator.batch SET label = 'x'{', failed = failed - 1, completed = completed + 1' if are_lost else ''}",
    )
    assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
    batch = pipeline.status(batch_id).batch
    assert (batch.counts.failed, batch.dismissed_at is None) == (2, are_lost)


def test_the_rows_of_other_batches_are_no_evidence(pipeline: RecordingPipeline, owner: Engine) -> None:
    """These batches wait, were cancelled, were purged, come in parts, or belong to another organization."""
    waiting = pipeline.submit(mentors(2))
    pipeline.relay()
    cancelled = pipeline.submit(mentors(2, first=10))
    pipeline.relay()
    pipeline.call(cancel_batch, ADMIN, cancelled, "a reason")
    collecting = new_batch_id()
    pipeline.handle(pipeline.splitter, [upstream(collecting, range(2), part=1, parts=2, total=4)])
    pipeline.queues.clear()
    purged, foreign, finished = (pipeline.submit(mentors(2, first=first)) for first in (20, 30, 40))
    pipeline.drain()
    pipeline.call(cancel_batch, ADMIN, waiting, None)
    run(
        owner,
        f"INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, '', now() FROM orchestrator.batch WHERE batch_id = '{purged}'",
        *(
            f"UPDATE orchestrator.{table} SET organization_id = 'org-other' WHERE batch_id = '{foreign}'"
            for table in ("batch", "batch_item", "batch_part", "outcome")
        ),
        f"UPDATE orchestrator.batch SET label = 'x' WHERE batch_id = '{finished}'",
    )
    lost = pipeline.submit(mentors(2, first=50))
    pipeline.relay()
    run(
        owner, *(f"DELETE FROM orchestrator.{table} WHERE batch_id = '{lost}'" for table in ("batch", "batch_item", "batch_part"))
    )
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert (verdicts[finished], verdicts[lost]) == (Promoted.MERGED, Promoted.NOT_BORNE_OUT)
    batch = pipeline.status(finished).batch
    assert (batch.status, batch.label, batch.cancelled_at) == ("completed", None, None)


def test_a_label_that_was_changed_meanwhile_stays_whatever_version_another_batch_has(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    one, other = pipeline.submit(mentors(1), label="old"), pipeline.submit(mentors(1, first=10))
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, other, "new")
    pipeline.drain()
    before = versions(owner)
    assert before[str(other)] == before[str(one)] + 1
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):
        replay.compare(examples=EXAMPLES)
        # A manual change, which writes no edit.
        run(owner, f"UPDATE orchestrator.batch SET label = 'mine', version = version + 1 WHERE batch_id = '{one}'")
        promote(connection, one)
    assert pipeline.status(one).batch.label == "mine"


CONTRADICTED: dict[str, tuple[str, Callable[[UUID], OutgoingEvent]]] = {
    "outcomes of another organization": (
        "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.batch_part",
        lambda b: as_written_by("org-other", whole(b, 1, 2)),
    ),
    "a part of another organization": (
        "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.outcome; UPDATE orchestrator.batch_part SET part = 2",
        lambda b: as_written_by("org-other", whole(b, 1, 2)),
    ),
    "a part with other items": (
        "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.outcome",
        lambda b: whole(b, 99, 2),
    ),
    "a row with other words": (
        "TRUNCATE orchestrator.batch_item, orchestrator.batch_part",
        lambda b: whole(b, 1, 2, label="forged"),
    ),
}


@pytest.mark.parametrize(("statements", "forge"), CONTRADICTED.values(), ids=CONTRADICTED)
def test_an_event_that_contradicts_the_remaining_rows_is_not_believed(
    pipeline: RecordingPipeline, owner: Engine, statements: str, forge: Callable[[UUID], OutgoingEvent]
) -> None:
    # No activity contradicts it, too.
    batch_id = pipeline.submit([item("nobody"), item("no one")])
    pipeline.drain()
    run(owner, *statements.split(";"))
    before = projection(owner)
    forged = forge(batch_id)
    # Before the true one, and where the true one has expired.
    for read in ([*pipeline.written, (-1, forged)], instead(pipeline, forged)):
        verdicts, _ = promoted(pipeline.engine, read)
        assert verdicts[batch_id] is Promoted.NOT_BORNE_OUT
        assert projection(owner) == before


def test_an_activity_outweighs_a_submission(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The parts are lost, and all that the topics have is a forged event with other items and the same texts."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    run(owner, "TRUNCATE orchestrator.batch_part")
    before = projection(owner)
    forged = instead(pipeline, whole(batch_id, 99, 2))
    verdicts, after = promoted(pipeline.engine, forged)
    assert Promoted.NOT_BORNE_OUT not in verdicts.values()
    assert after.by_field == {"mentor_id": 2, "duration_minutes": 2}
    assert projection(owner)["batch_item"] == before["batch_item"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("mentor_id", "mentor-9"), ("activity_type", "call"), ("activity_date", "2026-03-24"), ("duration_minutes", 7)],
)
def test_each_value_of_an_activity_outweighs_that_of_a_submission(
    pipeline: RecordingPipeline, owner: Engine, field: str, value: object
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    run(owner, "TRUNCATE orchestrator.batch_part")
    before = projection(owner)
    submitted = written(pipeline, events.BATCH_SUBMITTED, batch_id)
    forged = changed(submitted, items=[each | {field: value} for each in orjson.loads(submitted.value)["items"]])
    verdicts, after = promoted(pipeline.engine, instead(pipeline, forged))
    assert Promoted.NOT_BORNE_OUT not in verdicts.values()
    assert after.by_field == {field: 2}
    assert projection(owner)["batch_item"] == before["batch_item"]


@pytest.mark.parametrize("lost", ["orchestrator.batch_item", "orchestrator.batch, orchestrator.batch_item"])
def test_an_activity_outweighs_a_submission_also_where_the_item_is_lost(
    pipeline: RecordingPipeline, owner: Engine, lost: str
) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    run(owner, f"TRUNCATE orchestrator.batch_part, {lost}")
    before = projection(owner)
    verdicts, _ = promoted(pipeline.engine, instead(pipeline, whole(batch_id, 99, 2)))
    assert verdicts == {batch_id: Promoted.NOT_BORNE_OUT}
    assert projection(owner) == before


def instead(pipeline: RecordingPipeline, forged: OutgoingEvent) -> list[tuple[int, OutgoingEvent]]:
    """What was written, with this event in place of the submission."""
    submitted = events.BATCH_SUBMITTED.encode()
    return [(n, forged if dict(event.headers)["ce_type"] == submitted else event) for n, event in pipeline.written]


def test_a_cancel_without_its_event_is_not_invented(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.call(cancel_batch, ADMIN, batch_id, "a reason")
    pipeline.drain()
    first = text("SELECT min(created_at) FROM orchestrator.outcome")
    run(
        owner,
        "TRUNCATE orchestrator.batch, orchestrator.batch_edit",
        "UPDATE orchestrator.outcome SET created_at = created_at + interval '1 hour' WHERE position = 1",
    )
    without = [(n, event) for n, event in pipeline.written if dict(event.headers)["ce_type"] != events.BATCH_CANCELLED.encode()]
    assert promoted(pipeline.engine, without)[0] == {batch_id: Promoted.MOVED}
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {batch_id: Promoted.MERGED}
    batch = pipeline.status(batch_id).batch
    assert (batch.status, batch.cancellation_reason, batch.cancelled_by) == ("cancelled", "a reason", ADMIN.subject)
    with owner.connect() as connection:
        assert batch.cancelled_at == connection.scalar(first)


def test_an_item_with_an_unknown_attempt_is_not_invented(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item("nobody"), *mentors(1)])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    run(owner, "DELETE FROM orchestrator.batch_item WHERE position = 0", "TRUNCATE orchestrator.item_history")
    before = projection(owner)
    without = [
        (n, event) for n, event in pipeline.written if dict(event.headers)["ce_type"] != events.BATCH_RETRY_REQUESTED.encode()
    ]
    assert promoted(pipeline.engine, without)[0] == {batch_id: Promoted.MOVED}
    assert projection(owner) == before
    assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
    assert [one.attempt for one in pipeline.status(batch_id).items] == [2, 1]


@pytest.mark.parametrize("kind", ["registered", "cancelled"])
def test_an_item_whose_outcome_is_lost_does_not_become_pending_again(
    pipeline: RecordingPipeline, owner: Engine, kind: str
) -> None:
    """Its activity shows that it is registered, or its batch that it was cancelled. Neither a result nor a cancel was read."""
    batch_id = pipeline.submit([*mentors(1), item("nobody"), *mentors(1, first=9)])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:2])
    if kind == "cancelled":
        pipeline.call(cancel_batch, ADMIN, batch_id, None)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    pipeline.relay()
    lost = 0 if kind == "registered" else 2
    run(owner, f"DELETE FROM orchestrator.outcome WHERE position = {lost}", "UPDATE orchestrator.batch SET label = 'x'")
    before = projection(owner)["batch_item"]
    submission = [
        (n, event) for n, event in pipeline.written if dict(event.headers)["ce_type"] == events.BATCH_SUBMITTED.encode()
    ]
    promoted(pipeline.engine, submission)
    assert projection(owner)["batch_item"] == before


def test_a_completion_stays_although_the_topics_no_longer_have_it(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """Its event has expired, or is older than the time at which the replay begins. The tables still have it."""
    pipeline.submit([*mentors(2), item("nobody")])
    pipeline.drain()
    before = projection(owner)
    written = [
        (offset, event) for offset, event in pipeline.written if dict(event.headers)["ce_type"] != events.BATCH_COMPLETED.encode()
    ]
    assert len(written) == len(pipeline.written) - 1
    run(owner, "UPDATE orchestrator.batch_item SET duration_minutes = 1 WHERE position = 0")
    verdicts, _ = promoted(pipeline.engine, written)
    assert list(verdicts.values()) == [Promoted.MERGED]
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []
