"""The flow with an external registration service."""

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Unpack
from uuid import UUID

import orjson
from sqlalchemy import Connection, Engine, text

from consumers.external.adapter import ExternalRegistration
from consumers.loop.handler import Handled, Handler
from consumers.registration import RegistrationHandler
from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.records import ActivityRecords
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.external import ExternalRegistrationService
from orchestrator.registration.external_revoking import ExternalRecords
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.records import InProcessRecords
from schemas.corrections import Correction
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.support.pipeline import Pipeline, mentors, record
from tests.support.replaying import RecordingPipeline

NEVER = threading.Event()
ALL = RetryRequest()


class ExternalPipeline(Pipeline):
    """The flow. Its registration role asks the service first, as the loop does."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings, engine)
        self.external = ExternalRegistration(settings, engine)
        self.handlers = (self.handlers[0], RegistrationHandler(ExternalRegistrationService()), self.handlers[2])

    def handle(self, handler: Handler, events: Iterable[OutgoingEvent]) -> Handled:
        events = list(events)
        if handler is self.registration:
            self.external.prepare([record(event, offset) for offset, event in enumerate(events)], NEVER)
        return super().handle(handler, events)

    def commands(self, batch_id: UUID) -> list[OutgoingEvent]:
        """The commands of a new batch or a retry."""
        self.relay()
        self.handle(self.splitter, self.take(Topic.BATCHES))
        return [command for command in self.take(Topic.COMMANDS) if str(batch_id).encode() in command.value]

    def close(self) -> None:
        self.external.close()
        super().close()


def codes(pipeline: Pipeline, batch_id: UUID) -> list[str | None]:
    return [shown.error.code if shown.error else None for shown in pipeline.status(batch_id).items]


def correct(batch_id: UUID, position: int, **changes: Unpack[Correction]) -> RetryRequest:
    return RetryRequest(corrections=[CorrectedItem(DerivedIds(batch_id).item_id(position), changes)])


def in_process() -> RegistrationHandler:
    """The registration role after BULKREG_REGISTRATION_URL was removed."""
    return RegistrationHandler(InProcessRegistrationService(EARLIEST_YEAR))


def own_activities(pipeline: Pipeline) -> int:
    with pipeline.engine.begin() as connection:
        return int(connection.execute(text("SELECT count(*) FROM registration.activity")).scalar_one())


def decide(pipeline: ExternalPipeline, handler: RegistrationHandler, commands: Sequence[OutgoingEvent]) -> None:
    with pipeline.engine.begin() as connection:
        handled = handler.handle(connection, [record(command, offset) for offset, command in enumerate(commands)])
    for result in handled.events:
        pipeline.queues[Topic.RESULTS].append(result)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))


COMMANDS = (Topic.COMMANDS, Topic.COMMANDS_BULK)


class RevokingPipeline(ExternalPipeline, RecordingPipeline):
    """The flow with a service that revokes."""

    def records(self, connection: Connection) -> ActivityRecords:
        return InProcessRecords(connection, ExternalRecords(connection, bulk_threshold_items=2))

    def registered(self, count: int) -> UUID:
        """A batch whose items the service has registered."""
        batch_id = self.submit(mentors(count))
        self.drain()
        return batch_id

    def requests(self) -> list[OutgoingEvent]:
        """The commands that a revocation has sent."""
        self.relay()
        return self.take(*COMMANDS)

    def announced(self) -> list[dict[str, Any]]:
        """The revocations that upstream services have heard of."""
        self.relay()
        taken = self.take(Topic.LIFECYCLE)
        return [orjson.loads(each.value) for each in taken if dict(each.headers)["ce_type"].endswith(b"ActivitiesRevoked.v1")]

    def shown(self, batch_id: UUID) -> list[tuple[bool, str | None]]:
        """Of each item, whether it is revoked, and what became of the request."""
        return [(item.revocation is not None, item.revocation_request) for item in self.status(batch_id).items]
