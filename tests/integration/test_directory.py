"""`directory import` is repeatable, changes everything or nothing, and is the only way to give and withdraw access (docs/files.md)."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from openpyxl import Workbook
from sqlalchemy import Engine, text

from orchestrator.directory.files import read_directory
from orchestrator.directory.importing import Change, Person, import_directory
from orchestrator.directory.reading import DirectoryReader
from orchestrator.files.mistakes import BadFileError
from orchestrator.storage.database import transact
from tests.support.directory_files import (
    COORDINATORS,
    EVERY_FILE,
    FILES,
    MENTORS,
    ORGANIZATIONS,
    SCOPES,
    TYPES,
    Import,
    importer,
    rows,
)
from tests.support.waiting import PATIENCE_S, eventually

DATA = Path(__file__).parents[1] / "data"

WAITS_FOR_A_LOCK = text("""
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
""")


def without(content: str, start: str) -> str:
    return "".join(line for line in content.splitlines(keepends=True) if not line.startswith(start))


@pytest.fixture
def put(engine: Engine, tmp_path: Path) -> Import:
    return importer(engine, tmp_path)


def test_the_small_directory(engine: Engine) -> None:
    directory, remarks = read_directory(DATA / "small" / "directory")
    report = transact(engine, lambda connection: import_directory(connection, directory))
    assert not remarks
    assert report.changes["mentors.csv"] == Change(given=188, added=188)
    assert rows(engine, "organization") == [("org-01", "org-01", "Europe/Oslo"), ("org-02", "org-02", "Europe/Oslo")]
    with engine.connect() as connection:
        counts = connection.execute(
            text("""SELECT (SELECT count(*) FROM registration.mentor), (SELECT count(*) FROM registration.coordinator),
                           (SELECT count(*) FROM registration.coordinator_scope), (SELECT count(*) FROM registration.activity_type),
                           (SELECT count(*) FROM registration.mentor WHERE active_until IS NOT NULL)""")
        ).one()
    lines = {name: len((DATA / "small" / "directory" / name).read_text().splitlines()) - 1 for name in directory}
    ended = sum(not line.endswith(",") for line in (DATA / "small/directory/mentors.csv").read_text().splitlines()[1:])
    assert tuple(counts) == (188, lines["coordinators.csv"], lines["scopes.csv"], lines["activity_types.csv"], ended)


def test_importing_the_same_again_changes_nothing(put: Import, engine: Engine) -> None:
    put()
    with engine.connect() as connection:
        versions = connection.execute(text("SELECT xmin FROM registration.mentor ORDER BY mentor_id")).all()
        again = put()
        assert connection.execute(text("SELECT xmin FROM registration.mentor ORDER BY mentor_id")).all() == versions
    assert {name: (change.added, change.changed, change.withdrawn) for name, change in again.changes.items()} == {
        f"{name}.csv": (0, 0, 0) for name in FILES
    }


def test_differing_values_are_changed(put: Import, engine: Engine) -> None:
    put()
    report = put(FILES | {"mentors": MENTORS.replace("m-2,Ola,south,,2024-12-31", "m-2,Ola,north,,") + "a,m-3,New,north,,\n"})
    assert report.changes["mentors.csv"] == Change(given=4, added=1, changed=1)
    assert ("a", "m-2", "Ola", "north", None, None) in rows(engine, "mentor")


def test_organizations_keep_given_values_and_get_defaults_for_others(put: Import, engine: Engine) -> None:
    organizations = "organization_id,name,time_zone\na,Alpha,America/New_York\nc,,\n"
    put(FILES | {"organizations": organizations})
    expected = [("a", "Alpha", "America/New_York"), ("b", "b", "Europe/Oslo"), ("c", "c", "Europe/Oslo")]
    assert rows(engine, "organization") == expected
    put()
    assert rows(engine, "organization") == expected


def test_scopes_are_replaced_for_every_organization_in_the_file(put: Import, engine: Engine) -> None:
    put()
    report = put(FILES | {"scopes": "organization_id,coordinator_id,chapter_id\na,c-1,east\n"})
    assert rows(engine, "coordinator_scope") == [("a", "c-1", "east"), ("b", "c-1", "west")]
    assert report.changes["scopes.csv"] == Change(given=1, added=1, withdrawn=2)
    put({"mentors": MENTORS})
    assert rows(engine, "coordinator_scope") == [("a", "c-1", "east"), ("b", "c-1", "west")]


def test_absent_people_are_only_reported(put: Import, engine: Engine) -> None:
    put()
    before = {table: rows(engine, table) for table in ("mentor", "coordinator", "coordinator_scope")}
    report = put({"mentors": without(MENTORS, "a,m-1"), "coordinators": without(COORDINATORS, "a,c-1")})
    assert report.absent_mentors == [Person("a", "m-1")]
    assert report.absent_coordinators == [Person("a", "c-1")]
    assert {table: rows(engine, table) for table in before} == before


def test_people_of_an_organization_that_is_not_in_the_file_are_not_absent(put: Import) -> None:
    put()
    report = put({"mentors": without(MENTORS, "b,")}, prune=True)
    assert (report.absent_mentors, report.absent_coordinators) == ([], [])


def test_prune_closes_absent_people_and_a_later_import_opens_them_again(put: Import, engine: Engine) -> None:
    put()
    fewer = {
        "mentors": without(MENTORS, "a,m-"),
        "coordinators": without(COORDINATORS, "a,c-1"),
        "scopes": without(SCOPES, "a,"),
    }
    # m-2 ended long ago. The mentors' file names only organization b, so no mentor of a is absent.
    assert put(fewer, prune=True).absent_mentors == []
    fewer["mentors"] = without(MENTORS, "a,m-1")
    report = put(fewer, prune=True)
    assert report.absent_mentors == [Person("a", "m-1")]
    with engine.connect() as connection:
        yesterday = connection.scalar(text("SELECT (now() AT TIME ZONE 'Europe/Oslo')::date")) - timedelta(days=1)
    assert [row[5] for row in rows(engine, "mentor")] == [yesterday, date(2024, 12, 31), None]
    assert rows(engine, "coordinator")[0] == ("a", "c-1", "Bente", "closed")
    assert rows(engine, "coordinator_scope") == [("b", "c-1", "west")]
    again = put(fewer, prune=True)
    assert (again.absent_mentors, again.absent_coordinators) == ([], [])
    put()
    assert rows(engine, "mentor")[0][5] is None
    assert rows(engine, "coordinator")[0] == ("a", "c-1", "Bente", "coordinator")
    assert len(rows(engine, "coordinator_scope")) == 3


def test_prune_closes_only_absent_people_who_have_not_ended_yet(put: Import, engine: Engine) -> None:
    put(
        {
            "mentors": "organization_id,mentor_id,name,chapter_id,active_from,active_until\n"
            + "".join(f"a,m-{n},Somebody,n,,\n" for n in range(4))
        }
    )
    ends = "UPDATE registration.mentor SET active_until = (now() AT TIME ZONE 'Europe/Oslo')::date + {} WHERE mentor_id = 'm-{}'"
    with engine.begin() as connection:
        for mentor, days in ((1, -1), (2, 0), (3, 400)):
            connection.execute(text(ends.format(days, mentor)))
        yesterday = connection.scalar(text("SELECT (now() AT TIME ZONE 'Europe/Oslo')::date - 1"))
    present = "organization_id,mentor_id,name,chapter_id,active_from,active_until\na,m-0,Somebody,n,,\n"
    for prune in (False, True):
        assert put({"mentors": present}, prune=prune).absent_mentors == [Person("a", "m-2"), Person("a", "m-3")]
    assert [row[5] for row in rows(engine, "mentor")] == [None, yesterday, yesterday, yesterday]


def test_yesterday_is_in_the_organizations_time_zone(put: Import, engine: Engine) -> None:
    # 25 hours apart, so their dates differ at any moment.
    organizations = "organization_id,name,time_zone\na,A,Pacific/Kiritimati\nb,B,Pacific/Pago_Pago\n"
    people = "organization_id,mentor_id,name,chapter_id,active_from,active_until\na,m-{0},A,n,,\nb,m-{0},B,n,,\n"
    put({"organizations": organizations, "mentors": people.format(1)})
    put({"mentors": people.format(2)}, prune=True)
    ends = {row[0]: row[5] for row in rows(engine, "mentor") if row[1] == "m-1"}
    with engine.connect() as connection:
        zones = connection.execute(
            text("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date - 1, (now() AT TIME ZONE 'Pacific/Pago_Pago')::date - 1")
        ).one()
    assert (ends["a"], ends["b"]) == tuple(zones)


def test_all_mistakes_of_all_files_are_named_by_line_and_nothing_is_changed(put: Import, engine: Engine) -> None:
    files = {
        "mentors": MENTORS + "a,m-1,Again,north,,\na,,Nobody,north,25/03/2020,\na,m-9,Nine,north,2025-01-02,2025-01-01\n",
        "coordinators": COORDINATORS + "a,c-9,Nine,boss\n",
        "scope": SCOPES,
    }
    with pytest.raises(BadFileError) as refusal:
        put(files)
    assert [str(mistake) for mistake in refusal.value.mistakes] == [
        "scope.csv: is none of organizations.csv, mentors.csv, coordinators.csv, scopes.csv, activity_types.csv, chapters.csv;"
        " rename it to one of these, or remove it from the folder",
        'mentors.csv, line 6, column mentor_id: "" is empty',
        'mentors.csv, line 6, column active_from: "25/03/2020" has slashes, which some read as day/month and others as month/day;'
        " write 2026-03-25 or 25.03.2026 instead",
        'mentors.csv, line 5, column mentor_id: "m-1" is already on line 2',
        'mentors.csv, line 7, column active_until: "2025-01-01" is before active_from',
        'coordinators.csv, line 5, column role: "boss" is not coordinator or admin',
    ]
    assert rows(engine, "mentor") == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            FILES | {"organizations": "organization_id,name,time_zone\na,A,Europe/Oslo\nb,B,Mars/Olympus\n"},
            'organizations.csv, line 3, column time_zone: "Mars/Olympus" is not a time zone, such as Europe/Oslo',
        ),
        (
            FILES | {"scopes": SCOPES + "b,c-2,west\n"},
            'scopes.csv, line 5, column coordinator_id: "c-2" is not a coordinator of this organization',
        ),
    ],
)
def test_a_mistake_that_only_the_database_finds_refuses_the_whole_import(
    put: Import, engine: Engine, files: Mapping[str, str], expected: str
) -> None:
    with pytest.raises(BadFileError) as refusal:
        put(files)
    assert str(refusal.value) == expected
    assert [rows(engine, table) for table in ("organization", "mentor", "coordinator", "coordinator_scope")] == [[]] * 4


def test_a_scope_of_a_coordinator_who_is_being_closed_is_a_mistake(put: Import, engine: Engine) -> None:
    put()
    with pytest.raises(BadFileError, match=r'line 2.*"c-1" is not a coordinator'):
        put(FILES | {"coordinators": without(COORDINATORS, "a,c-1")}, prune=True)
    assert rows(engine, "coordinator")[0] == ("a", "c-1", "Bente", "coordinator")


def test_the_second_of_two_simultaneous_imports_sees_the_first(put: Import, engine: Engine, tmp_path: Path) -> None:
    """Each file lacks somebody whom the other has. Without a lock, neither import would see whom the other adds, and both would stay open."""
    header = MENTORS.splitlines(keepends=True)[0]
    put({"mentors": f"{header}a,m-0,N,north,,\n"})
    directories = []
    for person in ("m-1", "m-2"):
        (tmp_path / "mentors.csv").write_text(f"{header}a,{person},N,north,,\n")
        directories.append(read_directory(tmp_path)[0])
    with ThreadPoolExecutor() as threads, engine.begin() as first:
        import_directory(first, directories[0], prune=True)
        second = threads.submit(
            transact, engine, lambda connection: import_directory(connection, directories[1], prune=True), give_up_after_s=0
        )
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer:
            eventually(lambda: second.done() or observer.scalar(WAITS_FOR_A_LOCK))
        first.commit()
        second.result(timeout=PATIENCE_S)
    assert [row[1] for row in rows(engine, "mentor") if row[5] is None] == ["m-2"]


# --- The folder ---------------------------------------------------------------------------------------------------------------


def access(engine: Engine) -> list[tuple[object, ...]]:
    return rows(engine, "coordinator_scope")


@pytest.mark.parametrize(
    "name", ["scopes.CSV", "Scopes.csv", "SCOPES.TSV", "scopes.tsv", "Scopes.xlsx", "scopes\N{ZERO WIDTH SPACE}.csv"]
)
def test_a_table_is_read_in_any_case_and_form_of_its_name(put: Import, engine: Engine, tmp_path: Path, name: str) -> None:
    put()
    for old in tmp_path.iterdir():
        old.unlink()
    if name.lower().endswith("xlsx"):
        book = Workbook()
        for line in ("organization_id,coordinator_id,chapter_id", "a,c-1,east"):
            book.worksheets[0].append(line.split(","))
        book.save(tmp_path / name)
    else:
        text_of = SCOPES.splitlines()[0] + "\na,c-1,east\n"
        (tmp_path / name).write_text(text_of.replace(",", "\t") if name.lower().endswith("tsv") else text_of)
    directory, remarks = read_directory(tmp_path)
    transact(engine, lambda connection: import_directory(connection, directory))
    assert access(engine) == [("a", "c-1", "east"), ("b", "c-1", "west")]
    assert not remarks


@pytest.mark.parametrize("name", ["scopes", "mentors", "coordinators"])
def test_a_file_without_rows_changes_nothing_and_is_reported(put: Import, engine: Engine, tmp_path: Path, name: str) -> None:
    put()
    before = [rows(engine, table) for table in ("mentor", "coordinator", "coordinator_scope")]
    put({name: FILES[name].splitlines()[0] + "\n"}, prune=True)
    assert [rows(engine, table) for table in ("mentor", "coordinator", "coordinator_scope")] == before
    [remark] = read_directory(tmp_path)[1]
    assert remark.startswith(f"{name}.csv: has a header, but no rows: it changes nothing")
    assert ("write a row with its organization_id and nothing else" in remark) == (name == "scopes")


def test_a_row_with_only_an_organization_withdraws_its_last_scopes(put: Import, engine: Engine) -> None:
    put()
    header = SCOPES.splitlines()[0]
    report = put({"scopes": f"{header}\na,,\n"})
    assert access(engine) == [("b", "c-1", "west")]
    assert report.changes == {"scopes.csv": Change(given=1, withdrawn=2)}
    assert put({"scopes": f"{header}\na,,\nb,c-1,west\n"}).changes == {"scopes.csv": Change(given=2)}


def test_ids_have_one_spelling(put: Import, engine: Engine) -> None:
    put()
    put({"scopes": f"{SCOPES.splitlines()[0]}\na\N{ZERO WIDTH SPACE},c-1,no\N{SOFT HYPHEN}rth\n"})
    assert access(engine) == [("a", "c-1", "north"), ("b", "c-1", "west")]


def test_a_mistake_that_only_the_database_finds_names_the_file_by_its_own_name(
    put: Import, engine: Engine, tmp_path: Path
) -> None:
    put()
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / "SCOPES.CSV").write_text(f"{SCOPES.splitlines()[0]}\na,nobody,north\n")
    directory, _ = read_directory(tmp_path)
    with pytest.raises(BadFileError, match=r'SCOPES.CSV, line 2, column coordinator_id: "nobody" is not a coordinator'):
        transact(engine, lambda connection: import_directory(connection, directory))


# --- Each table ---------------------------------------------------------------------------------------------------------------

TABLES = ("organization", "mentor", "coordinator", "coordinator_scope", "activity_type", "chapter")


def test_each_file_counts_its_additions_and_a_repetition_adds_nothing(put: Import) -> None:
    lines = {"organizations": 2, "mentors": 3, "coordinators": 3, "scopes": 3, "activity_types": 1, "chapters": 1}
    assert put(EVERY_FILE).changes == {f"{name}.csv": Change(given=count, added=count) for name, count in lines.items()}
    assert put(EVERY_FILE).changes == {f"{name}.csv": Change(given=count) for name, count in lines.items()}


def test_each_differing_value_is_changed_and_no_other(put: Import, engine: Engine) -> None:
    for name, old, new in (
        ("organizations", "a,Alpha,Europe/Oslo", "a,Another,Europe/Oslo"),
        ("organizations", "a,Alpha,Europe/Oslo", "a,Alpha,Europe/Paris"),
        ("mentors", "a,m-1,Kari,north,2020-01-01,", "a,m-1,Another,north,2020-01-01,"),
        ("mentors", "a,m-1,Kari,north,2020-01-01,", "a,m-1,Kari,south,2020-01-01,"),
        ("mentors", "a,m-1,Kari,north,2020-01-01,", "a,m-1,Kari,north,2020-01-02,"),
        ("mentors", "a,m-1,Kari,north,2020-01-01,", "a,m-1,Kari,north,,"),
        ("mentors", "a,m-1,Kari,north,2020-01-01,", "a,m-1,Kari,north,2020-01-01,2030-01-01"),
        ("mentors", "a,m-2,Ola,south,,2024-12-31", "a,m-2,Ola,south,,"),
        ("coordinators", "a,c-1,Bente,coordinator", "a,c-1,Another,coordinator"),
        ("coordinators", "a,c-1,Bente,coordinator", "a,c-1,Bente,admin"),
        ("activity_types", "a,workshop,Kurs,60,30", "a,workshop,Another,60,30"),
        ("activity_types", "a,workshop,Kurs,60,30", "a,workshop,Kurs,90,30"),
        ("activity_types", "a,workshop,Kurs,60,30", "a,workshop,Kurs,60,15"),
        ("activity_types", "a,workshop,Kurs,60,30", "a,workshop,Kurs,,30"),
        ("activity_types", "a,workshop,Kurs,60,30", "a,workshop,Kurs,60,"),
        ("chapters", "a,north,Nord", "a,north,Another"),
    ):
        put(EVERY_FILE)
        before = {table: set(rows(engine, table)) for table in TABLES}
        report = put({name: EVERY_FILE[name].replace(f"{old}\n", f"{new}\n")})
        changes = report.changes[f"{name}.csv"]
        assert (changes.added, changes.changed) == (0, 1), new
        written = {
            tuple(None if value is None else str(value) for value in row)
            for table in TABLES
            for row in set(rows(engine, table)) - before[table]
        }
        assert written == {tuple(value or None for value in new.split(","))}


def test_a_file_without_minutes_does_not_change_them(put: Import, engine: Engine) -> None:
    put(EVERY_FILE)
    report = put({"activity_types": TYPES + "a,visit,Besøk\n"})
    assert report.changes["activity_types.csv"] == Change(given=2, added=1)
    assert rows(engine, "activity_type") == [("a", "visit", "Besøk", None, None), ("a", "workshop", "Kurs", 60, 30)]
    with engine.connect() as connection:
        assert DirectoryReader(connection).minimum_minutes("a", ["visit", "workshop", "unknown"]) == {"workshop": 30}


def test_a_file_with_one_column_of_minutes_does_not_change_the_other(put: Import, engine: Engine) -> None:
    put(EVERY_FILE)
    put({"activity_types": "organization_id,activity_type,name,minimum_minutes\na,workshop,Kurs,\n"})
    assert rows(engine, "activity_type") == [("a", "workshop", "Kurs", 60, None)]


@pytest.mark.parametrize(
    ("cell", "minutes"), [("0", None), ("1", 1), ("1440", 1440), ("1441", None), ("1:30", 90), ('"1,5 h"', 90), ("an hour", None)]
)
def test_minutes_of_a_type_have_the_limits_of_an_activity(put: Import, engine: Engine, cell: str, minutes: int | None) -> None:
    content = f"organization_id,activity_type,name,default_minutes\na,workshop,Kurs,{cell}\n"
    if minutes is None:
        with pytest.raises(BadFileError, match="column default_minutes"):
            put({"activity_types": content})
    else:
        put({"activity_types": content})
    assert rows(engine, "activity_type") == ([] if minutes is None else [("a", "workshop", "Kurs", minutes, None)])


def test_an_organization_in_the_file_keeps_only_the_scopes_of_the_file(put: Import, engine: Engine) -> None:
    header = SCOPES.splitlines()[0]
    # Each differs from the others in one of the three ids.
    scopes = ["a,c-1,north", "a,c-1,south", "a,c-2,north", "b,c-1,north"]
    for kept in scopes:
        put(FILES | {"scopes": "\n".join([header, *scopes])})
        others = {"a", "b"} - {kept[0]}
        report = put({"scopes": "\n".join([header, kept, *(f"{organization},," for organization in others)])})
        assert access(engine) == [tuple(kept.split(","))]
        assert (report.changes["scopes.csv"].added, report.changes["scopes.csv"].withdrawn) == (0, 3)


def test_absent_people_are_reported_by_organization_and_id_in_order(put: Import) -> None:
    people = ["b,{}-2", "a,{}-3", "b,{}-1", "a,{}-1", "a,{}-2"]
    mentors = [f"{who.format('m')},N,north,," for who in people]
    coordinators = [f"{who.format('c')},N,coordinator" for who in people]

    def files(*left: int) -> Mapping[str, str]:
        return {
            "mentors": "\n".join([MENTORS.splitlines()[0], *(mentors[index] for index in left), ""]),
            "coordinators": "\n".join([COORDINATORS.splitlines()[0], *(coordinators[index] for index in left), ""]),
        }

    put(files(0, 1, 2, 3, 4))
    # The first of a and the second of b are present. The second of a and the first of b are absent, although the other organization has
    # those ids.
    for prune in (False, True):
        report = put(files(0, 3), prune=prune)
        assert report.pruned is prune
        assert report.absent_mentors == [Person("a", "m-2"), Person("a", "m-3"), Person("b", "m-1")]
        assert report.absent_coordinators == [Person("a", "c-2"), Person("a", "c-3"), Person("b", "c-1")]


def test_of_two_coordinators_with_one_id_only_the_absent_one_loses_access(put: Import, engine: Engine) -> None:
    put()
    report = put({"coordinators": without(COORDINATORS, "a,c-1")}, prune=True)
    assert report.absent_coordinators == [Person("a", "c-1")]
    assert access(engine) == [("b", "c-1", "west")]
    assert {row[:2]: row[3] for row in rows(engine, "coordinator")} == {
        ("a", "c-1"): "closed",
        ("a", "c-2"): "admin",
        ("b", "c-1"): "coordinator",
    }


def test_a_mentor_whose_last_day_was_yesterday_is_not_absent(put: Import, engine: Engine) -> None:
    """Today in the organization's time zone. These are 25 hours apart, so one of them always has another date than UTC."""
    zones = {"a": "Pacific/Kiritimati", "b": "Pacific/Pago_Pago"}
    header = MENTORS.splitlines()[0]
    with engine.connect() as connection:
        today = {
            organization: connection.scalar(text("SELECT (now() AT TIME ZONE :zone)::date"), {"zone": zone})
            for organization, zone in zones.items()
        }
    organizations = "organization_id,name,time_zone\n" + "".join(f"{each},N,{zone}\n" for each, zone in zones.items())
    ends = "".join(
        f"{each},{name},N,north,,{day + timedelta(days=days)}\n"
        for each, day in today.items()
        for name, days in (("yesterday", -1), ("today", 0), ("tomorrow", 1))
    )
    put({"organizations": organizations, "mentors": f"{header}\n{ends}"})
    report = put({"mentors": f"{header}\na,new,N,north,,\nb,new,N,north,,\n"}, prune=True)
    assert report.absent_mentors == [Person(each, name) for each in zones for name in ("today", "tomorrow")]
    closed = {(row[0], row[1]): row[5] for row in rows(engine, "mentor") if row[1] != "new"}
    assert closed == {
        (each, name): day - timedelta(days=1) for each, day in today.items() for name in ("yesterday", "today", "tomorrow")
    }


def test_all_mistakes_that_only_the_database_finds_are_named_in_file_order(put: Import) -> None:
    header = ORGANIZATIONS.splitlines()[0]
    with pytest.raises(BadFileError) as refusal:
        put({"organizations": f"{header}\nz,Z,Mars/Z\ny,Y,Europe/Oslo\nx,X,Mars/X\na,A,\nb,B,mars\n"})
    assert [(mistake.line, mistake.value) for mistake in refusal.value.mistakes] == [(2, "Mars/Z"), (4, "Mars/X"), (6, "mars")]
    with pytest.raises(BadFileError) as refusal:
        put(FILES | {"scopes": f"{SCOPES.splitlines()[0]}\na,z,north\na,c-1,north\nb,c-2,west\na,c-2,north\na,a,north\n"})
    assert [(mistake.line, mistake.value) for mistake in refusal.value.mistakes] == [(2, "z"), (4, "c-2"), (6, "a")]


def test_an_organization_that_loses_all_scopes_needs_no_coordinator(put: Import, engine: Engine) -> None:
    put({"scopes": f"{SCOPES.splitlines()[0]}\nnew,,\n"})
    assert rows(engine, "organization") == [("new", "new", "Europe/Oslo")]
    assert access(engine) == []


def test_a_file_without_time_zones_does_not_change_them(put: Import, engine: Engine) -> None:
    put({"organizations": "organization_id,name,time_zone\na,,America/New_York\n"})
    report = put({"organizations": "organization_id,name\na,Alpha\nb,\n"})
    assert report.changes == {"organizations.csv": Change(given=2, added=1, changed=1)}
    assert rows(engine, "organization") == [("a", "Alpha", "America/New_York"), ("b", "b", "Europe/Oslo")]
    put({"organizations": "organization_id,name,time_zone\na,Alpha,\n"})
    assert rows(engine, "organization")[0] == ("a", "Alpha", "Europe/Oslo")
