"""Rows 14, 16, 19, 20 and 27 of the fault catalogue: processes that end or stand still inside their work, and groups that change."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]
from sqlalchemy import Connection, Engine, text

from consumers.loop.runtime import ConsumerLoop
from consumers.registration import RegistrationHandler
from orchestrator.process.failpoints import EXIT_CODE, Failpoint
from orchestrator.process.settings import Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.port import Candidate, Decision
from orchestrator.storage.database import create_database_engine
from producers.producer import EventProducer
from schemas import events
from schemas.envelope import Topic
from tests.faults.roles import (
    aggregator_role,
    armed,
    assert_exactly_once,
    committed,
    count,
    expanded,
    fold,
    registration_role,
    running_role,
    shorten_session,
    splitter_process,
    splitter_role,
    wait_until_completed,
)
from tests.support.kafka import reading, write_raw
from tests.support.pipeline import DAY, ORGANIZATION, Pipeline, item, mentors, standard_directory
from tests.support.process import environment, in_process
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.usefixtures("topics")

# A hundred micro-batches of ten, so that a process can be killed before it has finished.
ITEMS = 1_000


def of_item(number: int) -> tuple[str, date]:
    """The item's mentor and date."""
    return f"mentor-{number % 100 + 1}", DAY - timedelta(days=number // 100)


def test_row_14_ended_and_killed_inside_a_batch_nothing_is_lost(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    """`bulkreg run registration` is told to end before it has finished. A second process is killed, and a third one finishes."""
    batch_id = pipeline.submit([item(mentor, day=day) for mentor, day in map(of_item, range(ITEMS))])
    publisher.publish(expanded(pipeline, batch_id))
    shorten_session(settings, "registration")
    slow = environment(settings) | {"BULKREG_MAX_BATCH_RECORDS": "10", "BULKREG_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "cli", "run", "registration"]
    with reading(settings, Topic.RESULTS) as results:
        for end, expected in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
            already = len(results.read())
            # The first is told to end half way. The second gets what is left, and can't get past the last item.
            last = ITEMS // 2 if end is signal.SIGTERM else last_undecided(engine)
            with held_up(engine, last) as may_go_on, subprocess.Popen(command, env=slow) as process:
                try:
                    results.wait_for(already + 10)
                    process.send_signal(end)
                    may_go_on()
                    assert process.wait(PATIENCE_S) == expected
                finally:
                    process.kill()
            assert count(engine, "orchestrator.outcome") < ITEMS, "it finished before it was told to end"
            if end is signal.SIGTERM:
                # It has announced everything that it decided, so nobody has to repeat that.
                decided = count(engine, "orchestrator.outcome")
                assert len(results.wait_for(decided)) == decided == committed(settings, "registration", Topic.COMMANDS_BULK)
        with running_role(settings, registration_role()):
            eventually(lambda: len({result.id for result in results.read()}) == ITEMS)
        fold(pipeline, results.records)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=ITEMS)


def last_undecided(engine: Engine) -> int:
    """The position of an item of the only batch that has no outcome, or None."""
    with engine.connect() as connection:
        decided = text(
            "SELECT max(position) FROM orchestrator.batch_item WHERE position NOT IN (SELECT position FROM orchestrator.outcome)"
        )
        return int(connection.execute(decided).scalar_one())


@contextlib.contextmanager
def held_up(engine: Engine, number: int) -> Iterator[Callable[[], None]]:
    """Holds up everything at this item, until the yielded function is called: another transaction is about to register the same activity."""
    same = text(
        "INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type,"
        " activity_date, duration_minutes, batch_id, item_id, created_at)"
        " VALUES (gen_random_uuid(), :org, :mentor, 'x', 'visit', :day, 60, gen_random_uuid(), gen_random_uuid(), now())"
    )
    mentor, day = of_item(number)
    with engine.connect() as connection:
        connection.execute(same, {"org": ORGANIZATION, "mentor": mentor, "day": day})
        yield connection.rollback


class StandsStillOnce(InProcessRegistrationService):
    """Stops its own process inside its first transaction, as a SIGSTOP from outside would."""

    _has_stood_still = False

    def register(self, connection: Connection, candidates: Sequence[Candidate], at: datetime) -> Sequence[Decision]:
        decisions = super().register(connection, candidates, at)
        if not self._has_stood_still:
            self._has_stood_still = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return decisions


def standing_process() -> None:
    """The registration role, which stops itself."""
    settings = Settings()
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="standing")
    ConsumerLoop(
        settings, RegistrationHandler(StandsStillOnce(settings.earliest_activity_year)), engine, EventProducer(settings)
    ).run()


def test_row_16_stopped_in_a_handler_and_continued_later(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    """The server ends its session, and another member gets its partitions. Then it continues without knowing."""
    shorten_session(settings, "registration")
    batch_id = pipeline.submit(mentors(20))
    publisher.publish(expanded(pipeline, batch_id))
    standing = armed(settings, idle_in_transaction_timeout_ms=500)
    with in_process(standing_process, standing) as process, reading(settings, Topic.RESULTS) as results:
        eventually(lambda: b"T (stopped)" in Path(f"/proc/{process.pid}/status").read_bytes())
        with running_role(settings, registration_role()):
            results.wait_for(20)
            eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == 20)
            process.send_signal(signal.SIGCONT)
            # It finishes its micro-batch, finds it decided, announces the same results again, and may not commit an offset.
            eventually(lambda: process.poll() is not None or len(results.read()) > 20)
        assert len({(result.id, result.value) for result in results.read()}) == 20
        fold(pipeline, results.records)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=20)


def test_row_19_partitions_added_while_consumers_run(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    """Records that were written to the new partitions before the group knew of them are read, too."""
    batch_id = pipeline.submit(mentors(20))
    commands = expanded(pipeline, batch_id)
    name, partitions = Topic.COMMANDS.on_cluster(settings.topic_prefix), settings.topic_partitions
    with running_role(settings, registration_role()) as loop, reading(settings, Topic.RESULTS) as results:
        publisher.publish(commands[:10])
        results.wait_for(10)
        assert loop.health.broker_contact
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
        admin.create_partitions([NewPartitions(name, partitions + 1)])[name].result()
        eventually(lambda: len(admin.list_topics(name, timeout=PATIENCE_S).topics[name].partitions) == partitions + 1)
        write_raw(settings, Topic.COMMANDS, [(c.value, dict(c.headers)) for c in commands[10:]], partition=partitions)
        found = results.wait_for(20)
    fold(pipeline, found)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=20)


def test_row_20_the_group_is_deleted_with_its_offsets(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    batch_id = pipeline.submit(mentors(20))
    publisher.publish(expanded(pipeline, batch_id))
    with reading(settings, Topic.RESULTS) as results:
        with running_role(settings, registration_role()):
            results.wait_for(20)
            eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == 20)
        fold(pipeline, results.records)
        before = pipeline.status(batch_id)
        forget_group(settings, "registration")
        assert committed(settings, "registration", Topic.COMMANDS) == 0
        with running_role(settings, registration_role()):
            results.wait_for(40)
            eventually(lambda: committed(settings, "registration", Topic.COMMANDS) == 20)
        assert len({(result.id, result.value) for result in results.records}) == 20, "each must announce the same results again"
        fold(pipeline, results.records)
    assert pipeline.status(batch_id) == before
    assert_exactly_once(engine, settings, activities=20)


def forget_group(settings: Settings, role: str) -> None:
    """Deletes the group after its last member has left."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    group = f"{settings.topic_prefix}.{role}"

    def is_deleted() -> bool:
        try:
            admin.delete_consumer_groups([group])[group].result()
        except KafkaException:
            return False
        return True

    eventually(is_deleted)


def test_row_27_splitter_dies_half_way(
    settings: Settings, engine: Engine, publisher: EventProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of six parts have become commands. The batch is not complete, and its counts include all items."""
    monkeypatch.setattr(events, "MAX_PART_ITEMS", 10)
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    batch_id = pipeline.submit(mentors(60))
    pipeline.relay()
    parts = pipeline.take(Topic.BATCHES)
    assert len(parts) == 6
    publisher.publish(parts)
    shorten_session(settings, "splitter")
    dying = armed(settings, max_batch_records=1, failpoints=f"{Failpoint.CONSUMER_AFTER_PRODUCE}=crash@2")
    with in_process(splitter_process, dying) as process:
        assert process.wait(PATIENCE_S) == EXIT_CODE
    with running_role(settings, registration_role()), running_role(settings, aggregator_role()):
        eventually(lambda: pipeline.status(batch_id).batch.counts.completed == 20)
        half = pipeline.status(batch_id).batch
        assert (half.status, half.counts.pending, half.counts.total, half.completed_at) == ("processing", 40, 60, None)
        with running_role(settings, splitter_role(settings)):
            wait_until_completed(engine, [batch_id])
    assert_exactly_once(engine, settings, activities=60)
    pipeline.close()
