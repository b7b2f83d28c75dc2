"""Revoking activities of an external registration service: the requests, their commands and the service's answers (decision 41).

A call stores a request for each item, and sends a command for it. The registration role asks the service without a lock, then writes the
answer down: in the request, the item, the batch, and `ActivitiesRevoked`. Until then the item is unresolved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.batches.model import Actor, BatchView, Revocation
from orchestrator.batches.records import RecordElsewhere, ServiceRecords
from orchestrator.batches.repository import EventOf
from orchestrator.batches.revoke import publish_revocation
from orchestrator.storage import outbox
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.revocation_requests import (
    Answer,
    Answered,
    OpenRequest,
    RevocationKey,
    living,
    open_requests,
    record_answers,
    store_requests,
)
from schemas import event_builders, events
from schemas.ids import derived_ids


class ExternalRecords(ServiceRecords):
    """The activities that the external service has registered, in the transaction of the connection."""

    def __init__(self, connection: Connection, *, bulk_threshold_items: int) -> None:
        self._connection = connection
        self._bulk_threshold_items = bulk_threshold_items

    def living(self, batch_id: UUID, positions: Sequence[int]) -> Sequence[RecordElsewhere]:
        """As in the port."""
        return living(self._connection, batch_id, positions)

    def request(self, batch: BatchView, positions: Sequence[int], actor: Actor, revocation: Revocation) -> None:
        """As in the port. Each request is sent as a command."""
        is_bulk = len(positions) > self._bulk_threshold_items
        store_requests(
            self._connection,
            batch.batch_id,
            batch.organization_id,
            positions,
            revocation,
            channel=actor.channel,
            is_bulk=is_bulk,
        )
        keys = [RevocationKey(str(batch.batch_id), position) for position in positions]
        send_commands(self._connection, open_requests(self._connection, keys))


def send_commands(connection: Connection, requests: Sequence[OpenRequest]) -> None:
    """Adds a command for each request to the outbox. A command that is sent again equals the first byte for byte."""
    commands: list[EventOf] = []
    headers: dict[str, event_builders.ItemEventHeaders] = {}
    for asked in requests:
        batch_id, position = asked.key
        item_id = derived_ids(batch_id).item_id_text(position)
        data = {
            "batch_id": batch_id,
            "item_id": item_id,
            "position": position,
            "request": asked.request,
            "organization_id": asked.organization_id,
        }
        of_batch = headers.get(batch_id) or headers.setdefault(batch_id, event_builders.ItemEventHeaders(asked.trace_id))
        envelope = of_batch.of(events.REVOKE_ACTIVITY, item_id, asked.request, asked.revocation.at)
        commands.append(
            EventOf(asked.organization_id, UUID(batch_id), event_builders.revoke_activity(data, envelope, bulk=asked.is_bulk))
        )
    outbox.insert_events(connection, commands)


@dataclass(frozen=True, slots=True)
class RevocationQuestion:
    """A request that the service has to answer."""

    command: RevocationKey
    asked: OpenRequest
    item_id: str

    @property
    def key(self) -> str:
        """The Idempotency-Key. It stays the same until the service has answered; after a refusal, the next request has another."""
        return f"{self.item_id}:revoke:{self.asked.request}"

    @property
    def trace_id(self) -> str:
        """The trace of the batch."""
        return self.asked.trace_id


@dataclass(frozen=True, slots=True)
class ActivityRevoked:
    """The service has revoked the activity, by this request or before."""


@dataclass(frozen=True, slots=True)
class RevocationRefused:
    """The service keeps the activity."""

    code: str


RevocationSettled = ActivityRevoked | RevocationRefused


def questions(connection: Connection, keys: Sequence[RevocationKey]) -> list[RevocationQuestion]:
    """What the service has to be asked about these items."""
    asked = open_requests(connection, keys)
    return [RevocationQuestion(each.key, each, derived_ids(each.key.batch_id).item_id_text(each.key.position)) for each in asked]


def write_answers(connection: Connection, answers: Sequence[tuple[RevocationQuestion, RevocationSettled]]) -> None:
    """Writes answers down, and announces what is revoked. An answer that was written before changes nothing."""
    repository = PostgresActivityRepository(connection)
    batch_ids = sorted({UUID(question.command.batch_id) for question, _ in answers})
    batches = {str(batch_id): batch for batch_id, batch in repository.lock_for_fold(batch_ids).items()}
    now = repository.clock()
    settled = record_answers(
        connection,
        [
            Answer(question.command, question.asked.request, told.code if isinstance(told, RevocationRefused) else None)
            for question, told in answers
            if question.command.batch_id in batches
        ],
        now,
    )
    for batch_id, of_batch in groupby(settled, key=lambda each: each.key.batch_id):
        batch, versions = batches[batch_id], 0
        ordered = sorted(of_batch, key=lambda each: (each.by, each.reason))
        for (by, reason), of_call in groupby(ordered, key=lambda each: (each.by, each.reason)):
            versions += _write(repository, batch, versions, list(of_call), Revocation(now, by, reason))
    if settled:
        repository.wake_relays()


def _write(
    repository: PostgresActivityRepository, batch: BatchView, versions: int, answered: Sequence[Answered], revocation: Revocation
) -> int:
    """Writes the answers to one call. `versions`: by how many the batch's version was raised before. Returns by how many this raises it."""
    refused = {each.key.position: each.code for each in answered if each.code is not None}
    revoked = sorted(each.key.position for each in answered if each.code is None)
    if refused:
        repository.mark_requests(batch.batch_id, refused, revocation)
    if revoked:
        repository.mark_revoked(batch.batch_id, revoked, revocation)
        number = batch.version + versions + bool(refused) + 1
        publish_revocation(repository, batch.organization_id, batch.batch_id, number, revoked, revocation, batch.trace_id)
    return bool(refused) + bool(revoked)
