"""When a log's checkpoint is signed, and the notary as it runs."""

from datetime import timedelta
from functools import partial
from types import ModuleType

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError

from consumers.notary import appending
from consumers.notary import notary as notary_loop
from consumers.notary import signing as signing_checkpoints
from consumers.notary.notary import Notary
from consumers.reading import topic_reader
from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.operations import delete_batch
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.health import Health
from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import Checkpoint
from orchestrator.storage.receipt_checkpoints import (
    next_log,
)
from orchestrator.storage.receipt_reading import last_checkpoint
from schemas.envelope import Topic
from schemas.events import CHECKPOINT_SIGNED, CheckpointSigned
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline, mentors, record
from tests.support.plans import without_indexes
from tests.support.receipts import (
    ORIGIN,
    all_hashes,
    checkpoints,
    in_thread,
    leaves,
    notary,
    plain_root,
    signing,
)
from tests.support.shown import shown
from tests.support.sweeping import purge
from tests.support.waiting import eventually


def test_a_checkpoint_is_signed_when_a_batch_ends(pipeline: Pipeline, settings: Settings, engine: Engine, topics: None) -> None:
    signer = notary(settings, engine)
    counters = (metrics.RECEIPT_LEAVES_APPENDED, metrics.RECEIPT_CHECKPOINTS_SIGNED)
    before = [shown(counter) for counter in counters]
    pipeline.submit(mentors(3))
    pipeline.drain_until_registered()
    signer.turn()
    assert (len(leaves(engine)), checkpoints(engine)) == (3, [])
    pipeline.drain()
    signer.turn()
    signer.turn()
    assert [shown(counter) - counted for counter, counted in zip(counters, before, strict=True)] == [3, 1]
    [signed] = checkpoints(engine)
    assert signed.checkpoint == Checkpoint(f"{ORIGIN}/{ORGANIZATION}", 3, plain_root(all_hashes(engine)))
    pipeline.relay()
    [event] = [event for event in pipeline.take(Topic.LIFECYCLE) if event.key == ORGANIZATION]
    data = record(event).data
    assert isinstance(data, CheckpointSigned)
    assert (data.origin, data.size, data.log) == (signed.checkpoint.origin, 3, 1)


def test_a_log_that_grows_is_signed_daily_although_its_batch_runs(
    pipeline: Pipeline, settings: Settings, engine: Engine, topics: None
) -> None:
    signer = notary(settings, engine)
    pipeline.submit(mentors(3))
    pipeline.drain_until_registered()
    signer.turn()
    with engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.receipt_log SET began_at = now() - interval '25 hours'"))
    signer.turn()
    assert [each.checkpoint.size for each in checkpoints(engine)] == [3]


def test_a_log_that_was_signed_today_waits_although_it_began_long_ago(
    pipeline: Pipeline, settings: Settings, engine: Engine, topics: None
) -> None:
    signer = notary(settings, engine)
    pipeline.submit(mentors(1))
    pipeline.drain()
    signer.turn()
    pipeline.submit(mentors(1, first=2))
    pipeline.drain_until_registered()
    sizes = []
    for column, hours in (("began_at", 25), ("signed_at", 23), ("signed_at", 25)):
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE orchestrator.receipt_log SET {column} = now() - interval '{hours} hours'"))
        signer.turn()
        sizes.append([each.checkpoint.size for each in checkpoints(engine)])
    assert sizes == [[1], [1], [1, 2]]


def test_a_checkpoint_is_signed_although_the_batch_is_purged_by_then(
    pipeline: Pipeline, settings: Settings, engine: Engine, topics: None
) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batch_id)
    purge(Purger(PurgePolicy(timedelta(0), timedelta(days=7))), engine)
    notary(settings, engine).turn()
    assert [each.checkpoint.size for each in checkpoints(engine)] == [1]


def test_the_newest_checkpoint_is_of_the_newest_log(settings: Settings, engine: Engine) -> None:
    stored = text(
        "INSERT INTO orchestrator.receipt_checkpoint (organization_id, log, size, root, note, signed_at)"
        " VALUES (:org, :log, :size, '', '', now())"
    )
    places = [(ORGANIZATION, 2, 3), (ORGANIZATION, 1, 9), (ORGANIZATION, 2, 5), ("org-neighbour", 3, 1)]
    with engine.begin() as connection:
        assert last_checkpoint(connection, ORGANIZATION) is None
        for org, log, size in places:
            connection.execute(stored, {"org": org, "log": log, "size": size})
        without_indexes(connection)
        found = last_checkpoint(connection, ORGANIZATION)
    assert found is not None
    assert (found.log, found.size) == (2, 5)


@pytest.mark.parametrize(("own", "published", "number"), [(0, 0, 1), (1, 0, 2), (2, 1, 3), (1, 2, 3), (0, 4, 5)])
def test_a_new_log_has_a_number_that_neither_the_tables_nor_the_topic_have(
    engine: Engine, own: int, published: int, number: int
) -> None:
    log = text("INSERT INTO orchestrator.receipt_log (organization_id, log, origin, before_log) VALUES (:org, :log, 'o', 0)")
    read_back = text(
        "INSERT INTO orchestrator.receipt_published (organization_id, log, size, root, note, state)"
        " VALUES (:org, :log, 1, '', '', 'agrees')"
    )
    with engine.begin() as connection:
        for statement, logs in ((log, own), (read_back, published)):
            for each in range(1, logs + 1):
                connection.execute(statement, {"org": ORGANIZATION, "log": each})
            connection.execute(statement, {"org": "org-neighbour", "log": 9})
        assert next_log(connection, ORGANIZATION) == number


def test_a_notary_that_dies_while_signing_has_published_nothing(
    pipeline: Pipeline, settings: Settings, engine: Engine, topics: None
) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    with pytest.raises(InjectedError):
        Notary(signing(settings, failpoints=f"{Failpoint.NOTARY_BEFORE_SIGNED_COMMIT}=raise"), engine).turn()
    pipeline.relay()
    assert checkpoints(engine) == []
    assert CHECKPOINT_SIGNED not in [record(event).envelope.type for event in pipeline.take(Topic.LIFECYCLE)]
    notary(settings, engine).turn()
    assert len(checkpoints(engine)) == 1


@pytest.mark.parametrize("of", [appending, signing_checkpoints], ids=["appending", "signing"])
def test_row_68_a_notary_looks_again_when_it_has_its_turn(
    pipeline: Pipeline, settings: Settings, engine: Engine, topics: None, of: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has done everything between its look and its turn."""
    early, late = notary(settings, engine), notary(settings, engine)
    try_turn = of.try_turn

    def after_another(connection: Connection) -> bool:
        monkeypatch.setattr(of, "try_turn", try_turn)
        early.turn()
        return bool(try_turn(connection))

    pipeline.submit(mentors(2))
    pipeline.drain()
    monkeypatch.setattr(of, "try_turn", after_another)
    late.turn()
    assert of.try_turn is try_turn
    assert ([each.checkpoint.size for each in checkpoints(engine)], len(leaves(engine))) == ([2], 2)


def has_signed(engine: Engine, size: int) -> bool:
    """Whether the newest checkpoint has this size."""
    return [each.checkpoint.size for each in checkpoints(engine)][-1:] == [size]


def test_a_running_notary_keeps_up_and_stops(pipeline: Pipeline, settings: Settings, engine: Engine, topics: None) -> None:
    # In other units it would be longer than the test waits.
    with in_thread(Notary(signing(settings, notary_poll_ms=100), engine)) as running:
        for first in (1, 2):
            pipeline.submit(mentors(1, first=first))
            pipeline.drain()
            eventually(partial(has_signed, engine, first))
        before_s = running.health.clock()
        running.health.clock = lambda: before_s + 3_600
        eventually(lambda: running.health.check(max_loop_age_s=30).ok)


def test_a_running_notary_outlives_its_session(
    pipeline: Pipeline, settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    cut: list[int] = []

    def cut_first(connection: Connection, *_: object) -> None:
        if not cut:
            driver = connection.connection.driver_connection
            assert driver is not None
            cut.append(driver.info.backend_pid)
            with pipeline.engine.begin() as beside:
                beside.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": cut[0]})

    own = create_engine(settings.worker_url)
    event.listen(own, "before_cursor_execute", cut_first)
    pipeline.submit(mentors(1))
    pipeline.drain()
    with in_thread(Notary(settings.model_copy(update={"notary_poll_ms": 10}), own)) as running:
        eventually(lambda: len(leaves(engine)) == 1)
        # Without a key it needs no broker.
        eventually(lambda: running.health.check(max_loop_age_s=30).ok)
    own.dispose()
    assert [len(logged(caplog, action)) for action in (Action.NOTARY_FAILED, Action.RECEIPTS_UNSIGNED)] == [1, 1]


def test_a_notary_without_a_database_is_not_well(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_appender: appending.Appender) -> int:
        raise OperationalError("SELECT", None, ConnectionError("a test's"))

    monkeypatch.setattr(appending.Appender, "append", away)
    monkeypatch.setattr(notary_loop, "_MAX_PAUSE_S", 0.01)
    running = Notary(settings, engine)
    before_s = running.health.clock()
    running.health.clock = lambda: before_s + 31
    with in_thread(running):
        eventually(lambda: len(logged(caplog, Action.NOTARY_FAILED)) > 1)
        found = running.health.check(max_loop_age_s=30)
    assert (found.ok, "31 s; it is retrying the same work: OperationalError" in (found.detail or "")) == (False, True)


def test_a_notary_without_a_broker_appends_and_signs_nothing(
    pipeline: Pipeline, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_reader, "_TIMEOUT_S", 0.2)
    nowhere = signing(settings, kafka_bootstrap_servers="127.0.0.1:1", notary_poll_ms=10)
    monkeypatch.setattr(notary_loop, "_MAX_PAUSE_S", 0.01)
    running = Notary(nowhere, engine)
    running.health.broker_contact = True
    before_s = running.health.clock()
    running.health.clock = lambda: before_s + 3_600
    pipeline.submit(mentors(1))
    pipeline.drain()
    with in_thread(running):
        eventually(lambda: len(leaves(engine)) == 1)
        assert checkpoints(engine) == []
        eventually(lambda: running.health.check(max_loop_age_s=30) == Health(False, "no broker responds"))
