"""Row 74 of the fault catalogue: the database is restored from an older copy beside newer topics, and `bulkreg doctor` leads out of it."""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import psycopg2
import pytest
from sqlalchemy import Engine

from compose.doctor import examine
from compose.findings import Finding, State
from consumers.reading.forgotten import records_ahead
from consumers.upkeep import groups
from consumers.upkeep.groups import Groups
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import Position, advance_progress
from producers.producer import EventProducer
from schemas.envelope import Topic
from schemas.events import BATCH_SUBMITTED
from tests.faults.roles import assert_exactly_once, running_flow, status_of, wait_until_completed
from tests.support.command_line import bulkreg
from tests.support.kafka import write_raw
from tests.support.pipeline import DAY, ORGANIZATION, Pipeline, mentors
from tests.support.raw_producer import RawRecord, produce
from tests.support.time_zone import local_time
from tests.support.waiting import PATIENCE_S, eventually

ITEMS = 20
# The consumers that `running_flow` runs.
FLOW = ("splitter", "registration", "aggregator")


class OlderCopy:
    """A copy of the test's database."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.owner_url.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
        self._name = settings.owner_url.database
        self._copy = f"{self._name}_older"
        self._execute(self._terminate(), f"CREATE DATABASE {self._copy} STRATEGY file_copy TEMPLATE {self._name}")

    def restore(self) -> None:
        """Puts the copy in the place of the database."""
        self._execute(f"DROP DATABASE {self._name} WITH (FORCE)", f"ALTER DATABASE {self._copy} RENAME TO {self._name}")

    def _terminate(self) -> str:
        return f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'"

    def _execute(self, *statements: str) -> None:
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            for statement in statements:
                cursor.execute(statement)


def compared(settings: Settings) -> Finding:
    [finding] = [finding for finding in examine(settings, {}) if finding.subject == "database and topics"]
    return finding


def commands_of(finding: Finding) -> list[list[str]]:
    """Each command of the fix, as it is printed."""
    return [shlex.split(command)[1:] for run in re.findall(r"run: ([^;]+)", finding.fix or "") for command in run.split(" && ")]


def nothing_waits(settings: Settings) -> bool:
    found = json.loads(bulkreg(settings, "groups", "list", "--json").stdout)["groups"]
    return all(group["waiting"] == 0 for group in found if group["role"] in FLOW)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.groups._TIMEOUT_S", PATIENCE_S)
    monkeypatch.setattr(groups, "_MARGIN", 0)


@contextmanager
def flow_that_settles(settings: Settings) -> Iterator[None]:
    """The relay and all consumers. At the end they have committed everything."""
    with running_flow(settings):
        yield
        eventually(lambda: nothing_waits(settings))


@pytest.mark.parametrize(
    "is_noticed_late", [False, pytest.param(True, marks=pytest.mark.full)], ids=["at once", "after new batches"]
)
def test_row_74_doctor_names_what_a_restored_database_has_forgotten(
    settings: Settings, topics: None, engine: Engine, pipeline: Pipeline, is_noticed_late: bool
) -> None:
    """`is_noticed_late`: the roles go on with the restored database, so that its progress passes the groups'."""
    known = pipeline.submit(mentors(ITEMS))
    with flow_that_settles(settings):
        wait_until_completed(engine, [known])
    assert compared(settings).state is State.OK
    for pool in (engine, pipeline.api):
        pool.dispose()
    copy = OlderCopy(settings)
    before = datetime.now(UTC)
    forgotten = [pipeline.submit(mentors(ITEMS, first)) for first in (1 + ITEMS, 1 + 2 * ITEMS)]
    with flow_that_settles(settings):
        wait_until_completed(engine, forgotten)
    for pool in (engine, pipeline.api):
        pool.dispose()
    copy.restore()
    assert [status_of(engine, batch) for batch in forgotten] == ["None", "None"]
    later = []
    if is_noticed_late:
        later = [pipeline.submit(mentors(1, 1 + 3 * ITEMS + number)) for number in range(20)]
        with flow_that_settles(settings):
            wait_until_completed(engine, later)

    finding = compared(settings)
    assert finding.state is State.UNSAFE
    assert f"does not know 2 batches with {2 * ITEMS} items" in finding.detail
    *renewals, replay, verify = commands_of(finding)
    assert [command[:3] for command in renewals] == [
        ["groups", "renew", role] for role in ("splitter", "registration", "notifier")
    ]
    assert all(datetime.fromisoformat(command[-1]).replace(tzinfo=UTC) < before for command in renewals)
    for command in renewals:
        ran = bulkreg(settings, *command)
        assert ran.exit_code == 0, ran.output
    with flow_that_settles(settings):
        wait_until_completed(engine, forgotten)
    for command in (replay, verify):
        ran = bulkreg(settings, *command)
        assert ran.exit_code == 0, ran.output
    assert compared(settings).state is State.OK
    assert_exactly_once(engine, settings, activities=3 * ITEMS + len(later))


@pytest.fixture
def _far_from_utc() -> Iterator[None]:
    """The machine's clock is set to local time, 14 hours ahead of UTC."""
    with local_time("Pacific/Kiritimati"):
        yield


@pytest.mark.usefixtures("_far_from_utc")
def test_events_that_the_restored_database_has_not_handled(
    settings: Settings, topics: None, engine: Engine, pipeline: Pipeline
) -> None:
    """The batch was accepted before the copy was made, its commands were handled after."""
    batch = pipeline.submit(mentors(ITEMS))
    with flow_that_settles(settings):
        wait_until_completed(engine, [batch])
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM orchestrator.consumer_progress WHERE topic = 'commands'")
    finding = compared(settings)
    assert (finding.state, f"has not handled {ITEMS} events" in finding.detail) == (State.UNSAFE, True)
    renewals = commands_of(finding)[:-2]
    # As the command reads it, in UTC.
    assert all(datetime.fromisoformat(command[-1]).replace(tzinfo=UTC) < datetime.now(UTC) for command in renewals)
    for command in renewals:
        ran = bulkreg(settings, *command)
        assert ran.exit_code == 0, ran.output
    with flow_that_settles(settings):
        pass
    assert compared(settings).state is State.OK
    assert_exactly_once(engine, settings, activities=ITEMS)


def test_events_that_the_splitter_refused_are_not_missing(
    settings: Settings, topics: None, engine: Engine, pipeline: Pipeline
) -> None:
    """Of these batches the database knows nothing, and never did."""
    headers = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/crm", "ce_type": BATCH_SUBMITTED.encode()}
    refused = [
        orjson.dumps({"batch_id": str(uuid4()), "organization_id": ORGANIZATION, "coordinator_id": "nobody", "items": []}),
        orjson.dumps({"batch_id": str(uuid4())}),
        b'{"batch_id": 5}',
        b"[]",
    ]
    write_raw(settings, Topic.BATCHES, [(value, headers) for value in refused], partition=0)
    with flow_that_settles(settings):
        wait_until_completed(engine, [pipeline.submit(mentors(1))])
    assert compared(settings).state is State.OK


def test_a_batch_that_was_perhaps_refused_is_advice_and_renews_no_group(
    settings: Settings, topics: None, engine: Engine, pipeline: Pipeline
) -> None:
    """Two records of one event have one time. Both were refused, but the rejections name only one event and one time."""
    batch_id = str(uuid4())
    item = {"position": 0, "mentor_id": "m", "activity_type": "visit", "activity_date": DAY, "duration_minutes": 30}
    value = {"batch_id": batch_id, "organization_id": ORGANIZATION, "coordinator_id": "nobody", "items": [item]}
    headers = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/crm", "ce_type": BATCH_SUBMITTED.encode()}
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    record = RawRecord(orjson.dumps(value), [(name.encode(), said) for name, said in headers.items()], timestamp_ms=now_ms)
    produce(settings.kafka_bootstrap_servers, Topic.BATCHES.on_cluster(settings.topic_prefix), 0, [record, record])
    with flow_that_settles(settings):
        wait_until_completed(engine, [pipeline.submit(mentors(1))])
    finding = compared(settings)
    assert (finding.state, batch_id in finding.detail) == (State.ADVICE, True)
    assert commands_of(finding) == [["replay", "--batch", batch_id]]


def test_a_topic_that_has_lost_events(settings: Settings, topics: None, engine: Engine, publisher: EventProducer) -> None:
    [queue] = [queue for place, queue in Groups(settings, timeout_s=PATIENCE_S).queues("splitter").items() if place[1] == 0]
    with engine.begin() as connection:
        advance_progress(connection, {(Topic.BATCHES, 0): Position(queue.next_offset + 7, queue.topic_id)})
    finding = compared(settings)
    assert (finding.state, "7 more events: Kafka has lost them" in finding.detail) == (State.UNSAFE, True)


def test_a_replaced_topic_and_a_group_without_progress() -> None:
    place = (Topic.BATCHES, 0)
    assert records_ahead({place: Position(5, "old")}, {place: Position(2, "new")}) == 0
    assert records_ahead({place: Position(5, "id")}, {place: Position(7, "id")}) == 0
    assert records_ahead({place: Position(5, "id")}, {}) == 5
