"""Row 55 of the fault catalogue: a replay promotes nothing that the database does not confirm, no matter who wrote the event."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.operations import cancel_batch, delete_batch, relabel_batch
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted
from orchestrator.replay.rebuild import ReadRecord, Replay
from orchestrator.verification.verify import verify
from schemas import event_builders, events
from schemas.envelope import SOURCE, OutgoingEvent, Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.audit import tampering
from tests.support.forged import as_written_by, completion, named, ours, rejection, result, revocation, whole
from tests.support.pipeline import ADMIN, DAY, ORGANIZATION, TIMESTAMP_MS, Pipeline, item, mentors
from tests.support.replaying import RecordingPipeline, compared, projection, promoted, replayed, run, small, versions
from tests.support.revoking import revoke
from tests.support.upstream import upstream


@dataclass(frozen=True)
class Batches:
    """A batch in each state that an event could claim to change."""

    finished: UUID
    """Completed, and relabelled twice."""
    failed: UUID
    running: UUID
    cancelled: UUID
    stopped: UUID
    """Cancelled before its parts had come."""
    undone: UUID
    """Completed, and the first of its two items revoked."""


@pytest.fixture
def batches(pipeline: RecordingPipeline) -> Batches:
    finished = pipeline.submit(mentors(2), label="first")
    failed = pipeline.submit([item("nobody"), item("mentor-9")])
    pipeline.drain()
    for label in ("second", "third"):
        pipeline.call(relabel_batch, ADMIN, finished, label)
    cancelled = pipeline.submit(mentors(4, first=10))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:2])
    pipeline.call(cancel_batch, ADMIN, cancelled, "a mistake")
    stopped = new_batch_id()
    pipeline.queues[Topic.BATCHES] += [upstream(stopped, range(2), part=1, parts=2, total=4, first_mentor=650)]
    pipeline.drain()
    pipeline.call(cancel_batch, ADMIN, stopped, None)
    pipeline.drain()
    undone = pipeline.submit(mentors(2, first=20))
    pipeline.drain()
    revoke(pipeline, undone, item_ids=[DerivedIds(undone).item_id(0)])
    pipeline.drain()
    running = pipeline.submit(mentors(2, first=30))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    return Batches(finished, failed, running, cancelled, stopped, undone)


def cancel(batch: UUID, total: int, *runs: tuple[int, int, int]) -> OutgoingEvent:
    counts = {"total_items": total, "pending": 0, "completed": 0, "failed": 0, "cancelled": total}
    return ours(events.BATCH_CANCELLED, batch, **counts, reason="forged", cancelled_by="x", cancelled_positions=runs)


def period(closed_through: date | None, previously: date | None) -> list[OutgoingEvent]:
    """A closed period of which the database knows nothing. Its key is the organization."""
    return [
        event_builders.period_changed(
            organization_id=ORGANIZATION,
            number=1,
            closed_through=closed_through,
            previously=previously,
            reason="forged",
            changed_by="x",
            time=datetime(2026, 3, 26, 10, tzinfo=UTC),
            trace_id="0" * 31 + "1",
        )
    ]


def checkpoint() -> list[OutgoingEvent]:
    """A checkpoint of a log that the database does not have. Its key is the organization."""
    return [
        event_builders.checkpoint_signed(
            organization_id=ORGANIZATION,
            log=1,
            origin="bulkreg.test/org",
            size=3,
            root=b"r" * 32,
            checkpoint="a note",
            time=datetime(2026, 3, 26, 10, tzinfo=UTC),
            trace_id="0" * 31 + "1",
        )
    ]


ERROR = {"code": "internal_error", "message": "forged", "retryable": True}

# By the event that is forged. Every type that a replay reads is in this table.
FORGED: dict[str, Callable[[Batches], list[OutgoingEvent]]] = {
    "PeriodClosed": lambda b: period(date(2026, 12, 31), None),
    "PeriodReopened": lambda b: period(None, date(2026, 12, 31)),
    "CheckpointSigned": lambda b: checkpoint(),
    "BatchDeleted, finished": lambda b: [ours(events.BATCH_DELETED, b.finished, version=6)],
    "BatchDeleted, running": lambda b: [ours(events.BATCH_DELETED, b.running, version=2)],
    "BatchDeleted, cancelled": lambda b: [ours(events.BATCH_DELETED, each, version=9) for each in (b.cancelled, b.stopped)],
    "BatchRelabelled, new version": lambda b: [ours(events.BATCH_RELABELLED, b.finished, version=2**31 - 1, label="forged")],
    "BatchRelabelled, its version": lambda b: [
        ours(events.BATCH_RELABELLED, b.finished, version=version, label="forged") for version in range(9)
    ],
    "BatchRelabelled, old label": lambda b: [ours(events.BATCH_RELABELLED, b.finished, version=99, label="second")],
    "BatchRelabelled, others": lambda b: [
        ours(events.BATCH_RELABELLED, each, version=2, label="forged") for each in (b.failed, b.running, b.cancelled, b.stopped)
    ],
    "BatchCancelled, running": lambda b: [cancel(b.running, 2, (0, 1, 1))],
    "BatchCancelled, running, without items": lambda b: [cancel(b.running, 2)],
    "BatchCancelled, finished": lambda b: [cancel(b.finished, 2, (0, 1, 1))],
    "BatchCancelled, finished, without items": lambda b: [cancel(b.finished, 2), cancel(b.failed, 2)],
    "BatchCancelled, cancelled in other words": lambda b: [cancel(b.cancelled, 4), cancel(b.stopped, 4, (0, 3, 1))],
    "BatchCancelled, every position a thousand times": lambda b: [cancel(b.running, 2, *[(0, 2**20 - 1, 1)] * 1_000)],
    "BatchRetryRequested": lambda b: [
        ours(events.BATCH_RETRY_REQUESTED, b.failed, retry_number=1, items=[{"position": 0, "attempt": 2}]),
        ours(events.BATCH_RETRY_REQUESTED, b.running, retry_number=1, items=[{"position": 0, "attempt": 2}]),
    ],
    "BatchRetryRequested, of huge numbers": lambda b: [
        ours(
            events.BATCH_RETRY_REQUESTED,
            b.failed,
            retry_number=2**31 - 1,
            items=[{"position": 0, "attempt": 2**31 - 1, "correction": {"mentor_id": "mentor-99"}}],
        )
    ],
    "ActivitiesRevoked": lambda b: [revocation(each, (0, 1)) for each in (b.finished, b.failed, b.running, b.cancelled)],
    "ActivitiesRevoked, what is revoked": lambda b: [revocation(b.undone, (0, 0))],
    "ActivitiesRevoked, what is left": lambda b: [revocation(b.undone, (1, 1)), revocation(b.undone, (0, 1))],
    "ActivitiesRevoked, for services": lambda b: [revocation(b.finished, (0, 1))._replace(topic=Topic.LIFECYCLE)],
    "ActivitiesRevoked, every position": lambda b: [revocation(b.finished, (0, 2**20 - 1))],
    "BatchSubmitted, other items": lambda b: [whole(b.finished, 99, 2), whole(b.running, 99, 2), whole(b.stopped, 99, 4)],
    "BatchSubmitted, another label": lambda b: [whole(b.finished, 1, 2, label="forged")],
    "BatchSubmitted, as if by HTTP": lambda b: [
        named("api", whole(new_batch_id(), 99, 2)),
        named("api", whole(b.finished, 1, 2)),
    ],
    "BatchSubmitted, as if by the product": lambda b: [
        named("/bulk-registration", whole(each, 99, 2, submitted_by="boss", channel="api")) for each in (new_batch_id(), b.failed)
    ],
    "RegistrationSucceeded": lambda b: [
        result(events.SUCCEEDED, b.running, 0, activity_id=DerivedIds(b.running).activity_id(0)),
        result(events.SUCCEEDED, b.failed, 0, attempt=2, activity_id=DerivedIds(b.failed).activity_id(0)),
        result(events.SUCCEEDED, b.finished, 0, attempt=9, activity_id=DerivedIds(b.failed).activity_id(0)),
    ],
    "RegistrationFailed": lambda b: [
        result(events.FAILED, each, 0, error=ERROR) for each in (b.running, b.finished, b.cancelled)
    ],
    "RegistrationCancelled": lambda b: [result(events.CANCELLED, each, 0) for each in (b.running, b.finished, b.failed)],
    "BatchCompleted": lambda b: [completion(b.running, "completed", 2), completion(b.failed, "completed", 2)],
    "BatchRejected": lambda b: [rejection(each) for each in (b.finished, b.running, b.stopped)],
}


def with_forged(pipeline: RecordingPipeline, forged: list[OutgoingEvent], *, first: bool) -> list[tuple[int, OutgoingEvent]]:
    """The topics, with the forged records in front of everything or behind it."""
    offsets = range(-len(forged), 0) if first else range(100_000, 100_000 + len(forged))
    return [*pipeline.written, *zip(offsets, forged, strict=True)]


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_row_55_a_forged_event_changes_nothing(
    pipeline: RecordingPipeline,
    batches: Batches,
    owner: Engine,
    settings: Settings,
    forge: Callable[[Batches], list[OutgoingEvent]],
) -> None:
    before = (projection(owner), versions(owner))
    own = forge(batches)
    for organization in (ORGANIZATION, "org-other"):
        forged = [as_written_by(organization, event) for event in own]
        for first in (False, True):
            verdicts, _ = promoted(pipeline.engine, with_forged(pipeline, forged, first=first))
            assert Promoted.MERGED not in verdicts.values()
            assert (projection(owner), versions(owner)) == before
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_lost_batch_is_rebuilt_unchanged_beside_a_forged_event(
    pipeline: RecordingPipeline, batches: Batches, owner: Engine, forge: Callable[[Batches], list[OutgoingEvent]]
) -> None:
    before = projection(owner)
    run(owner, "TRUNCATE orchestrator.batch")
    promoted(pipeline.engine, with_forged(pipeline, forge(batches), first=False))
    rebuilt = projection(owner)
    assert [row for row in rebuilt["batch"] if row not in before["batch"]] == []
    assert rebuilt["batch_item"] == before["batch_item"]
    assert rebuilt["outcome"] == before["outcome"]


@pytest.mark.parametrize("kind", ["ActivitiesRevoked", "BatchRetryRequested", "BatchCompleted"])
def test_an_event_of_another_organization_is_not_counted(pipeline: RecordingPipeline, batches: Batches, kind: str) -> None:
    """The other organization has a batch of its own on the topic."""
    own = new_batch_id()
    forged = [as_written_by("org-other", event) for event in (*FORGED[kind](batches), whole(own, 1, 2))]
    assert compared(pipeline.engine, with_forged(pipeline, forged, first=True)).different_batches == [own]


def test_every_event_that_a_replay_reads_is_forged() -> None:
    read = {model.__name__ for topic in (Topic.BATCHES, Topic.RESULTS, Topic.LIFECYCLE) for model in events.EVENTS[topic]}
    assert read == {name.partition(",")[0] for name in FORGED}


@pytest.mark.parametrize("is_early", [False, True])
def test_the_label_of_a_former_batch_with_this_id_is_no_difference(
    pipeline: RecordingPipeline, owner: Engine, is_early: bool
) -> None:
    """The former batch was relabelled in its version 2, and the present one in a later version, or early, in version 2 as well."""
    batch_id = new_batch_id()
    first, second = (
        upstream(batch_id, positions, part=part, parts=2, total=4, first_mentor=650)
        for part, positions in ((1, range(2)), (2, range(2, 4)))
    )
    pipeline.queues[Topic.BATCHES] += [first]
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "of the former life")
    wrong = upstream(batch_id, range(2, 4), part=2, parts=2, total=4, first_mentor=650, items=[{}])
    pipeline.queues[Topic.BATCHES] += [wrong]
    pipeline.drain()
    pipeline.queues[Topic.BATCHES] += [second]
    pipeline.drain()
    if is_early:
        pipeline.call(relabel_batch, ADMIN, batch_id, "its own")
    pipeline.queues[Topic.BATCHES] += [first]
    pipeline.drain()
    assert pipeline.status(batch_id).batch.label == ("its own" if is_early else None)
    assert compared(pipeline.engine, pipeline.written).differences == []
    pipeline.call(relabel_batch, ADMIN, batch_id, "another of its own")
    pipeline.drain()
    assert compared(pipeline.engine, pipeline.written).differences == []


def test_edits_are_kept_and_removed_with_their_batch(pipeline: Pipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    pipeline.call(relabel_batch, ADMIN, batch_id, "a label")
    pipeline.call(delete_batch, ADMIN, batch_id)
    with owner.begin() as connection:
        rows = connection.exec_driver_sql("SELECT kind, label FROM orchestrator.batch_edit ORDER BY version").all()
    assert [tuple(row) for row in rows] == [("relabelled", "a label"), ("deleted", None)]


@pytest.mark.parametrize("field", ["submitted_by", "channel"])
@pytest.mark.parametrize("text", [b"\\ud800", b"a\\u0000"], ids=["an unpaired surrogate", "NUL"])
@pytest.mark.parametrize("notes", [None, "a note"])
def test_a_batch_under_our_source_with_a_sender_that_can_not_be_stored_is_found(
    pipeline: RecordingPipeline, owner: Engine, field: str, text: bytes, notes: str | None
) -> None:
    """The splitter accepts it, because it does not read these fields. With and without notes: a replay reads these in two ways."""
    batch_id = new_batch_id()
    of_one = {"position": 0, "mentor_id": "mentor-640", "activity_type": "visit", "activity_date": DAY, "duration_minutes": 30}
    sender: dict[str, object] = {"label": None, "override_duplicates": False, "submitted_by": "x", "channel": "x"}
    sender[field] = "SENDER"
    event = whole(batch_id, 640, 1, items=[of_one | ({"notes": notes} if notes else {})], **sender)
    event = named(SOURCE, event._replace(value=event.value.replace(b"SENDER", text)))
    pipeline.queues[Topic.BATCHES].append(event)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert compared(pipeline.engine, pipeline.written).differences == []
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    found = compared(pipeline.engine, [(0, event)])
    assert (found.different_batches, found.by_field) == ([batch_id], {"batch": 1, "item": 1})


def test_a_batch_of_which_a_record_can_not_be_stored_is_not_covered(pipeline: RecordingPipeline) -> None:
    """Also if it was refused: the record may show that it was accepted afterwards. Another batch that was refused is covered."""
    ids = [new_batch_id() for _ in range(3)]
    failed = result(events.FAILED, ids[0], 0, error={"code": "\0"})
    retry = ours(events.BATCH_RETRY_REQUESTED, ids[1], retry_number=1, retried_by="\0", items=[{"position": 0, "attempt": 2}])
    refused = [rejection(ids[2]), result(events.FAILED, ids[2], 0, error={"code": "\0"})]
    other = new_batch_id()
    refused += [upstream(other, [0], part=1, parts=2, total=2), rejection(other)]
    with replayed(pipeline.engine, list(enumerate([failed, retry, *refused]))) as (replay, _):
        found = replay.compare(examples=10)
        assert (replay.unreadable, found.not_covered) == (3, sorted(ids))


REGISTERED_LAST = """
    CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM registration.audit WHERE action = 'registered';
    DELETE FROM registration.audit WHERE action = 'registered';
    INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT * FROM kept
"""


def test_a_restored_batch_has_the_submitter_and_the_channel_of_the_audit(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Anybody may write under our source, and name another sender in the data. The splitter does not read that. Others have sent the batches
    before and after it, and revoked it. Wherever the rows of the audit lie, that of the registration counts."""
    others = [pipeline.submit(mentors(1))]
    pipeline.drain()
    batch_id = new_batch_id()
    forged = named(SOURCE, whole(batch_id, 640, 2, submitted_by="victim", channel="api"))
    pipeline.queues[Topic.BATCHES].append(forged)
    pipeline.drain()
    others.append(pipeline.submit(mentors(1, first=2)))
    revoke(pipeline, batch_id, actor=ADMIN)
    pipeline.drain()
    run(owner, tampering(REGISTERED_LAST))
    before = projection(owner)
    senders = {row[0]: row[3:5] for row in before["batch"]}
    sender = senders.pop(str(batch_id))
    assert sender == ("/bulk-registration", "upstream:/bulk-registration")
    assert sender not in senders.values()
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == (dict.fromkeys([batch_id, *others], Promoted.MERGED), [])
    assert projection(owner) == before


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


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_forged_time_at_the_end_of_the_calendar_does_not_count(pipeline: RecordingPipeline, time: str) -> None:
    retried = [{"position": 0, "attempt": 2}]
    event = ours(events.BATCH_RETRY_REQUESTED, small(pipeline)["completed"], retry_number=1, items=retried)
    headers = tuple((name, time.encode() if name == "ce_time" else value) for name, value in event.headers)
    read = ReadRecord(event.topic, 0, 0, TIMESTAMP_MS, headers, event.value)
    with pipeline.engine.connect() as connection:
        replay = Replay(connection)
        replay.add([read])
        [at] = connection.execute(text("SELECT at FROM replay_retry_read")).scalars()
        connection.invalidate()
    assert at == datetime.fromtimestamp(TIMESTAMP_MS / 1000, UTC)
