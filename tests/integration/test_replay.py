"""A replay rebuilds from the topics what the tables have, whatever the order of reading, and restores what the tables have lost."""

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.event import listen, remove

from orchestrator.batches.model import CorrectedItem, NewBatch, RetryRequest
from orchestrator.batches.operations import delete_batch, relabel_batch, retry_failed_items, submit_bulk_registration
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.replay.rebuild import ReadRecord, Replay
from orchestrator.storage.database import transact
from orchestrator.storage.locks import share_batches
from orchestrator.storage.people import ForgettingKey, remember_forgotten
from orchestrator.verification.verify import verify
from schemas import event_builders, events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.audit import tampering
from tests.support.closing import close
from tests.support.erasing import erase
from tests.support.forged import ours
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, TIMESTAMP_MS, item, mentors, record
from tests.support.replaying import (
    EXAMPLES,
    RecordingPipeline,
    compared,
    everything,
    projection,
    promoted,
    recording,
    replayed,
    run,
    small,
    versions,
)
from tests.support.revoking import revoke
from tests.support.upstream import upstream
from tests.support.waiting import eventually


@pytest.fixture
def pipeline(settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingPipeline]:
    monkeypatch.setattr(event_builders, "MAX_CANCELLED_RUNS", 2)
    with recording(settings, engine, mentor_count=700) as pipeline:
        yield pipeline


def outbox(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM orchestrator.outbox")).scalar_one())


def test_the_topics_agree_with_the_tables_in_any_order_and_number(pipeline: RecordingPipeline, settings: Settings) -> None:
    everything(pipeline)
    before = projection(pipeline.engine)
    order = random.Random(5)
    for _ in range(4):
        shuffled = [*pipeline.written, *order.choices(pipeline.written, k=300)]
        order.shuffle(shuffled)
        comparison = compared(pipeline.engine, shuffled)
        assert comparison.differences == []
        assert comparison.in_motion == []
    assert (comparison.batches, comparison.items) == (11, 537)
    assert projection(pipeline.engine) == before
    assert verify(pipeline.engine, settings).breaches == []


# What a bad restore, a bug or a manual change may do to the projection. None of it touches outcomes or activities.
DESTROYED = {
    "statuses": "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL, error = NULL",
    "counts": "UPDATE orchestrator.batch SET status = 'processing', pending = total_items, completed = 0, failed = 0, cancelled = 0,"
    " completed_at = NULL",
    "attempts": "UPDATE orchestrator.batch_item SET attempt = 1, status = 'pending', activity_id = NULL, error = NULL",
    "wrong answers": "UPDATE orchestrator.batch_item SET status = 'failed', activity_id = NULL, error = '{\"code\": \"x\"}'",
    "wrong successes": "UPDATE orchestrator.batch_item SET status = 'success', activity_id = gen_random_uuid(), error = NULL",
    "values": "UPDATE orchestrator.batch_item SET mentor_id = 'x', activity_date = '1999-01-01', item_id = gen_random_uuid()",
    "edits": "UPDATE orchestrator.batch SET label = 'x', coordinator_id = 'x', cancelled_at = NULL, deleted_at = NULL, retry_number = 0,"
    " status = 'partial', completed_at = NULL",
    "some items": "DELETE FROM orchestrator.batch_item WHERE position % 2 = 1",
    "items": "TRUNCATE orchestrator.batch_item",
    "batches": "TRUNCATE orchestrator.batch",
    "both": "TRUNCATE orchestrator.batch, orchestrator.batch_item",
    "history too": "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history",
}


@pytest.mark.parametrize("statement", DESTROYED.values(), ids=DESTROYED)
def test_a_destroyed_projection_is_rebuilt(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, statement: str
) -> None:
    everything(pipeline)
    before, versions_before = projection(owner, with_notes=False), versions(owner)
    run(owner, statement)
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert set(verdicts.values()) == {Promoted.MERGED}
    assert (after.differences, after.in_motion) == ([], [])
    assert projection(owner, with_notes=False) == before
    assert {batch: version for batch, version in versions(owner).items() if version < versions_before[batch]} == {}
    assert verify(pipeline.engine, settings).breaches == []
    assert outbox(owner) == 0, "the promotion must publish nothing"
    pipeline.drain()
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE orchestrator.batch_item SET revoked_at = NULL, revoked_by = NULL, revocation_reason = NULL",
        "UPDATE orchestrator.batch_item SET revocation_reason = 'another' WHERE revoked_at IS NOT NULL",
        "UPDATE orchestrator.batch_item SET revoked_by = 'another' WHERE revoked_at IS NOT NULL",
        "UPDATE orchestrator.batch_item SET revoked_at = revoked_at + interval '1 microsecond'",
        "UPDATE orchestrator.batch_item SET revoked_at = now(), revoked_by = 'boss', revocation_reason = 'none' WHERE position = 1",
        "UPDATE orchestrator.batch SET revoked = 0",
    ],
)
def test_a_damaged_revocation_is_detected_and_restored(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, damage: str
) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(0), ids.item_id(2)])
    pipeline.drain()
    before = projection(owner)
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {}
    run(owner, damage)
    assert verify(pipeline.engine, settings).breaches != []
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize(
    "lost", ["orchestrator.batch_item", "orchestrator.batch, orchestrator.batch_item, orchestrator.item_history"]
)
def test_a_replay_brings_no_erased_notes_back_and_reports_no_difference(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, lost: str
) -> None:
    """Upstream events carry notes into the topic. Of the items, one was registered, one keeps its notes, and one failed twice."""
    batch_id = new_batch_id()
    event = upstream(batch_id, range(3), part=1, parts=1, total=3, first_mentor=699)
    pipeline.queues[Topic.BATCHES].append(event)
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    for position in (0, 2):
        assert erase(pipeline, batch_id, position)
    assert compared(pipeline.engine, pipeline.written).differences == []
    run(owner, f"TRUNCATE {lost}")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert notes_of(owner, batch_id) == ["seen at home 1"]
    assert verify(pipeline.engine, settings).breaches == []


def notes_of(engine: Engine, batch_id: UUID) -> Sequence[str]:
    with engine.connect() as connection:
        held = text(
            "SELECT notes FROM orchestrator.batch_item WHERE batch_id = :batch_id AND notes IS NOT NULL UNION ALL"
            " SELECT submitted ->> 'notes' FROM orchestrator.item_history WHERE batch_id = :batch_id AND submitted ->> 'notes' IS NOT NULL"
        )
        return connection.execute(held, {"batch_id": batch_id}).scalars().all()


def test_a_replay_does_not_judge_anew_what_a_period_closed_since_then_covers(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    registered, revoked = pipeline.submit(mentors(3)), pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    revoke(pipeline, revoked)
    close(pipeline, DAY)
    refused = pipeline.submit(mentors(2, first=20))
    pipeline.drain()
    close(pipeline, None)
    pipeline.drain()
    before = projection(owner)
    assert compared(pipeline.engine, pipeline.written).differences == []
    close(pipeline, DAY)
    run(owner, DESTROYED["both"])
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == (dict.fromkeys((registered, revoked, refused), Promoted.MERGED), [])
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []


def test_a_forged_revocation_is_shown_and_revokes_nothing(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    batch_id = pipeline.submit([*mentors(2), item("nobody")])
    pipeline.drain()
    before = projection(owner)
    forged, _ = event_builders.activities_revoked(
        batch_id=batch_id,
        organization_id=ORGANIZATION,
        revocation=9,
        reason="forged",
        revoked_by="nobody",
        revoked_positions=[(0, 700_000)],
        time=pipeline.status(batch_id).batch.submitted_at,
        trace_id="1" * 32,
    )
    verdicts, after = promoted(pipeline.engine, [*pipeline.written, (10_000, forged)])
    assert verdicts == {batch_id: Promoted.UNCHANGED}
    # A failed item can't be revoked.
    assert after.by_field == {"revoked": 1, "revoked_at": 2, "revoked_by": 2, "revocation_reason": 2}
    assert projection(owner) == before
    assert verify(pipeline.engine, settings).breaches == []


def test_a_batch_that_the_database_does_not_confirm_is_not_restored(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    batches = everything(pipeline)
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history, orchestrator.batch_part")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    missing = {batches["running"], batches["stopped"]}
    assert {batch for batch, verdict in verdicts.items() if verdict is Promoted.NOT_BORNE_OUT} == missing
    assert set(after.different_batches) == missing
    assert verify(pipeline.engine, settings).breaches == []


def test_promoting_any_part_of_the_topics_any_number_of_times_changes_nothing(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    small(pipeline)
    before, versions_before = projection(owner), versions(owner)
    written = list(pipeline.written)
    order = random.Random(7)
    parts = [
        written[: len(written) // 3],
        written[len(written) // 3 :],
        *(order.sample(written, k=len(written) // 2) for _ in range(3)),
    ]
    for part in parts:
        verdicts, _ = promoted(pipeline.engine, part)
        assert set(verdicts.values()) <= {Promoted.UNCHANGED}
    assert (projection(owner), versions(owner)) == (before, versions_before)


def test_promoting_again_changes_nothing(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    with replayed(pipeline.engine, pipeline.written) as (_, connection):
        assert {promote(connection, batch) for batch in batches.values()} == {Promoted.MERGED}
        before = (projection(owner), versions(owner))
        assert {promote(connection, batch) for batch in batches.values()} == {Promoted.UNCHANGED}
    assert (projection(owner), versions(owner)) == before


def test_an_attempt_that_waits_for_its_outcome_is_not_reset(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    batch_id = pipeline.submit([item("nobody"), item("mentor-1")])
    pipeline.drain()
    request = RetryRequest(corrections=[CorrectedItem(DerivedIds(batch_id).item_id(0), {"mentor_id": "mentor-2"})])
    pipeline.call(retry_failed_items, ADMIN, batch_id, request)
    pipeline.relay()
    before = projection(owner)
    # Only the live row and the topics know of the attempt now.
    run(owner, "TRUNCATE orchestrator.item_history", "UPDATE orchestrator.batch SET label = 'x'")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert projection(owner) == before
    # Only the history knows of it.
    run(owner, "TRUNCATE orchestrator.batch_item")
    promoted(pipeline.engine, pipeline.written)
    assert projection(owner) == before
    # Nothing knows of it. The decided attempt is left, and has to be retried again.
    run(owner, "TRUNCATE orchestrator.batch_item, orchestrator.item_history")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert [one.attempt for one in pipeline.status(batch_id).items] == [1, 1]
    assert {each.field for each in after.differences} >= {"attempt", "status"}
    assert verify(pipeline.engine, settings).breaches == []


def test_notes_are_in_no_difference_and_are_restored(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    batches["upstream"] = new_batch_id()
    refused = upstream(batches["upstream"], [0], part=1, parts=1, total=1, first_mentor=9_000)
    pipeline.queues[Topic.BATCHES].append(refused)
    pipeline.drain()
    before = projection(owner)["batch_item"]
    run(owner, "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL, error = NULL, mentor_id = 'x'")
    assert "a note" not in str(compared(pipeline.engine, pipeline.written))
    promoted(pipeline.engine, pipeline.written)
    assert projection(owner)["batch_item"] == before, "the live rows must keep their notes"
    run(owner, "TRUNCATE orchestrator.batch_item")
    comparison = compared(pipeline.engine, pipeline.written)
    assert "a note" not in str(comparison)
    assert "seen at home" not in str(comparison)
    promoted(pipeline.engine, pipeline.written)
    # From the activity, from the history, and from the service that sent them.
    assert projection(owner)["batch_item"] == before


@pytest.mark.parametrize("of_all", [False, True])
def test_an_items_own_flag_is_rebuilt(pipeline: RecordingPipeline, owner: Engine, of_all: bool) -> None:
    flags = (True, False)
    items = [
        each._replace(values=each.values._replace(override_duplicates=flag)) for each, flag in zip(mentors(2), flags, strict=True)
    ]
    batch = NewBatch(new_batch_id(), COORDINATOR, None, of_all, items, "1" * 32)
    pipeline.call(submit_bulk_registration, ADMIN, batch)
    pipeline.drain()
    before = projection(owner)
    run(owner, "UPDATE orchestrator.batch_item SET override_duplicates = NOT override_duplicates")
    _, left = promoted(pipeline.engine, pipeline.written)
    assert left.differences == []
    assert projection(owner) == before


def test_a_batch_in_motion_is_not_compared(pipeline: RecordingPipeline, owner: Engine) -> None:
    finished, queued = (pipeline.submit(mentors(2, first=first)) for first in (1, 3))
    pipeline.drain()
    run(owner, f"UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL WHERE batch_id = '{queued}'")
    last = max(offset for offset, event in pipeline.written if event.topic is Topic.RESULTS)
    # The aggregator has not handled the last result.
    run(owner, f"INSERT INTO orchestrator.consumer_progress VALUES ('results', 0, {last}, now())")
    waiting = pipeline.submit(mentors(2, first=5))
    with replayed(pipeline.engine, pipeline.written) as (replay, _):
        meanwhile = pipeline.submit(mentors(2, first=7))
        pipeline.call(relabel_batch, ADMIN, finished, "edited meanwhile")
        comparison = replay.compare(examples=EXAMPLES)
    assert comparison.differences == []
    assert set(comparison.in_motion) == {finished, queued}
    assert comparison.not_covered == [waiting], "an event in the outbox is on no topic yet"
    assert meanwhile not in comparison.not_covered
    # The batch is at rest after the consumers have passed its events.
    run(owner, f"UPDATE orchestrator.consumer_progress SET next_offset = {last + 1}")
    pipeline.relay()
    assert compared(pipeline.engine, pipeline.written).different_batches == [queued]
    # An edit of it waits in the outbox.
    pipeline.call(relabel_batch, ADMIN, finished, "edited again")
    comparison = compared(pipeline.engine, pipeline.written)
    assert (comparison.different_batches, comparison.in_motion) == ([queued], [finished])


def test_a_batch_that_changes_while_it_is_compared_is_as_it_was(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    meanwhile: list[str] = []
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):

        def change(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "CREATE TEMPORARY TABLE replay_compared" in statement:
                meanwhile.append(statement)
                pipeline.call(relabel_batch, ADMIN, batch_id, "edited meanwhile")
                run(owner, "UPDATE orchestrator.batch_item SET attempt = 9")

        listen(connection, "after_cursor_execute", change)
        comparison = replay.compare(examples=EXAMPLES)
        remove(connection, "after_cursor_execute", change)
    assert (len(meanwhile), comparison.differences, comparison.in_motion) == (1, [], [])


def test_one_batch_alone_and_batches_that_are_not_covered(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    run(owner, "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL, error = NULL")
    only = batches["corrected"]
    comparison = compared(pipeline.engine, pipeline.written, only=only)
    assert (comparison.batches, comparison.different_batches, comparison.not_covered) == (1, [only], [])
    without = [
        (offset, event)
        for offset, event in pipeline.written
        if events.BATCH_SUBMITTED.encode() not in dict(event.headers)["ce_type"]
    ]
    comparison = compared(pipeline.engine, without)
    assert (comparison.batches, comparison.differences) == (0, [])
    assert set(comparison.not_covered) == set(batches.values())
    assert compared(pipeline.engine, without, only=only).not_covered == [only]


def test_purged_batches_are_not_restored(pipeline: RecordingPipeline, owner: Engine) -> None:
    batches = small(pipeline)
    pipeline.call(delete_batch, ADMIN, batches["completed"])
    pipeline.drain()
    run(
        owner,
        "INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, content_hash, now() FROM orchestrator.batch"
        " WHERE deleted_at IS NOT NULL",
        *(
            f"DELETE FROM orchestrator.{table} WHERE batch_id = '{batches['completed']}'"
            for table in ("batch", "batch_item", "batch_part", "outcome")
        ),
    )
    comparison = compared(pipeline.engine, pipeline.written)
    assert comparison.differences == []
    assert batches["completed"] not in comparison.not_covered
    with replayed(pipeline.engine, pipeline.written) as (_, connection):
        run(owner, f"DELETE FROM orchestrator.batch WHERE batch_id = '{batches['corrected']}'")
        run(owner, f"INSERT INTO orchestrator.tombstone VALUES ('{batches['corrected']}', '{ORGANIZATION}', '', now())")
        assert promote(connection, batches["corrected"]) is Promoted.PURGED


def test_forged_events_are_shown_and_never_promoted(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    batches = small(pipeline)
    failed = pipeline.submit([item("nobody"), item("mentor-20")])
    running = pipeline.submit(mentors(2, first=30))
    pipeline.relay()
    commands = pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES)).events
    pipeline.queues[Topic.COMMANDS].clear()
    pipeline.handle(pipeline.registration, [event for event in commands if str(failed) in event.value.decode()])
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    pipeline.relay()
    before = (projection(owner), versions(owner))
    counts = {"total_items": 2, "pending": 0, "completed": 0, "failed": 0, "cancelled": 2}
    item_id = DerivedIds(running).item_id(0)
    forged = [
        ours(events.BATCH_RETRY_REQUESTED, failed, retry_number=9, items=[{"position": 0, "attempt": 2}]),
        ours(events.BATCH_CANCELLED, running, **counts, cancelled_positions=[[0, 1, 1]]),
        ours(
            events.SUCCEEDED,
            running,
            item_id=item_id,
            position=0,
            attempt=1,
            activity_id=DerivedIds(running).activity_id(0),
        ),
        upstream(new_batch_id(), [0], part=1, parts=1, total=1),
    ]
    written = [*pipeline.written, *((100_000 + offset, event) for offset, event in enumerate(forged))]
    verdicts, after = promoted(pipeline.engine, written)
    assert verdicts.pop(UUID(forged[-1].key)) is Promoted.NOT_BORNE_OUT
    assert verdicts == {failed: Promoted.UNCHANGED, running: Promoted.UNCHANGED}
    assert set(after.different_batches) >= {failed, running}
    assert (projection(owner), versions(owner)) == before
    assert batches["completed"] not in after.different_batches
    # A batch with this id and other content. The hashes of its parts tell which one is true, even if the row is lost.
    other = upstream(batches["completed"], range(2), part=1, parts=1, total=2)
    run(owner, f"DELETE FROM orchestrator.batch_item WHERE batch_id = '{batches['completed']}'")
    verdicts, _ = promoted(pipeline.engine, [(-1, other), *pipeline.written])
    assert verdicts[batches["completed"]] is Promoted.NOT_BORNE_OUT
    verdicts, after = promoted(pipeline.engine, [*pipeline.written, (100_000, other)])
    assert verdicts == {batches["completed"]: Promoted.MERGED}
    assert projection(owner) == before[0]


POISON = [
    b"",
    b"\xff",
    b"[]",
    b'"x"',
    b"{}",
    b'{"batch_id": "0", "position": 0, "attempt": 1}',
    b'{"batch_id": "BATCH", "position": true, "attempt": 1}',
    b'{"batch_id": "BATCH", "position": 0.5, "attempt": 1}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 0}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 9999999999}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 2, "error": "text"}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 2, "error": {"code": "\\u0000"}}',
    b'{"batch_id": "BATCH", "organization_id": "o", "position": 0, "attempt": 2, "error": {"code": '
    + b"[" * 300
    + b"]" * 300
    + b"}}",
    b'{"batch_id": "BATCH", "organization_id": "o", "position": 0, "attempt": 2, "error": ' + b'{"a":' * 400 + b"1" + b"}" * 401,
    b'{"batch_id": "BATCH", "position": 0, "attempt": 2, "activity_id": "x\\n\\\\.\\n"}',
    b'{"batch_id": "BATCH\\t0\\t1\\tcancelled\\t\\\\N\\t\\\\N\\n", "position": 0, "attempt": 2}',
]


@pytest.mark.parametrize("is_somebody_forgotten", [False, True])
def test_unreadable_records_are_only_counted(pipeline: RecordingPipeline, owner: Engine, is_somebody_forgotten: bool) -> None:
    key = ForgettingKey("a key of 32 characters or of more")
    if is_somebody_forgotten:
        with owner.begin() as connection:
            remember_forgotten(connection, key, ORGANIZATION, key.words(ORGANIZATION, "somebody", None), "a pseudonym")
    batches = small(pipeline)
    poison = [value.replace(b"BATCH", str(batches["completed"]).encode()) for value in POISON]
    good = pipeline.written
    bad: list[OutgoingEvent] = [OutgoingEvent(Topic.RESULTS, "", (), value) for value in poison]
    bad += [OutgoingEvent(Topic.BATCHES, "", good[0][1].headers, value) for value in poison]
    bad += [
        ours(
            events.BATCH_RETRY_REQUESTED,
            batches["completed"],
            retry_number=1,
            items=[{"position": 0, "attempt": 2, "correction": change}],
        )
        for change in ({"activity_date": "soon"}, {"duration_minutes": 2**40}, {"override_duplicates": "x"}, {"mentor_id": "\0"})
    ]
    bad.append(ours(events.BATCH_RETRY_REQUESTED, batches["completed"], retry_number=1, items=[{"position": 0, "attempt": 1}]))
    bad.append(ours("no.such.type", batches["completed"]))
    for event in (
        ours(
            events.BATCH_RETRY_REQUESTED,
            batches["completed"],
            retry_number=1,
            retried_by="NAME",
            items=[{"position": 0, "attempt": 2}],
        ),
        ours(
            events.ACTIVITIES_REVOKED,
            batches["completed"],
            revocation=2,
            reason="x",
            revoked_by="NAME",
            revoked_at="",
            revoked_positions=[[0, 0]],
        ),
    ):
        bad += [event._replace(value=event.value.replace(b"NAME", name)) for name in (b"\\ud800", b"\\u0000")]
    mixed = [*good, *((100_000 + offset, event) for offset, event in enumerate(bad))]
    random.Random(3).shuffle(mixed)
    with replayed(pipeline.engine, mixed, key=key) as (replay, _):
        assert replay.compare(examples=EXAMPLES).differences == []
        assert replay.unreadable == len(bad)


def test_an_error_is_read_with_as_many_levels_as_are_written(pipeline: RecordingPipeline, owner: Engine) -> None:
    key = ForgettingKey("a key of 32 characters or of more")
    with owner.begin() as connection:
        remember_forgotten(connection, key, ORGANIZATION, key.words(ORGANIZATION, "somebody", None), "a pseudonym")
    deep = b'{"batch_id": "%s", "organization_id": "o", "position": 0, "attempt": 2, "error": %s1%s}' % (
        str(new_batch_id()).encode(),
        b'{"a":' * 254,
        b"}" * 254,
    )
    with replayed(pipeline.engine, [(0, OutgoingEvent(Topic.RESULTS, "", (), deep))], key=key) as (replay, _):
        assert replay.unreadable == 0


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_forged_time_at_the_end_of_the_calendar_does_not_count(pipeline: RecordingPipeline, time: str) -> None:
    event = ours(events.BATCH_DELETED, small(pipeline)["completed"], version=2)
    headers = tuple((name, time.encode() if name == "ce_time" else value) for name, value in event.headers)
    read = ReadRecord(event.topic, 0, 0, TIMESTAMP_MS, headers, event.value)
    with pipeline.engine.connect() as connection:
        replay = Replay(connection)
        replay.add([read])
        [at] = connection.execute(text("SELECT at FROM replay_delete")).scalars()
        connection.invalidate()
    assert at == datetime.fromtimestamp(TIMESTAMP_MS / 1000, UTC)


def test_a_completion_that_was_never_announced_is_left_to_the_aggregator(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """A replay publishes nothing. If it folded what the aggregator had not, the completion event would be lost."""
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain_until_registered()
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {batch_id: Promoted.MERGED}
    assert after.by_field["status"] == 4, "three items and their batch must wait"
    assert verify(pipeline.engine, settings).breaches == []
    pipeline.drain()
    completions = [
        event for event in pipeline.take(Topic.LIFECYCLE) if dict(event.headers)["ce_type"] == events.BATCH_COMPLETED.encode()
    ]
    assert len(completions) == 1
    assert pipeline.status(batch_id).batch.status == "completed"
    assert compared(pipeline.engine, pipeline.written).differences == []


def test_promotion_races_with_folding(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    batches = [pipeline.submit([*mentors(20, first=1 + 20 * number), item("nobody")]) for number in range(5)]
    pipeline.drain_until_registered()
    results = pipeline.take(Topic.RESULTS)
    pipeline.handle(pipeline.aggregator, results[::3])
    run(owner, f"DELETE FROM orchestrator.batch_item WHERE position % 2 = 1 AND batch_id = '{batches[0]}'")
    run(owner, f"DELETE FROM orchestrator.batch WHERE batch_id = '{batches[1]}'")
    barrier = threading.Barrier(3)

    def fold(chosen: Sequence[OutgoingEvent]) -> None:
        barrier.wait()
        for first in range(0, len(chosen), 4):
            records = [record(event) for event in chosen[first : first + 4]]
            transact(pipeline.engine, partial(pipeline.aggregator.handle, records=records))

    def promote_all() -> list[Promoted]:
        with replayed(pipeline.engine, pipeline.written) as (_, connection):
            barrier.wait()
            return [promote(connection, batch) for _ in range(5) for batch in batches]

    with ThreadPoolExecutor(3) as threads:
        folding = [threads.submit(fold, random.Random(seed).sample(results, k=len(results))) for seed in (1, 2)]
        promoting = threads.submit(promote_all)
        for done in folding:
            done.result()
        assert set(promoting.result()) <= {Promoted.MERGED, Promoted.UNCHANGED}
    # The sweeper folds what was folded before its row was restored. Here the results come once more instead.
    pipeline.handle(pipeline.aggregator, results)
    views = [pipeline.status(batch).batch for batch in batches]
    assert {(view.status, view.counts.completed, view.counts.failed) for view in views} == {("partial", 20, 1)}
    pipeline.relay()
    completions = [event.key for event in pipeline.take(Topic.LIFECYCLE)]
    assert sorted(completions) == sorted(map(str, batches)), "each batch must have one completion event"
    assert verify(pipeline.engine, settings).breaches == []


def test_promotion_locks_the_batch_exclusively(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    run(owner, "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL")
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with (
        replayed(pipeline.engine, pipeline.written) as (_, connection),
        ThreadPoolExecutor(1) as threads,
        owner.connect() as looking,
        pipeline.engine.connect() as registering,
    ):
        share_batches(registering, [str(batch_id)])
        promoting = threads.submit(promote, connection, batch_id)
        eventually(lambda: looking.scalar(waiting) == 1, what="a promotion that waits for the registration")
        registering.rollback()
        assert promoting.result() is Promoted.MERGED


def test_a_batch_that_the_database_lost_completely_is_taken_in_again_by_its_consumers(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """After a restore to an earlier time, a replay invents nothing. The consumers' groups are set back instead."""
    kept = pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    forgotten = pipeline.submit([*mentors(2), item("nobody")], label="Monday group")
    pipeline.drain()
    run(
        owner,
        *(
            tampering(f"DELETE FROM {table} WHERE batch_id = '{forgotten}'")
            for table in (
                "orchestrator.batch",
                "orchestrator.batch_item",
                "orchestrator.batch_part",
                "orchestrator.outcome",
                "registration.activity",
                "registration.audit",
            )
        ),
    )
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {forgotten: Promoted.NOT_BORNE_OUT}
    pipeline.forget_what_was_published()
    pipeline.queues[Topic.BATCHES] += [event for _, event in pipeline.written if event.topic is Topic.BATCHES]
    pipeline.drain()
    views = [pipeline.status(batch).batch for batch in (kept, forgotten)]
    assert [(view.status, view.label, view.counts.completed) for view in views] == [
        ("completed", None, 2),
        ("partial", "Monday group", 2),
    ]
    assert verify(pipeline.engine, settings).breaches == []
    assert compared(pipeline.engine, pipeline.written).differences == []
    # Both completions of the batch are on the topic. The second one counts.
    before = projection(owner)
    run(owner, "TRUNCATE orchestrator.batch")
    promoted(pipeline.engine, pipeline.written)
    assert projection(owner) == before
