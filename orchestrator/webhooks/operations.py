"""What people do with webhooks. Each operation runs in the caller's transaction, which may be run again after a lost acknowledgement.

An administrator or a service changes them, an auditor reads them. A URL may contain a password of the receiver's, so coordinators see none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from orchestrator.batches.access import may_change
from orchestrator.batches.errors import ConflictError, ForbiddenError, KeyReusedError, NotFoundError
from orchestrator.batches.guards import earlier_result, store_result
from orchestrator.batches.model import Actor, Idempotency, Role
from orchestrator.batches.repository import ActivityRepository, KeyUse
from orchestrator.webhooks.bodies import body_of_test
from orchestrator.webhooks.model import MAX_WEBHOOKS, TEST_EVENT, ChangedWebhook, Delivery, DeliveryPlace, NewWebhook, Webhook
from orchestrator.webhooks.secrets import PREVIOUS_VALID_FOR
from orchestrator.webhooks.store import WebhookStore
from schemas.statuses import DeliveryState, WebhookChange


@dataclass(frozen=True, slots=True)
class SavedWebhook:
    """A webhook that was changed; `replayed` if the key was used for the same request before."""

    webhook: Webhook
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A page of deliveries. `next_before` is where the next one begins; None on the last one."""

    deliveries: Sequence[Delivery]
    next_before: DeliveryPlace | None


@dataclass(frozen=True, slots=True)
class ChangePage:
    """A page of the changes of webhooks. `next_before` is the number to continue from; None on the last page."""

    changes: Sequence[ChangedWebhook]
    next_before: int | None


def list_webhooks(store: WebhookStore, actor: Actor) -> Sequence[Webhook]:
    """The webhooks of the caller's organization, oldest first. Raises ForbiddenError."""
    _may_read(actor)
    return store.list(actor.organization_id)


def get_webhook(store: WebhookStore, actor: Actor, webhook_id: UUID) -> Webhook:
    """One webhook. Raises ForbiddenError, NotFoundError."""
    _may_read(actor)
    return _visible(actor, store.find(webhook_id))


def list_changes(store: WebhookStore, actor: Actor, *, before: int | None, limit: int) -> ChangePage:
    """A page of what was done with webhooks of the caller's organization, also deleted ones, newest first. Raises ForbiddenError."""
    _may_read(actor)
    found = store.changes(actor.organization_id, before=before, limit=limit + 1)
    shown = found[:limit]
    return ChangePage(shown, shown[-1].number if len(found) > limit else None)


def create_webhook(
    repository: ActivityRepository, store: WebhookStore, actor: Actor, new: NewWebhook, idempotency: Idempotency
) -> SavedWebhook:
    """Stores a webhook. It is told of events from now on.

    Raises ForbiddenError, KeyReusedError, ConflictError (too many webhooks; the webhook of an earlier request with this key was deleted).
    """
    _may_change(actor)
    used = repository.use_keys([KeyUse(actor, idempotency, new.webhook_id)]).get(new.webhook_id)
    if used is not None:
        if used.request_hash != idempotency.request_hash:
            raise KeyReusedError
        earlier = store.find(used.batch_id)
        if earlier is None:
            detail = (
                "This request was made before, and its webhook has been deleted. To create it again, use another Idempotency-Key."
            )
            raise ConflictError("webhook_deleted", detail)
        return SavedWebhook(earlier, replayed=used.batch_id != new.webhook_id)
    if len(store.list(actor.organization_id)) >= MAX_WEBHOOKS:
        raise ConflictError(
            "too_many_webhooks", f"An organization has at most {MAX_WEBHOOKS} webhooks. Delete one that is not used."
        )
    store.add(actor.organization_id, new, actor.subject)
    _note(store, actor, new.webhook_id, WebhookChange.CREATED)
    return SavedWebhook(get_webhook(store, actor, new.webhook_id))


def delete_webhook(
    repository: ActivityRepository, store: WebhookStore, actor: Actor, webhook_id: UUID, idempotency: Idempotency
) -> None:
    """Removes a webhook and its deliveries. A repetition does nothing. Raises ForbiddenError, NotFoundError."""
    _may_change(actor)
    if earlier_result(repository, actor, idempotency, webhook_id) is not None:
        return
    _changed(store, actor, webhook_id)
    _note(store, actor, webhook_id, WebhookChange.DELETED)
    store.remove(webhook_id)
    store_result(repository, actor, idempotency, {})


def rotate_secret(
    repository: ActivityRepository, store: WebhookStore, actor: Actor, webhook_id: UUID, secret: bytes, idempotency: Idempotency
) -> SavedWebhook:
    """Gives a webhook another secret. The present one signs, too, for `PREVIOUS_VALID_FOR`.

    A repetition returns the webhook as it is, so that it does not drop a secret that the receiver still uses.
    Raises ForbiddenError, NotFoundError, KeyReusedError.
    """
    _changed(store, actor, webhook_id)
    earlier = earlier_result(repository, actor, idempotency, webhook_id)
    if earlier is None:
        store.rotate(webhook_id, secret, previous_until=repository.clock() + PREVIOUS_VALID_FOR)
        _note(store, actor, webhook_id, WebhookChange.ROTATED)
        store_result(repository, actor, idempotency, {})
    return SavedWebhook(get_webhook(store, actor, webhook_id), earlier is not None and earlier.replayed)


def enable_webhook(store: WebhookStore, actor: Actor, webhook_id: UUID) -> Webhook:
    """Enables a webhook that the notifier has disabled. Raises ForbiddenError, NotFoundError."""
    if _changed(store, actor, webhook_id).disabled is not None:
        store.enable(webhook_id)
        _note(store, actor, webhook_id, WebhookChange.ENABLED)
    return get_webhook(store, actor, webhook_id)


def send_test(repository: ActivityRepository, store: WebhookStore, actor: Actor, webhook_id: UUID, event_id: UUID) -> Delivery:
    """Has the notifier send an event that only tests the webhook. The id is chosen before the transaction.

    Raises ForbiddenError, NotFoundError, ConflictError (it is disabled).
    """
    webhook = _enabled(_changed(store, actor, webhook_id))
    store.add_delivery(webhook, event_id, TEST_EVENT, body_of_test(webhook_id, actor.organization_id, repository.clock()))
    return _found(store.delivery(webhook_id, event_id))


def redeliver(store: WebhookStore, actor: Actor, webhook_id: UUID, event_id: UUID) -> Delivery:
    """Has the notifier send an event again, under its id. Raises ForbiddenError, NotFoundError, ConflictError (the webhook is disabled)."""
    webhook = _changed(store, actor, webhook_id)
    _found(store.delivery(webhook_id, event_id))
    _enabled(webhook)
    store.redeliver(webhook_id, event_id)
    return _found(store.delivery(webhook_id, event_id))


def list_deliveries(
    store: WebhookStore,
    actor: Actor,
    webhook_id: UUID,
    *,
    state: DeliveryState | None,
    before: DeliveryPlace | None,
    limit: int,
) -> DeliveryPage:
    """A page of a webhook's deliveries, newest first. Raises ForbiddenError, NotFoundError."""
    get_webhook(store, actor, webhook_id)
    found = store.deliveries(webhook_id, state=state, before=before, limit=limit + 1)
    shown = found[:limit]
    return DeliveryPage(shown, (shown[-1].created_at, shown[-1].event_id) if len(found) > limit else None)


def _may_read(actor: Actor) -> None:
    if actor.role is Role.COORDINATOR:
        raise ForbiddenError("role_may_not", "Only administrators, services and auditors see the organization's webhooks.")


def _may_change(actor: Actor) -> None:
    may_change(actor)
    if actor.role is Role.COORDINATOR:
        raise ForbiddenError("role_may_not", "Only an administrator or a service can change the organization's webhooks.")


def _visible(actor: Actor, webhook: Webhook | None) -> Webhook:
    """Raises NotFoundError unless the webhook is the caller's organization's. Does not rely on row level security."""
    if webhook is None or webhook.organization_id != actor.organization_id:
        raise NotFoundError("webhook")
    return webhook


def _changed(store: WebhookStore, actor: Actor, webhook_id: UUID) -> Webhook:
    _may_change(actor)
    return _visible(actor, store.lock(webhook_id))


def _note(store: WebhookStore, actor: Actor, webhook_id: UUID, change: WebhookChange) -> None:
    store.note(webhook_id, change, by=actor.subject, channel=actor.channel)


def _enabled(webhook: Webhook) -> Webhook:
    if webhook.disabled is not None:
        raise ConflictError("webhook_disabled", "The webhook is disabled. Enable it once its receiver works again.")
    return webhook


def _found(delivery: Delivery | None) -> Delivery:
    if delivery is None:
        raise NotFoundError("delivery")
    return delivery
