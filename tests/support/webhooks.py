"""Webhooks and deliveries for tests, and a deliverer in a thread."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from consumers.notifying.delivering import Deliverer
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.webhooks.model import NewWebhook
from orchestrator.webhooks.secrets import Sealer, new_secret
from orchestrator.webhooks.store import WebhookStore
from schemas.ids import new_batch_id
from schemas.statuses import WebhookEvent
from tests.support.pipeline import ORGANIZATION


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
