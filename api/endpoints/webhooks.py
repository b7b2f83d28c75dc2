"""The endpoints on webhooks (docs/http.md, Webhooks)."""

from typing import Any

from api.endpoints.calls import Call, Reply, key_of_our_own, replayed
from api.http import cursors
from api.http.problems import ProblemError
from orchestrator.webhooks import operations
from orchestrator.webhooks.addresses import ReceiverAddresses
from orchestrator.webhooks.model import ChangedWebhook, Delivery, NewWebhook, Webhook
from orchestrator.webhooks.secrets import Sealer, UnreadableSecretError, new_secret
from schemas.api.webhooks import DeliveriesQuery, WebhookChangesQuery, read_webhook
from schemas.ids import new_batch_id
from schemas.paths import WEBHOOKS_PATH
from schemas.statuses import DeliveryState


def list_webhooks(call: Call) -> Reply:
    """`GET /webhooks`: the organization's webhooks, oldest first."""
    actor = call.actor()
    found = call.service.database.read_webhooks(actor.organization_id, lambda store: operations.list_webhooks(store, actor))
    return Reply(200, {"data": [_shown(webhook) for webhook in found]})


def list_changes(call: Call) -> Reply:
    """`GET /webhook-changes`: a page of who did what with the organization's webhooks, newest first."""
    query, actor = call.read_query(WebhookChangesQuery), call.actor()
    before = None if query.cursor is None else cursors.decode_number(query.cursor)
    page = call.service.database.read_webhooks(
        actor.organization_id, lambda store: operations.list_changes(store, actor, before=before, limit=query.limit)
    )
    next_cursor = None if page.next_before is None else cursors.encode_number(page.next_before)
    return Reply(200, {"data": [_change(change) for change in page.changes], "next_cursor": next_cursor})


def create(call: Call) -> Reply:
    """`POST /webhooks`: 201 and the webhook, with its secret."""
    actor, raw = call.actor(), call.json()
    url = raw.get("url") if isinstance(raw, dict) else None
    addresses = ReceiverAddresses(call.service.settings.webhook_networks)
    request = read_webhook(raw, addresses.mistake_in(url) if isinstance(url, str) else None)
    sealer = _sealer(call)
    events = tuple(dict.fromkeys(request.events))
    new = NewWebhook(new_batch_id(), request.url, events, sealer.seal(new_secret()))
    idempotency = call.idempotency("webhook", request.url, sorted(events)) or key_of_our_own()
    saved = call.service.database.change_webhooks(
        actor.organization_id,
        lambda repository, store: operations.create_webhook(repository, store, actor, new, idempotency),
    )
    headers = {"Location": f"{WEBHOOKS_PATH}/{saved.webhook.webhook_id}", **replayed(saved.replayed)}
    return Reply(201, _with_secret(saved.webhook, sealer), headers)


def get(call: Call) -> Reply:
    """`GET /webhooks/{webhook_id}`: one webhook."""
    webhook_id, actor = call.webhook_id(), call.actor()
    found = call.service.database.read_webhooks(
        actor.organization_id, lambda store: operations.get_webhook(store, actor, webhook_id)
    )
    return Reply(200, _shown(found))


def delete(call: Call) -> Reply:
    """`DELETE /webhooks/{webhook_id}`: 204; the webhook and its deliveries no longer exist."""
    webhook_id, actor, idempotency = call.webhook_id(), call.actor(), key_of_our_own()
    call.service.database.change_webhooks(
        actor.organization_id,
        lambda repository, store: operations.delete_webhook(repository, store, actor, webhook_id, idempotency),
    )
    return Reply(204)


def rotate_secret(call: Call) -> Reply:
    """`POST /webhooks/{webhook_id}/rotate-secret`: 200 and the webhook, with its new secret."""
    webhook_id, actor, sealer = call.webhook_id(), call.actor(), _sealer(call)
    idempotency, secret = call.idempotency("rotate secret", webhook_id) or key_of_our_own(), sealer.seal(new_secret())
    saved = call.service.database.change_webhooks(
        actor.organization_id,
        lambda repository, store: operations.rotate_secret(repository, store, actor, webhook_id, secret, idempotency),
    )
    return Reply(200, _with_secret(saved.webhook, sealer), replayed(saved.replayed))


def enable(call: Call) -> Reply:
    """`POST /webhooks/{webhook_id}/enable`: 200 and the webhook, which gets events again."""
    webhook_id, actor = call.webhook_id(), call.actor()
    enabled = call.service.database.change_webhooks(
        actor.organization_id, lambda _, store: operations.enable_webhook(store, actor, webhook_id)
    )
    return Reply(200, _shown(enabled))


def send_test(call: Call) -> Reply:
    """`POST /webhooks/{webhook_id}/test`: 201 and the delivery of an event that only tests the webhook."""
    webhook_id, actor, event_id = call.webhook_id(), call.actor(), new_batch_id()
    sent = call.service.database.change_webhooks(
        actor.organization_id,
        lambda repository, store: operations.send_test(repository, store, actor, webhook_id, event_id),
    )
    return Reply(201, _delivery(sent))


def list_deliveries(call: Call) -> Reply:
    """`GET /webhooks/{webhook_id}/deliveries`: a page of deliveries, newest first."""
    webhook_id, query, actor = call.webhook_id(), call.read_query(DeliveriesQuery), call.actor()
    before = None if query.cursor is None else cursors.decode(query.cursor)
    page = call.service.database.read_webhooks(
        actor.organization_id,
        lambda store: operations.list_deliveries(store, actor, webhook_id, state=query.state, before=before, limit=query.limit),
    )
    next_cursor = None if page.next_before is None else cursors.encode(page.next_before)
    return Reply(200, {"data": [_delivery(delivery) for delivery in page.deliveries], "next_cursor": next_cursor})


def redeliver(call: Call) -> Reply:
    """`POST /webhooks/{webhook_id}/deliveries/{event_id}/redeliver`: 200 and the delivery, which is attempted again now."""
    webhook_id, event_id, actor = call.webhook_id(), call.event_id(), call.actor()
    pending = call.service.database.change_webhooks(
        actor.organization_id, lambda _, store: operations.redeliver(store, actor, webhook_id, event_id)
    )
    return Reply(200, _delivery(pending))


def _sealer(call: Call) -> Sealer:
    keys = call.service.settings.webhook_key_list
    if not keys:
        raise ProblemError(
            "webhooks_unavailable", "This deployment has no key for the secrets of webhooks (BULKREG_WEBHOOK_KEYS)."
        )
    return Sealer(keys)


def _shown(webhook: Webhook) -> dict[str, Any]:
    """The webhook as a `WebhookResponse`."""
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "events": webhook.events,
        "enabled": webhook.disabled is None,
        "disabled_at": None if webhook.disabled is None else webhook.disabled.at,
        "disabled_because": None if webhook.disabled is None else webhook.disabled.because,
        "failing_since": webhook.failing_since,
        "previous_secret_until": webhook.previous_until,
        "created_by": webhook.created_by,
        "created_at": webhook.created_at,
    }


def _change(change: ChangedWebhook) -> dict[str, Any]:
    """The change as a `WebhookChangeResponse`."""
    return {
        "webhook_id": change.webhook_id,
        "change": change.change,
        "because": change.because,
        "url": change.url,
        "events": change.events,
        "changed_by": change.by,
        "channel": change.channel,
        "changed_at": change.at,
    }


def _with_secret(webhook: Webhook, sealer: Sealer) -> dict[str, Any]:
    """The webhook as a `WebhookWithSecretResponse`. A repeated request may ask for a secret from before a key was removed."""
    try:
        return {**_shown(webhook), "secret": sealer.open(webhook.secret)}
    except UnreadableSecretError as error:
        raise ProblemError(
            "webhooks_unavailable",
            "The request was done before, and this deployment no longer has the key of the webhook's secret (BULKREG_WEBHOOK_KEYS)."
            " Rotate the secret.",
        ) from error


def _delivery(delivery: Delivery) -> dict[str, Any]:
    """The delivery as a `DeliveryResponse`."""
    last = delivery.last
    return {
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "state": delivery.state,
        "created_at": delivery.created_at,
        "attempts": delivery.attempts,
        "attempted_at": delivery.attempted_at,
        "next_attempt_at": delivery.due_at if delivery.state is DeliveryState.PENDING else None,
        "problem": None if last is None else last.problem,
        "status": None if last is None else last.status,
        "response": None if last is None else last.response,
        "took_ms": None if last is None else last.took_ms,
    }
