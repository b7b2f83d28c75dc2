"""The committed data sets agree with the rules, and new ones can be generated."""

import json
from pathlib import Path

import pytest

from orchestrator.registration.rules import DUPLICATE_ACTIVITY, RULES
from tests.support import data_sets

DATA = Path(__file__).parents[1] / "data"


# No organization of the sets has a closed period.
BREAKABLE = {rule.error.code for rule in RULES} - {"period_closed"} | {DUPLICATE_ACTIVITY, "success"}


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_expected_outcomes_follow_the_rules(size: str) -> None:
    written = [json.loads(line) for line in (DATA / size / "expected.ndjson").read_text(encoding="utf-8").splitlines()]
    assert list(data_sets.expected(DATA / size)) == written


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_committed_sets_break_every_rule(size: str) -> None:
    codes = {code for line in data_sets.expected(DATA / size) for code in line["items"]}
    assert codes == BREAKABLE


def test_a_new_set_breaks_every_rule_and_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        data_sets.make(tmp_path / name, seed=1)
    files = ("submissions.ndjson", "expected.ndjson", "directory/mentors.csv")
    assert [(tmp_path / "one" / file).read_bytes() for file in files] == [
        (tmp_path / "two" / file).read_bytes() for file in files
    ]
    codes = {code for line in data_sets.expected(tmp_path / "one") for code in line["items"]}
    assert codes == BREAKABLE
