"""The fault catalogue is complete: each row has a test that is named after it, and docs/faults.md says where."""

import re
from pathlib import Path

import pytest

from orchestrator.process.failpoints import Failpoint

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]


def test_rows_are_numbered_once_and_without_a_gap() -> None:
    assert len(set(ROWS)) == len(ROWS)
    assert set(range(1, 36)) <= set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_a_test_in_the_file_that_the_page_names(row: int) -> None:
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {row} |")]
    linked = re.findall(r"\]\(\.\./(tests/\S+\.py)\)", line)
    assert linked
    for path in linked:
        assert f"\ndef test_row_{row}_" in (ROOT / path).read_text(), path


@pytest.mark.parametrize("failpoint", Failpoint)
def test_each_failpoint_is_on_the_page_and_used_by_a_test(failpoint: Failpoint) -> None:
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| `{failpoint}` |")]
    linked = re.findall(r"\]\(\.\./(tests/\S+\.py)\)", line)
    assert linked
    for path in linked:
        assert f"Failpoint.{failpoint.name}" in (ROOT / path).read_text(), path
