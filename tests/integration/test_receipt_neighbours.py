"""The log of an organization reads, grows and is signed the same whatever logs others have, and whatever its own earlier log has.

The logs here are written straight into the tables. All have the same numbers, places, persons and batches, and other hashes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Connection, text

from orchestrator.process.settings import Settings
from orchestrator.storage import receipt_appending
from orchestrator.storage.receipt_appending import (
    append_rows,
    forget_person,
    lost_rows,
    packed_leaves,
    position,
    read_rows,
    restart_log,
    salts_of,
)
from orchestrator.storage.receipt_checkpoints import (
    DueLog,
    Published,
    PublishedState,
    add_key,
    compare_published,
    due_logs,
    known_keys,
    read_receipt_figures,
    store_checkpoint,
    unsettled_checkpoints,
)
from orchestrator.storage.receipt_reading import StoredCheckpoint, StoredHashes, leaves_of_batch, people
from schemas.ids import new_batch_id
from tests.support.plans import rows_read, without_indexes
from tests.support.receipts import NO_VALUES, as_owner

FORKED, OURS, NEWER, BEHIND = "a-forked", "b-ours", "c-newer", "d-behind"
ORGANIZATIONS = (NEWER, OURS, BEHIND, FORKED)
BATCH = new_batch_id()
TABLES = ("receipt_log", "receipt_checkpoint", "receipt_published", "receipt_salt")

FILL = {
    "receipt_log": "(organization_id, log, origin, before_log, size, frontier, signed_size, signed_at)"
    " VALUES (:o, :n, 'o', 0, 2, :h, 1, now() - :n * interval '1 minute')",
    "receipt_run": "(organization_id, log, first_index, audit_ids, hashes, leaves)"
    " VALUES (:o, :n, 1, '{2}', :h, :leaf), (:o, :n, 0, '{1}', :h, :leaf)",
    "receipt_batch": "(organization_id, log, first_index, batch_id) VALUES (:o, :n, 1, :b), (:o, :n, 0, :b)",
    "receipt_node": "(organization_id, log, level, index, hash)"
    " VALUES (:o, :n, 8, 1, :h), (:o, :n, 8, 0, :h), (:o, :n, 16, 0, :h), (:o, :n, 8, 256, :h)",
    "receipt_checkpoint": "(organization_id, log, size, root, note, signed_at) VALUES (:o, :n, 1, :h, '', now()), (:o, :n, 2, :h, '', now())",
    "receipt_published": "(organization_id, log, size, root, note, state) VALUES (:o, :n, 1, :h, '', :state)",
}
AUDIT = """
    INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at,
                                    activity_type, activity_date, duration_minutes, item_id, attempt)
    VALUES (:o, :action, gen_random_uuid(), :by, :mentor, 'k-2', :b, 'api', now(), 'visit', '2026-03-25', 60, gen_random_uuid(), 1)
    RETURNING audit_id
"""


def hashed(organization: str, log: int) -> bytes:
    return hashlib.sha256(f"{organization}/{log}".encode()).digest()


def salt(organization: str, person: str) -> bytes:
    return hashlib.sha256(f"{organization}/{person}".encode()).digest()


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """Every organization has the logs 1 and 2, and one a newer one. Two have published logs that contradict theirs."""
    with as_owner(settings) as connection:
        # A log that only the topic has.
        connection.execute(
            text(f"INSERT INTO orchestrator.receipt_published {FILL['receipt_published']}"),
            {"o": BEHIND, "n": 3, "h": hashed(BEHIND, 3), "state": "ahead"},
        )
        logs = [(NEWER, 3), *((organization, log) for organization in ORGANIZATIONS for log in (1, 2))]
        for organization, log in logs:
            is_forked = organization in (FORKED, BEHIND) or (organization, log) == (OURS, 1)
            values = {
                "o": organization,
                "n": log,
                "h": hashed(organization, log),
                "b": BATCH,
                "leaf": packed_leaves([orjson.dumps({"batch_id": str(BATCH), "of": f"{organization}/{log}"})]),
                "state": "forked" if is_forked else "agrees",
            }
            for table, rows in FILL.items():
                used = {name: value for name, value in values.items() if f":{name}" in rows}
                connection.execute(text(f"INSERT INTO orchestrator.{table} {rows}"), used)
        for organization in ORGANIZATIONS:
            for person in ("m-1", "m-2", "k-1", "k-2"):
                connection.execute(
                    text("INSERT INTO orchestrator.receipt_salt VALUES (:o, :person, :salt)"),
                    {"o": organization, "person": person, "salt": salt(organization, person)},
                )
        # Rows come in the order of their tables, unless a statement asks for another.
        without_indexes(connection)
        for way in ("hashjoin", "mergejoin"):
            connection.execute(text(f"SET LOCAL enable_{way} = off"))
        yield connection


def audited(
    connection: Connection, organization: str, *, mentor: str = "m-1", by: str = "k-1", action: str = "registered"
) -> int:
    """The id of a new audit row."""
    values = {"o": organization, "mentor": mentor, "by": by, "action": action, "b": BATCH}
    return int(connection.execute(text(AUDIT), values).scalar_one())


def running(connection: Connection, batch_id: UUID) -> None:
    """Makes the batch of all these logs one that has not ended."""
    connection.execute(
        text(
            "INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, status, total_items, pending,"
            " version, parts, content_hash, trace_id, submitted_at, changed_at)"
            " VALUES (:b, 'x', 'x', 'x', 'api', 'processing', 1, 1, 1, 1, '', repeat('1', 32), now(), now())"
        ),
        {"b": batch_id},
    )


def of_others(connection: Connection) -> Mapping[str, Any]:
    """All that other organizations have, our log 1, and all salts."""
    found = {}
    for table in TABLES:
        others = "true" if table == "receipt_salt" else f"(organization_id, log) <> ('{OURS}', 2)"
        rows = connection.execute(text(f"SELECT * FROM orchestrator.{table} WHERE {others} ORDER BY 1, 2, 3"))
        found[table] = [tuple(bytes(value) if isinstance(value, memoryview) else value for value in row) for row in rows]
    return found


def test_each_log_is_signed_when_its_own_batches_end(connection: Connection) -> None:
    """Of an organization the newest log, unless one that was published contradicts it; in the order of the organizations."""

    def due(*, hours: int = 1) -> list[tuple[str, int]]:
        return [(each.organization_id, each.log) for each in due_logs(connection, older_than=timedelta(hours=hours))]

    assert due() == [(OURS, 2), (NEWER, 3)]
    running(connection, BATCH)
    assert due() == []
    ended = text("INSERT INTO orchestrator.receipt_batch VALUES (:o, :log, :first_index, gen_random_uuid())")
    for organization, log, first_index in ((NEWER, 2, 1), (FORKED, 2, 1), (OURS, 1, 1), (OURS, 2, 0)):
        connection.execute(ended, {"o": organization, "log": log, "first_index": first_index})
    assert due() == []
    connection.execute(ended, {"o": OURS, "log": 2, "first_index": 1})
    assert due() == [(OURS, 2)]
    assert due(hours=-1) == [(OURS, 2), (NEWER, 3)]
    connection.execute(text("UPDATE orchestrator.receipt_log SET signed_size = size"))
    assert due(hours=-1) == []


def test_a_log_that_is_contradicted_is_named_until_a_newer_one_replaces_it(connection: Connection) -> None:
    found = [(each.published.organization_id, each.published.log) for each in unsettled_checkpoints(connection)]
    assert found == [(FORKED, 2), (BEHIND, 2), (BEHIND, 3)]
    figures = read_receipt_figures(connection)
    newest = connection.execute(text("SELECT extract(epoch FROM max(signed_at)) FROM orchestrator.receipt_log")).scalar_one()
    assert (figures.leaves, figures.signed_at, figures.halted) == (18, float(newest), 3)


def test_only_hashes_of_the_log_are_read(connection: Connection) -> None:
    hashes = StoredHashes(connection, OURS, 2)
    with (
        rows_read(connection.engine, "SELECT first_index, hashes") as runs,
        rows_read(connection.engine, "SELECT index, hash") as nodes,
    ):
        assert {hashes(0, index) for index in (0, 1)} == {hashed(OURS, 2)}
        assert {hashes(8, index) for index in (0, 1, 256)} == {hashed(OURS, 2)}
    assert (runs, nodes) == ([2], [2, 1])


def test_only_leaves_of_the_log_are_read_in_their_order(connection: Connection) -> None:
    for size in (1, 2):
        found = leaves_of_batch(connection, OURS, StoredCheckpoint(2, size, b"", ""), BATCH)
        assert [(each.index, orjson.loads(each.raw)["of"]) for each in found] == [(n, f"{OURS}/2") for n in range(size)]
    with rows_read(connection.engine, "SELECT r.first_index, r.audit_ids, r.leaves") as runs:
        assert leaves_of_batch(connection, OURS, StoredCheckpoint(2, 2, b"", ""), new_batch_id()) == []
    assert runs == [0]


def test_persons_have_the_salts_of_their_organization(connection: Connection) -> None:
    registered = audited(connection, OURS)
    revoked = audited(connection, OURS, mentor="m-2", action="revoked")
    unsalted = audited(connection, OURS, mentor="m-3")
    by_unsalted = audited(connection, OURS, by="k-3")
    audited(connection, OURS)
    theirs = audited(connection, NEWER)
    found = people(connection, OURS, [registered, revoked, unsalted, by_unsalted, theirs])
    assert {audit_id: tuple(person for person in each) for audit_id, each in found.items()} == {
        registered: (("m-1", salt(OURS, "m-1")), ("k-1", salt(OURS, "k-1"))),
        revoked: (("m-2", salt(OURS, "m-2")), ("k-2", salt(OURS, "k-2"))),
        unsalted: (("m-3", None), ("k-1", salt(OURS, "k-1"))),
        by_unsalted: (("m-1", salt(OURS, "m-1")), ("k-3", None)),
    }
    with rows_read(connection.engine, "JOIN orchestrator.receipt_salt s USING") as counts:
        assert salts_of(connection, [(OURS, "m-1"), (OURS, "m-3")]) == {(OURS, "m-1"): salt(OURS, "m-1")}
    assert counts == [1]


def test_what_was_published_is_compared_with_its_own_log(connection: Connection) -> None:
    """And replaces what was read before, with all its values."""
    before = of_others(connection)
    engine = connection.engine
    with (
        rows_read(engine, "SELECT organization_id, log, size FROM orchestrator.receipt_log") as sizes,
        rows_read(engine, "JOIN orchestrator.receipt_checkpoint c USING") as roots,
        rows_read(engine, "SELECT organization_id, log, size, root, note, state") as published,
    ):
        compare_published(connection, [Published(OURS, 2, 1, hashed(OURS, 2), "same")])
    assert (sizes, roots, published) == ([2], [1], [2])
    for size, root in ((3, b"three"), (4, b"four")):
        compare_published(connection, [Published(OURS, 2, size, root, f"a note of {size}")])
    assert of_others(connection) == before
    [ours] = [each for each in unsettled_checkpoints(connection) if each.published.organization_id == OURS]
    assert ours == (Published(OURS, 2, 4, b"four", "a note of 4"), PublishedState.AHEAD)


@pytest.mark.parametrize("order", [(1, 9), (9, 1)])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_fork_is_final(connection: Connection, order: Sequence[int], at_once: bool) -> None:
    """Also if a checkpoint of a longer log was published before or after the one that shows it."""
    read = [Published(OURS, 2, size, b"another root".ljust(32), f"a note of {size}") for size in order]
    for published in [read] if at_once else [[each] for each in read]:
        compare_published(connection, published)
    [ours] = [each for each in unsettled_checkpoints(connection) if each.published.organization_id == OURS]
    assert (ours.published.size, ours.state) == (1, PublishedState.FORKED)


def test_a_log_grows_and_is_signed_by_itself(connection: Connection) -> None:
    before = of_others(connection)
    last = audited(connection, OURS)
    appended = append_rows(connection, position(connection), last, name="bulkreg.test", max_rows=10)
    assert appended.leaves == 1
    store_checkpoint(connection, DueLog(OURS, 2, "o", 3, b"root"), "a note", datetime(2026, 3, 25, tzinfo=UTC))
    assert of_others(connection) == before
    kept = text("SELECT size, signed_size, signed_at FROM orchestrator.receipt_log WHERE organization_id = :o AND log = 2")
    assert tuple(connection.execute(kept, {"o": OURS}).one()) == (3, 3, datetime(2026, 3, 25, tzinfo=UTC))


def test_a_person_is_forgotten_in_one_organization(connection: Connection) -> None:
    before = of_others(connection)
    assert forget_person(connection, OURS, "m-1")
    after = of_others(connection)
    assert [row for row in before["receipt_salt"] if row not in after["receipt_salt"]] == [(OURS, "m-1", salt(OURS, "m-1"))]


@pytest.mark.parametrize("at_once", [1, 5_000])
def test_a_log_begins_again_with_the_rows_of_its_organization_that_were_in_a_log(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(receipt_appending, "_ROWS_AT_ONCE", at_once)
    rows = [(organization, audited(connection, organization)) for organization in (FORKED, OURS, NEWER, OURS, OURS)]
    through = rows[-2][1]
    connection.execute(text("UPDATE orchestrator.receipt_cursor SET appended_through = :through"), {"through": through})
    log = restart_log(connection, OURS, number=3, name="bulkreg.test", reason="a test's")
    assert (log.size, log.before_log) == (2, through)
    kept = text("SELECT audit_ids FROM orchestrator.receipt_run WHERE organization_id = :o AND log = 3 ORDER BY first_index")
    runs = connection.execute(kept, {"o": OURS}).scalars().all()
    assert [audit_id for run in runs for audit_id in run] == [rows[1][1], through]


EARLY = text(f"UPDATE registration.audit SET {NO_VALUES} WHERE audit_id = :id")
ACTIVITY = text(
    "INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,"
    " duration_minutes, batch_id, item_id, overrides_duplicate, created_at) SELECT activity_id, organization_id, attributed_to, registered_by,"
    " 'call', '2026-03-24', 30, batch_id, gen_random_uuid(), true, at FROM registration.audit WHERE audit_id = :id"
)


def test_rows_of_an_early_version_that_no_leaf_can_be_made_of_are_named_in_their_order(connection: Connection) -> None:
    """Those of an organization, or of all, between two rows. A row that has its values or its activity is not lost."""
    rows = [audited(connection, organization) for organization in (OURS, OURS, NEWER, OURS, OURS, OURS)]
    for number in (4, 1, 3, 2, 5):
        assert connection.execute(EARLY, {"id": rows[number]}).rowcount == 1
    connection.execute(ACTIVITY, {"id": rows[3]})
    after, through = rows[0] - 1, rows[4]
    assert [each.audit_id for each in lost_rows(connection, after, through)] == [rows[n] for n in (1, 2, 4)]
    assert [each.audit_id for each in lost_rows(connection, rows[1], through, OURS)] == [rows[4]]


def test_a_leaf_of_an_early_row_has_the_values_of_its_activity(connection: Connection) -> None:
    """Its item was purged, so nothing knows the attempt. A row with values keeps them, whatever its activity has now. One whose activity was
    removed makes no leaf."""
    early, lost, other = (audited(connection, OURS) for _ in range(3))
    for audit_id in (early, other):
        connection.execute(ACTIVITY, {"id": audit_id})
    for audit_id in (early, lost):
        connection.execute(EARLY, {"id": audit_id})
    found = read_rows(connection, 0, other, OURS, 10)
    shown = [(row.audit_id, row.activity_type, row.activity_date.day, row.duration_minutes, row.attempt) for row in found]
    assert shown == [(early, "call", 24, 30, None), (other, "visit", 25, 60, 1)]


def test_the_newest_key_comes_first(connection: Connection) -> None:
    for key in ("b", "c", "a"):
        assert add_key(connection, key)
    connection.execute(text("UPDATE orchestrator.receipt_key SET added_at = '2026-03-25' WHERE verifier <> 'c'"))
    assert known_keys(connection) == ["c", "a", "b"]
