"""`directory import`: repeatable, all or nothing, and the only way in which access is given and withdrawn (specification, 9)."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from openpyxl import Workbook
from sqlalchemy import Engine, text

from orchestrator.directory import read_directory
from orchestrator.files.problems import BadFileError
from orchestrator.storage.database import transact
from orchestrator.storage.directory import Change, ImportReport, Person, import_directory
from tests.support.waiting import eventually

DATA = Path(__file__).parents[1] / "data"

MENTORS = """organization_id,mentor_id,name,chapter_id,active_from,active_until
a,m-1,Kari,north,2020-01-01,
a,m-2,Ola,south,,2024-12-31
b,m-1,Per,west,,
"""
COORDINATORS = """organization_id,coordinator_id,name,role
a,c-1,Bente,coordinator
a,c-2,Jan,admin
b,c-1,Frank,coordinator
"""
SCOPES = """organization_id,coordinator_id,chapter_id
a,c-1,north
a,c-1,south
b,c-1,west
"""
TYPES = """organization_id,activity_type,name
a,workshop,Kurs
"""
FILES = {"mentors": MENTORS, "coordinators": COORDINATORS, "scopes": SCOPES, "activity_types": TYPES}

WAITS_FOR_A_LOCK = text("""
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')
""")

Import = Callable[..., ImportReport]


def without(content: str, start: str) -> str:
    return "".join(line for line in content.splitlines(keepends=True) if not line.startswith(start))


def rows(engine: Engine, table: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT * FROM registration.{table} ORDER BY 1, 2, 3"))]


@pytest.fixture
def put(engine: Engine, tmp_path: Path) -> Import:
    """Imports a directory of these files."""

    def put(files: Mapping[str, str] = FILES, *, prune: bool = False) -> ImportReport:
        for old in tmp_path.glob("*.csv"):
            old.unlink()
        for name, content in files.items():
            (tmp_path / f"{name}.csv").write_text(content)
        directory, _ = read_directory(tmp_path)
        return transact(engine, lambda connection: import_directory(connection, directory, prune=prune))

    return put


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


def test_the_same_again_changes_nothing(put: Import, engine: Engine) -> None:
    put()
    with engine.connect() as connection:
        versions = connection.execute(text("SELECT xmin FROM registration.mentor ORDER BY mentor_id")).all()
        again = put()
        assert connection.execute(text("SELECT xmin FROM registration.mentor ORDER BY mentor_id")).all() == versions
    assert {name: (change.added, change.changed, change.withdrawn) for name, change in again.changes.items()} == {
        f"{name}.csv": (0, 0, 0) for name in FILES
    }


def test_what_differs_is_changed(put: Import, engine: Engine) -> None:
    put()
    report = put(FILES | {"mentors": MENTORS.replace("m-2,Ola,south,,2024-12-31", "m-2,Ola,north,,") + "a,m-3,New,north,,\n"})
    assert report.changes["mentors.csv"] == Change(given=4, added=1, changed=1)
    assert ("a", "m-2", "Ola", "north", None, None) in rows(engine, "mentor")


def test_organizations_keep_what_is_given_and_get_defaults_else(put: Import, engine: Engine) -> None:
    organizations = "organization_id,name,time_zone\na,Alpha,America/New_York\nc,,\n"
    put(FILES | {"organizations": organizations})
    expected = [("a", "Alpha", "America/New_York"), ("b", "b", "Europe/Oslo"), ("c", "c", "Europe/Oslo")]
    assert rows(engine, "organization") == expected
    put()
    assert rows(engine, "organization") == expected


def test_scopes_replace_those_of_every_organization_that_the_file_names(put: Import, engine: Engine) -> None:
    put()
    report = put(FILES | {"scopes": "organization_id,coordinator_id,chapter_id\na,c-1,east\n"})
    assert rows(engine, "coordinator_scope") == [("a", "c-1", "east"), ("b", "c-1", "west")]
    assert report.changes["scopes.csv"] == Change(given=1, added=1, withdrawn=2)
    put({"mentors": MENTORS})
    assert rows(engine, "coordinator_scope") == [("a", "c-1", "east"), ("b", "c-1", "west")]


def test_people_absent_from_the_file_are_reported_and_nothing_else(put: Import, engine: Engine) -> None:
    put()
    before = {table: rows(engine, table) for table in ("mentor", "coordinator", "coordinator_scope")}
    report = put({"mentors": without(MENTORS, "a,m-1"), "coordinators": without(COORDINATORS, "a,c-1")})
    assert report.absent_mentors == [Person("a", "m-1")]
    assert report.absent_coordinators == [Person("a", "c-1")]
    assert {table: rows(engine, table) for table in before} == before


def test_an_organization_that_the_file_does_not_name_misses_nobody(put: Import) -> None:
    put()
    report = put({"mentors": without(MENTORS, "b,")}, prune=True)
    assert (report.absent_mentors, report.absent_coordinators) == ([], [])


def test_prune_closes_who_is_absent_and_a_later_import_opens_again(put: Import, engine: Engine) -> None:
    put()
    fewer = {
        "mentors": without(MENTORS, "a,m-"),
        "coordinators": without(COORDINATORS, "a,c-1"),
        "scopes": without(SCOPES, "a,"),
    }
    # m-2 ended long ago, and nobody of organization a is left in the mentors' file: it names only b.
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


def test_yesterday_is_the_organizations_own(put: Import, engine: Engine) -> None:
    # 25 hours apart: at any moment their dates differ.
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
    assert [str(problem) for problem in refusal.value.problems] == [
        "scope.csv: is none of organizations.csv, mentors.csv, coordinators.csv, scopes.csv, activity_types.csv; give it one of these names,"
        " or take it out of the folder",
        'mentors.csv, line 6, column mentor_id: "" is empty',
        'mentors.csv, line 6, column active_from: "25/03/2020" has slashes, which some read as day/month and others as month/day;'
        " write 2026-03-25 or 25.03.2026 instead",
        'mentors.csv, line 5, column mentor_id: "m-1" stands on line 2 already',
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
            'scopes.csv, line 5, column coordinator_id: "c-2" is no coordinator of this organization',
        ),
    ],
)
def test_what_only_the_database_knows_refuses_the_whole_import(
    put: Import, engine: Engine, files: Mapping[str, str], expected: str
) -> None:
    with pytest.raises(BadFileError) as refusal:
        put(files)
    assert str(refusal.value) == expected
    assert [rows(engine, table) for table in ("organization", "mentor", "coordinator", "coordinator_scope")] == [[]] * 4


def test_a_scope_of_somebody_who_is_being_closed_is_a_mistake(put: Import, engine: Engine) -> None:
    put()
    with pytest.raises(BadFileError, match=r'line 2.*"c-1" is no coordinator'):
        put(FILES | {"coordinators": without(COORDINATORS, "a,c-1")}, prune=True)
    assert rows(engine, "coordinator")[0] == ("a", "c-1", "Bente", "coordinator")


def test_a_directory_without_files_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"has none of organizations\.csv"):
        read_directory(tmp_path)


def test_the_second_of_two_imports_at_once_sees_what_the_first_has_written(put: Import, engine: Engine, tmp_path: Path) -> None:
    """Each has somebody whom the other lacks. Side by side, neither would see whom the other adds, and both would stay open."""
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
        second.result(timeout=10)
    assert [row[1] for row in rows(engine, "mentor") if row[5] is None] == ["m-2"]


# --- The folder ---------------------------------------------------------------------------------------------------------------


def access(engine: Engine) -> list[tuple[object, ...]]:
    return rows(engine, "coordinator_scope")


@pytest.mark.parametrize(
    "name", ["scopes.CSV", "Scopes.csv", "SCOPES.TSV", "scopes.tsv", "Scopes.xlsx", "scopes\N{ZERO WIDTH SPACE}.csv"]
)
def test_a_table_is_read_whatever_the_case_and_form_of_its_name(put: Import, engine: Engine, tmp_path: Path, name: str) -> None:
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


@pytest.mark.parametrize(
    "name",
    [
        "scopes.csv.txt",
        "scopes (1).csv",
        "scope.csv",
        "Kopi av scopes.csv",
        "scopes",
        "scopes.ods",
        "scopes.xls",
        "people.csv",
        "mentors.bak",
    ],
)
def test_a_file_that_may_be_meant_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    (tmp_path / name).write_text(SCOPES)
    with pytest.raises(BadFileError, match="is none of organizations") as refusal:
        read_directory(tmp_path)
    assert [problem.file for problem in refusal.value.problems] == [name]


def test_every_other_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    for name in ("README.md", ".DS_Store", "~$scopes.xlsx", ".~lock.scopes.csv#"):
        (tmp_path / name).write_text("x")
    (tmp_path / "old scopes").mkdir()
    _, remarks = read_directory(tmp_path)
    assert remarks == [f"{tmp_path.name}: not read: .DS_Store, .~lock.scopes.csv#, README.md, old scopes, ~$scopes.xlsx"]


def test_two_files_of_one_table_and_what_is_no_file_are_mistakes(tmp_path: Path) -> None:
    (tmp_path / "scopes.csv").write_text(SCOPES)
    (tmp_path / "Scopes.tsv").write_text(SCOPES)
    (tmp_path / "mentors.csv").mkdir()
    (tmp_path / "coordinators.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    assert sorted(map(str, refusal.value.problems)) == [
        "coordinators.csv: is no file that can be read",
        "mentors.csv: is no file that can be read",
        "scopes.csv: says the same as Scopes.tsv; take one of them away",
    ]


@pytest.mark.parametrize("name", ["scopes", "mentors", "coordinators"])
def test_a_file_without_rows_changes_nothing_and_says_so(put: Import, engine: Engine, tmp_path: Path, name: str) -> None:
    put()
    before = [rows(engine, table) for table in ("mentor", "coordinator", "coordinator_scope")]
    put({name: FILES[name].splitlines()[0] + "\n"}, prune=True)
    assert [rows(engine, table) for table in ("mentor", "coordinator", "coordinator_scope")] == before
    [remark] = read_directory(tmp_path)[1]
    assert remark.startswith(f"{name}.csv: has a header, but no rows: it changes nothing")
    assert ("write a row with its organization_id and nothing else" in remark) == (name == "scopes")


def test_the_last_scopes_of_an_organization_are_withdrawn_by_a_row_that_names_it_alone(put: Import, engine: Engine) -> None:
    put()
    header = SCOPES.splitlines()[0]
    report = put({"scopes": f"{header}\na,,\n"})
    assert access(engine) == [("b", "c-1", "west")]
    assert report.changes == {"scopes.csv": Change(given=1, withdrawn=2)}
    assert put({"scopes": f"{header}\na,,\nb,c-1,west\n"}).changes == {"scopes.csv": Change(given=2)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,c-1,", 'scopes.csv, line 2, column chapter_id: "" is empty'),
        ("a,,north", 'scopes.csv, line 2, column coordinator_id: "" is empty'),
        ("a,,\na,c-1,north", 'scopes.csv, line 2, column organization_id: "a" has other rows here'),
        (",,", "scopes.csv"),
    ],
)
def test_half_a_scope_is_a_mistake(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "scopes.csv").write_text(f"{SCOPES.splitlines()[0]}\n{line}\n")
    if line == ",,":
        assert "no rows" in read_directory(tmp_path)[1][0]
        return
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    assert str(refusal.value).startswith(said)


def test_ids_have_one_spelling(put: Import, engine: Engine) -> None:
    put()
    put({"scopes": f"{SCOPES.splitlines()[0]}\na\N{ZERO WIDTH SPACE},c-1,no\N{SOFT HYPHEN}rth\n"})
    assert access(engine) == [("a", "c-1", "north"), ("b", "c-1", "west")]


def test_a_mistake_that_only_the_database_knows_names_the_file_as_it_is_called(
    put: Import, engine: Engine, tmp_path: Path
) -> None:
    put()
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / "SCOPES.CSV").write_text(f"{SCOPES.splitlines()[0]}\na,nobody,north\n")
    directory, _ = read_directory(tmp_path)
    with pytest.raises(BadFileError, match=r'SCOPES.CSV, line 2, column coordinator_id: "nobody" is no coordinator'):
        transact(engine, lambda connection: import_directory(connection, directory))
