"""The whole flow without a broker: real handlers and real SQL. A test can repeat, reorder and hold back the events in its queues."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from consumers.aggregator import AggregatorHandler
from consumers.loop.decoding import read
from consumers.loop.handler import Handled, Handler, Record
from consumers.registration import RegistrationHandler
from consumers.splitter import SplitterHandler
from orchestrator.batches import operations
from orchestrator.batches.model import Actor, ItemFilter, ItemValues, NewBatch, NewItem, Role, StatusView
from orchestrator.batches.records import ActivityRecords
from orchestrator.batches.repository import ActivityRepository
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.records import InProcessRecords
from orchestrator.storage import outbox
from orchestrator.storage.database import create_database_engine, transact
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.envelope import OutgoingEvent, Topic, open_envelope
from schemas.events import EventData
from schemas.ids import new_batch_id
from tests.support.contents import Contents

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")
Port = TypeVar("Port")

ORGANIZATION = "org-standard"
COORDINATOR = "coord-1"
COORDINATOR_ACTOR = Actor(ORGANIZATION, COORDINATOR, Role.COORDINATOR)
ADMIN = Actor(ORGANIZATION, "boss", Role.ADMIN)
DAY = date(2026, 3, 25)
TIMESTAMP_MS = 1_774_515_600_000


def item(mentor: str, *, day: date = DAY, kind: str = "visit", minutes: int = 60, notes: str | None = None) -> NewItem:
    """Returns an item with usual values."""
    return NewItem(ItemValues(mentor, kind, day, minutes, notes))


def mentors(count: int, first: int = 1) -> list[NewItem]:
    """Returns items for so many mentors of the standard directory."""
    return [item(f"mentor-{number}") for number in range(first, first + count)]


def standard_directory(engine: Engine, *, mentor_count: int = 100) -> None:
    """Creates one organization with a chapter, a coordinator with scope on it, and mentors `mentor-1` to `mentor-N`."""
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO registration.organization VALUES (:org, 'Standard', 'Europe/Oslo')",
            "INSERT INTO registration.coordinator VALUES (:org, :coordinator, 'Coordinator', 'coordinator')",
            "INSERT INTO registration.coordinator_scope VALUES (:org, :coordinator, 'chapter-1')",
            "INSERT INTO registration.activity_type VALUES (:org, 'visit', 'Visit')",
            "INSERT INTO registration.mentor SELECT :org, 'mentor-' || n, 'Mentor', 'chapter-1' FROM generate_series(1, :mentors) n",
        ):
            connection.execute(text(statement), {"org": ORGANIZATION, "coordinator": COORDINATOR, "mentors": mentor_count})


class Pipeline:
    """Runs the roles step by step, one micro-batch at a time."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.engine = engine
        self.api = create_database_engine(settings.api_url, settings, connections=8, application_name="test-api")
        self.handlers: Sequence[Handler] = (
            SplitterHandler(bulk_threshold_items=settings.bulk_threshold_items, max_items=settings.max_items),
            RegistrationHandler(InProcessRegistrationService(EARLIEST_YEAR)),
            AggregatorHandler(bulk_threshold_items=settings.bulk_threshold_items),
        )
        self.queues: dict[Topic, list[OutgoingEvent]] = defaultdict(list)
        self.refused: list[tuple[str, str]] = []
        self._contents = Contents()

    @property
    def splitter(self) -> Handler:
        """The splitter."""
        return self.handlers[0]

    @property
    def registration(self) -> Handler:
        """The registration."""
        return self.handlers[1]

    @property
    def aggregator(self) -> Handler:
        """The aggregator."""
        return self.handlers[2]

    def submit(self, items: Sequence[NewItem], *, actor: Actor = COORDINATOR_ACTOR, label: str | None = None) -> UUID:
        """Accepts a batch as the API does."""
        batch = NewBatch(new_batch_id(), COORDINATOR, label, False, items, "0" * 31 + "1")
        self.call(operations.submit_bulk_registration, actor, batch)
        return batch.batch_id

    def call(
        self,
        operation: Callable[Concatenate[ActivityRepository, Actor, Arguments], Returned],
        actor: Actor,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Returned:
        """Runs an operation in a transaction of the API's role."""
        return transact(
            self.api,
            lambda connection: operation(PostgresActivityRepository(connection), actor, *arguments, **named),
            organizations=[actor.organization_id],
        )

    def call_with(
        self,
        port: Callable[[Connection], Port],
        operation: Callable[Concatenate[ActivityRepository, Port, Actor, Arguments], Returned],
        actor: Actor,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Returned:
        """The same for an operation that needs another port: templates, notes, or `records` for one that takes activities back."""
        return transact(
            self.api,
            lambda connection: operation(PostgresActivityRepository(connection), port(connection), actor, *arguments, **named),
            organizations=[actor.organization_id],
        )

    def records(self, connection: Connection) -> ActivityRecords:
        """Returns the activities as the API reaches them."""
        return InProcessRecords(connection)

    def status(self, batch_id: UUID, *, actor: Actor = ADMIN) -> StatusView:
        """Returns the batch with all its items."""
        view = transact(
            self.api,
            lambda connection: operations.get_bulk_submission_status(
                PostgresActivityRepository(connection), actor, batch_id, ItemFilter(limit=10_000)
            ),
            organizations=[actor.organization_id],
            snapshot=True,
        )
        view.batch.counts.total  # noqa: B018 - the counts validate themselves
        return view

    def relay(self) -> None:
        """Publishes the contents of the outbox."""
        limits = outbox.ReadLimits(100_000, 1 << 30)
        with self.engine.begin() as connection:
            # One row of each stream at a time.
            while rows := outbox.oldest_rows(connection, range(outbox.SLOTS), limits):
                outbox.delete_rows(connection, rows)
                for row in rows:
                    self._publish(row.event)

    def _publish(self, event: OutgoingEvent) -> None:
        difference = self._contents.difference(event.key, event.headers, event.value)
        assert difference is None, difference
        self.queues[event.topic].append(event)

    def forget_what_was_published(self) -> None:
        """Notes a restored database: what it has lost happens again, with the same ids, at another time (decision 31)."""
        self._contents = Contents()

    def take(self, *topics: Topic) -> list[OutgoingEvent]:
        """Empties the queues of these topics and returns their events."""
        taken = [event for topic in topics for event in self.queues[topic]]
        for topic in topics:
            self.queues[topic].clear()
        return taken

    def handle(self, handler: Handler, events: Iterable[OutgoingEvent]) -> Handled:
        """Runs one micro-batch of a role, and queues what it produces."""
        records = [self.read(event, offset) for offset, event in enumerate(events)]
        if not records:
            return Handled(())
        handled = transact(self.engine, lambda connection: handler.handle(connection, records))
        handled.count()
        for event in handled.events:
            self._publish(event)
        self.refused += [(handler.name, error.reason) for _, error in handled.refused]
        return handled

    def read(self, event: OutgoingEvent, offset: int) -> Record[EventData]:
        """Returns an event as the loop passes it to a handler."""
        return record(event, offset)

    def step(self) -> None:
        """Runs the relay, then every role once with all events that wait for it."""
        self.relay()
        for handler in self.handlers:
            self.handle(handler, self.take(*handler.topics))

    def drain(self) -> None:
        """Steps until no event waits."""
        self.step()
        while any(self.queues[topic] for handler in self.handlers for topic in handler.topics) or self._outbox_rows():
            self.step()

    def drain_until_registered(self) -> None:
        """Does everything up to the outcomes. The results that announce them stay in their queue."""
        self.relay()
        self.handle(self.splitter, self.take(Topic.BATCHES))
        self.handle(self.registration, self.take(Topic.COMMANDS, Topic.COMMANDS_BULK))

    def _outbox_rows(self) -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(text("SELECT count(*) FROM orchestrator.outbox")).scalar_one())

    def close(self) -> None:
        """Closes the connections."""
        self.api.dispose()


def record(event: OutgoingEvent, offset: int = 0) -> Record[EventData]:
    """Returns an event as the loop passes it to a handler."""
    envelope = open_envelope(event.headers, event.value)
    return Record(event.topic, 0, offset, TIMESTAMP_MS, envelope, read(event.topic, envelope))


def load_directory(engine: Engine, folder: Path) -> None:
    """Loads a directory's CSV files without checks."""
    columns = {
        "activity_types": ("activity_type", "organization_id, activity_type, name"),
        "coordinators": ("coordinator", "organization_id, coordinator_id, name, role"),
        "mentors": ("mentor", "organization_id, mentor_id, name, chapter_id, active_from, active_until"),
        "scopes": ("coordinator_scope", "organization_id, coordinator_id, chapter_id"),
    }
    with engine.begin() as connection:
        for name, (table, listed) in columns.items():
            with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
                rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
            placeholders = ", ".join(f":{column}" for column in listed.split(", "))
            connection.execute(text(f"INSERT INTO registration.{table} ({listed}) VALUES ({placeholders})"), rows)
