"""Webhooks: where an organization is told of events, and what became of each delivery."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from schemas.api.base import NOT_EMPTY, Request, Response
from schemas.api.reading import read_with
from schemas.fields import one_of
from schemas.mistakes import Mistake, pointer, size_mistakes
from schemas.statuses import DeliveryProblem, DeliveryState, DisabledBecause, WebhookChange, WebhookEvent

_Event = Annotated[WebhookEvent, one_of(*WebhookEvent)]
_State = Annotated[DeliveryState, one_of(*DeliveryState)]
_Because = Annotated[DisabledBecause, one_of(*DisabledBecause)]
_Change = Annotated[WebhookChange, one_of(*WebhookChange)]
_Problem = Annotated[DeliveryProblem, one_of(*DeliveryProblem)]


class NewWebhook(Request):
    """A webhook to be created."""

    url: Annotated[
        str,
        StringConstraints(min_length=1, max_length=2_000, pattern=r"^[\x21-\x7e]*$", strict=True),
        Field(
            description="Where events are sent, by POST: https, and an address on the internet unless the deployment allows others."
        ),
    ]
    events: Annotated[tuple[_Event, ...], NOT_EMPTY, Field(description="What it is told of.")]


def read_webhook(raw: Any, mistake_in_url: str | None) -> NewWebhook:
    """A webhook. Raises one RefusedRequestError with all its mistakes. `mistake_in_url` is what the deployment refuses in its URL."""
    sizes = []
    if isinstance(raw, dict) and isinstance(entries := raw.get("events"), list):
        sizes = size_mistakes(pointer("events"), entries, len(WebhookEvent))
        raw = raw | {"events": entries[: len(WebhookEvent)]}
    others = [] if mistake_in_url is None else [Mistake(pointer("url"), "url_not_allowed", mistake_in_url)]
    return read_with(NewWebhook, raw, {"events": _Event}, sizes=sizes, others=others)


class DeliveriesQuery(Request):
    """Which deliveries to list."""

    state: Annotated[_State | None, Field(description="Only deliveries in this state.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


class WebhookResponse(Response):
    """A webhook of an organization. Its secret is only in the responses that make it."""

    webhook_id: UUID
    url: str
    events: tuple[_Event, ...]
    enabled: Annotated[bool, Field(description="False: it gets no events until it is enabled.")]
    disabled_at: AwareDatetime | None
    disabled_because: Annotated[
        _Because | None,
        Field(
            description="gone: the receiver responded 410. failing: every attempt failed for a week. The notifier disables, nobody else."
        ),
    ]
    failing_since: Annotated[
        AwareDatetime | None, Field(description="The first failed attempt since the last success; null: it works.")
    ]
    previous_secret_until: Annotated[AwareDatetime | None, Field(description="Until when the previous secret signs, too.")]
    created_by: str
    created_at: AwareDatetime


class WebhookWithSecretResponse(WebhookResponse):
    """A webhook with its secret. Store it now: no other response has it."""

    secret: Annotated[str, Field(description="The key that signs, as `standardwebhooks` takes it.")]


class WebhooksResponse(Response):
    """The webhooks of an organization, oldest first."""

    data: tuple[WebhookResponse, ...]


class WebhookChangesQuery(Request):
    """Which changes of webhooks to list."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


class WebhookChangeResponse(Response):
    """Who did what with a webhook. It stays when the webhook is deleted, and has no secret."""

    webhook_id: UUID
    change: _Change
    because: Annotated[_Because | None, Field(description="Why the notifier has disabled it; null for other changes.")]
    url: Annotated[str, Field(description="Scheme and host of the receiver; behind # the beginning of a hash of the whole URL.")]
    events: tuple[_Event, ...]
    changed_by: Annotated[str, Field(description="A person or a service; `notifier` if it was disabled.")]
    channel: str
    changed_at: AwareDatetime


class WebhookChangesResponse(Response):
    """A page of the changes of an organization's webhooks, newest first."""

    data: tuple[WebhookChangeResponse, ...]
    next_cursor: Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]


class DeliveryResponse(Response):
    """An event for a webhook, and what became of the last attempt."""

    event_id: Annotated[UUID, Field(description="The header `webhook-id`, the same in every attempt.")]
    event_type: str
    state: Annotated[
        _State,
        Field(
            description="pending: an attempt is to come. delivered: the receiver responded 2xx. failed: no attempt will follow by itself."
        ),
    ]
    created_at: AwareDatetime
    attempts: Annotated[int, Field(description="How many attempts were begun.")]
    attempted_at: AwareDatetime | None
    next_attempt_at: Annotated[AwareDatetime | None, Field(description="Null unless the state is pending.")]
    problem: Annotated[_Problem | None, Field(description="Why the last attempt failed.")]
    status: Annotated[int | None, Field(description="The status of the receiver's last response.")]
    response: Annotated[str | None, Field(description="The beginning of that response's body, at most 1,000 characters.")]
    took_ms: int | None


class DeliveriesResponse(Response):
    """A page of deliveries, newest first."""

    data: tuple[DeliveryResponse, ...]
    next_cursor: Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]
