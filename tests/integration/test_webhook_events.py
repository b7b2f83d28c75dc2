"""Which events become deliveries, and to which webhooks."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from consumers.loop.handler import Record
from consumers.notifying.recording import RecordingHandler
from orchestrator.batches.model import RevocationRequest
from orchestrator.batches.revoke import RevocationPolicy, revoke_batch
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.webhooks.store import WebhookStore
from schemas.envelope import OutgoingEvent, Topic
from schemas.event_builders import batch_rejected
from schemas.events import EventData
from schemas.mistakes import Mistake
from schemas.statuses import WebhookEvent
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, mentors, record
from tests.support.two_transactions import begun_meanwhile
from tests.support.webhooks import NEIGHBOUR, URL, deliveries, make_webhook


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


def being_told(event: OutgoingEvent) -> Callable[[Connection], object]:
    return lambda connection: RecordingHandler(lambda: None).handle(connection, [record(event)._replace(timestamp_ms=now_ms())])


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


@pytest.mark.parametrize("is_removed_first", [True, False])
def test_a_webhook_that_is_removed_meanwhile_leaves_no_delivery_behind(
    engine: Engine, settings: Settings, *, is_removed_first: bool
) -> None:
    webhook = make_webhook(engine, settings, URL)

    def remove(connection: Connection) -> None:
        store = WebhookStore(connection)
        assert store.lock(webhook) is not None
        store.remove(webhook)

    tell = being_told(rejection(uuid4()))
    begun_meanwhile(engine, *((remove, tell) if is_removed_first else (tell, remove)))
    assert deliveries(engine, webhook) == []


def test_an_event_that_names_another_organization_than_its_batch_is_refused(
    engine: Engine, settings: Settings, revoked: list[OutgoingEvent], pipeline: Pipeline
) -> None:
    webhook = make_webhook(engine, settings, URL, organization_id=NEIGHBOUR)
    forged = [event._replace(value=event.value.replace(ORGANIZATION.encode(), NEIGHBOUR.encode())) for event in revoked]
    assert told(engine, forged) == [(0, "wrong_organization"), (1, "wrong_organization")]
    headers = tuple((name, b"mine" if name == "ce_id" else value) for name, value in revoked[0].headers)
    assert told(engine, [rejection(uuid4()), revoked[0]._replace(headers=headers)]) == [(1, "bad_event_id")]
    assert deliveries(engine, webhook) == []


def test_an_event_that_can_not_be_stored_is_put_aside(engine: Engine) -> None:
    aside = record(rejection(uuid4()))
    handled = transact(engine, lambda connection: RecordingHandler(lambda: None).give_up(connection, aside, ZeroDivisionError()))
    assert [(index, error.reason, str(error)) for index, error in handled.refused] == [(0, "internal_error", "ZeroDivisionError")]
    assert handled.events == ()
