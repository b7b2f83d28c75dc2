"""Files of a directory as people keep them: none is refused for what it only resembles, and what stands below a table is no organization."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.directory.files import read_directory
from orchestrator.files.mistakes import BadFileError

TITLES = {
    "organizations": "organization_id;name;time_zone;closed_through",
    "scopes": "organization_id;coordinator_id;chapter_id",
    "activity_types": "organization_id;activity_type;name;default_minutes;minimum_minutes",
    "chapters": "organization_id;chapter_id;name",
    "mentors": "organization_id;mentor_id;name;chapter_id;active_from;active_until",
}


def read(folder: Path, table: str, *lines: str) -> tuple[list[str], Sequence[str]]:
    """The organizations of the table's rows, and the remarks."""
    (folder / f"{table}.csv").write_text("\n".join([TITLES[table], *lines, ""]), encoding="utf-8")
    directory, remarks = read_directory(folder)
    return [record.values["organization_id"] for record in directory[f"{table}.csv"]], remarks


def refused(folder: Path, table: str, *lines: str) -> list[tuple[int | None, str]]:
    """The lines of the mistakes, and what they say."""
    with pytest.raises(BadFileError) as refusal:
        read(folder, table, *lines)
    return [(mistake.line, mistake.detail) for mistake in refusal.value.mistakes]


# --- Below a table ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ("scopes", ["Lokallag 4;;", "Lokallag 5;;"]),
        ("scopes", ["Lokallag 1;kari;nord", "Lokallag 5;;"]),
        ("scopes", ["Lokallag 5;;", "oslo;;"]),
        ("organizations", ["Region 1;;;", "Region 2;;;", "Region 12;;;"]),
        ("organizations", ["oslo;;;2026-01-01", "Region 1;;;2026-01-01"]),
        ("organizations", ["Sum 2;;;", "oslo;;;", "bergen;;;"]),
    ],
)
def test_organizations_with_numbers_in_their_ids_are_no_footers(tmp_path: Path, table: str, lines: list[str]) -> None:
    assert read(tmp_path, table, *lines)[0] == [line.partition(";")[0] for line in lines]


@pytest.mark.parametrize(
    ("table", "lines", "wrong"),
    [
        ("scopes", ["oslo;kari;nord", "(3 rows);;", "Eksportert av Kari;;"], [3, 4]),
        ("scopes", ["oslo;;", "(3 rows);;", "Eksportert 01.02.2026;;"], [3, 4]),
        ("organizations", ["oslo;Oslo;;", "Totalt;2;;", "Side 1 av 1;;;", "Kari;;;"], [3, 4, 5]),
        ("organizations", ["Region 1;;;", "Region 2;;;", "2 rader;;;"], [4]),
        ("organizations", ["Region 1;;;", "Region 2;;;", "Sum;;;"], [4]),
    ],
)
def test_each_line_of_a_footer_is_a_mistake(tmp_path: Path, table: str, lines: list[str], wrong: list[int]) -> None:
    found = refused(tmp_path, table, *lines)
    assert [line for line, _ in found] == wrong
    assert {detail for _, detail in found} == {
        "looks like a total or a footer, or is below one; remove it; if an organization has this id, make it the first row"
    }


@pytest.mark.parametrize("lines", [["oslo;;", "Lag 5;;"], ["oslo;kari;nord", "Lag 5;;", "bergen;;"]])
def test_an_organization_that_looks_like_a_footer_is_read_in_the_first_row(tmp_path: Path, lines: list[str]) -> None:
    assert refused(tmp_path, "scopes", *lines)
    lines.sort(key=lambda line: not line.startswith("Lag"))
    assert len(read(tmp_path, "scopes", *lines)[0]) == len(lines)


@pytest.mark.parametrize("titles", [TITLES["organizations"], "organization_id;name;time_zone"])
def test_an_organization_that_was_sorted_above_the_header_is_not_left_out(tmp_path: Path, titles: str) -> None:
    lines = ["bergen;Bergen", titles, "oslo;Oslo"]
    (tmp_path / "organizations.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    with pytest.raises(BadFileError, match="organization_id: is missing from the header"):
        read_directory(tmp_path)


# --- Ids ----------------------------------------------------------------------------------------------------------------------


def test_chapters_may_be_called_by_numbers_with_points(tmp_path: Path) -> None:
    assert len(read(tmp_path, "chapters", "o;1.0;A", "o;1.1;B", "o;2.0;C")[0]) == 3
    assert [line for line, _ in refused(tmp_path, "chapters", "o;1.0;A", "o;nord;B", "o;2.0;C")] == [2, 4]
    assert len(read(tmp_path, "chapters", 'o;="1.0";A', "o;nord;B")[0]) == 2


def test_an_empty_value_of_a_database_in_a_scope_is_a_mistake_that_says_leave_it_empty(tmp_path: Path) -> None:
    found = refused(tmp_path, "scopes", "o;NULL;NULL")
    assert ["leave the cell empty" in detail for _, detail in found] == [True, True]


def test_an_organization_may_not_be_called_null(tmp_path: Path) -> None:
    [(_, detail)] = refused(tmp_path, "organizations", "o;NULL;;")
    assert "leave the cell empty" in detail


def test_a_row_with_two_short_durations_is_named_once(tmp_path: Path) -> None:
    [remark] = read(tmp_path, "activity_types", "o;a;A;2;1", "o;b;B;3;")[1]
    assert remark.endswith("write them as 2 h: row 2, 3")


# --- Files beside the tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["april.ndjson", "april.json", "export.sql", "make.py", "README.md", "run.sh", "old.gz", "old.zip", "old.7z"]
)
def test_a_file_of_another_kind_is_not_read_although_it_has_the_titles_of_a_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("| organization_id | coordinator_id | chapter_id |\n", encoding="utf-8")
    assert read(tmp_path, "scopes", "oslo;kari;nord")[1] == [f"{tmp_path.name}: not read: {name}"]
    (tmp_path / name).rename(tmp_path / "readme")
    assert refused(tmp_path, "scopes", "oslo;kari;nord")
