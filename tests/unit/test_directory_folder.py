"""What `directory import` reads of a folder: which files are tables, and the mistakes in them (docs/files.md)."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest
from openpyxl import Workbook

from orchestrator.directory.files import read_directory
from orchestrator.files.mistakes import BadFileError
from tests.support.directory_files import (
    EVERY_FILE,
    MENTORS,
    SCOPES,
    TYPES,
)

MAY_BE_LEFT_OUT = {"time_zone", "default_minutes", "minimum_minutes"}


def refusals(tmp_path: Path, files: Mapping[str, str]) -> list[str]:
    for name, content in files.items():
        (tmp_path / f"{name}.csv").write_text(content)
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    return [str(mistake) for mistake in refusal.value.mistakes]


def test_a_directory_without_files_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"has none of organizations\.csv"):
        read_directory(tmp_path)


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
def test_a_file_that_is_probably_a_table_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    (tmp_path / name).write_text(SCOPES)
    with pytest.raises(BadFileError, match="is none of organizations") as refusal:
        read_directory(tmp_path)
    assert [mistake.file for mistake in refusal.value.mistakes] == [name]


def test_every_other_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    for name in ("README.md", ".DS_Store", "~$scopes.xlsx", ".~lock.scopes.csv#"):
        (tmp_path / name).write_text("x")
    (tmp_path / "old scopes").mkdir()
    _, remarks = read_directory(tmp_path)
    assert remarks == [f"{tmp_path.name}: not read: .DS_Store, .~lock.scopes.csv#, README.md, old scopes, ~$scopes.xlsx"]


def test_two_files_of_one_table_and_names_of_no_files_are_mistakes(tmp_path: Path) -> None:
    (tmp_path / "scopes.csv").write_text(SCOPES)
    (tmp_path / "Scopes.tsv").write_text(SCOPES)
    (tmp_path / "mentors.csv").mkdir()
    (tmp_path / "coordinators.csv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    assert sorted(map(str, refusal.value.mistakes)) == [
        "coordinators.csv: is not a file; remove it or replace it by one",
        "mentors.csv: is not a file; remove it or replace it by one",
        "scopes.csv: holds the same table as Scopes.tsv; remove one of them",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,c-1,", 'scopes.csv, line 2, column chapter_id: "" is empty'),
        ("a,,north", 'scopes.csv, line 2, column coordinator_id: "" is empty'),
        ("a,,\na,c-1,north", 'scopes.csv, line 2, column organization_id: "a" has other rows in this file'),
        (",,", "scopes.csv"),
    ],
)
def test_an_incomplete_scope_is_a_mistake(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "scopes.csv").write_text(f"{SCOPES.splitlines()[0]}\n{line}\n")
    if line == ",,":
        assert "no rows" in read_directory(tmp_path)[1][0]
        return
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "first", "others", "column"),
    [
        ("organizations", "a,A,", ["b,A,"], "organization_id"),
        ("mentors", "a,m-1,A,n,,", ["b,m-1,A,n,,", "a,m-2,A,n,,"], "mentor_id"),
        ("coordinators", "a,c-1,A,admin", ["b,c-1,A,admin", "a,c-2,A,admin"], "coordinator_id"),
        ("scopes", "a,c-1,n", ["b,c-1,n", "a,c-2,n", "a,c-1,s"], "chapter_id"),
        ("activity_types", "a,t-1,A", ["b,t-1,A", "a,t-2,A"], "activity_type"),
    ],
)
def test_only_rows_with_equal_ids_are_duplicates(tmp_path: Path, name: str, first: str, others: list[str], column: str) -> None:
    header = EVERY_FILE[name].splitlines()[0]
    (tmp_path / f"{name}.csv").write_text("\n".join([header, first, *others]))
    directory, remarks = read_directory(tmp_path)
    assert (len(directory[f"{name}.csv"]), remarks) == (len(others) + 1, [])
    last = len(others) + 3
    [found] = refusals(tmp_path, {name: "\n".join([header, first, *others, first])})
    assert found.startswith(f"{name}.csv, line {last}, column {column}: ")
    assert found.endswith("is already on line 2")


def test_a_period_of_one_day_is_accepted_and_a_shorter_one_is_not(tmp_path: Path) -> None:
    header = MENTORS.splitlines()[0]
    one_day = f"{header}\na,m-1,N,n,2025-01-02,2025-01-02\n"
    (tmp_path / "mentors.csv").write_text(one_day)
    [record] = read_directory(tmp_path)[0]["mentors.csv"]
    assert record.values["active_from"] == record.values["active_until"] == date(2025, 1, 2)
    assert refusals(tmp_path, {"mentors": one_day.replace("01-02\n", "01-01\n")}) == [
        'mentors.csv, line 2, column active_until: "2025-01-01" is before active_from'
    ]


@pytest.mark.parametrize("name", EVERY_FILE)
def test_most_columns_are_required(tmp_path: Path, name: str) -> None:
    """Otherwise an export without a column would empty it for everybody."""
    titles = EVERY_FILE[name].splitlines()[0].split(",")
    (tmp_path / f"{name}.csv").write_text("x\n")
    missing = [found.split("column ")[1].split(":")[0] for found in refusals(tmp_path, {name: "x\n"})]
    assert missing == [title for title in titles if title not in MAY_BE_LEFT_OUT]


@pytest.mark.parametrize(
    ("name", "line", "column"),
    [
        ("organizations", ",A,", "organization_id"),
        ("mentors", ",m,N,n,,", "organization_id"),
        ("mentors", "a,m,,n,,", "name"),
        ("mentors", "a,m,N,,,", "chapter_id"),
        ("mentors", "a,m,N,n,,soon", "active_until"),
        ("coordinators", "a,,N,admin", "coordinator_id"),
        ("coordinators", "a,c,,admin", "name"),
        ("coordinators", "a,c,N,", "role"),
        ("coordinators", "a,c,N,closed", "role"),
        ("scopes", ",c,n", "organization_id"),
        ("activity_types", "a,,N", "activity_type"),
        ("activity_types", "a,t,", "name"),
    ],
)
def test_each_cell_must_match_its_column(tmp_path: Path, name: str, line: str, column: str) -> None:
    [found] = refusals(tmp_path, {name: f"{EVERY_FILE[name].splitlines()[0]}\n{line}\n"})
    assert found.startswith(f"{name}.csv, line 2, column {column}: ")


@pytest.mark.parametrize("ending", ["xlsx", "csv"])
def test_a_mistake_in_a_workbook_is_named_by_row(tmp_path: Path, ending: str) -> None:
    """In a text file it is named by its line. A directory's rows are lines, except for blank ones."""
    lines = [MENTORS.splitlines()[0], "a,m-1,N,n,,", "a,m-1,N,n,,"]
    if ending == "xlsx":
        book = Workbook()
        for line in lines:
            book.worksheets[0].append(line.split(","))
        book.save(tmp_path / "mentors.xlsx")
    else:
        (tmp_path / "mentors.csv").write_text("\n".join(lines))
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    place = "row" if ending == "xlsx" else "line"
    where = "in row 2" if ending == "xlsx" else "on line 2"
    assert [str(mistake) for mistake in refusal.value.mistakes] == [
        f'mentors.{ending}, {place} 3, column mentor_id: "m-1" is already {where}'
    ]


def test_an_incomplete_scope_beside_unreadable_cells_is_named_as_well(tmp_path: Path) -> None:
    too_long = "x" * 101
    found = refusals(
        tmp_path, {"scopes": f"{SCOPES.splitlines()[0]}\na,{too_long},\na,c-1,{too_long}\n{too_long},,\na,,\nb,,\nb,,n\n"}
    )
    assert [each.split(", ", 1)[1].split(": ")[0] for each in found] == [
        "line 2, column coordinator_id",
        "line 3, column chapter_id",
        "line 4, column organization_id",
        "line 6, column organization_id",
        "line 7, column coordinator_id",
    ]


@pytest.mark.parametrize(
    ("name", "is_named"),
    [
        ("organisations.txt", True),
        ("Organization list", True),
        ("our mentors", True),
        ("Coordinators.pdf", True),
        ("scope", True),
        ("activities.docx", True),
        ("anything.tsv", True),
        ("anything.XLSX", True),
        ("notes.txt", False),
        ("likepersoner.ods", True),
        ("liste.xls", True),
        ("liste.XLSM", True),
        ("avdelinger.numbers", True),
        ("koordinatorer.csv.txt", True),
        ("omfang.csv.bak", True),
        ("liste.ods.old", True),
        ("liste.tsv.tmp", True),
        ("liste.xlsx.copy", True),
        ("liste.xls.kopi", True),
        ("liste.csv.orig", True),
        ("liste.xlsb", True),
        ("liste.fods", True),
        ("liste.dif", True),
        ("liste.slk", True),
        ("omfang.csv.gz.bak", False),
        ("gammel.csv.zip", False),
        ("backup.xlsx.lnk", False),
        ("liste.tab", True),
        ("liste.gsheet", True),
        ("report.pdf", False),
    ],
)
def test_a_file_name_with_a_word_or_the_ending_of_a_table_is_probably_a_table(tmp_path: Path, name: str, is_named: bool) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    (tmp_path / name).write_text("x")
    if not is_named:
        assert read_directory(tmp_path)[1] == [f"{tmp_path.name}: not read: {name}"]
        return
    with pytest.raises(BadFileError, match="is none of organizations") as refusal:
        read_directory(tmp_path)
    assert [mistake.file for mistake in refusal.value.mistakes] == [name]


@pytest.mark.parametrize("name", ["liste.txt", "liste", "omfang.dat"])
@pytest.mark.parametrize("before", ["", "sep=;\n", "Eksport 1. mai\n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_with_the_header_of_a_table_is_probably_a_table(tmp_path: Path, name: str, before: str, encoding: str) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    (tmp_path / name).write_text(before + SCOPES.replace(",", ";"), encoding=encoding)
    with pytest.raises(BadFileError, match="is none of organizations") as refusal:
        read_directory(tmp_path)
    assert [mistake.file for mistake in refusal.value.mistakes] == [name]


def test_a_workbook_without_an_ending_is_probably_a_table_and_other_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS)
    (tmp_path / "LES MEG.txt").write_text(
        "Filene har en rad per person.\nI scopes.csv: organization_id, coordinator_id, chapter_id\n"
    )
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(9))
    (tmp_path / "bilder.zip").write_bytes(b"PK\x03\x04 xl/")
    (tmp_path / "referat.docx").write_bytes(b"PK\x03\x04 word/document.xml")
    assert read_directory(tmp_path)[1] == [f"{tmp_path.name}: not read: LES MEG.txt, bilder.zip, logo.png, referat.docx"]
    Workbook().save(tmp_path / "liste")
    (tmp_path / "gruppe.numbers").mkdir()
    with pytest.raises(BadFileError, match="is none of organizations") as refusal:
        read_directory(tmp_path)
    assert [mistake.file for mistake in refusal.value.mistakes] == ["gruppe.numbers", "liste"]


@pytest.mark.parametrize(
    ("name", "footer"),
    [
        ("chapters", "Sum:;1;1"),
        ("chapters", "Totalt 12;1;1"),
        ("scopes", "SUM;;"),
        ("scopes", "Antall: 3;c-1;east"),
        ("organizations", "I alt;;"),
        ("organizations", "Eksportert 01.02.2026;;"),
        ("scopes", "(3 rows)"),
        ("scopes", "Side 1 av 1;;"),
        ("activity_types", "Sum;12;Antall"),
    ],
)
def test_a_total_below_a_table_is_a_mistake_and_an_organization_of_that_name_is_not(
    tmp_path: Path, name: str, footer: str
) -> None:
    rows = {
        "chapters": "organization_id;chapter_id;name\na;east;East",
        "scopes": SCOPES.replace(",", ";").strip(),
        "organizations": "organization_id;name;time_zone\na;A;",
        "activity_types": "organization_id;activity_type;name\na;visit;Visit",
    }[name]
    file = tmp_path / f"{name}.csv"
    file.write_text(f"{rows}\n;\n{footer}\n")
    with pytest.raises(BadFileError, match=r"column organization_id.*looks like a total"):
        read_directory(tmp_path)
    header, *others = rows.splitlines()
    file.write_text("\n".join([header, footer, *others]))
    assert read_directory(tmp_path)[0]


@pytest.mark.parametrize(
    ("last", "count"),
    [("a;A;\nLag 2;Laget;", 2), ("Lag 2;;\na;;", 2), ("a;;\nLag Nord;;", 2), ("a;;\n2;;", 2), ("Lag 2;;", 1), ("Sum;;", 1)],
)
def test_the_last_organization_of_a_table_is_no_footer(tmp_path: Path, last: str, count: int) -> None:
    (tmp_path / "organizations.csv").write_text(f"organization_id;name;time_zone\n{last}\n")
    assert len(read_directory(tmp_path)[0]["organizations.csv"]) == count


def test_an_organization_with_other_rows_is_no_footer(tmp_path: Path) -> None:
    (tmp_path / "scopes.csv").write_text(SCOPES.splitlines()[0] + "\nSum,c-1,east\na,c-1,east\nSum,c-1,west\n")
    assert len(read_directory(tmp_path)[0]["scopes.csv"]) == 3


@pytest.mark.parametrize("name", ["activity types.csv", "Activity-Types.csv", "activity - types.tsv", " activity_types.csv"])
def test_blanks_and_hyphens_in_a_name_count_as_underscores(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TYPES.replace(",", "\t") if name.endswith("tsv") else TYPES)
    assert [*read_directory(tmp_path)[0]] == ["activity_types.csv"]


def test_an_unreadable_file_is_reported_together_with_mistakes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mentors.csv").write_text(MENTORS + "a,,N,n,,\n")
    (tmp_path / "scopes.csv").write_text(SCOPES)

    def read_bytes(path: Path) -> bytes:
        if path.name == "scopes.csv":
            raise PermissionError(13, "Permission denied")
        with path.open("rb") as file:
            return file.read()

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(BadFileError) as refusal:
        read_directory(tmp_path)
    assert [str(mistake) for mistake in refusal.value.mistakes] == [
        'mentors.csv, line 5, column mentor_id: "" is empty',
        "scopes.csv: can't be read: Permission denied",
    ]
