"""Row 46 of the fault catalogue: a process that stands still loses its locks when its lease ends."""

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import psycopg2
import psycopg2.extras
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.operations import cancel_batch
from orchestrator.batches.repository import EventOf
from orchestrator.process.settings import Settings
from orchestrator.storage import migrate, sweeping
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.outbox import SLOTS, insert_events, slot_of
from schemas.envelope import Topic
from schemas.ids import batch_lock_key
from tests.faults.roles import armed, count, relay_process, running_relay
from tests.support.kafka import reading
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, mentors
from tests.support.process import in_process
from tests.support.upstream import submitted, upstream_items
from tests.support.waiting import eventually

LEASE_MS = 1_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return armed(settings, relay_poll_ms=100, relay_lease_ms=LEASE_MS, idle_in_transaction_timeout_ms=LEASE_MS)


def stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stands_still(pid: int) -> bool:
    return b"T (stopped)" in Path(f"/proc/{pid}/status").read_bytes()


def one_event_of_each_slot(engine: Engine) -> list[str]:
    """Puts an event into each slot. Returns the ids of their batches."""
    batches = [next(each for each in iter(uuid4, None) if slot_of(each) == slot) for slot in range(SLOTS)]
    with engine.begin() as connection:
        insert_events(connection, [EventOf(ORGANIZATION, each, submitted(each, upstream_items(1))) for each in batches])
    return sorted(map(str, batches))


# --- The slots of a relay -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("topics")
def test_row_46_relay_that_stands_still_loses_its_slots_and_continues_without_harm(settings: Settings, engine: Engine) -> None:
    with (
        running_relay(settings) as survivor,
        in_process(relay_process, settings) as frozen,
        reading(settings, Topic.BATCHES) as topic,
    ):
        eventually(lambda: len(survivor.slots) == SLOTS // 2)
        frozen.send_signal(signal.SIGSTOP)
        first = one_event_of_each_slot(engine)
        eventually(lambda: sorted({seen.key for seen in topic.read()}) == first)
        eventually(lambda: len(survivor.slots) == SLOTS)
        frozen.send_signal(signal.SIGCONT)
        eventually(lambda: len(survivor.slots) == SLOTS // 2)
        second = one_event_of_each_slot(engine)
        eventually(lambda: sorted({seen.key for seen in topic.read()}) == sorted(first + second))
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)


def deaf_relay_process() -> None:
    """A process that owns every slot, and stands still while the server sends it more than any buffer holds."""
    settings = Settings()
    connection = psycopg2.connect(settings.worker_url.render_as_string(hide_password=False).replace("+psycopg2", ""), async_=True)
    for statement in (
        "SELECT pg_advisory_lock_shared(x'62756C6D'::int, 0), pg_advisory_lock(x'62756C6C'::int, n) FROM generate_series(0, 15) n",
        "SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
    ):
        psycopg2.extras.wait_select(connection)
        cursor = connection.cursor()
        cursor.execute(statement)
    stand_still()


@pytest.mark.usefixtures("topics")
def test_row_46_relay_that_stands_still_while_it_is_sent_rows(settings: Settings, engine: Engine) -> None:
    """Its session is not idle but writing, so no server timeout ends it."""
    with in_process(deaf_relay_process, settings) as deaf:
        eventually(lambda: stands_still(deaf.pid))
        one_event_of_each_slot(engine)
        with running_relay(settings), reading(settings, Topic.BATCHES) as topic:
            topic.wait_for(SLOTS)


# --- The locks of a transaction -------------------------------------------------------------------------------------------------


def batch_holder() -> None:
    """Stands still in a transaction that holds the batch's lock."""
    with session().begin() as connection:
        [batch_id] = connection.scalars(text("SELECT batch_id FROM orchestrator.batch"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": batch_lock_key(batch_id)})
        stand_still()


def sweep_holder() -> None:
    """Stands still inside a sweep."""
    with session().begin() as connection:
        assert sweeping.try_lock(connection)
        stand_still()


def migration_holder() -> None:
    """Stands still inside an upgrade of the schema."""
    vars(migrate)["command"] = SimpleNamespace(upgrade=lambda *_: stand_still())
    migrate.upgrade(Settings())


def session() -> Engine:
    settings = Settings()
    return create_database_engine(settings.worker_url, settings, connections=1, application_name="standing")


def is_swept(engine: Engine) -> bool:
    with engine.begin() as connection:
        return sweeping.try_lock(connection)


def test_row_46_batch_of_a_process_that_stands_still(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit(mentors(1))
    with in_process(batch_holder, settings) as holder:
        eventually(lambda: stands_still(holder.pid))
        pipeline.call(cancel_batch, ADMIN, batch_id, None)
    assert pipeline.status(batch_id).batch.status == "cancelled"


def test_row_46_sweep_of_a_process_that_stands_still(settings: Settings, engine: Engine) -> None:
    with in_process(sweep_holder, settings) as holder:
        eventually(lambda: stands_still(holder.pid))
        eventually(lambda: is_swept(engine))


def test_row_46_migration_of_a_process_that_stands_still(settings: Settings) -> None:
    with in_process(migration_holder, settings) as holder:
        eventually(lambda: stands_still(holder.pid))
        reached: list[str] = []
        # In a daemon thread, because an upgrade that waits for the lock can't be interrupted.
        threading.Thread(target=lambda: reached.append(migrate.upgrade(settings)), daemon=True).start()
        assert eventually(lambda: reached) == [migrate.newest_version()]
