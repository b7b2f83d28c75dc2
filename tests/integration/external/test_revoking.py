"""Revoking what an external registration service has registered (docs/external-registration.md, decision 41)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, Row, create_engine, text

from consumers.external.adapter import ExternalRegistration
from consumers.upkeep.purger import PurgePolicy, Purger
from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.errors import PreconditionError, RevocationUnavailableError
from orchestrator.batches.model import UNRESOLVED, Actor, Idempotency, KeptItem, RevocationRequest, Revoked, Role
from orchestrator.batches.operations import delete_batch
from orchestrator.batches.revoke import RevocationPolicy, foresee_revocation, revoke_batch
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import Settings
from orchestrator.registration.periods import PostgresPeriods
from orchestrator.replay.promote import Promoted
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.revocation_requests import RevocationKey, note_resent, overdue_requests
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from schemas.events import Result
from schemas.ids import DerivedIds
from schemas.statuses import KeptBecause
from tests.support.announcements import following
from tests.support.closing import close
from tests.support.external import NEVER, RevokingPipeline, decide, in_process, own_activities
from tests.support.faulty_service import Asked, Fault, FaultyService
from tests.support.pipeline import ADMIN, COORDINATOR_ACTOR, DAY, mentors, record, standard_directory
from tests.support.plans import without_indexes
from tests.support.relay_wakeup import is_woken, relay
from tests.support.replaying import promoted
from tests.support.revoking import POLICY, REASON, revoke, revoke_one
from tests.support.sweeping import purge


@pytest.fixture
def pipeline(asking: Settings, engine: Engine) -> Iterator[RevokingPipeline]:
    standard_directory(engine)
    pipeline = RevokingPipeline(asking, engine)
    yield pipeline
    # Whatever a test has done, the invariants hold in the end.
    assert verify(engine, asking).breaches == []
    pipeline.close()


def asked_to_revoke(service: FaultyService) -> list[Asked]:
    return [asked for asked in service.asked if asked.method == "REVOKE"]


def activity(pipeline: RevokingPipeline, batch_id: UUID, position: int) -> str:
    return str(pipeline.status(batch_id).items[position].activity_id)


def swept(pipeline: RevokingPipeline, settings: Settings) -> int:
    """How many requests a sweep has sent again."""
    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0))
    return Sweeper(policy, lambda _topics: {}).steps["ask_to_revoke_again"](pipeline.engine).resent


def changed_since(pipeline: RevokingPipeline, batch_id: UUID, version: int) -> list[int]:
    with pipeline.engine.begin() as connection:
        return list(PostgresActivityRepository(connection).positions_changed_since(batch_id, version))


def test_items_are_unresolved_until_the_service_has_revoked_them(pipeline: RevokingPipeline, service: FaultyService) -> None:
    batch_id = pipeline.registered(3)
    before = pipeline.status(batch_id).batch
    ids = DerivedIds(batch_id)
    result = revoke(pipeline, batch_id)
    assert (result.revoked, result.already_revoked, result.unresolved, list(result.kept)) == (0, 0, 3, [])
    assert (result.batch.revoked, result.batch.version, result.batch.edit_version) == (0, before.version + 1, 2)
    assert pipeline.shown(batch_id) == [(False, UNRESOLVED)] * 3
    assert changed_since(pipeline, batch_id, before.version) == [0, 1, 2], "its followers are shown the items again"
    assert pipeline.announced() == []
    pipeline.drain()
    assert changed_since(pipeline, batch_id, result.batch.version) == [0, 1, 2]
    after = pipeline.status(batch_id)
    assert (after.batch.revoked, after.batch.status, after.batch.counts) == (3, "completed", before.counts)
    assert pipeline.shown(batch_id) == [(True, None)] * 3
    [first, *_] = after.items
    assert first.revocation is not None
    assert (first.revocation.by, first.revocation.reason) == (COORDINATOR_ACTOR.subject, REASON)
    [announced] = pipeline.announced()
    assert announced["revoked_positions"] == [[0, 2]]
    assert (announced["revocation"], announced["revoked_by"]) == (after.batch.version, COORDINATOR_ACTOR.subject)
    [asked, *_] = sorted(asked_to_revoke(service), key=lambda each: each.key)
    assert asked.key == f"{ids.item_id(0)}:revoke:1"
    assert asked.body == {
        "item_id": str(ids.item_id(0)),
        "batch_id": str(batch_id),
        "organization_id": ADMIN.organization_id,
        "activity_id": activity(pipeline, batch_id, 0),
        "revoked_by": COORDINATOR_ACTOR.subject,
        "channel": "api",
        "reason": REASON,
    }
    assert asked.headers["traceparent"].startswith("00-" + "0" * 31 + "1-")
    again = revoke(pipeline, batch_id)
    assert (again.revoked, again.already_revoked, again.unresolved, again.batch.version) == (0, 3, 0, after.batch.version)


def test_followers_are_told_of_requests_and_of_what_became_of_them(pipeline: RevokingPipeline, settings: Settings) -> None:
    batch_id = pipeline.registered(2)
    with following(settings, pipeline.engine, []) as heard:
        revoke(pipeline, batch_id)
        assert heard() == [str(batch_id)]
        pipeline.drain()
        assert heard() == [str(batch_id)]


def test_relays_are_woken_when_the_service_has_revoked(pipeline: RevokingPipeline, settings: Settings) -> None:
    revoke(pipeline, pipeline.registered(1))
    commands = pipeline.requests()
    with relay(settings) as listener:
        pipeline.handle(pipeline.registration, commands)
        assert is_woken(listener), "the revocation that is announced woke no relay"


def test_large_revocations_travel_in_the_bulk_lane(pipeline: RevokingPipeline) -> None:
    batch_id = pipeline.registered(5)
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(0), ids.item_id(1)])
    assert [command.topic for command in pipeline.requests()] == [Topic.COMMANDS] * 2
    revoke(pipeline, batch_id, item_ids=[ids.item_id(2), ids.item_id(3), ids.item_id(4)])
    commands = pipeline.requests()
    assert [command.topic for command in commands] == [Topic.COMMANDS_BULK] * 3
    assert len({command.key for command in commands}) == 3


def test_results_beside_commands_to_revoke_stay_in_their_lane(pipeline: RevokingPipeline) -> None:
    revoke(pipeline, pipeline.registered(3))
    requests = pipeline.requests()
    pipeline.submit(mentors(1, first=50))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    assert [{each.topic for each in sent} for sent in (requests, commands)] == [{Topic.COMMANDS_BULK}, {Topic.COMMANDS}]
    handled = pipeline.handle(pipeline.registration, [*requests, *commands])
    results = [pipeline.read(each, 0).data for each in handled.events]
    assert [isinstance(each, Result) and each.bulk for each in results] == [False]


def test_second_call_makes_no_second_request_and_checks_no_precondition(
    pipeline: RevokingPipeline, service: FaultyService
) -> None:
    batch_id = pipeline.registered(2)
    with pytest.raises(PreconditionError):
        revoke(pipeline, batch_id, edit_versions={99})
    key = Idempotency("undo", b"undo")
    first = revoke(pipeline, batch_id, edit_versions={1}, idempotency=key)
    same = revoke(pipeline, batch_id, edit_versions={1}, idempotency=Idempotency("undo", b"undo"))
    assert (same.replayed, same.unresolved, first.unresolved) == (True, 2, 2)
    other = revoke(pipeline, batch_id, edit_versions={1})
    assert (other.unresolved, other.batch.version) == (2, first.batch.version)
    assert len(pipeline.requests()) == 2


def test_dry_run_asks_nobody(pipeline: RevokingPipeline, service: FaultyService) -> None:
    batch_id = pipeline.registered(2)
    version = pipeline.status(batch_id).batch.version
    foreseen = pipeline.call_with(pipeline.records, foresee_revocation, ADMIN, batch_id, RevocationRequest(REASON), POLICY)
    assert (foreseen.unresolved, foreseen.batch.version) == (2, version)
    pipeline.drain()
    assert asked_to_revoke(service) == []
    assert pipeline.shown(batch_id) == [(False, None)] * 2


def test_window_counts_from_the_services_answer(pipeline: RevokingPipeline) -> None:
    batch_id = pipeline.registered(1)
    over = RevocationPolicy(timedelta(0))

    def called(actor: Actor) -> Revoked:
        return pipeline.call_with(pipeline.records, revoke_batch, actor, batch_id, RevocationRequest(REASON), over)

    late = called(COORDINATOR_ACTOR)
    assert list(late.kept) == [KeptItem(DerivedIds(batch_id).item_id(0), KeptBecause.WINDOW_OVER)]
    assert called(Actor(ADMIN.organization_id, "boss", Role.ADMIN)).unresolved == 1
    # What was asked for is under way, and the coordinator is not told that it is too late.
    again = called(COORDINATOR_ACTOR)
    assert (again.unresolved, list(again.kept)) == (1, [])
    pipeline.drain()


def test_refusal_is_shown_and_the_next_revocation_has_the_next_key(pipeline: RevokingPipeline, service: FaultyService) -> None:
    batch_id = pipeline.registered(2)
    service.faults[activity(pipeline, batch_id, 0)].append(Fault.REFUSES)
    revoke(pipeline, batch_id)
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(False, "period_closed"), (True, None)]
    assert pipeline.status(batch_id).batch.revoked == 1
    again = revoke(pipeline, batch_id, reason="the period is open again")
    assert (again.unresolved, again.already_revoked) == (1, 1)
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(True, None)] * 2
    item_id = DerivedIds(batch_id).item_id(0)
    keys = [asked.key for asked in asked_to_revoke(service) if asked.body["item_id"] == str(item_id)]
    assert keys == [f"{item_id}:revoke:1", f"{item_id}:revoke:2"]
    assert [each["revoked_positions"] for each in pipeline.announced()] == [[[1, 1]], [[0, 0]]]


def test_answers_to_several_calls_are_announced_once_for_each_with_the_version_that_it_makes(
    pipeline: RevokingPipeline, service: FaultyService
) -> None:
    batch_id = pipeline.registered(4)
    ids = DerivedIds(batch_id)
    service.faults[activity(pipeline, batch_id, 1)].append(Fault.REFUSES)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(position) for position in (0, 1, 3)], reason="wrong group")
    revoke(pipeline, batch_id, item_ids=[ids.item_id(2)], reason="wrong date")
    asked = pipeline.status(batch_id).batch.version
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(True, None), (False, "period_closed"), (True, None), (True, None)]
    announced = [(each["reason"], each["revoked_positions"], each["revocation"]) for each in pipeline.announced()]
    # The refusal is a change of its own.
    assert announced == [("wrong date", [[2, 2]], asked + 1), ("wrong group", [[0, 0], [3, 3]], asked + 3)]
    assert pipeline.status(batch_id).batch.version == asked + 3


def test_the_next_request_says_who_asks_now_and_why_and_has_its_own_time(
    pipeline: RevokingPipeline, asking: Settings, service: FaultyService
) -> None:
    batch_id = pipeline.registered(3)
    service.faults[activity(pipeline, batch_id, 0)].append(Fault.REFUSES)
    revoke(pipeline, batch_id)
    assert swept(pipeline, asking) == 3
    pipeline.drain()
    assert pipeline.shown(batch_id)[0] == (False, "period_closed")
    refused = request_row(pipeline, 0)
    assert (refused.code, refused.resends, refused.is_bulk) == ("period_closed", 1, True)
    revoke(pipeline, batch_id, reason="it is open again", actor=replace(ADMIN, channel="operator"))
    asked = request_row(pipeline, 0)
    assert (asked.request, asked.state, asked.code, asked.answered_at) == (2, "asked", None, None)
    assert (asked.asked_by, asked.channel, asked.reason) == (ADMIN.subject, "operator", "it is open again")
    assert (asked.resends, asked.is_bulk, asked.sent_at) == (0, False, asked.asked_at)
    assert asked.asked_at > refused.answered_at
    pipeline.drain()
    last = asked_to_revoke(service)[-1].body
    assert (last["revoked_by"], last["channel"], last["reason"]) == (ADMIN.subject, "operator", "it is open again")


def request_row(pipeline: RevokingPipeline, position: int) -> Row[Any]:
    with pipeline.engine.begin() as connection:
        found = text("SELECT * FROM orchestrator.revocation_request WHERE position = :position")
        return connection.execute(found, {"position": position}).one()


def test_an_answered_request_is_not_counted_as_sent_again(pipeline: RevokingPipeline) -> None:
    batch_id = pipeline.registered(1)
    revoke(pipeline, batch_id)
    pipeline.drain()
    before = request_row(pipeline, 0)
    with pipeline.engine.begin() as connection:
        note_resent(connection, [RevocationKey(str(batch_id), 0)])
    assert request_row(pipeline, 0) == before


@pytest.mark.parametrize(
    "fault",
    [
        Fault.ERROR,
        Fault.ERROR_AFTER_THE_WORK,
        Fault.DIES,
        Fault.DIES_AFTER_THE_WORK,
        Fault.BUSY,
        Fault.STILL_AT_IT,
        Fault.UNREADABLE,
        Fault.ANSWERS_ANOTHER,
    ],
)
def test_no_answer_leads_to_the_same_question(pipeline: RevokingPipeline, service: FaultyService, fault: Fault) -> None:
    batch_id = pipeline.registered(1)
    service.faults[activity(pipeline, batch_id, 0)].append(fault)
    revoke(pipeline, batch_id)
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(True, None)]
    keys = [asked.key for asked in asked_to_revoke(service)]
    assert (len(keys), len(set(keys))) == (2, 1)
    assert set(service.revoked.values()) == {1}


@pytest.mark.parametrize("before", [Fault.ERROR, Fault.ERROR_AFTER_THE_WORK])
def test_row_64_sweeper_asks_until_the_service_answers(
    pipeline: RevokingPipeline, asking: Settings, service: FaultyService, before: Fault
) -> None:
    batch_id = pipeline.registered(2)
    service.always = before
    revoke(pipeline, batch_id)
    first = pipeline.requests()
    pipeline.handle(pipeline.registration, first)
    assert pipeline.shown(batch_id) == [(False, UNRESOLVED)] * 2, "the deadline ends the tries, and not the request"
    for _ in range(3):
        assert swept(pipeline, asking) == 2
        assert pipeline.requests() == first, "what is sent again equals the first byte for byte"
    service.always = None
    assert swept(pipeline, asking) == 2
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(True, None)] * 2
    assert set(service.revoked.values()) == {1}
    assert swept(pipeline, asking) == 0


def test_overdue_requests_are_found_in_order_up_to_a_limit_without_those_set_aside(
    pipeline: RevokingPipeline, service: FaultyService
) -> None:
    batches = [pipeline.submit(mentors(2, first=first)) for first in (1, 11, 21, 31)]
    pipeline.drain()
    for batch_id in batches:
        revoke(pipeline, batch_id)
    # The service answers only what is about the last batch.
    pipeline.handle(pipeline.registration, [each for each in pipeline.requests() if str(batches[3]).encode() in each.value])
    assert pipeline.shown(batches[3]) == [(True, None)] * 2
    places = [RevocationKey(str(batch_id), position) for batch_id in sorted(batches[:3]) for position in (0, 1)]

    # A changed row stands behind the others in the table's file.
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("UPDATE orchestrator.revocation_request SET reason = reason || '.' WHERE position = 0 AND state = 'asked'")
        )

    def overdue(most: int = 9, aside: Sequence[UUID] = (), quiet_h: int = 0, pause_h: int = 0) -> list[RevocationKey]:
        with pipeline.engine.begin() as connection:
            without_indexes(connection)
            found = overdue_requests(
                connection,
                quiet=timedelta(hours=quiet_h),
                pause=timedelta(hours=pause_h),
                aside=list(map(str, aside)),
                limit=most,
            )
        return list(found)

    assert [overdue(most) for most in (1, 3, 6, 7)] == [places[:1], places[:3], places, places]
    assert overdue(aside=[UUID(places[2].batch_id)]) == [*places[:2], *places[4:]]
    with pipeline.engine.begin() as answering:
        held = text("SELECT FROM orchestrator.revocation_request WHERE (batch_id, position) = (:batch_id, :position) FOR UPDATE")
        answering.execute(held, {"batch_id": places[0].batch_id, "position": places[0].position})
        assert overdue() == places[1:], "what is being answered is skipped"
    assert overdue(quiet_h=1) == []
    sent = "UPDATE orchestrator.revocation_request SET sent_at = now() - interval '90 minutes'"
    with pipeline.engine.begin() as connection:
        connection.execute(text(f"{sent}, resends = position"))
    assert overdue(quiet_h=2) == []
    assert overdue(pause_h=1) == places[::2], "the pause doubles with each resend"
    with pipeline.engine.begin() as connection:
        note_resent(connection, places[:1])
    assert overdue(quiet_h=1) == places[1:]
    assert overdue(pause_h=1) == places[2::2]
    with pipeline.engine.begin() as connection:
        connection.execute(text(sent))
    assert overdue(pause_h=1) == places[2::2]
    with pipeline.engine.begin() as connection:
        connection.execute(text(sent.replace("90", "150")))
    assert overdue(pause_h=1) == places


@pytest.mark.parametrize(
    "failpoint",
    [
        Failpoint.REGISTRATION_AFTER_DISPATCH_COMMIT,
        Failpoint.REGISTRATION_AFTER_ANSWERS,
        Failpoint.REGISTRATION_AFTER_ANSWERS_COMMIT,
    ],
)
def test_row_64_process_that_dies_between_request_and_answer(
    pipeline: RevokingPipeline, asking: Settings, service: FaultyService, failpoint: Failpoint
) -> None:
    batch_id = pipeline.registered(3)
    revoke(pipeline, batch_id)
    commands = pipeline.requests()
    failing = ExternalRegistration(asking.model_copy(update={"failpoints": f"{failpoint}=raise"}), pipeline.engine)
    with pytest.raises(InjectedError):
        failing.prepare([record(command) for command in commands], NEVER)
    failing.close()
    pipeline.handle(pipeline.registration, commands)
    pipeline.handle(pipeline.registration, commands)
    assert pipeline.shown(batch_id) == [(True, None)] * 3
    assert set(service.revoked.values()) == {1}
    assert len(pipeline.announced()) == 1
    assert len(asked_to_revoke(service)) == (6 if failpoint is Failpoint.REGISTRATION_AFTER_ANSWERS else 3)


def test_command_that_comes_late_revokes_nothing_anew(pipeline: RevokingPipeline, service: FaultyService) -> None:
    batch_id = pipeline.registered(1)
    service.faults[activity(pipeline, batch_id, 0)].append(Fault.REFUSES)
    revoke(pipeline, batch_id)
    commands = pipeline.requests()
    pipeline.handle(pipeline.registration, commands)
    pipeline.handle(pipeline.registration, commands)
    assert pipeline.shown(batch_id) == [(False, "period_closed")]
    assert len(asked_to_revoke(service)) == 1


def test_deleted_batch_is_revoked_all_the_same_and_purged_afterwards(pipeline: RevokingPipeline, service: FaultyService) -> None:
    batch_id = pipeline.registered(2)
    revoke(pipeline, batch_id)
    commands = pipeline.requests()
    pipeline.call(delete_batch, ADMIN, batch_id)
    purger = Purger(PurgePolicy(timedelta(0), timedelta(days=1)))
    assert purge(purger, pipeline.engine).batches == 0, "the service has not answered"
    pipeline.handle(pipeline.registration, commands)
    assert len(service.revoked) == 2
    assert len(pipeline.announced()) == 1
    assert purge(purger, pipeline.engine).batches == 1
    with pipeline.engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orchestrator.revocation_request")) == 0
    pipeline.handle(pipeline.registration, commands)
    assert sum(service.revoked.values()) == 2


def test_batch_of_both_services(pipeline: RevokingPipeline, service: FaultyService) -> None:
    """One item was registered here, the other by the service: the setting was changed in between."""
    batch_id = pipeline.submit(mentors(2))
    commands = pipeline.commands(batch_id)
    pipeline.handle(pipeline.registration, commands[:1])
    decide(pipeline, in_process(), commands[1:])
    pipeline.drain()
    assert own_activities(pipeline) == 1
    result = revoke(pipeline, batch_id)
    assert (result.revoked, result.unresolved, result.batch.revoked) == (1, 1, 1)
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(True, None)] * 2
    assert pipeline.status(batch_id).batch.revoked == 2
    assert [each["revoked_positions"] for each in pipeline.announced()] == [[[1, 1]], [[0, 0]]]


def test_item_that_the_service_has_refused_is_kept(pipeline: RevokingPipeline, service: FaultyService) -> None:
    service.faults["mentor-2"].append(Fault.REFUSES)
    batch_id = pipeline.registered(2)
    ids = DerivedIds(batch_id)
    result = revoke(pipeline, batch_id, item_ids=[ids.item_id(0), ids.item_id(1)])
    assert result.unresolved == 1
    assert [(kept.item_id, kept.code) for kept in result.kept] == [(ids.item_id(1), "not_registered")]
    pipeline.drain()
    assert [asked.key for asked in asked_to_revoke(service)] == [f"{ids.item_id(0)}:revoke:1"]


def test_single_activity_of_the_service_is_revoked_by_its_batch(pipeline: RevokingPipeline) -> None:
    batch_id = pipeline.registered(1)
    with pytest.raises(RevocationUnavailableError):
        revoke_one(pipeline, UUID(activity(pipeline, batch_id, 0)))


def test_without_the_setting_the_request_waits(pipeline: RevokingPipeline, asking: Settings, service: FaultyService) -> None:
    batch_id = pipeline.registered(1)
    revoke(pipeline, batch_id)
    commands = pipeline.requests()
    with pipeline.engine.begin() as connection:
        assert list(in_process().handle(connection, [record(command) for command in commands]).events) == []
    assert pipeline.shown(batch_id) == [(False, UNRESOLVED)]
    assert swept(pipeline, asking) == 1
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(True, None)]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE orchestrator.batch_item SET revoked_at = NULL, revoked_by = NULL, revocation_reason = NULL WHERE position = 1",
        "UPDATE orchestrator.batch_item SET revocation_reason = 'another' WHERE position = 1",
        "UPDATE orchestrator.batch_item SET revoked_at = now(), revoked_by = 'boss', revocation_reason = 'none' WHERE position = 0",
        "UPDATE orchestrator.batch SET revoked = 0",
    ],
)
def test_damaged_revocation_of_the_service_is_found_and_mended(
    pipeline: RevokingPipeline, asking: Settings, service: FaultyService, damage: str
) -> None:
    batch_id = pipeline.registered(2)
    service.faults[activity(pipeline, batch_id, 0)].append(Fault.REFUSES)
    revoke(pipeline, batch_id)
    pipeline.drain()
    before = pipeline.shown(batch_id)
    pipeline.relay()
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {}, "a replay says the same"
    owner = create_engine(asking.owner_url)
    with owner.begin() as connection:
        connection.execute(text(damage))
    owner.dispose()
    assert verify(pipeline.engine, asking).breaches != []
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {batch_id: Promoted.MERGED}
    assert after.differences == []
    assert pipeline.shown(batch_id) == before
    assert pipeline.status(batch_id).batch.revoked == 1


def test_a_closed_period_is_kept_and_counts_what_was_asked_before(pipeline: RevokingPipeline, service: FaultyService) -> None:
    batch_id = pipeline.registered(3)
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(1)])
    assert close(pipeline, DAY).period.unresolved == 1
    result = revoke(pipeline, batch_id, actor=ADMIN)
    kept = [(ids.item_id(position), KeptBecause.PERIOD_CLOSED) for position in (0, 2)]
    assert (result.unresolved, [(each.item_id, each.code) for each in result.kept]) == (1, kept)
    pipeline.drain()
    assert pipeline.shown(batch_id) == [(False, None), (True, None), (False, None)]
    assert close(pipeline, None).period.unresolved == 0
    assert revoke(pipeline, batch_id).unresolved == 2
    pipeline.drain()
    assert len(asked_to_revoke(service)) == 3


def test_only_what_this_organization_still_waits_for_is_unresolved_in_its_closed_period(
    pipeline: RevokingPipeline, engine: Engine
) -> None:
    batch_id = pipeline.registered(3)
    ids = DerivedIds(batch_id)
    revoke(pipeline, batch_id, item_ids=[ids.item_id(0)])
    pipeline.drain()
    revoke(pipeline, batch_id, item_ids=[ids.item_id(1)])
    close(pipeline, DAY)

    def unresolved(organization_id: str) -> int:
        # Row level security hides other organizations from the API, and not from this role.
        with engine.begin() as connection:
            return PostgresPeriods(connection).read(organization_id).unresolved

    assert (unresolved(ADMIN.organization_id), unresolved("org-neighbour")) == (1, 0)
    close(pipeline, DAY, actor=replace(ADMIN, organization_id="org-neighbour"))
    assert (unresolved(ADMIN.organization_id), unresolved("org-neighbour")) == (1, 0)
    in_doubt = "state = :state, activity_id = :activity_id, answered_at = :answered_at"
    put = text(f"UPDATE orchestrator.dispatch SET {in_doubt} WHERE position = 2")
    with engine.begin() as connection:
        found = text("SELECT state, activity_id, answered_at FROM orchestrator.dispatch WHERE position = 2")
        answered = dict(connection.execute(found).mappings().one())
        connection.execute(put, {"state": "asked", "activity_id": None, "answered_at": None})
    assert (unresolved(ADMIN.organization_id), unresolved("org-neighbour")) == (2, 0)
    with engine.begin() as connection:
        connection.execute(put, answered)
    pipeline.drain()
    assert (unresolved(ADMIN.organization_id), unresolved("org-neighbour")) == (0, 0)
