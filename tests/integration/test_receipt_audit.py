"""`bulkreg receipts audit` finds each kind of tampering, made with SQL by the owner of the tables."""

# ruff: noqa: E501

import re
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import Checkpoint, SignedCheckpoint, sign
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.merkle import leaf_hash
from orchestrator.storage.receipt_appending import (
    forget_person,
    packed_leaves,
    restart_log,
    split_hashes,
    take_turn,
    unpacked_leaves,
)
from orchestrator.storage.receipt_checkpoints import Published
from orchestrator.verification import receipts as auditing
from orchestrator.verification.receipts import AuditFinding, LogAuditor, Tampering, audit_logs
from schemas.ids import derived_ids
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, mentors
from tests.support.receipts import KEY, NO_VALUES, ORIGIN, append_and_sign, as_owner
from tests.support.revoking import revoke


class Deployment:
    """100 records, of which one is revoked, and their checkpoints."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.settings, self.engine = settings, pipeline.engine
        first = pipeline.submit(mentors(100))
        pipeline.drain()
        append_and_sign(self.engine)
        ids = derived_ids(str(first))
        self.activity_id = ids.activity_id(7)
        self.revoked_id = ids.activity_id(9)
        revoke(pipeline, first, item_ids=[ids.item_id(9)], actor=ADMIN)
        append_and_sign(self.engine)
        with self.engine.begin() as connection:
            rows = connection.execute(text("SELECT organization_id, log, size, root, note FROM orchestrator.receipt_checkpoint"))
            self.published = [Published(row.organization_id, row.log, row.size, bytes(row.root), row.note) for row in rows]

    def tamper(self, *statements: str) -> None:
        with as_owner(self.settings) as connection:
            for statement in statements:
                named = {name: getattr(self, name) for name in ("activity_id", "revoked_id") if f":{name}" in statement}
                assert connection.execute(text(statement), named).rowcount != 0

    def found(self) -> list[AuditFinding]:
        return list(audit_logs(self.engine, self.published)[1])

    def kinds(self) -> set[Tampering]:
        return {each.kind for each in self.found()}


@pytest.fixture
def deployment(pipeline: Pipeline, settings: Settings) -> Deployment:
    return Deployment(pipeline, settings)


def test_an_untouched_log_is_green(deployment: Deployment, pipeline: Pipeline) -> None:
    assert audit_logs(deployment.engine, deployment.published) == (101, [])
    # What is not appended yet is no finding.
    late = pipeline.submit(mentors(3, first=50))
    pipeline.drain()
    assert deployment.found() == []
    append_and_sign(pipeline.engine)
    revoke(pipeline, late)
    assert deployment.found() == []
    with deployment.engine.begin() as connection:
        forget_person(connection, ORGANIZATION, "mentor-3")
    assert deployment.found() == []


def test_a_log_is_audited_as_a_whole_however_little_is_read_at_once(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "_RUNS_AT_ONCE", 1)
    monkeypatch.setattr(auditing, "_ROWS_AT_ONCE", 7)
    assert audit_logs(deployment.engine, deployment.published) == (101, [])
    deployment.tamper("DELETE FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)")
    assert deployment.kinds() == {Tampering.AUDIT_REMOVED}


AUDIT_ROW = "WHERE activity_id = :activity_id"
LAST = "(SELECT max(first_index) FROM orchestrator.receipt_run)"


@pytest.mark.parametrize(
    ("statements", "kind", "detail"),
    [
        (["UPDATE registration.activity SET duration_minutes = 90 WHERE activity_id = :activity_id"], Tampering.ACTIVITY_CHANGED, "duration_minutes"),
        (["UPDATE registration.activity SET activity_date = activity_date - 1 WHERE activity_id = :activity_id"], Tampering.ACTIVITY_CHANGED, "activity_date"),
        (["UPDATE registration.activity SET attributed_to = 'mentor-90', activity_type = 'call' WHERE activity_id = :activity_id"], Tampering.ACTIVITY_CHANGED, "mentor"),
        ([f"UPDATE registration.audit SET duration_minutes = 90 {AUDIT_ROW}"], Tampering.AUDIT_CHANGED, "duration_minutes"),
        ([f"UPDATE registration.audit SET attributed_to = 'mentor-90' {AUDIT_ROW}"], Tampering.AUDIT_CHANGED, "mentor"),
        ([f"UPDATE registration.audit SET attributed_to = 'nobody' {AUDIT_ROW}"], Tampering.AUDIT_CHANGED, "mentor"),
        ([f"DELETE FROM registration.audit {AUDIT_ROW}"], Tampering.AUDIT_REMOVED, "is gone"),
        (["DELETE FROM registration.activity WHERE activity_id = :activity_id"], Tampering.ACTIVITY_REMOVED, "is gone"),
        (
            ["INSERT INTO registration.activity SELECT gen_random_uuid(), organization_id, 'mentor-90', registered_by, 'call', activity_date, 60, NULL, batch_id, gen_random_uuid(), false, created_at FROM registration.activity WHERE activity_id = :activity_id"],
            Tampering.ACTIVITY_ADDED,
            "never registered",
        ),
        (
            ["INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT -1, organization_id, action, gen_random_uuid(), registered_by, attributed_to, submitted_by, batch_id, channel, at, reason, activity_type, activity_date, duration_minutes, item_id, attempt FROM registration.audit WHERE activity_id = :activity_id"],
            Tampering.AUDIT_ADDED,
            "in no leaf",
        ),
        (["UPDATE registration.activity SET revoked_at = NULL, revoked_by = NULL WHERE activity_id = :revoked_id"], Tampering.REVOCATION_TAKEN_BACK, "taken back"),
        (["UPDATE registration.activity SET revoked_at = now(), revoked_by = 'boss' WHERE activity_id = :activity_id"], Tampering.REVOCATION_ADDED, "never revoked"),
        ([f"DELETE FROM orchestrator.receipt_run WHERE first_index = {LAST}", "UPDATE orchestrator.receipt_cursor SET appended_through = appended_through"], Tampering.LOG_CUT_OFF, "ends after 100"),
        (["UPDATE orchestrator.receipt_log SET signed_size = 100, size = 100"], Tampering.HASH_CHANGED, "grows"),
        (["DELETE FROM orchestrator.receipt_run WHERE first_index = 0"], Tampering.LEAF_REMOVED, "missing"),
        (["UPDATE orchestrator.receipt_run SET leaves = 'x' WHERE first_index = 0"], Tampering.LEAF_CHANGED, "does not have its hash"),
        (["UPDATE orchestrator.receipt_checkpoint SET root = decode(repeat('ab', 32), 'hex') WHERE size = 100"], Tampering.CHECKPOINT_CHANGED, "not what was signed"),
        (["UPDATE orchestrator.receipt_checkpoint SET note = replace(note, '100', '101') WHERE size = 100"], Tampering.CHECKPOINT_CHANGED, "not what was signed"),
        (["UPDATE orchestrator.receipt_log SET frontier = set_byte(frontier, 0, get_byte(frontier, 0) # 1)"], Tampering.HASH_CHANGED, "grows"),
        (["DELETE FROM orchestrator.receipt_log"], Tampering.LOG_REMOVED, "no such log"),
    ],
)  # fmt: skip
def test_each_tampering_is_found(deployment: Deployment, statements: list[str], kind: Tampering, detail: str) -> None:
    deployment.tamper(*statements)
    matching = [each for each in deployment.found() if each.kind is kind]
    assert matching, deployment.found()
    assert detail in matching[0].detail
    named = re.search(r":(activity_id|revoked_id)", statements[0])
    if named and kind not in (Tampering.ACTIVITY_ADDED, Tampering.AUDIT_ADDED):
        assert [each.activity_id for each in matching] == [getattr(deployment, named[1])]


# Each value of a record, as somebody with the owner's rights changes it alone.
OF_AN_ACTIVITY = {
    "attributed_to": "'mentor-190'",
    "registered_by": "'nobody'",
    "activity_type": "'call'",
    "activity_date": "activity_date - 1",
    "duration_minutes": "90",
    "batch_id": "gen_random_uuid()",
    "item_id": "gen_random_uuid()",
    "created_at": "created_at + interval '1 microsecond'",
}
OF_AN_AUDIT_ROW = {
    "attributed_to": "'mentor-90'",
    "registered_by": "'nobody'",
    "activity_type": "'call'",
    "activity_date": "activity_date - 1",
    "duration_minutes": "90",
    "batch_id": "gen_random_uuid()",
    "item_id": "gen_random_uuid()",
    "attempt": "2",
    "at": "at + interval '1 microsecond'",
    "action": "'revoked'",
}


def test_each_value_of_a_record_is_compared(deployment: Deployment) -> None:
    cases = [
        *(("registration.activity", *each, "activity_id", Tampering.ACTIVITY_CHANGED) for each in OF_AN_ACTIVITY.items()),
        *(("registration.audit", *each, "activity_id", Tampering.AUDIT_CHANGED) for each in OF_AN_AUDIT_ROW.items()),
        ("registration.activity", "revoked_by", "'nobody'", "revoked_id", Tampering.REVOCATION_TAKEN_BACK),
        ("registration.activity", "revoked_at", "revoked_at + interval '1 microsecond'", "revoked_id", Tampering.REVOCATION_TAKEN_BACK),
    ]  # fmt: skip
    with as_owner(deployment.settings) as connection:
        for table, column, changed, whose, kind in cases:
            with connection.begin_nested() as savepoint:
                place = {"id": getattr(deployment, whose)}
                connection.execute(text(f"UPDATE {table} SET {column} = {changed} WHERE activity_id = :id"), place)
                found = list(LogAuditor(connection, deployment.published).audit(ORGANIZATION))
                assert (kind, place["id"]) in {(each.kind, each.activity_id) for each in found}, (table, column, found)
                savepoint.rollback()


def test_a_forgotten_person_is_one_person(deployment: Deployment) -> None:
    """Nobody can tell whose hash it was, but all records with that hash name the same."""
    with deployment.engine.begin() as connection:
        forget_person(connection, ORGANIZATION, COORDINATOR)
    assert deployment.found() == []
    deployment.tamper("UPDATE registration.activity SET registered_by = 'nobody' WHERE activity_id = :activity_id")
    assert [(each.kind, each.activity_id) for each in deployment.found()] == [
        (Tampering.ACTIVITY_CHANGED, deployment.activity_id)
    ]


STRANGER = SigningKey(ORIGIN, b"\x06" * 32)
CUT = (
    f"DELETE FROM orchestrator.receipt_run WHERE first_index = {LAST}",
    "DELETE FROM orchestrator.receipt_checkpoint WHERE size = 101",
)


@pytest.mark.parametrize(
    ("statements", "kind", "detail"),
    [
        ((*CUT, "UPDATE orchestrator.receipt_log SET signed_size = 100"), Tampering.LOG_CUT_OFF, "it had 101"),
        (
            (f"DELETE FROM orchestrator.receipt_run WHERE first_index = {LAST}", "UPDATE orchestrator.receipt_log SET size = 100, signed_size = 100"),
            Tampering.LOG_CUT_OFF,
            "it had 101",
        ),
        (("INSERT INTO orchestrator.receipt_node SELECT organization_id, log, 8, 7, decode(repeat('ab', 32), 'hex') FROM orchestrator.receipt_log",), Tampering.HASH_CHANGED, "the hash 7 of level 8"),
        (("UPDATE orchestrator.receipt_log SET origin = 'another'",), Tampering.CHECKPOINT_CHANGED, "not what was signed"),
        (("UPDATE orchestrator.receipt_checkpoint SET size = 99 WHERE size = 100",), Tampering.CHECKPOINT_CHANGED, "not what was signed"),
        (
            (
                "INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT 1 + (SELECT max(audit_id) FROM registration.audit), organization_id, action, gen_random_uuid(), registered_by, attributed_to, submitted_by, batch_id, channel, at, reason, activity_type, activity_date, duration_minutes, item_id, attempt FROM registration.audit WHERE activity_id = :activity_id",
                "UPDATE orchestrator.receipt_cursor SET appended_through = appended_through + 1",
            ),
            Tampering.AUDIT_ADDED,
            "in no leaf",
        ),
    ],
)  # fmt: skip
def test_each_trace_by_itself_gives_a_tampering_away(
    deployment: Deployment, statements: tuple[str, ...], kind: Tampering, detail: str
) -> None:
    """The other traces are gone, also those on the topic."""
    deployment.published.clear()
    deployment.tamper(*statements)
    assert detail in "".join(each.detail for each in deployment.found() if each.kind is kind)


def test_a_checkpoint_that_no_known_key_has_signed_is_none(deployment: Deployment) -> None:
    [note] = [each.note for each in deployment.published if each.size == 100]
    signed = SignedCheckpoint.parse(note).checkpoint
    with as_owner(deployment.settings) as connection:
        connection.execute(
            text("UPDATE orchestrator.receipt_checkpoint SET note = :note WHERE size = 100"), {"note": sign(signed, STRANGER)}
        )
    assert deployment.kinds() == {Tampering.CHECKPOINT_CHANGED}


def test_the_checkpoints_of_other_logs_are_compared_with_those(deployment: Deployment) -> None:
    foreign = [Published("another", 1, 100, b"x" * 32, "a note"), Published(ORGANIZATION, 2, 100, b"x" * 32, "a note")]
    deployment.published += foreign
    assert {(each.kind, each.organization_id, each.log) for each in deployment.found()} == {
        (Tampering.LOG_REMOVED, each.organization_id, each.log) for each in foreign
    }


def rewrite(deployment: Deployment, change: Callable[[list[bytes], list[bytes], list[int]], None]) -> None:
    """Changes a run as somebody does who knows how it is stored, and keeps its hashes right."""

    def write(connection: Connection) -> None:
        row = connection.execute(text("SELECT * FROM orchestrator.receipt_run WHERE first_index = 0")).one()
        leaves, hashes, audit_ids = unpacked_leaves(row.leaves), split_hashes(row.hashes), list(row.audit_ids)
        change(leaves, hashes, audit_ids)
        connection.execute(
            text(
                "UPDATE orchestrator.receipt_run SET leaves = :leaves, hashes = :hashes, audit_ids = :audit_ids WHERE first_index = 0"
            ),
            {"leaves": packed_leaves(leaves), "hashes": b"".join(hashes), "audit_ids": audit_ids},
        )

    with as_owner(deployment.settings) as connection:
        write(connection)


def test_a_leaf_that_was_rewritten_with_its_hash_and_its_rows_is_found_by_the_signed_roots(deployment: Deployment) -> None:
    def change(leaves: list[bytes], hashes: list[bytes], _: list[int]) -> None:
        for number, leaf in enumerate(leaves):
            if deployment.activity_id.encode() in leaf:
                leaves[number] = leaf.replace(b'"duration_minutes":60', b'"duration_minutes":90')
                hashes[number] = leaf_hash(leaves[number])

    rewrite(deployment, change)
    deployment.tamper(
        "UPDATE registration.activity SET duration_minutes = 90 WHERE activity_id = :activity_id",
        "UPDATE registration.audit SET duration_minutes = 90 WHERE activity_id = :activity_id",
    )
    assert deployment.kinds() == {Tampering.CHECKPOINT_CHANGED, Tampering.HASH_CHANGED, Tampering.TWO_HEADS}


@pytest.mark.parametrize("what", ["another leaf", "another hash", "no hash"])
def test_a_leaf_that_does_not_have_its_hash_is_named(deployment: Deployment, what: str) -> None:
    changed: list[int] = []

    def change(leaves: list[bytes], hashes: list[bytes], _: list[int]) -> None:
        [number, *_] = [number for number, leaf in enumerate(leaves) if deployment.activity_id.encode() in leaf]
        match what:
            case "another leaf":
                leaves[number] = leaves[number].replace(b'"duration_minutes":60', b'"duration_minutes":90')
            case "another hash":
                hashes[number] = leaf_hash(b"another leaf")
            case _:
                number = len(hashes) - 1
                del hashes[number]
        changed.append(number)

    rewrite(deployment, change)
    found = [(each.index, each.detail) for each in deployment.found() if each.kind is Tampering.LEAF_CHANGED]
    assert found == [(number, f"leaf {number} does not have its hash") for number in changed]


@pytest.mark.parametrize("written", [b"[]", b'{"activity_id":"none"}', b"\xff"])
def test_a_leaf_that_is_none_is_named_and_hides_nothing(deployment: Deployment, written: bytes) -> None:
    def change(leaves: list[bytes], hashes: list[bytes], _: list[int]) -> None:
        leaves[3], hashes[3] = written, leaf_hash(written)

    rewrite(deployment, change)
    deployment.tamper("DELETE FROM registration.activity WHERE activity_id = :activity_id")
    found = {(each.kind, each.index) for each in deployment.found()}
    assert (Tampering.LEAF_CHANGED, 3) in found
    assert Tampering.ACTIVITY_REMOVED in {kind for kind, _ in found}


def test_an_activity_that_was_removed_from_under_an_old_audit_row_is_named(deployment: Deployment) -> None:
    deployment.tamper(
        f"UPDATE registration.audit SET {NO_VALUES} WHERE activity_id = :activity_id",
        "DELETE FROM registration.activity WHERE activity_id = :activity_id",
    )
    assert [(each.kind, each.activity_id) for each in deployment.found()] == [
        (Tampering.ACTIVITY_REMOVED, deployment.activity_id)
    ]


def test_an_organization_of_which_nothing_is_recorded_yet_has_lost_no_log(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    """All its rows are of a version from before receipts."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    # The notary has not run yet.
    assert audit_logs(engine, []) == (0, [])
    with as_owner(settings) as connection:
        connection.execute(text(f"UPDATE registration.audit SET {NO_VALUES}"))
        connection.execute(text("DELETE FROM registration.activity"))
        connection.execute(
            text("UPDATE orchestrator.receipt_cursor SET before_log = (SELECT max(audit_id) FROM registration.audit)")
        )
    append_and_sign(engine)
    # No row could become a leaf. What is missing are the activities, not a log.
    ids = derived_ids(str(batch_id))
    leaves, found = audit_logs(engine, [])
    assert leaves == 0
    # In the order of the audit rows, which one statement has written in any order.
    assert sorted((each.kind, each.activity_id) for each in found) == [
        (Tampering.ACTIVITY_REMOVED, ids.activity_id(position)) for position in range(2)
    ]
    # A log that was there once is still missed.
    pipeline.submit(mentors(1, first=3))
    pipeline.drain()
    append_and_sign(engine)
    with as_owner(settings) as connection:
        connection.execute(text("DELETE FROM orchestrator.receipt_log"))
    assert Tampering.LOG_REMOVED in {each.kind for each in audit_logs(engine, [])[1]}


def test_each_log_is_audited_by_itself(deployment: Deployment, engine: Engine) -> None:
    """An organization has a second one after a restore. What is wrong with one of them is not said of the other."""
    with engine.begin() as connection:
        take_turn(connection)
        restart_log(connection, ORGANIZATION, number=2, name=ORIGIN, reason="restored")
    append_and_sign(engine)
    assert audit_logs(engine, deployment.published) == (202, [])
    for log in (1, 2):
        deployment.tamper(
            f"INSERT INTO orchestrator.receipt_node SELECT organization_id, log, 8, 7, '' FROM orchestrator.receipt_log WHERE log = {log}"
        )
        assert [(each.kind, each.log) for each in deployment.found()] == [(Tampering.HASH_CHANGED, log)]
        deployment.tamper("DELETE FROM orchestrator.receipt_node")


def test_two_leaves_that_changed_places_are_found(deployment: Deployment) -> None:
    def change(leaves: list[bytes], hashes: list[bytes], audit_ids: list[int]) -> None:
        leaves[3:5], hashes[3:5], audit_ids[3:5] = leaves[4:2:-1], hashes[4:2:-1], audit_ids[4:2:-1]

    rewrite(deployment, change)
    found = deployment.found()
    assert {each.kind for each in found} >= {Tampering.LEAF_REORDERED, Tampering.CHECKPOINT_CHANGED}
    assert [each.index for each in found if each.kind is Tampering.LEAF_REORDERED] == [4]


def test_a_leaf_that_names_a_row_of_an_earlier_run_is_found(deployment: Deployment) -> None:
    deployment.tamper(
        "UPDATE orchestrator.receipt_run SET audit_ids = (SELECT audit_ids[50:50] FROM orchestrator.receipt_run WHERE first_index = 0)"
        f" WHERE first_index = {LAST}"
    )
    found = deployment.found()
    assert [each.index for each in found if each.kind is Tampering.LEAF_REORDERED] == [100]
    # Only the row that the leaf named before is in no leaf any more.
    assert [each.activity_id for each in found if each.kind is Tampering.AUDIT_ADDED] == [deployment.revoked_id]


def test_a_second_head_that_was_published_is_found(deployment: Deployment) -> None:
    other = Checkpoint(f"{ORIGIN}/{ORGANIZATION}", 100, b"x" * 32)
    deployment.published.append(Published(ORGANIZATION, 1, 100, other.root, sign(other, KEY)))
    assert deployment.kinds() == {Tampering.TWO_HEADS}


def test_a_log_that_was_cut_off_with_its_checkpoints_is_found_by_the_topic(deployment: Deployment, engine: Engine) -> None:
    deployment.tamper(
        f"DELETE FROM orchestrator.receipt_run WHERE first_index = {LAST}",
        "DELETE FROM orchestrator.receipt_checkpoint WHERE size = 101",
        "UPDATE orchestrator.receipt_log SET size = 100, signed_size = 100",
    )
    [found] = [each for each in deployment.found() if each.kind is Tampering.LOG_CUT_OFF]
    assert found.detail == "the log ends after 100 leaves; it had 101"
