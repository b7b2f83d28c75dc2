"""The notifier's side of the tables: which events are to be delivered, which are due, and what became of an attempt."""

import itertools
from collections import Counter
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements
from orchestrator.webhooks.bodies import body_of, event_of
from orchestrator.webhooks.model import Attempt
from orchestrator.webhooks.policy import DISABLED_AFTER, TRIED_FOR, pause_after
from orchestrator.webhooks.secrets import Sealer, UnreadableSecretError
from orchestrator.webhooks.store import WebhookStore
from schemas.events import ActivitiesRevoked, BatchCompleted, BatchRejected
from schemas.statuses import DeliveryState, DisabledBecause, WebhookChange

_SQL = read_statements("orchestrator/webhooks/sql/deliveries.sql")

_TOLD = _SQL["told"].text()
_FOREIGN = _SQL["foreign"].text()
_RECORD = _SQL["record"].text()
_CLAIM = _SQL["claim"].text()
_LOCK = _SQL["lock"].text()
_END = _SQL["end"].text()
_FAILING = _SQL["failing"].text()
_DISABLE = _SQL["disable"].text()
_SECRETS = _SQL["secrets"].text()
_RESEAL = _SQL["reseal"].text()
_EXPIRE = _SQL["expire"].text()
_FIGURES = _SQL["figures"].text()
_DISABLED = _SQL["disabled"].text()

LEASE = timedelta(seconds=60)
"""How long a claimed delivery is left to its notifier. Several times longer than an attempt."""

# The clocks of the brokers and the database differ. An event from shortly before a webhook's creation is delivered, none after it is left out.
_TOLERANCE = timedelta(minutes=5)

_REMEMBERED = 10_000

_GONE = 410

# Who disables webhooks, in the record of their changes.
_NOTIFIER = "notifier"

ToldData = BatchCompleted | BatchRejected | ActivitiesRevoked
"""The events that webhooks can be told of."""


class ToldEvent(NamedTuple):
    """An event of the topic, and when the broker received it."""

    event_id: UUID
    data: ToldData
    timestamp_ms: int


class Claimed(NamedTuple):
    """A delivery that this process attempts. The secrets are sealed; the previous one is None once it no longer signs."""

    webhook_id: UUID
    event_id: UUID
    event_type: str
    body: str
    attempts: int
    is_first: bool
    """Whether it was the only request to its webhook when it was claimed, and the webhook did not fail."""
    url: str
    secret: bytes
    previous_secret: bytes | None


class Room(NamedTuple):
    """How many requests may be begun: those that are the only ones to a webhook that does not fail, and others."""

    first: int
    more: int

    @classmethod
    def of(cls, connections: int) -> "Room":
        """Half of the connections is for first requests. So receivers that hang or fail can't take those of receivers that work."""
        return cls(connections - connections // 2, connections // 2)

    def without(self, claimed: Collection[Claimed]) -> "Room":
        """What is left beside these requests."""
        first = sum(each.is_first for each in claimed)
        return Room(self.first - first, self.more - (len(claimed) - first))


@dataclass(frozen=True, slots=True)
class Ended:
    """What an attempt has led to."""

    state: DeliveryState
    disabled: DisabledBecause | None = None
    """Why the webhook is disabled from now on; None: it is not."""


class WebhookFigures(NamedTuple):
    """The state of all webhooks: how many are disabled, how many fail, and how long the first due delivery has waited."""

    disabled: int
    failing: int
    overdue_s: float


class DisabledWebhook(NamedTuple):
    """A webhook that the notifier has disabled."""

    webhook_id: UUID
    organization_id: str
    disabled_at: datetime
    because: DisabledBecause


def of_other_organizations(connection: Connection, events: Sequence[ToldEvent]) -> Set[UUID]:
    """The events that name another organization than that of their batch. A rejection may: it says whom the rejected event was about."""
    checked = [event for event in events if not isinstance(event.data, BatchRejected)]
    if not checked:
        return frozenset()
    parameters = {
        "event_ids": arrays.plain([event.event_id for event in checked]),
        "batch_ids": arrays.plain([event.data.batch_id for event in checked]),
        "organizations": arrays.texts([event.data.organization_id for event in checked]),
    }
    return frozenset(connection.execute(_FOREIGN, parameters).scalars())


def record_deliveries(connection: Connection, events: Sequence[ToldEvent]) -> int:
    """Stores a delivery for each event and each webhook that is told of it; returns how many are new. May be repeated with any of them."""
    organizations = {event.data.organization_id for event in events}
    told = (
        set(connection.execute(_TOLD, {"organizations": arrays.texts(sorted(organizations))}).scalars())
        if organizations
        else set()
    )
    wanted = [event for event in events if event.data.organization_id in told]
    if not wanted:
        return 0
    moments = [datetime.fromtimestamp(event.timestamp_ms / 1000, UTC) for event in wanted]
    parameters = {
        "event_ids": arrays.plain([event.event_id for event in wanted]),
        "organizations": arrays.texts([event.data.organization_id for event in wanted]),
        "event_types": arrays.texts([event_of(event.data) for event in wanted]),
        "bodies": arrays.texts([body_of(event.data, event.timestamp_ms) for event in wanted]),
        "received_at": arrays.texts([moment.isoformat() for moment in moments]),
        "tolerance": _TOLERANCE,
    }
    return int(connection.execute(_RECORD, parameters).rowcount)


class Turns:
    """In which order this process has served webhooks, as far back as 10,000 of them."""

    def __init__(self) -> None:
        self.of: dict[UUID, int] = {}
        """The last turn of each webhook."""
        self._turn = 0

    def note(self, claimed: Collection[Claimed]) -> None:
        """Notes that these deliveries were claimed together."""
        self._turn += 1
        for each in claimed:
            # At the end of the order.
            self.of.pop(each.webhook_id, None)
            self.of[each.webhook_id] = self._turn
        for webhook_id in list(itertools.islice(self.of, max(0, len(self.of) - _REMEMBERED))):
            del self.of[webhook_id]


def claim_deliveries(
    connection: Connection, *, under_way: Collection[Claimed], turns: Turns, most: int, connections: int
) -> Sequence[Claimed]:
    """Claims deliveries that are due, for `LEASE`. `under_way` is what this process attempts. With that, it has at most `most` requests to a
    webhook, and `connections` to all. What is claimed is not noted in `turns`: the transaction may fail."""
    room = Room.of(connections).without(under_way)
    counts = Counter(each.webhook_id for each in under_way)
    busy = {"busy": arrays.plain(counts), "under_way": arrays.plain(counts.values())}
    served = {"served": arrays.plain(turns.of), "turns": arrays.plain(turns.of.values())}
    rows = connection.execute(_CLAIM, {**busy, **served, "most": most, "first": room.first, "more": room.more, "lease": LEASE})
    return [
        Claimed(
            row.webhook_id,
            row.event_id,
            row.event_type,
            row.body,
            row.attempts,
            row.is_first,
            row.url,
            bytes(row.secret),
            None if row.previous_secret is None else bytes(row.previous_secret),
        )
        for row in rows
    ]


def end_attempt(connection: Connection, claimed: Claimed, attempt: Attempt) -> Ended | None:
    """Stores what became of an attempt: the delivery has ended, or waits for the next attempt; the webhook may be disabled.

    Returns None if there is nothing to store: the webhook was deleted, or another process has taken over and this attempt failed.
    """
    key = {"webhook_id": claimed.webhook_id, "event_id": claimed.event_id}
    row = connection.execute(_LOCK, key).one_or_none()
    if row is None or (attempt.problem is not None and (row.attempts != claimed.attempts or row.state != DeliveryState.PENDING)):
        return None
    told = {"problem": attempt.problem, "status": attempt.status, "response": attempt.response, "took_ms": attempt.took_ms}
    if attempt.problem is None:
        connection.execute(_END, {**key, **told, "state": DeliveryState.DELIVERED, "due_at": row.now})
        if row.failing_since is not None:
            connection.execute(_FAILING, {"webhook_id": claimed.webhook_id, "failing_since": None})
        return Ended(DeliveryState.DELIVERED)
    failing_since = row.failing_since or row.now
    because = _disabled_because(attempt, row.now - failing_since)
    due_at = row.now + pause_after(claimed.attempts)
    is_over = because is not None or due_at > row.tried_from + TRIED_FOR
    state = DeliveryState.FAILED if is_over else DeliveryState.PENDING
    connection.execute(_END, {**key, **told, "state": state, "due_at": due_at})
    if row.failing_since is None:
        connection.execute(_FAILING, {"webhook_id": claimed.webhook_id, "failing_since": failing_since})
    if because is None or row.disabled_at is not None:
        return Ended(state)
    connection.execute(_DISABLE, {"webhook_id": claimed.webhook_id, "because": because})
    WebhookStore(connection).note(claimed.webhook_id, WebhookChange.DISABLED, by=_NOTIFIER, channel=_NOTIFIER, because=because)
    return Ended(state, because)


def _disabled_because(attempt: Attempt, failing_for: timedelta) -> DisabledBecause | None:
    if attempt.status == _GONE:
        return DisabledBecause.GONE
    return DisabledBecause.FAILING if failing_for >= DISABLED_AFTER else None


def renew_secrets(connection: Connection, sealer: Sealer) -> int:
    """Encrypts all secrets under the first key, so that the others can be removed from the settings. Returns how many were not.

    A secret that none of the keys opens is left as it is.
    """
    renewed = 0
    for row in connection.execute(_SECRETS).all():
        for sealed in (row.secret, row.previous_secret):
            if sealed is not None and (resealed := _renewed(sealer, bytes(sealed))) is not None:
                connection.execute(_RESEAL, {"webhook_id": row.webhook_id, "sealed": bytes(sealed), "resealed": resealed})
                renewed += 1
    return renewed


def _renewed(sealer: Sealer, sealed: bytes) -> bytes | None:
    try:
        return sealer.renewed(sealed)
    except UnreadableSecretError:
        return None


def unreadable_secrets(connection: Connection, sealer: Sealer | None) -> Sequence[UUID]:
    """The webhooks whose secret none of the keys opens."""
    return [row.webhook_id for row in connection.execute(_SECRETS) if sealer is None or not _opens(sealer, bytes(row.secret))]


def _opens(sealer: Sealer, sealed: bytes) -> bool:
    try:
        sealer.open(sealed)
    except UnreadableSecretError:
        return False
    return True


def expire_deliveries(connection: Connection, *, after: timedelta, most: int) -> int:
    """Deletes at most `most` deliveries that ended and are older than `after`. Returns how many."""
    return int(connection.execute(_EXPIRE, {"after": after, "most": most}).rowcount)


def webhook_figures(connection: Connection) -> WebhookFigures:
    """Reads the figures in one statement."""
    row = connection.execute(_FIGURES).one()
    return WebhookFigures(int(row.disabled), int(row.failing), max(0.0, float(row.overdue_s)))


def disabled_webhooks(connection: Connection) -> Sequence[DisabledWebhook]:
    """The webhooks that the notifier has disabled."""
    rows = connection.execute(_DISABLED)
    return [
        DisabledWebhook(row.webhook_id, row.organization_id, row.disabled_at, DisabledBecause(row.disabled_because))
        for row in rows
    ]
