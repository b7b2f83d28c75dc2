"""Rows 68 and 69 of the fault catalogue: the log has each audit row once, in an order that never changes, and no published log is forked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from typer.testing import CliRunner, Result

from cli.main import app
from cli.terminal.failures import ExitCode
from consumers.notary import appending, published
from consumers.notary import notary as notary_loop
from consumers.notary.notary import Notary
from consumers.notary.published import compare_topic, every_published_checkpoint
from consumers.reading import topic_reader
from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.operations import delete_batch
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.health import Health
from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import Checkpoint, sign
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.leaf import person_hash
from orchestrator.receipts.merkle import root
from orchestrator.storage.blame import sqlstate
from orchestrator.storage.receipt_appending import (
    _TURN_LOCK,
    SPAN,
    append_rows,
    audit_writers,
    behind_s,
    forget_person,
    position,
    take_turn,
)
from orchestrator.storage.receipt_checkpoints import (
    LogAgreesError,
    PublishedState,
    add_key,
    begin_again,
    next_log,
    note_reading,
    read_receipt_figures,
    read_up_to,
    unsettled_checkpoints,
)
from orchestrator.storage.receipt_reading import StoredHashes, last_checkpoint
from orchestrator.verification.receipts import Tampering, audit_logs, unknown_signers
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import CHECKPOINT_SIGNED, CheckpointSigned, checkpoint_signed
from schemas.ids import derived_ids
from tests.support.databases import ReadyDatabases
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, Pipeline, item, mentors, record
from tests.support.plans import rows_read, without_indexes
from tests.support.receipts import (
    KEY,
    NO_VALUES,
    ORIGIN,
    all_hashes,
    as_owner,
    checkpoints,
    leaves,
    notary,
    plain_root,
    restored,
    signing,
)
from tests.support.revoking import revoke
from tests.support.waiting import HELD_S, eventually


@pytest.fixture
def unsigned(settings: Settings, engine: Engine) -> Notary:
    """A notary without a key, which needs no broker."""
    return Notary(settings, engine)


def test_each_audit_row_becomes_a_leaf(pipeline: Pipeline, engine: Engine, unsigned: Notary) -> None:
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    unsigned.turn()
    ids = derived_ids(str(batch_id))
    revoke(pipeline, batch_id, item_ids=[ids.item_id(1)], actor=ADMIN)
    unsigned.turn()
    unsigned.turn()
    found = leaves(engine)
    assert [(leaf["change"], leaf["item_id"]) for leaf in found] == [
        *(("registered", ids.item_id_text(position)) for position in range(3)),
        ("revoked", ids.item_id_text(1)),
    ]
    with engine.begin() as connection:
        salts = {row.person_id: bytes(row.salt) for row in connection.execute(text("SELECT * FROM orchestrator.receipt_salt"))}
        audited = connection.execute(text("SELECT * FROM registration.audit ORDER BY audit_id")).all()
    assert salts.keys() == {"mentor-1", "mentor-2", "mentor-3", COORDINATOR, "boss"}
    assert found[3] == {
        "change": "revoked",
        "activity_id": ids.activity_id(1),
        "organization_id": ORGANIZATION,
        "mentor": person_hash(salts["mentor-2"], "mentor-2"),
        "activity_type": "visit",
        "activity_date": DAY.isoformat(),
        "duration_minutes": 60,
        "by": person_hash(salts["boss"], "boss"),
        "at": audited[3].at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "batch_id": str(batch_id),
        "item_id": ids.item_id_text(1),
        "attempt": 1,
    }
    assert found[0]["by"] == person_hash(salts[COORDINATOR], COORDINATOR)


def test_a_log_has_the_root_of_its_leaves_however_it_grew(
    pipeline: Pipeline, engine: Engine, unsigned: Notary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "MAX_ROWS", 90)
    for day, size in enumerate((1, 2, 100, 100, 97), start=1):
        pipeline.submit([item(f"mentor-{number}", day=date(2026, 3, day)) for number in range(1, size + 1)])
        pipeline.drain()
        unsigned.turn()
        hashes = all_hashes(engine)
        with engine.begin() as connection:
            assert root(len(hashes), StoredHashes(connection, ORGANIZATION, 1)) == plain_root(hashes)
            # A new notary goes on from the table.
            assert behind_s(connection) == 0
    assert len(hashes) == 300


@pytest.mark.parametrize("failpoint", [Failpoint.NOTARY_BEFORE_COMMIT, Failpoint.NOTARY_AFTER_COMMIT])
def test_row_68_a_notary_that_dies_loses_and_doubles_no_leaf(
    pipeline: Pipeline, settings: Settings, engine: Engine, failpoint: Failpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "MAX_ROWS", 4)
    pipeline.submit(mentors(10))
    pipeline.drain()
    dying = settings.model_copy(update={"failpoints": f"{failpoint}=raise@2"})
    with pytest.raises(InjectedError):
        Notary(dying, engine).turn()
    assert len(leaves(engine)) == (4 if failpoint is Failpoint.NOTARY_BEFORE_COMMIT else 8)
    Notary(settings, engine).turn()
    with engine.begin() as connection:
        audited = connection.scalars(text("SELECT item_id::text FROM registration.audit ORDER BY audit_id")).all()
    assert [leaf["item_id"] for leaf in leaves(engine)] == audited
    assert len(audited) == 10


@pytest.mark.parametrize("commits", [True, False])
def test_row_68_a_row_waits_for_transactions_that_may_commit_a_lower_id(
    pipeline: Pipeline, engine: Engine, unsigned: Notary, commits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_WAIT_S", HELD_S)
    early = pipeline.submit(mentors(1))
    late = pipeline.submit(mentors(1, first=2))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = pipeline.take(Topic.COMMANDS)
    [of_early] = [event for event in commands if str(early).encode() in event.value]
    [of_late] = [event for event in commands if str(late).encode() in event.value]
    with engine.connect() as connection:
        transaction = connection.begin()
        pipeline.registration.handle(connection, [record(of_early)])
        pipeline.handle(pipeline.registration, [of_late])
        waiting = threading.Thread(target=unsigned.turn)
        waiting.start()
        eventually(lambda: has_turn(engine))
        assert leaves(engine) == []
        transaction.commit() if commits else transaction.rollback()
    waiting.join()
    expected = [early, late] if commits else [late]
    assert [leaf["batch_id"] for leaf in leaves(engine)] == [str(batch_id) for batch_id in expected]


@pytest.mark.parametrize(
    ("mode", "may_have_written"),
    [
        ("ACCESS SHARE", False),
        ("ROW SHARE", False),
        ("ROW EXCLUSIVE", True),
        ("SHARE ROW EXCLUSIVE", True),
        ("EXCLUSIVE", True),
        ("ACCESS EXCLUSIVE", True),
    ],
)
def test_row_68_only_transactions_that_may_have_written_to_this_audit_are_waited_for(
    settings: Settings, engine: Engine, databases: ReadyDatabases, mode: str, may_have_written: bool
) -> None:
    lock = text(f"LOCK TABLE registration.audit IN {mode} MODE")
    with as_other(settings.owner_url) as writer, engine.connect() as connection:
        writer.execute(lock)
        assert bool(audit_writers(connection)) is may_have_written
        assert not audit_writers(writer), "its own lock does not count"
        writer.rollback()
        writer.execute(text(f"LOCK TABLE registration.activity IN {mode} MODE"))
        assert not audit_writers(connection)
    # In a copy of the database, the table has the same number.
    with databases.one() as copy, as_other(Settings(database_url=copy).owner_url) as writer, engine.connect() as connection:
        writer.execute(lock)
        assert not audit_writers(connection)


@contextmanager
def as_other(url: str | URL) -> Iterator[Connection]:
    other = create_engine(url)
    with other.connect() as connection:
        yield connection
    other.dispose()


def has_turn(engine: Engine) -> bool:
    """Whether a notary waits inside its transaction. Only looks at its lock: a notary that found it taken would not wait, but return."""
    held = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = CAST(:space AS oid) AND objid = CAST(:which AS oid)"
        " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    with engine.begin() as connection:
        return bool(connection.execute(held, _TURN_LOCK).scalar_one())


def test_row_68_one_notary_at_a_time_appends(pipeline: Pipeline, engine: Engine, unsigned: Notary) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    with engine.begin() as connection:
        take_turn(connection)
        unsigned.turn()
        assert leaves(engine) == []
    unsigned.turn()
    assert len(leaves(engine)) == 1


def test_records_that_are_older_than_the_log_are_its_first_leaves(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary
) -> None:
    pipeline.submit(mentors(2))
    pipeline.drain()
    with as_owner(settings) as connection:
        connection.execute(
            text(f"UPDATE registration.audit SET {NO_VALUES} WHERE audit_id = (SELECT min(audit_id) FROM registration.audit)")
        )
        connection.execute(
            text("UPDATE orchestrator.receipt_cursor SET before_log = (SELECT max(audit_id) FROM registration.audit)")
        )
    pipeline.submit(mentors(1, first=3))
    pipeline.drain()
    unsigned.turn()
    values = [
        (leaf.get("before_log"), leaf["activity_type"], leaf["activity_date"], leaf["duration_minutes"], leaf["attempt"])
        for leaf in leaves(engine)
    ]
    assert values == [(True, "visit", DAY.isoformat(), 60, 1)] * 2 + [(None, "visit", DAY.isoformat(), 60, 1)]


def test_what_the_log_does_not_have_yet_is_no_tampering(pipeline: Pipeline, engine: Engine, unsigned: Notary) -> None:
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    unsigned.turn()
    revoke(pipeline, batch_id)
    pipeline.submit(mentors(1, first=3))
    pipeline.drain()
    assert audit_logs(engine, [])[1] == []
    unsigned.turn()
    assert audit_logs(engine, [])[1] == []


def test_a_person_who_was_replaced_everywhere_is_found_although_others_have_salts_for_the_same_ids(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary
) -> None:
    """With the salts of another organization, the person would seem to be forgotten, and any other id would do."""
    pipeline.submit(mentors(2))
    pipeline.drain()
    unsigned.turn()
    with as_owner(settings) as connection:
        others = "INSERT INTO orchestrator.receipt_salt SELECT o, person_id, decode(repeat('ab', 32), 'hex')"
        connection.execute(text(f"{others} FROM orchestrator.receipt_salt, unnest(ARRAY['a-before', 'z-behind']) AS o"))
    assert audit_logs(engine, [])[1] == []
    with as_owner(settings) as connection:
        for table in ("audit", "activity"):
            replaced = f"UPDATE registration.{table} SET attributed_to = 'mentor-9' WHERE attributed_to = 'mentor-2'"
            connection.execute(text(replaced))
    assert {found.kind for found in audit_logs(engine, [])[1]} == {Tampering.AUDIT_CHANGED, Tampering.ACTIVITY_CHANGED}


def test_the_audit_of_one_organization_reads_the_rows_of_no_other(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary
) -> None:
    """Another organization has audit rows without activities, one of them of an early version."""
    pipeline.submit(mentors(2))
    pipeline.drain()
    with as_owner(settings) as connection:
        for statement in (
            "CREATE TEMP TABLE theirs ON COMMIT DROP AS SELECT * FROM registration.audit",
            "UPDATE theirs SET organization_id = 'org-neighbour', audit_id = audit_id + 100, activity_id = gen_random_uuid()",
            f"UPDATE theirs SET {NO_VALUES} WHERE audit_id = (SELECT min(audit_id) FROM theirs)",
            "INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT * FROM theirs",
            "UPDATE orchestrator.receipt_cursor SET before_log = (SELECT max(audit_id) FROM registration.audit)",
        ):
            connection.execute(text(statement))
    unsigned.turn()
    assert audit_logs(engine, [], ORGANIZATION) == (2, [])
    assert {each.kind for each in audit_logs(engine, [], "org-neighbour")[1]} == {Tampering.ACTIVITY_REMOVED}


def test_the_log_is_behind_since_the_oldest_row_that_it_does_not_have(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary
) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    unsigned.turn()
    pipeline.submit(mentors(2, first=2))
    pipeline.drain()
    aged = text("UPDATE registration.audit SET at = now() - :hours * interval '1 hour' WHERE audit_id = :audit_id")
    with as_owner(settings) as connection:
        first, second, third = connection.execute(text("SELECT audit_id FROM registration.audit ORDER BY audit_id")).scalars()
        # The rows stand in the table's file in the order in which they were changed.
        for audit_id, hours in ((first, 3), (third, 1), (second, 2)):
            connection.execute(aged, {"audit_id": audit_id, "hours": hours})
    with engine.begin() as connection:
        assert round(behind_s(connection) / 3_600) == 2
    unsigned.turn()
    with engine.begin() as connection:
        assert behind_s(connection) == 0


def test_rows_are_appended_in_the_order_of_their_ids_wherever_they_lie(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    pipeline.submit(mentors(5))
    pipeline.drain()
    with as_owner(settings) as connection:
        # A changed row lies behind all others.
        for mentor in (4, 2, 5, 1, 3):
            connection.execute(
                text("UPDATE registration.audit SET at = at WHERE attributed_to = :mentor"), {"mentor": f"mentor-{mentor}"}
            )
    for _ in range(3):
        with engine.begin() as connection:
            without_indexes(connection)
            begun = position(connection)
            append_rows(connection, begun, begun.newest, name=ORIGIN, max_rows=2)
    with engine.begin() as connection:
        audited = connection.execute(text("SELECT activity_id::text FROM registration.audit ORDER BY audit_id")).scalars().all()
    assert [leaf["activity_id"] for leaf in leaves(engine)] == audited


def test_only_the_salts_of_the_persons_in_new_rows_are_read(pipeline: Pipeline, engine: Engine, unsigned: Notary) -> None:
    for first in (1, 3):
        pipeline.submit(mentors(2, first=first))
        pipeline.drain()
        with rows_read(engine, "JOIN orchestrator.receipt_salt s USING") as counts:
            unsigned.turn()
    assert counts == [1], "only the coordinator's"


def test_a_hash_is_read_with_those_of_its_span_alone(engine: Engine) -> None:
    run = text(
        "INSERT INTO orchestrator.receipt_run (organization_id, log, first_index, audit_ids, hashes, leaves)"
        " VALUES (:org, 1, :first, '{1}', :hash, '')"
    )
    with engine.begin() as connection:
        for span in range(4):
            connection.execute(run, {"org": ORGANIZATION, "first": SPAN * span, "hash": bytes([span] * 32)})
        with rows_read(engine, "SELECT first_index, hashes") as counts:
            assert StoredHashes(connection, ORGANIZATION, 1)(0, SPAN) == bytes([1] * 32)
    assert counts == [1]


def test_an_old_row_whose_activity_was_removed_is_named_and_stops_nobody(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary, caplog: pytest.LogCaptureFixture
) -> None:
    ids = derived_ids(str(pipeline.submit(mentors(3))))
    pipeline.drain()
    lost = ids.activity_id(0)
    with as_owner(settings) as connection:
        connection.execute(text(f"UPDATE registration.audit SET {NO_VALUES} WHERE activity_id = :lost"), {"lost": lost})
        connection.execute(text("DELETE FROM registration.activity WHERE activity_id = :lost"), {"lost": lost})
        connection.execute(
            text("UPDATE orchestrator.receipt_cursor SET before_log = (SELECT max(audit_id) FROM registration.audit)")
        )
    unsigned.turn()
    assert [leaf["item_id"] for leaf in leaves(engine)] == [ids.item_id_text(position) for position in (1, 2)]
    [named] = logged(caplog, Action.AUDIT_ROW_LEFT_OUT)
    assert (named["organization"], named["activity"]) == (ORGANIZATION, lost)
    with engine.begin() as connection:
        assert behind_s(connection) == 0
    [found] = audit_logs(engine, [])[1]
    assert (found.kind, found.activity_id) == (Tampering.ACTIVITY_REMOVED, lost)


def test_a_checkpoint_is_signed_when_a_batch_ends(pipeline: Pipeline, settings: Settings, engine: Engine, topics: None) -> None:
    signer = notary(settings, engine)
    counters = (metrics.RECEIPT_LEAVES_APPENDED, metrics.RECEIPT_CHECKPOINTS_SIGNED)
    before = [counter._value.get() for counter in counters]
    pipeline.submit(mentors(3))
    pipeline.drain_until_registered()
    signer.turn()
    assert (len(leaves(engine)), checkpoints(engine)) == (3, [])
    pipeline.drain()
    signer.turn()
    signer.turn()
    assert [counter._value.get() - counted for counter, counted in zip(counters, before, strict=True)] == [3, 1]
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
    for column in ("began_at", "signed_at"):
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE orchestrator.receipt_log SET {column} = now() - interval '25 hours'"))
        signer.turn()
        sizes.append([each.checkpoint.size for each in checkpoints(engine)])
    assert sizes == [[1], [1, 2]]


def test_a_checkpoint_is_signed_although_the_batch_is_purged_by_then(
    pipeline: Pipeline, settings: Settings, engine: Engine, topics: None
) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batch_id)
    Purger(PurgePolicy(timedelta(0), timedelta(days=7))).purge(engine)
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


class Restoring:
    """A deployment whose database loses what happened after `lost`, while the topics keep it."""

    def __init__(self, pipeline: Pipeline, settings: Settings, engine: Engine, publisher: EventProducer) -> None:
        self.pipeline, self.settings, self.engine, self.publisher = pipeline, settings, engine, publisher
        self.notary = notary(settings, engine)

    def register(self, first: int) -> None:
        self.pipeline.submit(mentors(2, first=first))
        self.pipeline.drain()

    def sign(self) -> None:
        self.notary.turn()
        self.pipeline.relay()
        delivery = self.publisher.send([event for event in self.pipeline.take(Topic.LIFECYCLE) if event.key == ORGANIZATION])
        while delivery.outstanding:
            self.publisher.poll(0.1)

    def restore_before(self, first: int) -> None:
        """Registers and signs, then takes the logs back."""

        def lost() -> None:
            self.register(first)
            self.sign()

        restored(self.settings, lost)
        self.pipeline.forget_what_was_published()
        self.notary = notary(self.settings, self.engine)


@pytest.fixture
def restoring(pipeline: Pipeline, settings: Settings, engine: Engine, publisher: EventProducer) -> Restoring:
    restoring = Restoring(pipeline, settings, engine, publisher)
    restoring.register(1)
    restoring.sign()
    return restoring


def test_row_69_a_restored_log_grows_to_its_published_checkpoint_and_is_signed_again(restoring: Restoring) -> None:
    engine = restoring.engine
    # Three records are published. Two come back first.
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(
            text(
                "CREATE TABLE public.missing AS SELECT * FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"
            )
        )
        connection.execute(text("DELETE FROM registration.audit WHERE audit_id IN (SELECT audit_id FROM public.missing)"))
    restoring.notary.turn()
    assert len(leaves(engine)) == 3
    assert [each.checkpoint.size for each in checkpoints(engine)] == [2]
    assert restoring.notary.health.failing is not None
    with as_owner(restoring.settings) as connection:
        connection.execute(text("INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT * FROM public.missing"))
    restoring.notary.turn()
    assert [each.checkpoint.size for each in checkpoints(engine)] == [2, 4]
    assert restoring.notary.health.failing is None
    with engine.begin() as connection, pytest.raises(LogAgreesError):
        begin_again(connection, ORGANIZATION, name=ORIGIN, reason="no reason")


def test_row_69_a_log_that_differs_from_its_published_checkpoint_is_never_signed(
    restoring: Restoring, caplog: pytest.LogCaptureFixture
) -> None:
    engine = restoring.engine
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(
            text(
                "UPDATE registration.audit SET at = at + interval '1 s' WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"
            )
        )
    for _ in range(2):
        restoring.notary.turn()
        restoring.register(len(leaves(engine)) + 1)
    assert [each.checkpoint.size for each in checkpoints(engine)] == [2]
    [halted] = logged(caplog, Action.RECEIPT_LOG_HALTED)
    told = (halted["role"], halted["organization"], halted["log"], halted["size"], halted["state"])
    assert told == ("notary", ORGANIZATION, 1, 4, "forked")
    with engine.begin() as connection:
        [(head, state)] = unsettled_checkpoints(connection)
        assert (head.size, state) == (4, PublishedState.FORKED)
        assert read_receipt_figures(connection).halted == 1
        begin_again(connection, ORGANIZATION, name=ORIGIN, reason="restored")
        assert read_receipt_figures(connection).halted == 0
    restoring.notary.turn()
    assert restoring.notary.health.failing is None
    newest = checkpoints(engine)[-1].checkpoint
    assert (newest.origin, newest.size) == (f"{ORIGIN}/{ORGANIZATION}#2", len(leaves(engine, log=2)))
    assert newest.root == plain_root(all_hashes(engine, log=2))
    assert [leaf.get("before_log") for leaf in leaves(engine, log=2)] == [True] * 6 + [None] * 2
    with engine.begin() as connection:
        for log in (1, 2):
            hashes = all_hashes(engine, log=log)
            assert root(len(hashes), StoredHashes(connection, ORGANIZATION, log)) == plain_root(hashes)


def forged(key: SigningKey, *, origin: str = f"{ORIGIN}/{ORGANIZATION}", size: int = 2, altered: bool = False) -> OutgoingEvent:
    """An event that says that the organization's log has another root, or many more leaves, than it has."""
    note = sign(Checkpoint(origin, size, b"x" * 32), key)
    return checkpoint_signed(
        organization_id=ORGANIZATION,
        log=1,
        origin=origin,
        size=size,
        root=b"x" * 32,
        checkpoint=note.replace(f"\n{size}\n", f"\n{size + 7}\n", 1) if altered else note,
        time=datetime.now(UTC),
        trace_id="0" * 31 + "1",
    )


def test_row_69_a_checkpoint_that_no_known_key_has_signed_stops_nobody(
    restoring: Restoring, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = SigningKey(ORIGIN, b"\x08" * 32)
    forgeries = [
        forged(stranger),
        forged(stranger, size=1_000),
        forged(KEY, altered=True),
        # A signed checkpoint of somebody else's log, and of another log of ours.
        forged(KEY, origin=f"{ORIGIN}/another"),
        forged(KEY, origin=f"{ORIGIN}/{ORGANIZATION}#2"),
    ]
    restoring.publisher.publish(forgeries)
    restoring.register(3)
    before = metrics.RECEIPT_CHECKPOINTS_IGNORED._value.get()
    fresh = notary(restoring.settings, restoring.engine)
    fresh.turn()
    assert fresh.health.failing is None
    assert [each.checkpoint.size for each in checkpoints(restoring.engine)] == [2, 4]
    assert metrics.RECEIPT_CHECKPOINTS_IGNORED._value.get() - before == len(forgeries)
    assert len(logged(caplog, Action.CHECKPOINT_IGNORED)) == len(forgeries)
    # The audit does not compare them either, and names them. What a known key has signed counts, also a false one.
    signed, ignored = every_published_checkpoint(restoring.settings, [KEY.verifier])
    assert ([each.size for each in signed], len(ignored)) == ([2], len(forgeries))
    assert audit_logs(restoring.engine, signed)[1] == []
    assert {each.kind for each in unknown_signers(ignored)} == {Tampering.UNKNOWN_SIGNER}
    assert unknown_signers(ignored, "another") == []
    restoring.publisher.publish([forged(KEY)])
    notary(restoring.settings, restoring.engine).turn()
    with restoring.engine.begin() as connection:
        assert [each.state for each in unsettled_checkpoints(connection)] == [PublishedState.FORKED]


def test_row_69_checkpoints_of_a_key_that_was_replaced_count(restoring: Restoring) -> None:
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(text("DELETE FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"))
    replacing = SigningKey(ORIGIN, b"\x09" * 32)
    rotated = Notary(signing(restoring.settings, receipts_signing_key=replacing.secret_text()), restoring.engine)
    rotated.turn()
    with restoring.engine.begin() as connection:
        [(head, state)] = unsettled_checkpoints(connection)
    assert (head.size, state) == (4, PublishedState.AHEAD)
    assert rotated.health.failing is not None


REPLACING = SigningKey(ORIGIN, b"\x09" * 32)


def restored_before_the_rotation(restoring: Restoring) -> None:
    """The present key signs four records; the copy is of before it was known. A notary that has the old key reads the topic."""
    restoring.notary = rotated(restoring)
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(text("DELETE FROM orchestrator.receipt_key WHERE verifier = :key"), {"key": str(REPLACING.verifier)})
        connection.execute(
            text(
                "UPDATE registration.audit SET at = at + interval '1 s' WHERE audit_id > 1 + (SELECT min(audit_id) FROM registration.audit)"
            )
        )
    with restoring.engine.begin() as connection:
        add_key(connection, str(KEY.verifier))
    assert compare_topic(restoring.settings, restoring.engine) == 1, "only that of the old key"


def rotated(restoring: Restoring) -> Notary:
    return Notary(signing(restoring.settings, receipts_signing_key=REPLACING.secret_text()), restoring.engine)


def contradicted(restoring: Restoring) -> list[tuple[int, PublishedState]]:
    with restoring.engine.begin() as connection:
        return [(each.published.size, each.state) for each in unsettled_checkpoints(connection)]


def test_row_69_checkpoints_that_were_read_before_their_key_was_known_count(restoring: Restoring) -> None:
    restored_before_the_rotation(restoring)
    rotated(restoring).turn()
    assert contradicted(restoring) == [(4, PublishedState.FORKED)]
    assert [each.checkpoint.size for each in checkpoints(restoring.engine)] == [2]


def test_row_69_checkpoints_count_although_their_key_becomes_known_while_they_are_read(
    restoring: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored_before_the_rotation(restoring)
    run_again = published.published_checkpoints

    def announced(*given: Any) -> published.FoundCheckpoints:
        with restoring.engine.begin() as connection:
            add_key(connection, str(REPLACING.verifier))
        return run_again(*given)

    with restoring.engine.begin() as connection:
        note_reading(connection, dict.fromkeys(read_up_to(connection), 0))
    monkeypatch.setattr(published, "published_checkpoints", announced)
    assert compare_topic(restoring.settings, restoring.engine) == 1
    monkeypatch.undo()
    compare_topic(restoring.settings, restoring.engine)
    assert contradicted(restoring) == [(4, PublishedState.AHEAD)]


def test_row_69_a_key_that_is_added_by_hand_makes_its_checkpoints_count(restoring: Restoring) -> None:
    restored_before_the_rotation(restoring)
    added = bulkreg(restoring.settings, "keys", "add", str(REPLACING.verifier))
    assert (added.exit_code, json.loads(added.stdout)["is_new"]) == (0, True)
    assert not json.loads(bulkreg(restoring.settings, "keys", "add", str(REPLACING.verifier)).stdout)["is_new"]
    assert bulkreg(restoring.settings, "keys", "add", "no key").exit_code == ExitCode.BAD_INPUT
    restoring.notary.turn()
    assert contradicted(restoring) == [(4, PublishedState.FORKED)]


def test_an_audit_of_a_log_that_was_signed_again_under_another_key_names_the_true_checkpoints(restoring: Restoring) -> None:
    """Somebody with the owner's rights changes a record, removes the key and every checkpoint, and signs everything with a key of their own."""
    stranger = Notary(signing(restoring.settings, receipts_signing_key=REPLACING.secret_text()), restoring.engine)
    with as_owner(restoring.settings) as connection:
        connection.execute(text("UPDATE registration.audit SET at = at + interval '1 s'"))
        connection.execute(text("UPDATE registration.activity SET created_at = created_at + interval '1 s'"))
        for table in ("log", "run", "batch", "node", "checkpoint", "published", "key", "reading"):
            connection.execute(text(f"DELETE FROM orchestrator.receipt_{table}"))
        connection.execute(text("UPDATE orchestrator.receipt_cursor SET appended_through = 0"))
    stranger.turn()
    assert len(leaves(restoring.engine)) == 2
    audited = bulkreg(restoring.settings, "receipts", "audit")
    [finding] = json.loads(audited.stdout)["findings"]
    assert (audited.exit_code, finding["kind"]) == (ExitCode.SOME_FAILED, Tampering.UNKNOWN_SIGNER)
    for part in ("partition ", "offset ", f"{ORIGIN}/{ORGANIZATION}", f"{ORIGIN}+{KEY.verifier.key_id.hex()}"):
        assert part in finding["detail"]
    # With the true key, from the settings or as an option, it is compared.
    for known in (
        bulkreg(restoring.settings, "receipts", "audit", "--key", str(KEY.verifier)),
        bulkreg(restoring.settings, "receipts", "audit", signing_key=KEY),
    ):
        assert [each["kind"] for each in json.loads(known.stdout)["findings"]] == [Tampering.TWO_HEADS]


def bulkreg(settings: Settings, *arguments: str, signing_key: SigningKey | None = None) -> Result:
    environment = {
        "BULKREG_DATABASE_URL": settings.database_url.get_secret_value(),
        "BULKREG_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "BULKREG_TOPIC_PREFIX": settings.topic_prefix,
        "BULKREG_RECEIPTS_SIGNING_KEY": None if signing_key is None else signing_key.secret_text(),
        "BULKREG_RECEIPTS_ORIGIN": ORIGIN,
        "BULKREG_HOME": None,
    }
    return CliRunner().invoke(app, [*arguments, "--json"], env=environment)


def test_row_69_the_topic_is_asked_again_when_the_database_was_replaced(restoring: Restoring) -> None:
    keeping = restoring.notary
    restoring.restore_before(3)
    keeping._server_started = None  # it has another start than before
    with as_owner(restoring.settings) as connection:
        connection.execute(text("DELETE FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"))
    keeping.turn()
    assert [each.checkpoint.size for each in checkpoints(restoring.engine)] == [2]
    assert keeping.health.failing is not None


def test_row_69_the_topic_is_asked_again_every_ten_minutes(restoring: Restoring) -> None:
    now = 0.0
    keeping = Notary(signing(restoring.settings), restoring.engine, lambda: now)
    keeping.turn()
    restoring.publisher.publish([forged(KEY)])
    now = 599.0
    keeping.turn()
    assert keeping.health.failing is None
    now = 600.0
    keeping.turn()
    assert keeping.health.failing is not None


def test_row_69_the_topic_is_asked_again_after_an_error(restoring: Restoring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database may be another one than before."""
    monkeypatch.setattr(notary_loop, "_MAX_PAUSE_S", 0.01)
    fails = [OperationalError("SELECT", None, ConnectionError("a test's"))]
    append = appending.Appender.append

    def fail_once(appender: appending.Appender) -> int:
        if fails:
            raise fails.pop()
        return append(appender)

    restoring.notary.turn()
    restoring.publisher.publish([forged(KEY)])
    monkeypatch.setattr(appending.Appender, "append", fail_once)
    with in_thread(restoring.notary):
        eventually(lambda: restoring.notary.health.failing)


def test_row_69_a_topic_that_was_made_again_is_read_from_its_beginning(restoring: Restoring) -> None:
    """The offsets in the database are behind its end."""
    with restoring.engine.begin() as connection:
        note_reading(connection, dict.fromkeys(read_up_to(connection), 1_000_000))
    assert compare_topic(restoring.settings, restoring.engine) == 1
    assert compare_topic(restoring.settings, restoring.engine) == 0


def test_nobody_changes_what_is_in_a_log(pipeline: Pipeline, settings: Settings, engine: Engine, topics: None) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    notary(settings, engine).turn()
    for table in ("receipt_run", "receipt_batch", "receipt_node", "receipt_checkpoint"):
        for change in (f"UPDATE orchestrator.{table} SET log = 2", f"DELETE FROM orchestrator.{table}"):
            for url in (settings.owner_url, settings.worker_url, settings.api_url):
                changing = create_engine(url)
                with pytest.raises(DBAPIError) as refused, changing.begin() as connection:
                    connection.execute(text(change))
                changing.dispose()
                assert sqlstate(refused.value) == "42501"


def test_forgetting_waits_for_the_notary_and_destroys_the_salt(pipeline: Pipeline, engine: Engine, unsigned: Notary) -> None:
    pipeline.submit(mentors(2))
    pipeline.drain()
    unsigned.turn()
    before = all_hashes(engine)
    with engine.begin() as connection:
        assert forget_person(connection, ORGANIZATION, "mentor-1")
        assert not forget_person(connection, ORGANIZATION, "mentor-1")
        # Meanwhile nobody gets a salt.
        unsigned.turn()
    with engine.begin() as connection:
        assert set(connection.scalars(text("SELECT person_id FROM orchestrator.receipt_salt"))) == {"mentor-2", COORDINATOR}
    assert all_hashes(engine) == before


@contextmanager
def in_thread(notary: Notary) -> Iterator[Notary]:
    """Runs the notary until the block ends."""
    thread = threading.Thread(target=notary.run)
    thread.start()
    try:
        yield notary
    finally:
        notary.stop()
        thread.join()


def has_signed(engine: Engine, size: int) -> bool:
    """Whether the newest checkpoint has this size."""
    return [each.checkpoint.size for each in checkpoints(engine)][-1:] == [size]


def test_a_running_notary_keeps_up_and_stops(pipeline: Pipeline, settings: Settings, engine: Engine, topics: None) -> None:
    with in_thread(Notary(signing(settings, notary_poll_ms=10), engine)) as running:
        for first in (1, 2):
            pipeline.submit(mentors(1, first=first))
            pipeline.drain()
            eventually(partial(has_signed, engine, first))
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
