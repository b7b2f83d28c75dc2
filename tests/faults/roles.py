"""Runs the product's roles on a real Kafka and a real PostgreSQL, as threads of the test, and checks what must be true at the end."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from sqlalchemy import Engine, text

from consumers.aggregator import AggregatorHandler
from consumers.loop.handler import Handler, Preparation
from consumers.loop.runtime import ConsumerLoop
from consumers.registration import RegistrationHandler
from consumers.splitter import SplitterHandler
from orchestrator.batches.publishing import Publisher
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.storage.database import create_database_engine
from orchestrator.verification.verify import verify
from producers.producer import EventProducer
from producers.relay import OutboxRelay
from schemas.envelope import OutgoingEvent, Topic
from tests.support.kafka import Seen, committed_offsets
from tests.support.pipeline import Pipeline
from tests.support.waiting import eventually

# A group's session timeout in these tests, after which a lost member is noticed, and its heartbeat interval.
SESSION_TIMEOUT_MS, HEARTBEAT_MS = 3_000, 300


class CountingLoop(ConsumerLoop):
    """The loop, with a count of its iterations (a busy loop has many), and whether it has ended."""

    turns = 0
    has_ended = False

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.has_ended = True

    def partitions(self, topic: Topic) -> set[int]:
        """The partitions that it has at present."""
        return {owned.partition for owned in list(self._assigned.values()) if owned.topic is topic}

    def _turn(self) -> None:
        self.turns += 1
        super()._turn()


def registration_role() -> Handler:
    return RegistrationHandler(InProcessRegistrationService(EARLIEST_YEAR))


def aggregator_role() -> Handler:
    return AggregatorHandler(bulk_threshold_items=200)


def splitter_role(settings: Settings) -> Handler:
    return SplitterHandler(bulk_threshold_items=settings.bulk_threshold_items, max_items=settings.max_items)


@contextlib.contextmanager
def _running(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """Runs it in a thread. An error in the thread is raised at the end of the block."""
    raised: list[BaseException] = []

    def main() -> None:
        try:
            run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()
    if raised:
        raise raised[0]


@contextlib.contextmanager
def running_role(settings: Settings, handler: Handler, preparation: Preparation | None = None) -> Iterator[CountingLoop]:
    """A consumer role."""
    producer = EventProducer(settings)
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name=handler.name)
    loop = CountingLoop(settings, handler, engine, producer, preparation=preparation)
    with _running(loop.run, loop.stop):
        yield loop
    engine.dispose()
    producer.close()


@contextlib.contextmanager
def running_loop_of(loop: ConsumerLoop) -> Iterator[None]:
    """Runs a consumer that the test has built."""
    with _running(loop.run, loop.stop):
        yield


@contextlib.contextmanager
def running_relay(settings: Settings, publisher: Publisher | None = None) -> Iterator[OutboxRelay]:
    """Runs an outbox relay with its own producer, or with the test's."""
    producer = EventProducer(settings)
    relay = OutboxRelay(settings, publisher or producer)
    with _running(relay.run, relay.stop):
        yield relay
    producer.close()


@contextlib.contextmanager
def running_flow(settings: Settings) -> Iterator[None]:
    """Runs the relay and one of each consumer. None of them may end before the block does."""
    with contextlib.ExitStack() as roles:
        roles.enter_context(running_relay(settings))
        for handler in (splitter_role(settings), registration_role(), aggregator_role()):
            roles.enter_context(running_role(settings, handler))
        yield


def armed(settings: Settings, **changes: object) -> Settings:
    """Settings of the same deployment, for a role that a test wants to behave differently."""
    return settings.model_copy(update=changes)


def registration_process() -> None:
    """The registration role as a process. It exits at the failpoint that BULKREG_FAILPOINTS names."""
    settings = Settings()
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="registration")
    ConsumerLoop(settings, registration_role(), engine, EventProducer(settings)).run()


def splitter_process() -> None:
    """The splitter role as a process. It exits at the failpoint that BULKREG_FAILPOINTS names."""
    settings = Settings()
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="splitter")
    ConsumerLoop(settings, splitter_role(settings), engine, EventProducer(settings)).run()


def relay_process() -> None:
    """The relay as a process. It exits at the failpoint that BULKREG_FAILPOINTS names."""
    settings = Settings()
    OutboxRelay(settings, EventProducer(settings)).run()


def shorten_session(settings: Settings, role: str, *, session_timeout_ms: int = SESSION_TIMEOUT_MS) -> None:
    """Shortens the group's session timeout, so that a member that died or stands still is noticed sooner than after five seconds."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    entries = [
        ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
        for name, value in (
            ("consumer.session.timeout.ms", session_timeout_ms),
            ("consumer.heartbeat.interval.ms", HEARTBEAT_MS),
        )
    ]
    group = ConfigResource(ResourceType.GROUP, f"{settings.topic_prefix}.{role}", incremental_configs=entries)
    for future in admin.incremental_alter_configs([group]).values():
        future.result()


def committed(settings: Settings, role: str, topic: Topic) -> int:
    """How many records the role's group has committed. The topic's offsets must have no gaps."""
    return sum(committed_offsets(settings, role, topic).values())


def expanded(pipeline: Pipeline, batch_id: UUID) -> list[OutgoingEvent]:
    """The commands of a submitted batch."""
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS, Topic.COMMANDS_BULK)
    assert commands, batch_id
    return commands


def fold(pipeline: Pipeline, results: Sequence[Seen]) -> None:
    """Passes results that were read from their topic to the aggregator."""
    pipeline.handle(
        pipeline.aggregator, [OutgoingEvent(Topic.RESULTS, r.key, tuple(r.headers.items()), r.value) for r in results]
    )


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def status_of(engine: Engine, batch_id: UUID) -> str:
    with engine.connect() as connection:
        found = text("SELECT status FROM orchestrator.batch WHERE batch_id = :id")
        return str(connection.execute(found, {"id": batch_id}).scalar_one_or_none())


def assert_exactly_once(engine: Engine, settings: Settings, *, activities: int) -> None:
    """Checks the number of activities, one audit row and one successful outcome for each, and every invariant (docs/invariants.md)."""
    assert count(engine, "registration.activity") == activities
    assert count(engine, "registration.audit") == activities
    assert count(engine, "orchestrator.outcome WHERE outcome = 'success'") == activities
    breaches = verify(engine, settings).breaches
    assert not breaches, breaches


def wait_until_completed(engine: Engine, batches: Sequence[UUID], *, within_s: float = 60.0) -> None:
    """Waits until every item of every batch has succeeded."""
    eventually(lambda: {status_of(engine, batch) for batch in batches} == {"completed"}, within_s=within_s, what="completion")
