"""Which events become deliveries, and what becomes of a delivery: attempts, pauses, giving up, disabling, redelivering, expiring."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from compose.webhook_findings import webhook_findings
from consumers.loop.handler import Record
from consumers.notifying import delivering
from consumers.notifying.recording import RecordingHandler
from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.model import RevocationRequest
from orchestrator.batches.revoke import RevocationPolicy, revoke_batch
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.webhooks import deliveries as webhook_deliveries
from orchestrator.webhooks.deliveries import (
    LEASE,
    Claimed,
    Ended,
    Turns,
    claim_deliveries,
    disabled_webhooks,
    end_attempt,
    expire_deliveries,
    renew_secrets,
    unreadable_secrets,
    webhook_figures,
)
from orchestrator.webhooks.model import Attempt
from orchestrator.webhooks.policy import DISABLED_AFTER, TRIED_FOR, pause_after
from orchestrator.webhooks.secrets import Sealer
from orchestrator.webhooks.store import WebhookStore
from schemas.envelope import OutgoingEvent, Topic
from schemas.event_builders import batch_rejected
from schemas.events import EventData
from schemas.mistakes import Mistake
from schemas.statuses import DeliveryProblem, DeliveryState, DisabledBecause, WebhookChange, WebhookEvent
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, mentors, record
from tests.support.plans import without_indexes
from tests.support.receiver import running_receiver
from tests.support.shown import shown
from tests.support.waiting import eventually
from tests.support.webhook_keys import FIRST_KEY, SECOND_KEY
from tests.support.webhooks import deliveries, make_deliveries, make_webhook, running_deliverer, states

URL = "https://receiver.example.org/"
BROKEN = Attempt(3, DeliveryProblem.STATUS, 500, "no")
NEIGHBOUR = "org-neighbour"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def told(engine: Engine, events: list[OutgoingEvent], *, at_ms: int | None = None) -> list[tuple[int, str]]:
    """Has the handler record the events. Returns those that it refused."""
    records: list[Record[EventData]] = [
        record(event, offset)._replace(timestamp_ms=at_ms or now_ms()) for offset, event in enumerate(events)
    ]
    handled = transact(engine, lambda connection: RecordingHandler(lambda: None).handle(connection, records))
    assert handled.events == ()
    return [(index, error.reason) for index, error in handled.refused]


def rejection(batch_id: UUID, organization_id: str = ORGANIZATION) -> OutgoingEvent:
    return batch_rejected(
        batch_id=batch_id,
        organization_id=organization_id,
        rejected_source="/attendance",
        rejected_event_id="1",
        batch_continues=False,
        mistakes=[Mistake("/items", "no_items", "must have at least one entry")],
        time=datetime.now(UTC),
        trace_id="0" * 31 + "1",
    )


@pytest.fixture
def revoked(pipeline: Pipeline) -> list[OutgoingEvent]:
    """The lifecycle events of a batch that is registered and then revoked for a reason that names somebody."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    policy = RevocationPolicy(timedelta(days=30))
    pipeline.call_with(pipeline.records, revoke_batch, ADMIN, batch_id, RevocationRequest("Ola Nordmann was ill", None), policy)
    pipeline.drain()
    return pipeline.take(Topic.LIFECYCLE)


def test_each_webhook_is_told_of_its_events_once(
    engine: Engine, settings: Settings, pipeline: Pipeline, revoked: list[OutgoingEvent]
) -> None:
    both = make_webhook(engine, settings, URL, WebhookEvent.BATCH_COMPLETED, WebhookEvent.ACTIVITIES_REVOKED)
    rejections = make_webhook(engine, settings, URL, WebhookEvent.BATCH_REJECTED)
    foreign = make_webhook(engine, settings, URL, organization_id=NEIGHBOUR)
    events, at_ms = [*revoked, rejection(uuid4())], now_ms()
    for _ in range(2):
        assert told(engine, events, at_ms=at_ms) == []
        assert sorted(row.event_type for row in deliveries(engine, both)) == ["ActivitiesRevoked", "BatchCompleted"]
        assert [row.event_type for row in deliveries(engine, rejections)] == ["BatchRejected"]
        assert deliveries(engine, foreign) == []
    bodies = {row.event_type: json.loads(row.body) for row in deliveries(engine, both)}
    assert bodies["BatchCompleted"]["type"] == "BatchCompleted"
    # When the broker received it: the text is the same whenever the event is read.
    assert {datetime.fromisoformat(body["timestamp"]) for body in bodies.values()} == {datetime.fromtimestamp(at_ms / 1000, UTC)}
    assert bodies["BatchCompleted"]["data"]["completed"] == 2
    assert bodies["ActivitiesRevoked"]["data"]["revoked_by"] == "boss"
    assert "Nordmann" not in "".join(row.body for row in deliveries(engine, both))
    ids = {dict(event.headers)["ce_id"].decode() for event in revoked}
    assert {str(row.event_id) for row in deliveries(engine, both)} == ids


def test_events_from_before_a_webhook_or_for_a_disabled_one_are_left_out(
    engine: Engine, settings: Settings, revoked: list[OutgoingEvent]
) -> None:
    webhook = make_webhook(engine, settings, URL)
    told(engine, revoked, at_ms=now_ms() - 600_000)
    assert deliveries(engine, webhook) == []
    # The clocks of broker and database may differ by some minutes.
    told(engine, [rejection(uuid4())], at_ms=now_ms() - 120_000)
    assert [row.event_type for row in deliveries(engine, webhook)] == ["BatchRejected"]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM orchestrator.webhook_delivery"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.webhook SET disabled_at = now(), disabled_because = 'gone'"))
    told(engine, revoked)
    assert deliveries(engine, webhook) == []


def test_the_deliverer_is_woken_for_new_deliveries_only(engine: Engine, settings: Settings) -> None:
    """After the commit, or it might look too early."""
    make_webhook(engine, settings, URL)
    woken: list[int] = []
    handler = RecordingHandler(lambda: woken.append(1))
    events = [record(rejection(uuid4()), 0)._replace(timestamp_ms=now_ms())]
    for expected in (1, 1):
        handled = transact(engine, lambda connection: handler.handle(connection, events))
        handled.count()
        assert len(woken) == expected


def test_an_event_that_names_another_organization_than_its_batch_is_refused(
    engine: Engine, settings: Settings, revoked: list[OutgoingEvent], pipeline: Pipeline
) -> None:
    webhook = make_webhook(engine, settings, URL, organization_id=NEIGHBOUR)
    forged = [event._replace(value=event.value.replace(ORGANIZATION.encode(), NEIGHBOUR.encode())) for event in revoked]
    assert told(engine, forged) == [(0, "wrong_organization"), (1, "wrong_organization")]
    headers = tuple((name, b"mine" if name == "ce_id" else value) for name, value in revoked[0].headers)
    assert told(engine, [revoked[0]._replace(headers=headers)]) == [(0, "bad_event_id")]
    assert deliveries(engine, webhook) == []


def test_an_event_that_can_not_be_stored_is_put_aside(engine: Engine) -> None:
    aside = record(rejection(uuid4()))
    handled = transact(engine, lambda connection: RecordingHandler(lambda: None).give_up(connection, aside, ZeroDivisionError()))
    assert [(index, error.reason, str(error)) for index, error in handled.refused] == [(0, "internal_error", "ZeroDivisionError")]
    assert handled.events == ()


# --- What becomes of a delivery -----------------------------------------------------------------------------------------


def claim(
    engine: Engine, *, under_way: Sequence[Claimed] = (), most: int = 4, connections: int = 400, turns: Turns | None = None
) -> list[Claimed]:
    bounds: Any = {"most": most, "connections": connections, "turns": turns or Turns()}
    return list(transact(engine, lambda connection: claim_deliveries(connection, under_way=under_way, **bounds)))


def end(engine: Engine, claimed: Claimed, attempt: Attempt = BROKEN) -> Ended | None:
    return transact(engine, lambda connection: end_attempt(connection, claimed, attempt))


def shift(engine: Engine, **by: timedelta) -> None:
    """Moves moments of all webhooks or deliveries to the past."""
    with engine.begin() as connection:
        for column, delta in by.items():
            table = "webhook" if column == "failing_since" else "webhook_delivery"
            connection.execute(
                text(f"UPDATE orchestrator.{table} SET {column} = {column} - CAST(:by AS interval)"), {"by": delta}
            )


def test_a_claimed_delivery_is_left_to_its_process_until_the_lease_ends(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    [event_id] = make_deliveries(engine, webhook, 1)
    [first] = claim(engine)
    assert (first.event_id, first.attempts, first.previous_secret) == (event_id, 1, None)
    assert claim(engine) == []
    shift(engine, due_at=LEASE)
    [second] = claim(engine)
    assert (second.event_id, second.attempts) == (event_id, 2)
    # The first process comes too late with a failure, which says nothing about the attempt under way.
    assert end(engine, first) is None
    assert states(engine, webhook) == ["pending"]
    # A late success counts.
    assert end(engine, first, Attempt(1, None, 200, "")) == Ended(DeliveryState.DELIVERED)
    assert end(engine, second) is None
    assert states(engine, webhook) == ["delivered"]


def test_no_more_are_claimed_than_may_be_under_way_and_a_long_queue_hides_no_other(engine: Engine, settings: Settings) -> None:
    long, short, disabled = (make_webhook(engine, settings, URL) for _ in range(3))
    for webhook, count in ((long, 10), (disabled, 1), (short, 1)):
        make_deliveries(engine, webhook, count)
    with engine.begin() as connection:
        told = text("UPDATE orchestrator.webhook SET disabled_at = now(), disabled_because = 'gone' WHERE webhook_id = :id")
        connection.execute(told, {"id": disabled})
    [first] = claim(engine, most=1, connections=2)
    assert first.webhook_id == long
    found = claim(engine, under_way=[first])
    assert sorted(each.webhook_id for each in found) == sorted([long] * 3 + [short])
    assert claim(engine, under_way=[first, *found]) == []


def test_half_of_the_connections_are_for_first_requests_to_receivers_that_work(engine: Engine, settings: Settings) -> None:
    failing, working = ([make_webhook(engine, settings, URL) for _ in range(count)] for count in (9, 3))
    for webhook in (*failing, *working):
        make_deliveries(engine, webhook, 6)
    with engine.begin() as connection:
        told = text("UPDATE orchestrator.webhook SET failing_since = now() WHERE webhook_id = ANY (CAST(:ids AS uuid[]))")
        connection.execute(told, {"ids": [str(webhook) for webhook in failing]})
    under_way = claim(engine, connections=11)
    # Each receiver that works has one. The others get the rest of their half, one each.
    assert {each.webhook_id for each in under_way if each.is_first} == set(working)
    others = [each.webhook_id for each in under_way if not each.is_first]
    assert (len(others), len(set(others)), set(others) <= set(failing)) == (5, 5, True)
    # Those that work have no second one while the other half is full, and three more may come.
    assert claim(engine, under_way=under_way, connections=11) == []
    late = make_webhook(engine, settings, URL)
    make_deliveries(engine, late, 6)
    [of_late] = claim(engine, under_way=under_way, connections=11)
    assert of_late.webhook_id == late
    # As soon as there is room, the webhook with the fewest is next.
    [other, *rest] = [each for each in under_way if not each.is_first]
    end(engine, other)
    left = [of_late, *(each for each in under_way if each is not other)]
    [following] = claim(engine, under_way=left, connections=11)
    assert (following.webhook_id in failing, following.webhook_id in {each.webhook_id for each in rest}) == (True, False)


def test_what_has_been_due_for_longest_is_claimed_first(engine: Engine, settings: Settings) -> None:
    """There is room for one request. A changed row stands behind the others in the table's file."""
    early, late = (make_webhook(engine, settings, URL) for _ in range(2))
    of_late, of_early = make_deliveries(engine, late, 2), make_deliveries(engine, early, 2)
    aged = text("UPDATE orchestrator.webhook_delivery SET due_at = now() - :by * interval '1 minute' WHERE event_id = :event_id")
    with engine.begin() as connection:
        for event_id, minutes in ((of_late[0], 1), (of_early[0], 2), (of_late[1], 3), (of_early[1], 4)):
            connection.execute(aged, {"event_id": event_id, "by": minutes})
    order: list[UUID] = []
    for _ in range(4):
        [claimed] = claim(engine, connections=1)
        end(engine, claimed, Attempt(1, None, 200, ""))
        order.append(claimed.event_id)
    assert order == [of_early[1], of_late[1], of_early[0], of_late[0]]


@pytest.mark.parametrize("fails", [False, True])
def test_receivers_with_old_deliveries_take_turns_with_others(engine: Engine, settings: Settings, fails: bool) -> None:
    """One request at a time fits, and each receiver has more to be told than it is told here."""
    old = [make_webhook(engine, settings, URL) for _ in range(2)]
    for webhook in old:
        make_deliveries(engine, webhook, 6)
    shift(engine, due_at=timedelta(hours=1))
    late = make_webhook(engine, settings, URL)
    make_deliveries(engine, late, 6)
    failing = text("UPDATE orchestrator.webhook SET failing_since = CASE WHEN :fails THEN now() END")
    turns, served = Turns(), []
    for _ in range(6):
        with engine.begin() as connection:
            connection.execute(failing, {"fails": fails})
        # One place in each half, of which a receiver is in one only.
        [claimed] = claim(engine, connections=2, most=1, turns=turns)
        turns.note([claimed])
        end(engine, claimed, Attempt(1, None, 200, ""))
        served.append(claimed.webhook_id)
    assert set(served[:3]) == set(served[3:]) == {*old, late}


def test_so_many_turns_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_deliveries, "_REMEMBERED", 2)
    turns = Turns()
    claimed = [Claimed(UUID(int=number), uuid4(), "", "", 1, True, URL, b"", None) for number in range(3)]
    for each in (claimed[0], claimed[1], claimed[0], claimed[2]):
        turns.note([each])
    assert turns.of == {claimed[0].webhook_id: 3, claimed[2].webhook_id: 4}


def test_attempts_go_on_with_growing_pauses_for_three_days(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 1)
    pauses: list[timedelta] = []
    while states(engine, webhook) == ["pending"]:
        [claimed] = claim(engine)
        ended = end(engine, claimed)
        [row] = deliveries(engine, webhook)
        pauses.append(row.due_at - row.attempted_at)
        # The clock goes on to the next attempt.
        shift(engine, due_at=pauses[-1], tried_from=pauses[-1])
    assert ended == Ended(DeliveryState.FAILED)
    [row] = deliveries(engine, webhook)
    assert (row.problem, row.status, row.response, row.took_ms) == ("status", 500, "no", 3)
    assert row.attempts == len(pauses)
    assert 12 <= len(pauses) <= 20
    assert TRIED_FOR - timedelta(hours=12) < sum(pauses[:-1], timedelta()) <= TRIED_FOR
    assert claim(engine) == []


def test_pauses() -> None:
    assert [pause_after(attempts, lambda: 1.0).total_seconds() for attempts in (1, 2, 3, 9, 10, 99)] == [
        5,
        15,
        45,
        32_805,
        43_200,
        43_200,
    ]
    assert pause_after(1, lambda: 0.0).total_seconds() == 2.5


def test_a_success_ends_the_failing(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 2)
    first, second = claim(engine)
    assert end(engine, first) == Ended(DeliveryState.PENDING)
    assert transact(engine, webhook_figures)[:2] == (0, 1)
    assert end(engine, second, Attempt(1, None, 204, "")) == Ended(DeliveryState.DELIVERED)
    assert transact(engine, webhook_figures)[:2] == (0, 0)


@pytest.mark.parametrize("because", DisabledBecause)
def test_gone_or_a_week_of_failures_disables(engine: Engine, settings: Settings, because: DisabledBecause) -> None:
    webhook, other = make_webhook(engine, settings, URL), make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 3)
    make_deliveries(engine, other, 1)
    first, second, third, _ = sorted(claim(engine), key=lambda each: each.webhook_id)
    assert end(engine, first) == Ended(DeliveryState.PENDING)
    if because is DisabledBecause.FAILING:
        shift(engine, failing_since=DISABLED_AFTER)
        assert end(engine, second) == Ended(DeliveryState.FAILED, because)
    else:
        assert end(engine, second, Attempt(1, DeliveryProblem.STATUS, 410, "")) == Ended(DeliveryState.FAILED, because)
    assert states(engine, webhook) == ["failed"] * 3
    # The attempt keeps its own problem; the others were not attempted any more.
    problems = {row.event_id: row.problem for row in deliveries(engine, webhook)}
    assert (problems[second.event_id], problems[third.event_id]) == ("status", "webhook_disabled")
    # A failure that comes after that changes nothing.
    assert end(engine, third) is None
    assert {row.event_id: (row.state, row.problem) for row in deliveries(engine, webhook)}[third.event_id] == (
        "failed",
        "webhook_disabled",
    )
    # What was under way ends as usual.
    assert end(engine, third, Attempt(1, None, 200, "")) == Ended(DeliveryState.DELIVERED)
    assert sorted(states(engine, webhook)) == ["delivered", "failed", "failed"]
    [disabled] = transact(engine, disabled_webhooks)
    assert (disabled.webhook_id, disabled.because) == (webhook, because)
    assert states(engine, other) == ["pending"]
    transact(engine, lambda connection: WebhookStore(connection).enable(webhook))
    assert transact(engine, disabled_webhooks) == []


def test_a_webhook_is_disabled_after_a_week_of_failures_and_not_before(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 3)
    first, second, third = claim(engine)
    end(engine, first)
    shift(engine, failing_since=timedelta(days=6, hours=23))
    assert end(engine, second) == Ended(DeliveryState.PENDING)
    shift(engine, failing_since=timedelta(hours=1))
    assert end(engine, third) == Ended(DeliveryState.FAILED, DisabledBecause.FAILING)


def test_what_was_delivered_stays_so_when_the_webhook_is_disabled(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 2)
    first, second = claim(engine)
    assert end(engine, first, Attempt(1, None, 200, "")) == Ended(DeliveryState.DELIVERED)
    assert end(engine, second, Attempt(1, DeliveryProblem.STATUS, 410, "")) == Ended(DeliveryState.FAILED, DisabledBecause.GONE)
    found = {row.event_id: (row.state, row.problem) for row in deliveries(engine, webhook)}
    assert found == {first.event_id: ("delivered", None), second.event_id: ("failed", "status")}


def test_a_deleted_webhook_ends_what_is_under_way(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 1)
    [claimed] = claim(engine)
    transact(engine, lambda connection: WebhookStore(connection).remove(webhook))
    assert end(engine, claimed, Attempt(1, None, 200, "")) is None


def test_a_redelivery_is_tried_for_three_days_again(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    [event_id] = make_deliveries(engine, webhook, 1)
    [claimed] = claim(engine)
    shift(engine, tried_from=TRIED_FOR)
    assert end(engine, claimed) == Ended(DeliveryState.FAILED)
    transact(engine, lambda connection: WebhookStore(connection).redeliver(webhook, event_id))
    [again] = claim(engine)
    assert (again.event_id, again.body, again.attempts) == (event_id, claimed.body, 2)
    assert end(engine, again) == Ended(DeliveryState.PENDING)


def test_both_secrets_sign_until_the_previous_one_expires(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL, secret="whsec_b2xk")
    make_deliveries(engine, webhook, 2)
    sealer = Sealer(settings.webhook_key_list)

    def rotate(until: datetime) -> None:
        transact(
            engine, lambda connection: WebhookStore(connection).rotate(webhook, sealer.seal("whsec_bmV3"), previous_until=until)
        )

    rotate(datetime.now(UTC) + timedelta(hours=1))
    [both] = claim(engine, most=1)
    assert both.previous_secret is not None
    assert (sealer.open(both.secret), sealer.open(both.previous_secret)) == ("whsec_bmV3", "whsec_b2xk")
    rotate(datetime.now(UTC) - timedelta(seconds=1))
    assert [each.previous_secret for each in claim(engine)] == [None]


def test_secrets_are_encrypted_again_under_the_first_key(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    both, second = Sealer([SECOND_KEY.encode(), FIRST_KEY.encode()]), Sealer([SECOND_KEY.encode()])
    assert transact(engine, lambda connection: unreadable_secrets(connection, second)) == [webhook]
    assert transact(engine, lambda connection: renew_secrets(connection, second)) == 0
    assert transact(engine, lambda connection: renew_secrets(connection, both)) == 1
    assert transact(engine, lambda connection: renew_secrets(connection, both)) == 0
    assert transact(engine, lambda connection: unreadable_secrets(connection, second)) == []


def test_the_previous_secret_is_encrypted_again_as_well(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL, secret="whsec_b2xk")
    make_deliveries(engine, webhook, 1)
    changed = Sealer([FIRST_KEY.encode()]).seal("whsec_bmV3")
    until = datetime.now(UTC) + timedelta(hours=1)
    transact(engine, lambda connection: WebhookStore(connection).rotate(webhook, changed, previous_until=until))
    both, second = Sealer([SECOND_KEY.encode(), FIRST_KEY.encode()]), Sealer([SECOND_KEY.encode()])
    assert transact(engine, lambda connection: renew_secrets(connection, both)) == 2
    [claimed] = claim(engine)
    assert claimed.previous_secret is not None
    assert (second.open(claimed.secret), second.open(claimed.previous_secret)) == ("whsec_bmV3", "whsec_b2xk")


def test_doctor_names_disabled_webhooks_and_missing_keys(engine: Engine, settings: Settings) -> None:
    def findings(**changes: SecretStr) -> list[str]:
        changed = settings.model_copy(update=changes)
        with engine.begin() as connection:
            return [finding.detail for finding in webhook_findings(connection, changed)]

    webhook = make_webhook(engine, settings, URL)
    assert findings() == []
    [missing] = findings(webhook_keys=SecretStr(SECOND_KEY))
    assert (
        f"the secrets of 1 webhooks are encrypted under a key that is missing, so nothing is sent to them: {webhook}" in missing
    )
    make_deliveries(engine, webhook, 1)
    end(engine, claim(engine)[0], Attempt(1, DeliveryProblem.STATUS, 410, ""))
    [disabled] = findings()
    assert disabled.startswith(f"the notifier has disabled webhook {webhook} of {ORGANIZATION} at ")
    assert disabled.endswith(": gone")


def test_old_deliveries_expire_but_not_pending_ones(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 2)
    [claimed] = claim(engine, most=1)
    end(engine, claimed, Attempt(1, None, 200, ""))
    purger = Purger(PurgePolicy.of(settings))
    assert purger.purge(engine).deliveries == 0
    shift(engine, created_at=timedelta(days=settings.webhook_delivery_days))
    assert purger.purge(engine).deliveries == 1
    assert states(engine, webhook) == ["pending"]


def test_what_waits_for_a_notifier_is_measured(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 1)
    shift(engine, due_at=timedelta(minutes=5))
    assert 300 <= transact(engine, webhook_figures).overdue_s < 3_600
    claim(engine)
    assert transact(engine, webhook_figures).overdue_s == 0


def test_webhooks_that_are_disabled_neither_fail_nor_wait(engine: Engine, settings: Settings) -> None:
    waiting, disabled, done = (make_webhook(engine, settings, URL) for _ in range(3))
    recent, old = make_deliveries(engine, waiting, 2)
    [of_disabled], [of_done] = make_deliveries(engine, disabled, 1), make_deliveries(engine, done, 1)
    with engine.begin() as connection:
        for event_id, minutes in ((recent, 10), (old, 20), (of_disabled, 90), (of_done, 90)):
            connection.execute(
                text("UPDATE orchestrator.webhook_delivery SET due_at = now() - :by * interval '1 minute' WHERE event_id = :id"),
                {"id": event_id, "by": minutes},
            )
        connection.execute(
            text("UPDATE orchestrator.webhook_delivery SET state = 'delivered' WHERE event_id = :id"), {"id": of_done}
        )
        connection.execute(
            text("UPDATE orchestrator.webhook SET failing_since = now() WHERE webhook_id IN (:one, :other)"),
            {"one": waiting, "other": disabled},
        )
        connection.execute(
            text("UPDATE orchestrator.webhook SET disabled_at = now(), disabled_because = 'failing' WHERE webhook_id = :id"),
            {"id": disabled},
        )
    figures = transact(engine, webhook_figures)
    assert (figures.disabled, figures.failing, round(figures.overdue_s / 60)) == (1, 1, 20)


def test_the_oldest_deliveries_expire_first(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    ids = make_deliveries(engine, webhook, 3)
    with engine.begin() as connection:
        for event_id, days in zip(ids, (41, 43, 42), strict=True):
            connection.execute(
                text(
                    "UPDATE orchestrator.webhook_delivery SET state = 'delivered', created_at = now() - :by * interval '1 day'"
                    " WHERE event_id = :id"
                ),
                {"id": event_id, "by": days},
            )
    left: list[set[UUID]] = []
    for _ in range(3):
        assert transact(engine, lambda connection: expire_deliveries(connection, after=timedelta(days=30), most=1)) == 1
        left.append({row.event_id for row in deliveries(engine, webhook)})
    assert left == [{ids[0], ids[2]}, {ids[0]}, set()]


def test_webhooks_are_named_in_the_order_in_which_they_were_disabled(engine: Engine, settings: Settings) -> None:
    webhooks = [make_webhook(engine, settings, URL) for _ in range(3)]
    disable = text(
        "UPDATE orchestrator.webhook SET disabled_at = now() - :by * interval '1 hour', disabled_because = 'gone'"
        " WHERE webhook_id = :id"
    )
    with engine.begin() as connection:
        for webhook, hours in zip(webhooks, (1, 3, 2), strict=True):
            connection.execute(disable, {"id": webhook, "by": hours})
    assert [each.webhook_id for each in transact(engine, disabled_webhooks)] == [webhooks[1], webhooks[2], webhooks[0]]


# --- The loop of the deliverer ------------------------------------------------------------------------------------------


def test_a_webhook_gets_all_that_is_due_although_the_deliverer_looks_rarely(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is more than may be under way. Each attempt that ends makes room for the next."""
    monkeypatch.setattr(delivering, "POLL_S", 3_600.0)
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/204"))
        make_deliveries(engine, webhook, settings.webhook_concurrency * 2 + 1)
        with running_deliverer(settings, engine):
            eventually(lambda: set(states(engine, webhook)) == {"delivered"})


def test_a_deliverer_that_stops_waits_for_what_is_under_way(engine: Engine, settings: Settings) -> None:
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/hang"))
        make_deliveries(engine, webhook, 1)
        with running_deliverer(settings, engine) as deliverer:
            eventually(lambda: receiver.requests)
            deliverer.stop()
            receiver.released.set()
        assert states(engine, webhook) == ["delivered"]


def test_a_deliverer_that_stops_cuts_off_what_hangs(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is due again when its lease ends."""
    monkeypatch.setattr(delivering, "DRAIN_S", 0.05)
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/hang"))
        make_deliveries(engine, webhook, 1)
        with running_deliverer(settings, engine):
            eventually(lambda: receiver.requests)
        [row] = deliveries(engine, webhook)
    # An attempt that goes on to its own end fails for a reason.
    assert (row.state, row.problem) == ("pending", None)


def test_a_deliverer_without_a_key_is_well_and_ends(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "POLL_S", 0.01)
    make_deliveries(engine, make_webhook(engine, settings, URL), 1)
    with running_deliverer(settings.model_copy(update={"webhook_keys": None}), engine) as deliverer:
        before = deliverer.health.clock()
        deliverer.health.clock = lambda: before + 3_600
        eventually(lambda: deliverer.health.loop_age_s == 0)


# --- What operators are told --------------------------------------------------------------------------------------------


def test_what_the_notifier_does_is_logged_and_counted(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    counters = {problem: metrics.WEBHOOK_ATTEMPTS.labels(problem) for problem in ("status", "delivered")}
    before = {problem: shown(counter) for problem, counter in counters.items()}
    both = settings.model_copy(update={"webhook_keys": SecretStr(f"{SECOND_KEY},{FIRST_KEY}")})
    unreadable = make_webhook(
        engine, settings.model_copy(update={"webhook_keys": SecretStr(Fernet.generate_key().decode())}), URL
    )
    with running_receiver() as receiver, caplog.at_level("INFO", "bulkreg"):
        gone, good = (make_webhook(engine, settings, receiver.url(path)) for path in ("/410", "/204"))
        [of_gone], _, _ = (make_deliveries(engine, webhook, 1) for webhook in (gone, good, unreadable))
        with running_deliverer(both, engine):
            eventually(lambda: states(engine, gone) + states(engine, good) == ["failed", "delivered"])
            eventually(lambda: logged(caplog, Action.WEBHOOK_SECRET_UNREADABLE))
    assert {problem: shown(counter) - before[problem] for problem, counter in counters.items()} == {"status": 1, "delivered": 1}
    [given_up] = logged(caplog, Action.DELIVERY_GIVEN_UP)
    assert (given_up["webhook"], given_up["delivery"]) == (str(gone), str(of_gone))
    assert (given_up["problem"], given_up["status"]) == ("status", 410)
    [disabled] = logged(caplog, Action.WEBHOOK_DISABLED)
    assert (disabled["webhook"], disabled["reason"]) == (str(gone), "gone")
    assert [line["secrets"] for line in logged(caplog, Action.WEBHOOK_SECRETS_RENEWED)] == [2]
    assert {line["webhook"] for line in logged(caplog, Action.WEBHOOK_SECRET_UNREADABLE)} == {str(unreadable)}
    assert states(engine, unreadable) == ["pending"]


def away(*_: object) -> None:
    raise OperationalError("SELECT", None, psycopg2.OperationalError("the server closed the connection"))


def test_a_database_that_does_not_respond_is_reported_until_it_does(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_deliverer(settings, engine) as deliverer:
        with monkeypatch.context() as patched:
            patched.setattr(delivering, "transact", away)
            deliverer.wake()
            eventually(lambda: logged(caplog, Action.DELIVERING_FAILED))
            assert "the database does not respond" in (deliverer.health.failing or "")
        deliverer.wake()
        eventually(lambda: deliverer.health.failing is None)


def test_secrets_are_encrypted_again_although_the_database_did_not_respond_at_first(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_webhook(engine, settings, URL)
    second = Sealer([SECOND_KEY.encode()])
    assert len(transact(engine, lambda connection: unreadable_secrets(connection, second))) == 1
    both = settings.model_copy(update={"webhook_keys": SecretStr(f"{SECOND_KEY},{FIRST_KEY}")})
    with monkeypatch.context() as patched:
        patched.setattr(delivering, "transact", away)
        with running_deliverer(both, engine) as deliverer:
            eventually(lambda: logged(caplog, Action.DELIVERING_FAILED))
            patched.undo()
            deliverer.wake()
            eventually(lambda: transact(engine, lambda connection: unreadable_secrets(connection, second)) == [])


def test_what_people_read_is_in_order_and_of_their_organization_wherever_its_rows_are(engine: Engine, settings: Settings) -> None:
    """Without the indexes and without row level security, which would hide a missing order or condition."""
    webhooks = sorted(make_webhook(engine, settings, URL) for _ in range(3))
    foreign = make_webhook(engine, settings, URL, organization_id=NEIGHBOUR)
    ids = sorted(make_deliveries(engine, webhooks[0], 3))
    with engine.begin() as connection:
        store = WebhookStore(connection)
        for webhook in (*webhooks, foreign):
            store.note(webhook, WebhookChange.ENABLED, by="boss", channel="api")
        connection.execute(text("UPDATE orchestrator.webhook_delivery SET created_at = now()"))
        # A changed row stands behind the others in the table's file.
        for table, column, changed in (("webhook", "webhook_id", webhooks[0]), ("webhook_delivery", "event_id", ids[2])):
            connection.execute(text(f"UPDATE orchestrator.{table} SET {column} = {column} WHERE {column} = :id"), {"id": changed})
        without_indexes(connection)
        assert [each.webhook_id for each in store.list(ORGANIZATION)] == webhooks
        assert [each.event_id for each in store.deliveries(webhooks[0], state=None, before=None, limit=9)] == ids[::-1]
        assert [each.webhook_id for each in store.changes(ORGANIZATION, before=None, limit=9)] == webhooks[::-1]
