"""Closed periods on a real PostgreSQL: what is refused and kept, who may close and reopen, and what is written."""

from datetime import date, timedelta
from uuid import UUID

import orjson
import pytest
from psycopg2 import errorcodes
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from orchestrator.batches.errors import ConflictError, ForbiddenError, InvalidRequestError, KeyReusedError, PreconditionError
from orchestrator.batches.model import Actor, RetryRequest, RevocationRequest, Role
from orchestrator.batches.operations import retry_failed_items
from orchestrator.batches.revoke import foresee_revocation
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessPrediction
from orchestrator.registration.periods import PostgresPeriods
from orchestrator.storage.blame import sqlstate
from orchestrator.storage.locks import take_periods
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from tests.support.closing import close
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, DAY, ORGANIZATION, Pipeline, item, mentors
from tests.support.revoking import POLICY, revoke, revoke_one
from tests.support.sql import rows

ONE_DAY = timedelta(days=1)


def codes(pipeline: Pipeline, batch_id: UUID) -> list[str | None]:
    return [None if each.error is None else each.error.code for each in pipeline.status(batch_id).items]


def test_nothing_on_the_last_closed_day_or_before_is_registered(pipeline: Pipeline, settings: Settings) -> None:
    close(pipeline, DAY)
    days = (DAY - ONE_DAY, DAY, DAY + ONE_DAY)
    batch_id = pipeline.submit([item("mentor-1", day=day) for day in days])
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["period_closed", "period_closed", None]
    [error, *_] = [each.error for each in pipeline.status(batch_id).items]
    assert error is not None
    assert (error.retryable, error.field) == (False, "activity_date")
    assert verify(pipeline.engine, settings).breaches == []


def test_the_period_comes_after_the_activity_type_and_before_the_values(pipeline: Pipeline) -> None:
    close(pipeline, DAY)
    items = [item("nobody"), item("mentor-1", kind="unknown"), item("mentor-1", minutes=9_999)]
    with pipeline.engine.begin() as connection:
        foretold = InProcessPrediction(connection, EARLIEST_YEAR).predict(
            ORGANIZATION, COORDINATOR, [each.values for each in items]
        )
    assert [error and error.code for error in foretold] == ["mentor_not_found", "activity_type_unknown", "period_closed"]


def test_a_period_is_an_organizations_own(pipeline: Pipeline) -> None:
    close(pipeline, DAY, actor=Actor("other", "boss", Role.ADMIN))
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    assert codes(pipeline, batch_id) == [None]
    with pipeline.engine.begin() as connection:
        # In this session row level security hides nothing.
        changes = {of: PostgresPeriods(connection).changes(of, before=None, limit=9) for of in (ORGANIZATION, "other")}
    assert [(change.number, change.closed_through) for change in changes["other"]] == [(1, DAY)]
    assert changes[ORGANIZATION] == []


def test_what_is_reopened_can_be_registered_by_a_retry(pipeline: Pipeline, settings: Settings) -> None:
    close(pipeline, DAY)
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["period_closed", "period_closed"]
    close(pipeline, DAY - ONE_DAY, reason="two were forgotten")
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    close(pipeline, DAY)
    assert codes(pipeline, batch_id) == [None, None]
    assert verify(pipeline.engine, settings).breaches == []


def test_a_redelivered_command_repeats_what_was_decided_before_the_period_was_closed(pipeline: Pipeline) -> None:
    pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS, Topic.COMMANDS_BULK)
    told = pipeline.handle(pipeline.registration, commands).events
    close(pipeline, DAY)
    assert pipeline.handle(pipeline.registration, commands).events == told


def test_a_command_that_names_another_organization_waits_for_a_closing_of_its_batchs_own(pipeline: Pipeline) -> None:
    pipeline.submit(mentors(1))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    [command] = pipeline.take(Topic.COMMANDS)
    forged = command._replace(value=orjson.dumps({**orjson.loads(command.value), "organization_id": "other"}))
    with pipeline.engine.begin() as closing, pipeline.engine.connect() as connection:
        take_periods(closing, [ORGANIZATION])
        connection.execute(text("SET LOCAL lock_timeout = 30"))
        with pytest.raises(OperationalError) as refused:
            pipeline.registration.handle(connection, [pipeline.read(forged, 0)])
    assert sqlstate(refused.value) == errorcodes.LOCK_NOT_AVAILABLE


def test_a_revocation_keeps_what_is_in_a_closed_period_for_every_role(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("mentor-2", day=DAY + ONE_DAY)])
    pipeline.drain()
    close(pipeline, DAY)
    ids = DerivedIds(batch_id)
    foreseen = pipeline.call_with(
        pipeline.records, foresee_revocation, COORDINATOR_ACTOR, batch_id, RevocationRequest("x"), POLICY
    )
    assert [(kept.item_id, kept.code) for kept in foreseen.kept] == [(ids.item_id(0), "period_closed")]
    done = revoke(pipeline, batch_id, actor=ADMIN)
    assert (done.revoked, [(kept.item_id, kept.code) for kept in done.kept]) == (1, [(ids.item_id(0), "period_closed")])
    with pytest.raises(ConflictError, match="closed through 2026-03-25") as refused:
        revoke_one(pipeline, UUID(ids.activity_id(0)), actor=ADMIN)
    assert refused.value.code == "period_closed"
    close(pipeline, None, reason="a wrong one")
    assert revoke_one(pipeline, UUID(ids.activity_id(0))).was_revoked_before is False
    assert verify(pipeline.engine, settings).breaches == []


def test_what_was_revoked_before_the_closing_stays_so(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    revoke(pipeline, batch_id)
    close(pipeline, DAY)
    again = revoke(pipeline, batch_id)
    assert (again.revoked, again.already_revoked, list(again.kept)) == (0, 2, [])
    assert revoke_one(pipeline, UUID(DerivedIds(batch_id).activity_id(0))).was_revoked_before


def test_a_period_that_is_closed_and_a_window_that_is_over_are_told_as_the_period(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE registration.activity SET created_at = created_at - interval '31 days'"))
    close(pipeline, DAY)
    assert [kept.code for kept in revoke(pipeline, batch_id).kept] == ["period_closed"]


def test_upstream_services_are_told_and_the_history_says_who_and_why(pipeline: Pipeline) -> None:
    saved = [close(pipeline, day, reason=f"reason {number}").period.version for number, day in enumerate((DAY, None, DAY), 1)]
    pipeline.relay()
    told = pipeline.take(Topic.LIFECYCLE)
    assert saved == [1, 2, 3]
    assert [dict(event.headers)["ce_type"].decode().split(".")[2] for event in told] == [
        "PeriodClosed",
        "PeriodReopened",
        "PeriodClosed",
    ]
    assert [event.key for event in told] == [ORGANIZATION] * 3
    history = rows(pipeline, "SELECT * FROM registration.period_change ORDER BY number")
    for event, change in zip(told, history, strict=True):
        data = orjson.loads(event.value)
        shown = (str(change["closed_through"] or "") or None, str(change["previously"] or "") or None)
        assert (data["closed_through"], data["previously"]) == shown
        assert (data["number"], data["reason"], data["changed_by"]) == (change["number"], change["reason"], "boss")
    assert [change["channel"] for change in history] == ["api"] * 3


def test_the_same_date_again_is_no_change(pipeline: Pipeline) -> None:
    close(pipeline, DAY)
    # The precondition is not checked: this may be the repetition of a call whose acknowledgement was lost.
    again = close(pipeline, DAY, reason="another", versions={0})
    assert (again.period.closed_through, again.period.version) == (DAY, 1)
    assert len(rows(pipeline, "SELECT * FROM registration.period_change")) == 1


def test_who_has_not_seen_the_newest_change_is_refused(pipeline: Pipeline) -> None:
    close(pipeline, DAY, versions={0})
    with pytest.raises(PreconditionError) as refused:
        close(pipeline, None, versions={0})
    assert refused.value.code == "period_changed"
    assert close(pipeline, None, versions={1}).period.closed_through is None


def test_a_call_that_is_repeated_after_a_reopening_closes_nothing(pipeline: Pipeline) -> None:
    close(pipeline, DAY, key="the key")
    close(pipeline, None)
    repeated = close(pipeline, DAY, key="the key")
    assert (repeated.replayed, repeated.period.closed_through) == (True, None)
    with pytest.raises(KeyReusedError):
        close(pipeline, DAY + ONE_DAY, key="the key")


def test_a_day_that_has_not_begun_where_the_organization_is_can_not_be_closed(pipeline: Pipeline) -> None:
    def today(zone: str) -> date:
        [row] = rows(pipeline, f"SELECT (now() AT TIME ZONE '{zone}')::date AS today")
        found: date = row["today"]
        return found

    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE registration.organization SET time_zone = 'Pacific/Pago_Pago'"))
    with pytest.raises(InvalidRequestError) as refused:
        close(pipeline, today("Pacific/Kiritimati"))
    assert [(mistake.pointer, mistake.code) for mistake in refused.value.mistakes] == [("/closed_through", "in_the_future")]
    close(pipeline, today("Pacific/Pago_Pago"))


@pytest.mark.parametrize("role", [Role.COORDINATOR, Role.AUDITOR])
def test_only_administrators_and_services_close_a_period(pipeline: Pipeline, role: Role) -> None:
    with pytest.raises(ForbiddenError):
        close(pipeline, DAY, actor=Actor(ORGANIZATION, COORDINATOR, role))
    close(pipeline, DAY, actor=Actor(ORGANIZATION, "accounting", Role.SERVICE))
