"""A few seconds of the file fuzzer."""

from pathlib import Path

from tests.fuzz import files


def test_nothing_is_found_in_a_few_seconds(tmp_path: Path) -> None:
    assert files.run(seconds=3.0, seed=1, folder=tmp_path) == []
