"""A handler that does as little as possible, so that a test of the loop tests only the loop."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from consumers.loop.handler import Handled, Lane, Record, RefusedError
from consumers.loop.lanes import LanePolicy
from consumers.loop.runtime import ConsumerLoop
from orchestrator.batches.publishing import Publisher
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from schemas.event_builders import ItemEventHeaders, register_activity, result
from schemas.events import REGISTER_ACTIVITY, SUCCEEDED, EventData, RegisterActivity
from schemas.ids import DerivedIds
from tests.support.waiting import HELD_S

BATCH_ID = UUID("01890000-0000-7000-8000-000000000000")
TIME = datetime(2026, 3, 25, tzinfo=UTC)
BULK = "bulk"

_ids = DerivedIds(BATCH_ID)
_headers = ItemEventHeaders("ab" * 16)


class BugError(Exception):
    """What a handler with a bug raises."""


def command(position: int, *, bulk: bool = False) -> OutgoingEvent:
    """Returns a command on the topic of small batches, whatever its lane, so that the lanes share partitions."""
    data = {
        "batch_id": BATCH_ID,
        "item_id": _ids.item_id(position),
        "position": position,
        "attempt": 1,
        "organization_id": "org",
        "coordinator_id": "coordinator",
        "mentor_id": f"mentor-{position}",
        "activity_type": BULK if bulk else "visit",
        "activity_date": "2026-03-25",
        "duration_minutes": 60,
    }
    return register_activity(data, _headers.of(REGISTER_ACTIVITY, _ids.item_id(position), 1, TIME), bulk=False)


class ToyHandler:
    """Counts each position once in the table `toy`, and each time returns a result for it."""

    name = "toy"
    topics: tuple[Topic, ...] = (Topic.COMMANDS,)

    def __init__(
        self, *, bugs: frozenset[int] = frozenset(), hopeless: bool = False, refused: frozenset[int] = frozenset()
    ) -> None:
        self.bugs = bugs
        self.hopeless = hopeless
        self.refused = refused
        self.handled: list[list[int]] = []
        """The positions of each micro-batch, in order, including those that were rolled back."""
        self.given_up: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def lane(self, _topic: Topic, data: EventData) -> Lane:
        assert isinstance(data, RegisterActivity)
        return Lane.BULK if data.activity_type == BULK else Lane.SMALL

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        positions = [_position(record) for record in records]
        self.handled.append(positions)
        assert self.may_go_on.wait(HELD_S)
        connection.execute(
            text("INSERT INTO toy SELECT unnest(CAST(:positions AS integer[])) ON CONFLICT DO NOTHING"), {"positions": positions}
        )
        if self.bugs.intersection(positions):
            raise BugError("the notes of somebody")
        refused = [(index, RefusedError("toy_refused", "as asked")) for index, p in enumerate(positions) if p in self.refused]
        return Handled([_result(position) for position in positions if position not in self.refused], refused)

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        assert isinstance(error, BugError)
        if self.hopeless:
            raise BugError("the notes of somebody")
        self.given_up.append(_position(record))
        return Handled([_result(_position(record))])


def _position(record: Record[EventData]) -> int:
    assert isinstance(record.data, RegisterActivity)
    return record.data.position


def _result(position: int) -> OutgoingEvent:
    data = {"batch_id": BATCH_ID, "item_id": _ids.item_id(position), "position": position, "attempt": 1}
    headers = _headers.of(SUCCEEDED, _ids.item_id(position), 1, TIME)
    return result(data, headers, batch_id=str(BATCH_ID), position=position)


def make_toy_table(settings: Settings) -> None:
    engine = create_database_engine(settings.owner_url, settings, connections=1, application_name="test")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE toy (position integer PRIMARY KEY)"))
        connection.execute(text("GRANT ALL ON toy TO bulkreg_worker"))
    engine.dispose()


def toy_positions(engine: Engine) -> list[int]:
    """Returns the positions that were counted."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT position FROM toy ORDER BY position")))


class ObservedLoop(ConsumerLoop):
    """The loop, with what a test needs to know about it."""

    has_ended = False

    @property
    def paused_partitions(self) -> int:
        return len(self._feeders)


@contextlib.contextmanager
def running_loop(
    settings: Settings, handler: ToyHandler, *, publisher: Publisher | None = None, policy: LanePolicy | None = None
) -> Iterator[ObservedLoop]:
    """Runs the loop in a thread of its own. An error of the loop is raised at the end of the block."""
    producer = publisher or EventProducer(settings)
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="toy")
    loop = ObservedLoop(settings, handler, engine, producer, policy=policy)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            loop.run()
        except BaseException as error:
            raised.append(error)
        finally:
            loop.has_ended = True

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield loop
    finally:
        handler.may_go_on.set()
        loop.stop()
        thread.join()
        engine.dispose()
        if isinstance(producer, EventProducer):
            producer.close()
    if raised:
        raise raised[0]
