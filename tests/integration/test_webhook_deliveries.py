"""What becomes of a delivery: attempts, pauses, giving up, disabling, redelivering, expiring."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from compose.webhook_findings import webhook_findings
from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Idempotency
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.webhooks.deliveries import (
    Ended,
    disabled_webhooks,
    end_attempt,
    expire_deliveries,
    renew_secrets,
    unreadable_secrets,
    webhook_figures,
)
from orchestrator.webhooks.model import Attempt
from orchestrator.webhooks.operations import delete_webhook, rotate_secret
from orchestrator.webhooks.policy import DISABLED_AFTER, TRIED_FOR, pause_after
from orchestrator.webhooks.secrets import Sealer
from orchestrator.webhooks.store import WebhookStore
from schemas.statuses import DeliveryProblem, DeliveryState, DisabledBecause, WebhookChange
from tests.support.pipeline import ADMIN, ORGANIZATION
from tests.support.plans import without_indexes
from tests.support.sweeping import purge
from tests.support.two_transactions import begun_meanwhile
from tests.support.webhook_keys import FIRST_KEY, SECOND_KEY
from tests.support.webhooks import BROKEN, NEIGHBOUR, URL, claim, deliveries, end, make_deliveries, make_webhook, shift, states


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


def test_a_webhook_fails_since_the_first_of_two_failures_that_come_at_once(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    make_deliveries(engine, webhook, 2)
    one, other = claim(engine)
    since = text("SELECT failing_since FROM orchestrator.webhook")
    noted: list[datetime] = []

    def fail(connection: Connection) -> None:
        end_attempt(connection, one, BROKEN)
        noted.append(connection.execute(since).scalar_one())

    begun_meanwhile(engine, fail, lambda connection: end_attempt(connection, other, BROKEN))
    with engine.begin() as connection:
        assert [connection.execute(since).scalar_one()] == noted


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
    [change, *_] = transact(engine, lambda connection: WebhookStore(connection).changes(ORGANIZATION, before=None, limit=9))
    told = (change.webhook_id, change.change, change.because, change.by, change.channel)
    assert told == (webhook, WebhookChange.DISABLED, because, "notifier", "notifier")
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


def test_a_webhook_that_two_delete_at_once_is_deleted_once(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)

    def delete(connection: Connection, key: str) -> None:
        repository, store = PostgresActivityRepository(connection), WebhookStore(connection)
        delete_webhook(repository, store, ADMIN, webhook, Idempotency(key, b"hash"))

    with pytest.raises(NotFoundError):
        begun_meanwhile(engine, lambda connection: delete(connection, "one"), lambda connection: delete(connection, "other"))
    changes = transact(engine, lambda connection: WebhookStore(connection).changes(ORGANIZATION, before=None, limit=9))
    assert [change.change for change in changes] == [WebhookChange.DELETED]


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


def test_a_rotation_is_a_repetition_only_for_another_call(engine: Engine, settings: Settings) -> None:
    """A transaction that is run again, because its commit's acknowledgement was lost, belongs to the same call."""
    webhook = make_webhook(engine, settings, URL)
    call, another = (Idempotency("one", b"hash") for _ in range(2))

    def rotate(connection: Connection, idempotency: Idempotency) -> bool:
        repository, store = PostgresActivityRepository(connection), WebhookStore(connection)
        return rotate_secret(repository, store, ADMIN, webhook, b"sealed", idempotency).replayed

    replayed = [transact(engine, partial(rotate, idempotency=each)) for each in (call, call, another)]
    assert replayed == [False, False, True]


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
    assert purge(purger, engine).deliveries == 0
    shift(engine, created_at=timedelta(days=settings.webhook_delivery_days))
    assert purge(purger, engine).deliveries == 1
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


def test_a_delivery_that_is_in_use_is_left_for_the_next_time(engine: Engine, settings: Settings) -> None:
    webhook = make_webhook(engine, settings, URL)
    used, _ = make_deliveries(engine, webhook, 2)
    for claimed in claim(engine):
        end(engine, claimed, Attempt(1, None, 200, ""))
    shift(engine, created_at=timedelta(days=31))
    with engine.connect() as using, engine.begin() as expiring:
        using.execute(text("SELECT FROM orchestrator.webhook_delivery WHERE event_id = :id FOR UPDATE"), {"id": used})
        expiring.execute(text("SET LOCAL lock_timeout = 1"))
        assert expire_deliveries(expiring, after=timedelta(days=30), most=9) == 1
    assert [row.event_id for row in deliveries(engine, webhook)] == [used]


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
