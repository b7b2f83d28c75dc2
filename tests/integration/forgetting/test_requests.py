"""Requests to forget somebody: whether anybody has the id, who waits, what is refused, and in which order they are worked on."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from consumers.upkeep.observer import ProductObserver
from orchestrator.batches.errors import ConflictError
from orchestrator.batches.model import Actor, CorrectedItem, RetryRequest
from orchestrator.batches.operations import (
    relabel_batch,
    retry_failed_items,
)
from orchestrator.directory import known_people
from orchestrator.directory.forgetting import Forgot, Limits
from orchestrator.directory.forgetting_requests import ForgettingRequests
from orchestrator.directory.known_people import is_known
from orchestrator.directory.person_columns import TABLES, Holds
from orchestrator.directory.person_pages import read_page
from orchestrator.process.actions import Action
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.storage.database import transact
from schemas.ids import DerivedIds
from tests.support.forgetting import KEY, NAME, NOTE, OPERATOR, OTHER, PERSON, ask, find, forget, forgetter, imported, named_in
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, item
from tests.support.replaying import RecordingPipeline, run
from tests.support.revoking import revoke
from tests.support.upstream import submitted, upstream_item


def test_the_oldest_request_is_taken_first(pipeline: RecordingPipeline, owner: Engine) -> None:
    asked = [ask(pipeline, mentor_id) for mentor_id in (PERSON, OTHER)]
    with owner.begin() as connection:
        later = "UPDATE registration.forgetting SET requested_at = requested_at + interval '1 hour' WHERE mentor_id = :person"
        connection.execute(text(later), {"person": PERSON})
    forgetter().work(pipeline.engine, most_s=0)
    assert [find(pipeline, each).pseudonym is not None for each in asked] == [False, True]


def test_a_request_counts_the_rows_of_all_its_pages(pipeline: RecordingPipeline) -> None:
    for number in (1, 2):
        pipeline.submit([item(PERSON, day=DAY - timedelta(days=number), notes=NOTE)], label=f"with {NAME}")
    pipeline.drain()
    asked = ask(pipeline)
    done = forgetter(limits=Limits(page_rows=1, hits=1, items=1)).work(pipeline.engine)
    assert done.rows > 2
    assert find(pipeline, asked).changed_rows == done.rows


def test_the_oldest_open_request_is_measured(pipeline: RecordingPipeline) -> None:
    observer = ProductObserver(pipeline.engine, backlog_limit_items=1)

    def waited_s() -> float:
        [figure] = [metric for metric in observer.collect() if metric.name == "bulkreg_forgetting_wait_seconds"]
        return figure.samples[0].value

    assert waited_s() == 0
    ask(pipeline)
    ask(pipeline, OTHER)
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("UPDATE registration.forgetting SET requested_at = requested_at - interval '1 hour' WHERE mentor_id = :person"),
            {"person": OTHER},
        )
    assert 3_600 <= waited_s() < 7_200
    assert forgetter().work(pipeline.engine).people == 2
    assert waited_s() == 0


def test_it_is_refused_while_a_batch_runs_or_the_id_is_a_coordinators(pipeline: RecordingPipeline) -> None:
    pipeline.submit([item(PERSON)])
    for mentor_id, code in ((PERSON, "mentor_in_running_batch"), (COORDINATOR, "mentor_coordinates")):
        with pytest.raises(ConflictError) as refused:
            ask(pipeline, mentor_id)
        assert refused.value.code == code


def test_it_waits_while_an_id_is_a_coordinators_who_was_added_after_the_request(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    asked = ask(pipeline)
    person = {"org": ORGANIZATION, "person": PERSON}
    for added in (
        "coordinator VALUES (:org, :person, 'K.', 'coordinator')",
        "coordinator_scope VALUES (:org, :person, 'chapter-1')",
    ):
        with owner.begin() as connection:
            connection.execute(text(f"INSERT INTO registration.{added}"), person)
    assert forgetter().work(pipeline.engine) == Forgot(waiting=1)
    assert find(pipeline, asked).pseudonym is None
    assert named_in(owner, PERSON) == {
        f"registration.{each}" for each in ("mentor", "coordinator", "coordinator_scope", "forgetting")
    }
    run(owner, f"UPDATE registration.coordinator SET role = 'closed' WHERE coordinator_id = '{PERSON}'")
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON) == set()


def test_a_word_that_is_nobodys_id_is_refused_and_erases_nothing(pipeline: RecordingPipeline) -> None:
    batch_id = pipeline.submit([item(PERSON)], label="a visit at Kari's")
    pipeline.drain()
    for word in ("visit", "Kari", PERSON[:-1], PERSON.upper()):
        with pytest.raises(ConflictError, match="Check the spelling") as refused:
            ask(pipeline, word)
        assert (refused.value.code, word in str(refused.value)) == ("mentor_unknown", False)
    assert forgetter().work(pipeline.engine) == Forgot()
    with pipeline.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM registration.forgetting")) == 0
        assert (
            connection.scalar(text("SELECT label FROM orchestrator.batch WHERE batch_id = :id"), {"id": batch_id})
            == "a visit at Kari's"
        )


@pytest.mark.parametrize("stands_in", ["an item", "a correction", "an activity", "an edit", "a group", "a part", "a log"])
def test_an_id_that_only_a_record_has_is_somebodys(pipeline: RecordingPipeline, owner: Engine, stands_in: str) -> None:
    left = "left-1"
    failed = pipeline.submit([item(left if stands_in == "an item" else "nobody")])
    pipeline.drain()
    match stands_in:
        case "a correction":
            corrected = CorrectedItem(DerivedIds(failed).item_id(0), {"mentor_id": left})
            for correction in (corrected, CorrectedItem(corrected.item_id, {"mentor_id": "nobody"})):
                pipeline.call(retry_failed_items, ADMIN, failed, RetryRequest(corrections=[correction]))
                pipeline.drain()
        case "an activity":
            pipeline.submit([item("mentor-1")])
            pipeline.drain()
            run(owner, f"UPDATE registration.activity SET attributed_to = '{left}'")
        case "an edit":
            registered = pipeline.submit([item("mentor-1")])
            pipeline.drain()
            revoke(pipeline, registered, actor=Actor(ORGANIZATION, left, ADMIN.role))
        case "a group":
            columns = "(template_id, organization_id, coordinator_id, name, mentor_ids, activity_type, duration_minutes, version, changed_at)"
            values = f"(gen_random_uuid(), '{ORGANIZATION}', 'coord-1', 'all', ARRAY['{left}'], 'visit', 60, 1, now())"
            run(owner, f"INSERT INTO orchestrator.template {columns} VALUES {values}")
        case "a part":
            part = submitted(uuid4(), [upstream_item(0, left)], part=1, parts=2, total_items=2)
            pipeline.handle(pipeline.splitter, [part])
        case "a log":
            run(owner, f"INSERT INTO orchestrator.receipt_salt VALUES ('{ORGANIZATION}', '{left}', sha256('salt'))")
    assert ask(pipeline, left).pseudonym is None


def test_an_id_that_stands_in_any_column_which_forgetting_searches_is_somebodys(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """A row is made up for each column that may have a person's id, with nothing else in it."""
    left = "left-1"
    columns = [
        (name, column, f"ARRAY['{left}']" if holds is Holds.IDS else f"'{left}'")
        for name, table in TABLES.items()
        for column, holds in table.columns.items()
        if holds in (Holds.ID, Holds.ROW, Holds.IDS, Holds.SALT)
    ]
    unknown = []
    with owner.connect() as connection:
        for name, column, value in columns:
            with connection.begin_nested() as savepoint:
                assert not is_known(connection, ORGANIZATION, left)
                insert_anything(connection, name, {"organization_id": f"'{ORGANIZATION}'", column: value})
                unknown += [] if is_known(connection, ORGANIZATION, left) else [(name, column)]
                assert not is_known(connection, "another", left)
                savepoint.rollback()
    assert (len(columns) > 25, unknown) == (True, [])


def insert_anything(connection: Connection, name: str, values: Mapping[str, str]) -> None:
    """Inserts a row with these values, and something of the right type in every other column that needs one."""
    found = text("SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:name) AND contype IN ('c', 'f')")
    for constraint in connection.execute(found, {"name": name}).scalars().all():
        connection.execute(text(f"ALTER TABLE {name} DROP CONSTRAINT {constraint}"))
    needed = text(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0"
        " AND attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = '' AND NOT attisdropped"
    )
    made_up = {
        "text": "''", "uuid": "gen_random_uuid()", "jsonb": "'{}'", "bytea": "''", "boolean": "false", "date": "now()",
        "timestamp with time zone": "now()", "smallint": "1", "integer": "1", "bigint": "1", "text[]": "'{}'",
    }  # fmt: skip
    row = {**{each.attname: made_up[each.format_type] for each in connection.execute(needed, {"name": name})}, **values}
    connection.execute(text(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({', '.join(row.values())})"))


def test_texts_that_are_stored_apart_from_their_rows_count_towards_the_size_of_the_tables(
    pipeline: RecordingPipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    megabyte = "(SELECT jsonb_build_array(string_agg(md5(n::text), '')) FROM generate_series(1, 32768) AS n)"
    with owner.connect() as connection:
        names = [f"'{name}'" for name in TABLES]
        before = connection.scalar(
            text(f"SELECT sum(pg_table_size(name)) FROM unnest(ARRAY[{', '.join(names)}]::regclass[]) AS n (name)")
        )
        monkeypatch.setattr(known_people, "AT_ONCE_BYTES", before + 512 * 1024)
        assert is_known(connection, ORGANIZATION, "left-1") is False
        insert_anything(connection, "orchestrator.batch_part", {"organization_id": f"'{ORGANIZATION}'", "items": megabyte})
        assert is_known(connection, ORGANIZATION, "left-1") is None
        connection.rollback()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table is too large for a request to search it."""
    monkeypatch.setattr(known_people, "AT_ONCE_BYTES", -1)


@pytest.mark.usefixtures("large")
def test_in_large_tables_a_word_that_is_nobodys_id_is_found_out_later_and_erases_nothing(
    pipeline: RecordingPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    batch_id = pipeline.submit([item(PERSON)], label="a visit at Kari's")
    pipeline.drain()
    asked = ask(pipeline, "visit")
    assert ask(pipeline, "visit") == asked, "the request is open"
    with pytest.raises(InjectedError):
        forgetter(f"{Failpoint.FORGETTING_AFTER_PAGE}=raise@3").work(pipeline.engine)
    assert (find(pipeline, asked).done_at, find(pipeline, asked).pseudonym) == (None, None)
    assert forgetter().work(pipeline.engine) == Forgot()
    done = find(pipeline, asked)
    assert (done.done_at is not None, done.pseudonym, done.changed_rows) == (True, None, 0)
    [line] = logged(caplog, Action.PERSON_UNKNOWN)
    assert (line["request"], logged(caplog, Action.PERSON_FORGOTTEN)) == (str(asked.forgetting_id), [])
    with pipeline.engine.connect() as connection:
        label = connection.scalar(text("SELECT label FROM orchestrator.batch WHERE batch_id = :id"), {"id": batch_id})
        left = connection.execute(text("SELECT mentor_id, place FROM registration.forgetting")).one()
        words = connection.scalar(text("SELECT count(*) FROM registration.forgotten_word"))
    assert (label, tuple(left), words) == ("a visit at Kari's", (None, None), 0)


@pytest.mark.usefixtures("large")
def test_in_large_tables_an_id_that_an_index_finds_is_somebodys_at_once(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The columns of ids by which, after the organization, an index of the database begins."""
    begins = text(
        "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute o ON (o.attrelid, o.attnum) = (i.indrelid, i.indkey[0])"
        " JOIN pg_attribute c ON (c.attrelid, c.attnum) = (i.indrelid, i.indkey[1])"
        " WHERE i.indrelid = to_regclass(:name) AND i.indpred IS NULL AND o.attname = 'organization_id' AND c.attname = :column)"
    )
    found = {}
    with owner.connect() as connection:
        for name, table in TABLES.items():
            for column, holds in table.columns.items():
                if holds in (Holds.ID, Holds.ROW, Holds.SALT) and connection.scalar(begins, {"name": name, "column": column}):
                    with connection.begin_nested() as savepoint:
                        insert_anything(connection, name, {"organization_id": f"'{ORGANIZATION}'", column: "'left-1'"})
                        found[name, column] = is_known(connection, ORGANIZATION, "left-1")
                        savepoint.rollback()
    assert {name for name, _ in found} > {"registration.mentor", "registration.coordinator", "registration.coordinator_scope"}
    assert [place for place, is_somebodys in found.items() if not is_somebodys] == []


@pytest.mark.usefixtures("large")
def test_in_large_tables_somebody_who_only_has_a_failed_item_is_forgotten(pipeline: RecordingPipeline, owner: Engine) -> None:
    """No index finds the item of somebody who has no activity."""
    pipeline.submit([item("nobody"), item("left-1", notes=NOTE)], label="with left-1")
    pipeline.drain()
    asked = ask(pipeline, "left-1")
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).changed_rows > 0
    assert named_in(owner, "left-1", NOTE) == set()


@pytest.mark.usefixtures("large")
def test_in_large_tables_somebody_who_was_forgotten_is_recognized(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The sweeper has the key, so it need not find the id anywhere."""
    batch_id = pipeline.submit([item(PERSON)])
    pipeline.drain()
    pseudonym = forget(pipeline)
    pipeline.call(relabel_batch, ADMIN, batch_id, f"for {PERSON}")
    pipeline.drain()
    assert forget(pipeline) == pseudonym
    assert named_in(owner, PERSON) == set()


@pytest.mark.usefixtures("large")
def test_in_large_tables_somebody_whom_an_import_adds_meanwhile_is_not_called_unknown(
    pipeline: RecordingPipeline, owner: Engine, tmp_path: Path
) -> None:
    asked = ask(pipeline, "mentor-new")
    passed: list[str] = []
    while "registration.mentor" not in passed[:-1] or passed[-1] == "registration.mentor":
        forgetter().work(pipeline.engine, most_s=0)
        with owner.connect() as connection:
            passed.append(connection.scalar(text("SELECT place ->> 'table' FROM registration.forgetting")))
    imported(pipeline, tmp_path, key=KEY)
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).pseudonym is not None
    assert named_in(owner, "mentor-new") == set()


@pytest.mark.usefixtures("large")
def test_in_large_tables_a_request_that_seeks_an_id_can_be_told_that_nobody_need_have_it(pipeline: RecordingPipeline) -> None:
    asked = ask(pipeline, "left-1")
    forgetter().work(pipeline.engine, most_s=0)
    again = transact(
        pipeline.engine, lambda connection: ForgettingRequests(connection).ask(OPERATOR, "left-1", also_unknown=True)
    )
    assert again == asked
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).pseudonym is not None


def test_an_id_that_stands_in_any_column_is_also_found_page_by_page(pipeline: RecordingPipeline, owner: Engine) -> None:
    left = "left-1"
    searched = [
        name for name, table in TABLES.items() if {Holds.ID, Holds.ROW, Holds.IDS, Holds.SALT} & set(table.columns.values())
    ]
    with owner.connect() as connection:
        for name in searched:
            with connection.begin_nested() as savepoint:
                [(column, holds), *_] = [
                    each for each in TABLES[name].columns.items() if each[1] in (Holds.ID, Holds.ROW, Holds.IDS, Holds.SALT)
                ]
                value = f"ARRAY['{left}']" if holds is Holds.IDS else f"'{left}'"
                insert_anything(connection, name, {"organization_id": f"'{ORGANIZATION}'", column: value})
                assert list(sought(connection, left)) == [name]
                savepoint.rollback()


def sought(connection: Connection, person: str) -> Iterator[str]:
    """The tables of which a page has the person."""
    place: Mapping[str, Any] | None = known_people.FIRST_SOUGHT
    while place is not None:
        page = read_page(connection, place["table"], place["after"], 1)
        if known_people.has_person(connection, page, ORGANIZATION, person):
            yield page.table
        place = known_people.sought_after(page)


def test_what_the_product_does_itself_makes_nobody_of_its_names(pipeline: RecordingPipeline, owner: Engine) -> None:
    pipeline.submit([item(PERSON, notes=NOTE)])
    pipeline.drain()
    transact(pipeline.engine, lambda connection: ForgettingRequests(connection).ask(OPERATOR, PERSON))
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, "operator", "forgetting") >= {"registration.forgetting", "registration.notes_erasure"}
    for word in ("operator", "forgetting"):
        with pytest.raises(ConflictError) as refused:
            ask(pipeline, word)
        assert refused.value.code == "mentor_unknown"


def test_asking_again_returns_the_request_until_it_is_done(pipeline: RecordingPipeline) -> None:
    """Halfway, no table has the person's id any more."""
    pipeline.submit([item(PERSON)])
    pipeline.drain()
    first = ask(pipeline)
    steps = 0
    while not forgetter().work(pipeline.engine, most_s=0).people:
        steps += 1
        again = ask(pipeline)
        assert (again.forgetting_id, again.done_at) == (first.forgetting_id, None)
    assert steps > 3
    with pytest.raises(ConflictError) as refused:
        ask(pipeline)
    assert refused.value.code == "mentor_unknown"


def test_a_request_that_fails_keeps_no_others_waiting(
    pipeline: RecordingPipeline, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bulkreg")
    for mentor_id in (PERSON, OTHER):
        pipeline.submit([item(mentor_id)])
    pipeline.drain()
    failing, other = (ask(pipeline, mentor_id) for mentor_id in (PERSON, OTHER))
    with pipeline.engine.begin() as connection:
        wrong = (
            """UPDATE registration.forgetting SET place = '{"table": "no.such_table"}', pseudonym = 'p' WHERE mentor_id = :id"""
        )
        connection.execute(text(wrong), {"id": PERSON})
    with pytest.raises(KeyError):
        forgetter().work(pipeline.engine)
    assert (find(pipeline, failing).done_at, find(pipeline, other).done_at is not None) == (None, True)
    [line] = logged(caplog, Action.FORGETTING_FAILED)
    assert (line["request"], "KeyError" in str(line["error"])) == (str(failing.forgetting_id), True)
    assert [line["request"] for line in logged(caplog, Action.PERSON_FORGOTTEN)] == [str(other.forgetting_id)]
    assert named_in(owner, OTHER) == set()
