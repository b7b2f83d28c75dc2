"""docs/files.md lists exactly the names that a column may have."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.directory.files import FILES
from orchestrator.files.registrations import COLUMNS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "files.md").read_text()


def rows(section: str) -> Mapping[str, list[str]]:
    """The table of a section: the other cells of each row, by its first cell."""
    text = DOCUMENT.split(f"## {section}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_columns_of_a_table_are_those_of_the_page() -> None:
    listed = {name: row[0].split(", ") for name, row in rows("Columns").items()}
    assert listed == {column.name: list(column.aliases) for column in COLUMNS}


@pytest.mark.parametrize("name", FILES)
def test_the_columns_of_a_directory_are_those_of_the_page(name: str) -> None:
    outside_brackets = re.sub(r"\(.*?\)", "", rows("A directory")[name][0])
    assert re.findall(r"`(\w+)`", outside_brackets) == [column.name for column in FILES[name]]
