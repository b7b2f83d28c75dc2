"""Row 68 of the fault catalogue: the log has each audit row once, in an order that never changes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from consumers.notary import appending
from consumers.notary.notary import Notary
from orchestrator.process.actions import Action
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import Settings
from orchestrator.receipts.leaf import person_hash
from orchestrator.receipts.merkle import root
from orchestrator.storage.blame import sqlstate
from orchestrator.storage.receipt_appending import (
    SPAN,
    append_rows,
    audit_writers,
    behind_s,
    forget_person,
    position,
    take_turn,
)
from orchestrator.storage.receipt_reading import StoredHashes
from orchestrator.verification.receipts import Tampering, audit_logs
from schemas.envelope import Topic
from schemas.ids import derived_ids
from tests.support.databases import ReadyDatabases
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, Pipeline, item, mentors, record
from tests.support.plans import rows_read, without_indexes
from tests.support.receipts import (
    NO_VALUES,
    ORIGIN,
    all_hashes,
    as_owner,
    leaves,
    notary,
    plain_root,
    turn_is,
)
from tests.support.revoking import revoke
from tests.support.waiting import HELD_S, PATIENCE_S, eventually

WRITES = text("LOCK TABLE registration.audit IN ROW EXCLUSIVE MODE")
"""What a transaction locks that will write to the audit."""


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
        eventually(lambda: turn_is(engine, granted=True))
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


def test_row_68_a_transaction_that_still_waits_for_the_audit_is_not_waited_for(settings: Settings, engine: Engine) -> None:
    """It has drawn no id. So the log goes on while an index is built, which keeps every writer waiting."""
    waits = text("SELECT count(*) FROM pg_locks WHERE relation = CAST('registration.audit' AS regclass) AND NOT granted")
    with as_other(settings.owner_url) as building, as_other(settings.owner_url) as writer, engine.connect() as connection:
        building.execute(text("LOCK TABLE registration.audit IN SHARE MODE"))
        waiting = threading.Thread(target=writer.execute, args=[WRITES])
        waiting.start()
        eventually(lambda: connection.scalar(waits))
        meanwhile = audit_writers(connection)
        building.rollback()
        waiting.join()
        assert (meanwhile, len(audit_writers(connection))) == (frozenset(), 1)


@contextmanager
def as_other(url: str | URL) -> Iterator[Connection]:
    other = create_engine(url)
    with other.connect() as connection:
        yield connection
    other.dispose()


def test_row_68_a_transaction_that_begins_later_is_not_waited_for(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids that it draws are higher. Otherwise a busy audit would never be appended."""
    monkeypatch.setattr(appending, "_WAIT_S", HELD_S)
    looks: list[frozenset[str]] = []

    def looked(connection: Connection) -> frozenset[str]:
        looks.append(audit_writers(connection))
        return looks[-1]

    monkeypatch.setattr(appending, "audit_writers", looked)
    pipeline.submit(mentors(1))
    pipeline.drain()
    with as_other(settings.owner_url) as early, as_other(settings.owner_url) as late:
        early.execute(WRITES)
        appended = threading.Thread(target=unsigned.turn)
        appended.start()
        eventually(lambda: len(looks) > 1)
        late.execute(WRITES)
        assert leaves(engine) == []
        early.rollback()
        appended.join(PATIENCE_S)
        assert len(leaves(engine)) == 1
    appended.join()


def test_row_68_a_transaction_that_takes_long_is_waited_for_in_the_next_turn(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_WAIT_S", 0.0)
    pipeline.submit(mentors(1))
    pipeline.drain()
    with as_other(settings.owner_url) as writer:
        writer.execute(WRITES)
        turned = threading.Thread(target=unsigned.turn)
        turned.start()
        turned.join(PATIENCE_S)
        assert (turned.is_alive(), leaves(engine)) == (False, [])
    unsigned.turn()
    assert len(leaves(engine)) == 1


def test_row_68_a_notary_that_is_stopped_waits_for_no_transaction(
    pipeline: Pipeline, settings: Settings, engine: Engine, unsigned: Notary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_WAIT_S", HELD_S)
    pipeline.submit(mentors(1))
    pipeline.drain()
    with as_other(settings.owner_url) as writer:
        writer.execute(WRITES)
        running = threading.Thread(target=unsigned.run)
        running.start()
        eventually(lambda: turn_is(engine, granted=True))
        unsigned.stop()
        running.join(PATIENCE_S)
        assert (running.is_alive(), leaves(engine)) == (False, [])


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
    pipeline.submit([item("mentor-1", day=DAY - timedelta(days=1))])
    pipeline.drain()
    with engine.begin() as connection:
        assert forget_person(connection, ORGANIZATION, "mentor-1")
        assert not forget_person(connection, ORGANIZATION, "mentor-1")
        # Meanwhile nobody gets a salt.
        unsigned.turn()
    with engine.begin() as connection:
        assert set(connection.scalars(text("SELECT person_id FROM orchestrator.receipt_salt"))) == {"mentor-2", COORDINATOR}
    assert all_hashes(engine) == before
