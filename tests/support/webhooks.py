"""Webhooks and deliveries for tests, the steps of a delivery, and a deliverer in a thread."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from consumers.notifying.delivering import Deliverer
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.webhooks.deliveries import Claimed, Ended, Turns, claim_deliveries, end_attempt
from orchestrator.webhooks.model import Attempt, NewWebhook
from orchestrator.webhooks.secrets import Sealer, new_secret
from orchestrator.webhooks.store import WebhookStore
from schemas.ids import new_batch_id
from schemas.statuses import DeliveryProblem, WebhookEvent
from tests.support.pipeline import ORGANIZATION

URL = "https://receiver.example.org/"
BROKEN = Attempt(3, DeliveryProblem.STATUS, 500, "no")
NEIGHBOUR = "org-neighbour"


def on_loopback(settings: Settings) -> Settings:
    """The settings of a deployment that allows receivers on this machine."""
    return settings.model_copy(update={"webhook_allowed_networks": "127.0.0.0/8"})


def make_webhook(
    engine: Engine,
    settings: Settings,
    url: str,
    *events: WebhookEvent,
    organization_id: str = ORGANIZATION,
    secret: str | None = None,
) -> UUID:
    """Creates a webhook, told of all events unless some are named."""
    sealed = Sealer(settings.webhook_key_list).seal(secret or new_secret())
    new = NewWebhook(new_batch_id(), url, events or tuple(WebhookEvent), sealed)
    transact(engine, lambda connection: WebhookStore(connection).add(organization_id, new, "boss"))
    return new.webhook_id


def make_deliveries(engine: Engine, webhook_id: UUID, count: int) -> Sequence[UUID]:
    """Creates deliveries that are due."""
    ids = [new_batch_id() for _ in range(count)]

    def add(store: WebhookStore) -> None:
        webhook = store.find(webhook_id)
        assert webhook is not None
        for event_id in ids:
            store.add_delivery(webhook, event_id, "BatchCompleted", '{"type":"BatchCompleted"}')

    transact(engine, lambda connection: add(WebhookStore(connection)))
    return ids


def deliveries(engine: Engine, webhook_id: UUID) -> Sequence[Any]:
    """The rows of a webhook's deliveries, oldest first."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT * FROM orchestrator.webhook_delivery WHERE webhook_id = :id ORDER BY event_id"), {"id": webhook_id}
        )
        return rows.all()


def states(engine: Engine, webhook_id: UUID) -> list[str]:
    """The states of a webhook's deliveries, oldest first."""
    return [row.state for row in deliveries(engine, webhook_id)]


@contextlib.contextmanager
def running_deliverer(settings: Settings, engine: Engine, **how: Any) -> Iterator[Deliverer]:
    """Delivers until the block ends. Raises the deliverer's error."""
    deliverer = Deliverer(on_loopback(settings), engine, **how)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            deliverer.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="deliverer-under-test")
    thread.start()
    try:
        yield deliverer
    finally:
        deliverer.stop()
        thread.join()
    if errors:
        raise errors[0]


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
