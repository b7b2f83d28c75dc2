"""Revocations on a real PostgreSQL: what is written, who may revoke, what is kept, and what can be registered again."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import orjson
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text

from consumers.loop.decoding import decode
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from orchestrator.batches.errors import ConflictError, InvalidRequestError, NotFoundError, PreconditionError
from orchestrator.batches.model import Actor, NewItem, RevocationRequest, Role
from orchestrator.batches.operations import delete_batch
from orchestrator.batches.revoke import foresee_revocation
from orchestrator.process.settings import Settings
from orchestrator.registration.records import InProcessRecords
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.statements import read_statements
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from schemas.event_builders import activities_revoked
from schemas.ids import DerivedIds
from tests.faults.every_interleaving import looking
from tests.simulation.interleaving import Deadlocks, Run, mark_statements
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, COORDINATOR_ACTOR, DAY, ORGANIZATION, TIMESTAMP_MS, Pipeline, item, mentors, record
from tests.support.plans import rows_read, without_indexes
from tests.support.revoking import POLICY, revoke, revoke_one
from tests.support.sql import execute
from tests.support.waiting import eventually

_WAITS_FOR_A_ROW = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"

COLLEAGUE = Actor(ORGANIZATION, "coord-2", Role.COORDINATOR)


def rows(pipeline: Pipeline, query: str) -> list[Any]:
    with pipeline.engine.begin() as connection:
        return list(connection.execute(text(query)).all())


def test_a_whole_batch_is_revoked(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    before = pipeline.status(batch_id)
    result = revoke(pipeline, batch_id)
    assert (result.revoked, result.already_revoked, list(result.kept), result.batch.revoked) == (3, 0, [], 3)
    after = pipeline.status(batch_id)
    assert (after.batch.status, after.batch.counts) == (before.batch.status, before.batch.counts)
    assert (after.batch.version, after.batch.edit_version) == (before.batch.version + 1, before.batch.edit_version + 1)
    for one in after.items:
        assert one.status == "success"
        assert one.revocation is not None
        assert (one.revocation.by, one.revocation.reason) == (COORDINATOR_ACTOR.subject, "wrong date")
    shown = {(one.revocation.at, one.revocation.by, one.revocation.reason) for one in after.items if one.revocation}
    assert set(map(tuple, rows(pipeline, "SELECT revoked_at, revoked_by, revocation_reason FROM registration.activity"))) == shown
    audits = "SELECT action, submitted_by, channel, reason FROM registration.audit WHERE action = 'revoked'"
    assert list(map(tuple, rows(pipeline, audits))) == [("revoked", COORDINATOR_ACTOR.subject, "api", "wrong date")] * 3
    edits = "SELECT kind, version, reason, edited_by FROM orchestrator.batch_edit"
    assert list(map(tuple, rows(pipeline, edits))) == [("revoked", after.batch.version, "wrong date", COORDINATOR_ACTOR.subject)]


def test_each_revoked_activity_reads_its_own_item(pipeline: Pipeline) -> None:
    """Not all items of the batch, which took minutes for 10,000. Row level security keeps expressions out of an index scan."""
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    statement = read_statements("orchestrator/registration/sql/records.sql")["revoke"]
    ids = [item.activity_id for item in pipeline.status(batch_id).items]
    values = {"activity_ids": ids, "at": "now", "by": "boss", "reason": "a mistake", "channel": "api"}
    with pipeline.api.begin() as connection:
        connection.execute(text("SELECT set_config('bulkreg.organizations', :org, true)"), {"org": ORGANIZATION})
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.scalars(text(f"EXPLAIN {statement.sql}"), values))
    assert 'Index Cond: ((batch_id = r.batch_id) AND ("position" = r."position"))' in plan


@pytest.mark.parametrize("name", ["lock", "clear_flags"])
def test_row_76_a_table_without_statistics_is_searched_without_comparing_each_key_with_each_activity(
    pipeline: Pipeline, name: str
) -> None:
    """PostgreSQL takes the table for a single row of the organization, until it is analyzed for the first time."""
    statement = read_statements("orchestrator/registration/sql/records.sql")[name]
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    ids = [item.activity_id for item in pipeline.status(batch_id).items]
    with pipeline.api.begin() as connection:
        connection.execute(text("SELECT set_config('bulkreg.organizations', :org, true)"), {"org": ORGANIZATION})
        plan = "\n".join(connection.scalars(text(f"EXPLAIN {statement.sql}"), {"activity_ids": ids}))
    assert "Join" not in plan, plan
    assert "Nested Loop" not in plan, plan
    assert "hashed SubPlan" in plan


def test_activities_of_other_mentors_types_and_dates_are_not_locked(pipeline: Pipeline) -> None:
    """Of two mentors on two days, two activities are revoked: the first mentor's on one day, the second's on the other. Two stay."""
    days = (DAY, DAY - timedelta(days=1))
    batch_id = pipeline.submit([item(f"mentor-{number}", day=day) for number in (1, 2) for day in days])
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        flagged = """INSERT INTO registration.activity
                     SELECT gen_random_uuid(), organization_id, attributed_to, registered_by, activity_type, activity_date,
                            duration_minutes, notes, batch_id, gen_random_uuid(), true, created_at FROM registration.activity"""
        connection.execute(text(flagged))
    ids = DerivedIds(batch_id)
    with rows_read(pipeline.api, "WITH keys AS MATERIALIZED", "FOR NO KEY UPDATE") as counts:
        assert revoke(pipeline, batch_id, item_ids=[ids.item_id(0), ids.item_id(3)]).revoked == 2
    assert counts == [4], "with the flagged activity beside each"


def test_a_revoked_activity_can_be_registered_by_another_batch(pipeline: Pipeline) -> None:
    first = pipeline.submit(mentors(2))
    pipeline.drain()
    revoke(pipeline, first)
    again = pipeline.submit(mentors(2))
    pipeline.drain()
    assert pipeline.status(again).batch.status == "completed"
    assert pipeline.refused == []


def test_a_redelivered_command_of_a_revoked_item_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS, Topic.COMMANDS_BULK)
    told = pipeline.handle(pipeline.registration, commands).events
    pipeline.drain()
    revoke(pipeline, batch_id)
    everything = "SELECT * FROM registration.activity ORDER BY activity_id"
    before, seen = rows(pipeline, everything), pipeline.status(batch_id).items
    assert pipeline.handle(pipeline.registration, commands).events == told
    pipeline.drain()
    assert (rows(pipeline, everything), pipeline.status(batch_id).items) == (before, seen)


def test_upstream_services_and_a_replay_get_the_same_event(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(4))
    pipeline.drain()
    pipeline.take(*Topic)
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(position) for position in (0, 1, 3)])
    pipeline.relay()
    [for_replay], [for_services] = pipeline.take(Topic.BATCHES), pipeline.take(Topic.LIFECYCLE)
    assert (for_replay.key, for_replay.headers, for_replay.value) == (for_services.key, for_services.headers, for_services.value)
    assert b'"revoked_positions":[[0,1],[3,3]]' in for_replay.value
    assert pipeline.handle(pipeline.splitter, [for_replay]).refused == []


def test_activities_are_read_in_the_order_of_their_items_wherever_their_rows_are(pipeline: Pipeline) -> None:
    """The event of a revocation has runs of ascending positions."""
    batch_id = pipeline.submit([each._replace(values=each.values._replace(notes="a note")) for each in mentors(4)])
    pipeline.drain()
    # The first row is written anew, behind the others.
    assert erase(pipeline, batch_id, 0)
    with pipeline.engine.begin() as connection:
        without_indexes(connection)
        records = InProcessRecords(connection)
        read = [[record.position for record in records.read(batch_id, chosen)] for chosen in (None, [0, 1, 2, 3], [3, 0])]
    assert read == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 3]]


def test_the_splitter_skips_and_counts_events_of_a_later_version(pipeline: Pipeline) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("bulkreg_later_events_total", {"role": "splitter"}) or 0.0

    later = activities_revoked(
        batch_id=UUID(int=1),
        organization_id=ORGANIZATION,
        revocation=1,
        reason="any",
        revoked_by="boss",
        revoked_positions=[(0, 0)],
        time=datetime(2026, 3, 26, tzinfo=UTC),
        trace_id="1" * 32,
    )[0]
    headers = tuple(
        (name, b"no.bulk-registration.BatchForwarded.v1" if name == "ce_type" else value) for name, value in later.headers
    )
    raw = RawRecord("prefix.batches.v1", 0, 0, TIMESTAMP_MS, b"key", later.value, headers)
    before = counted()
    entry = decode(raw, PartitionOffsets(Topic.BATCHES, "prefix.batches.v1", 0), pipeline.splitter)
    assert (entry.refusal, counted()) == (None, before + 1)
    assert entry.record is not None
    with pipeline.engine.begin() as connection:
        handled = pipeline.splitter.handle(connection, [entry.record])
    assert (handled.events, handled.refused) == ([], [])


def test_revoking_twice_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    version = revoke(pipeline, batch_id).batch.version
    again = revoke(pipeline, batch_id, edit_versions={0})
    assert (again.revoked, again.already_revoked, again.batch.version) == (0, 2, version)


def test_a_dry_run_returns_what_would_be_revoked_and_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    before = pipeline.status(batch_id)
    foreseen = transact(
        pipeline.api,
        lambda connection: foresee_revocation(
            PostgresActivityRepository(connection),
            InProcessRecords(connection),
            COORDINATOR_ACTOR,
            batch_id,
            RevocationRequest("wrong date"),
            POLICY,
        ),
        organizations=[ORGANIZATION],
        snapshot=True,
    )
    assert foreseen.revoked == 2
    assert pipeline.status(batch_id).items == before.items
    assert revoke(pipeline, batch_id).revoked == 2


def test_the_time_limit_applies_to_coordinators_and_not_to_admins(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    ids = DerivedIds(batch_id)
    late = "UPDATE registration.activity SET created_at = created_at - interval '31 days' WHERE item_id = :item"
    execute(pipeline, late, item=ids.item_id(1))
    result = revoke(pipeline, batch_id)
    assert (result.revoked, [(kept.item_id, kept.code) for kept in result.kept]) == (
        2,
        [(ids.item_id(1), "revocation_window_over")],
    )
    with pytest.raises(ConflictError) as refused:
        revoke_one(pipeline, UUID(ids.activity_id(1)))
    assert refused.value.code == "revocation_window_over"
    assert revoke(pipeline, batch_id, actor=ADMIN).revoked == 1


def overriding(pipeline: Pipeline, count: int) -> UUID:
    batch_id = pipeline.submit([NewItem(each.values._replace(override_duplicates=True)) for each in mentors(count)])
    pipeline.drain()
    return batch_id


def flags(pipeline: Pipeline) -> dict[UUID, bool]:
    """The living activities of the first mentor, by batch: whether each is flagged."""
    living = (
        "SELECT batch_id, overrides_duplicate FROM registration.activity WHERE revoked_at IS NULL AND attributed_to = 'mentor-1'"
    )
    return {row.batch_id: row.overrides_duplicate for row in rows(pipeline, living)}


def test_the_oldest_flagged_activity_loses_its_flag(pipeline: Pipeline) -> None:
    first = pipeline.submit(mentors(2))
    pipeline.drain()
    second, third = overriding(pipeline, 2), overriding(pipeline, 2)
    assert flags(pipeline) == {first: False, second: True, third: True}
    revoke(pipeline, first)
    assert flags(pipeline) == {second: False, third: True}
    revoke(pipeline, third)
    assert flags(pipeline) == {second: False}
    revoke(pipeline, second)
    assert flags(pipeline) == {}


def test_a_revoked_activity_gets_no_flag_removed_and_of_two_of_the_same_age_the_first_by_id_does(
    pipeline: Pipeline, owner: Engine
) -> None:
    first = pipeline.submit(mentors(1))
    pipeline.drain()
    oldest, *others = (overriding(pipeline, 1) for _ in range(3))
    revoke(pipeline, oldest)
    low, high = sorted(others, key=lambda batch_id: str(pipeline.status(batch_id).items[0].activity_id))
    newest = "created_at = (SELECT max(created_at) FROM registration.activity)"
    for batch_id in (high, low):
        with owner.begin() as connection:
            connection.execute(text(f"UPDATE registration.activity SET {newest} WHERE batch_id = :b"), {"b": batch_id})
    revoke(pipeline, first)
    assert flags(pipeline) == {low: False, high: True}


def test_a_registration_that_is_about_to_flag_and_a_revocation_wait_for_each_other(pipeline: Pipeline) -> None:
    """Without the shared lock, a flagged activity would be left without an unflagged one (invariant 6)."""
    first = pipeline.submit(mentors(1))
    pipeline.drain()
    second = pipeline.submit([NewItem(each.values._replace(override_duplicates=True)) for each in mentors(1)])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = [record(command) for command in pipeline.take(Topic.COMMANDS, Topic.COMMANDS_BULK)]
    with ThreadPoolExecutor(1) as others, pipeline.engine.connect() as connection, pipeline.engine.connect() as watcher:
        with connection.begin():
            pipeline.registration.handle(connection, commands)
            revoked = others.submit(revoke, pipeline, first)
            eventually(lambda: revoked.done() or bool(watcher.execute(text(_WAITS_FOR_A_ROW)).scalar_one()))
            assert not revoked.done(), "the revocation did not wait for the registration"
        assert revoked.result().revoked == 1
    assert flags(pipeline) == {second: False}


def crossed(pipeline: Pipeline, first: int) -> tuple[UUID, UUID]:
    """Two batches with the same two mentors. For each mentor, one batch has the unflagged activity and the other the flagged one."""
    items = [NewItem(each.values._replace(override_duplicates=True)) for each in mentors(2, first)]
    one, other = pipeline.submit(items), pipeline.submit(items)
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = {
        (orjson.loads(command.value)["batch_id"], orjson.loads(command.value)["position"]): command
        for command in pipeline.take(Topic.COMMANDS, Topic.COMMANDS_BULK)
    }
    for batch_id, position in ((one, 0), (other, 0), (other, 1), (one, 1)):
        pipeline.handle(pipeline.registration, [commands[str(batch_id), position]])
    pipeline.drain()
    return one, other


def test_two_revocations_with_common_mentors_never_deadlock(pipeline: Pipeline, engine: Engine, settings: Settings) -> None:
    """One stops before each of its statements in turn, and the other runs as far as a lock lets it."""
    deadlocks = Deadlocks()
    deadlocks.watch(pipeline.api)
    mark_statements(pipeline.api)
    with looking(engine) as watcher:
        for stop_at in itertools.count():
            one_id, other_id = crossed(pipeline, first=1 + 2 * stop_at)
            one = Run("one", partial(revoke, pipeline, one_id), stop_at=stop_at)
            other = Run("other", partial(revoke, pipeline, other_id))
            if not one.begin():
                break
            if not other.beside(one, watcher):
                one.resume()
            assert (one.error, other.error) == (None, None), one.stopped_at
            assert (pipeline.status(one_id).batch.revoked, pipeline.status(other_id).batch.revoked) == (2, 2)
    assert stop_at > 5
    assert deadlocks.count == 0
    pipeline.drain()
    assert verify(pipeline.engine, settings).breaches == []


def test_a_named_item_that_failed_is_kept(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([*mentors(1), *mentors(1, first=999)])
    pipeline.drain()
    ids = DerivedIds(batch_id)
    named = revoke(pipeline, batch_id, item_ids=[ids.item_id(1)])
    assert [(kept.item_id, kept.code) for kept in named.kept] == [(ids.item_id(1), "not_registered")]
    assert (revoke(pipeline, batch_id).revoked, revoke(pipeline, batch_id).kept) == (1, [])


def test_a_caller_who_may_not_see_the_batch_gets_not_found(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    activity_id = UUID(DerivedIds(batch_id).activity_id(0))
    for actor in (COLLEAGUE, Actor("org-other", "boss", Role.ADMIN)):
        with pytest.raises(NotFoundError):
            revoke(pipeline, batch_id, actor=actor)
        with pytest.raises(NotFoundError):
            revoke_one(pipeline, activity_id, actor=actor)


def test_a_running_batch_and_unknown_items_are_refused(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    with pytest.raises(ConflictError) as running:
        revoke(pipeline, batch_id)
    assert running.value.code == "batch_running"
    pipeline.drain_until_registered()
    with pytest.raises(InvalidRequestError) as unknown:
        revoke(pipeline, batch_id, item_ids=[DerivedIds(batch_id).item_id(1)])
    assert [mistake.pointer for mistake in unknown.value.mistakes] == ["/item_ids/0"]
    with pytest.raises(PreconditionError):
        revoke(pipeline, batch_id, edit_versions={7})
    # The outcomes were not folded yet.
    assert revoke(pipeline, batch_id).revoked == 1


def test_a_single_activity_whose_outcome_is_not_folded_yet_is_revoked_with_its_item(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    results = pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)).events
    revoke_one(pipeline, UUID(DerivedIds(batch_id).activity_id(0)))
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts.completed, view.batch.revoked) == ("completed", 2, 1)
    assert [(item.status, item.revocation is not None) for item in view.items] == [("success", True), ("success", False)]
    pipeline.handle(pipeline.aggregator, results)
    assert pipeline.status(batch_id) == view


def test_a_single_activity_of_a_deleted_and_of_a_purged_batch(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    ids = DerivedIds(batch_id)
    pipeline.call(delete_batch, ADMIN, batch_id)
    with pytest.raises(NotFoundError):
        revoke(pipeline, batch_id)
    one = revoke_one(pipeline, UUID(ids.activity_id(0)))
    assert (one.item_id, one.was_revoked_before) == (ids.item_id(0), False)
    assert revoke_one(pipeline, UUID(ids.activity_id(0))).was_revoked_before
    assert rows(pipeline, "SELECT revoked FROM orchestrator.batch") == [(1,)]
    for table in ("batch_item", "outcome", "batch_part", "batch_edit", "batch"):
        execute(pipeline, f"DELETE FROM orchestrator.{table}")
    pipeline.relay()
    pipeline.take(*Topic)
    revoke_one(pipeline, UUID(ids.activity_id(1)))
    revoke_one(pipeline, UUID(ids.activity_id(2)))
    pipeline.relay()
    assert len({dict(event.headers)["ce_id"] for event in pipeline.take(Topic.BATCHES)}) == 2
    assert rows(pipeline, "SELECT count(*) FROM registration.activity WHERE revoked_at IS NULL") == [(0,)]
